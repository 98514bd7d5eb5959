//! Images and their aliases.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::lenient::{ConfigMap, null_is_zero, scalar_or_none};

/// What the image of an instance says about itself, as the instance keeps it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageMetadata {
    /// `x86_64` …
    #[serde(deserialize_with = "null_is_zero")]
    pub architecture: String,
    /// Seconds since 1970.
    #[serde(deserialize_with = "null_is_zero")]
    pub creation_date: i64,
    /// Seconds since 1970; 0 for never.
    #[serde(deserialize_with = "null_is_zero")]
    pub expiry_date: i64,
    /// Properties: os, release, description …
    pub properties: ConfigMap,
    /// Which template becomes which file inside.
    #[serde(deserialize_with = "null_is_zero")]
    pub templates: BTreeMap<String, ImageMetadataTemplate>,
}

/// How a file inside an instance is made from a template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageMetadataTemplate {
    /// `create`, `copy`, `rename`, `start`.
    #[serde(deserialize_with = "null_is_zero")]
    pub when: Vec<String>,
    /// Whether an existing file is left alone.
    #[serde(deserialize_with = "null_is_zero")]
    pub create_only: bool,
    /// The template's name.
    #[serde(deserialize_with = "null_is_zero")]
    pub template: String,
    /// For the text.
    pub properties: ConfigMap,
    /// The file's owner inside; that of the file it replaces, or root, when none.
    #[serde(deserialize_with = "scalar_or_none", skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its group inside.
    #[serde(deserialize_with = "scalar_or_none", skip_serializing_if = "Option::is_none")]
    pub gid: Option<String>,
    /// Its mode, in octal digits.
    #[serde(deserialize_with = "scalar_or_none", skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// An image as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// Whether a newer one is fetched by itself.
    pub auto_update: bool,
    /// Properties: os, release, description …
    pub properties: ConfigMap,
    /// Whether anybody may read it.
    pub public: bool,
    /// RFC 3339; 1970 when it never ends.
    pub expires_at: String,
    /// Profiles given to instances made from it.
    #[serde(deserialize_with = "null_is_zero")]
    pub profiles: Vec<String>,
    /// Aliases that point here.
    #[serde(deserialize_with = "null_is_zero")]
    pub aliases: Vec<ImageAlias>,
    /// `x86_64` …
    pub architecture: String,
    /// Whether it was fetched for an instance, not asked for.
    pub cached: bool,
    /// The file name for downloads.
    pub filename: String,
    /// SHA-256 in hex.
    pub fingerprint: String,
    /// Bytes.
    pub size: i64,
    /// Where newer ones come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_source: Option<ImageSource>,
    /// `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub last_used_at: String,
    /// RFC 3339.
    pub uploaded_at: String,
    /// The project.
    pub project: String,
    /// The members of a cluster that have it: `none` without one.
    #[serde(deserialize_with = "null_is_zero")]
    pub locations: Vec<String>,
}

/// An alias inside an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageAlias {
    /// The name; may hold `/`.
    pub name: String,
    /// For people.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub description: String,
}

/// Where an image came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageSource {
    /// The alias there.
    pub alias: String,
    /// The server's certificate.
    pub certificate: String,
    /// `simplestreams`, `incus`, `build`.
    pub protocol: String,
    /// The server.
    pub server: String,
    /// `container`.
    pub image_type: String,
}

/// The part of an image that PUT and PATCH change.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagePut {
    /// Whether a newer one is fetched by itself.
    pub auto_update: bool,
    /// Properties.
    pub properties: ConfigMap,
    /// Whether anybody may read it.
    pub public: bool,
    /// RFC 3339.
    pub expires_at: String,
    /// Profiles.
    #[serde(deserialize_with = "null_is_zero")]
    pub profiles: Vec<String>,
}

/// An image to be made, when it is not sent as a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImagesPost {
    /// Whether a newer one is fetched by itself.
    pub auto_update: bool,
    /// Properties.
    pub properties: ConfigMap,
    /// Whether anybody may read it.
    pub public: bool,
    /// The file name for downloads.
    pub filename: String,
    /// Where from.
    pub source: BTreeMap<String, serde_json::Value>,
    /// How it is compressed: `none`, `gzip`, `xz`, `zstd`; empty is the server's choice.
    #[serde(deserialize_with = "null_is_zero")]
    pub compression_algorithm: String,
    /// `unified` (or empty) for one file, `split` for two.
    #[serde(deserialize_with = "null_is_zero")]
    pub format: String,
    /// RFC 3339; empty or the zero time is never.
    #[serde(deserialize_with = "null_is_zero")]
    pub expires_at: String,
    /// Profiles given to instances made from it.
    #[serde(deserialize_with = "null_is_zero")]
    pub profiles: Vec<String>,
    /// Aliases to be made.
    #[serde(deserialize_with = "null_is_zero")]
    pub aliases: Vec<ImageAlias>,
}

/// An alias as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageAliasesEntry {
    /// For people.
    #[serde(deserialize_with = "null_is_zero")]
    pub description: String,
    /// The fingerprint it points to.
    pub target: String,
    /// The name; may hold `/`.
    pub name: String,
    /// `container`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The project.
    pub project: String,
}

/// The part of an alias that PUT changes; PATCH leaves out what it keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ImageAliasPut {
    /// For people.
    pub description: Option<String>,
    /// The fingerprint it points to.
    pub target: Option<String>,
}
