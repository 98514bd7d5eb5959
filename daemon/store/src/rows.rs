//! The rows: what is remembered of each kind of object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Row;

/// Text by key.
pub type Config = BTreeMap<String, String>;
/// Properties by device.
pub type Devices = BTreeMap<String, Config>;

/// A run of host ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The first host id.
    pub base: u32,
    /// How many.
    pub size: u32,
}

/// What an instance was doing, as far as the daemon knows it must go on doing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Power {
    /// Not running.
    #[default]
    Stopped,
    /// Running, or to be started again when the host comes back.
    Running,
}

/// What users keep with the volume of an instance; all else of it is the instance's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnVolume {
    /// For people.
    pub description: String,
    /// Config.
    pub config: Config,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    /// For people.
    pub description: String,
    /// `x86_64` …
    pub architecture: String,
    /// Whether it is deleted when it stops.
    pub ephemeral: bool,
    /// Profiles, in order.
    pub profiles: Vec<String>,
    /// Its own config, `volatile.*` included.
    pub config: Config,
    /// Its own devices.
    pub devices: Devices,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339.
    pub last_used_at: String,
    /// The pool its rootfs lies in.
    pub pool: String,
    /// The host ids kept for it.
    pub ids: Ids,
    /// What it was doing.
    pub power: Power,
    /// What is kept with its volume.
    #[serde(default)]
    pub volume: OwnVolume,
}

impl Row for Instance {
    const KIND: &'static str = "instances";
}

/// A snapshot; its name is `INSTANCE/SNAPSHOT`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// For people.
    pub description: String,
    /// `x86_64` …
    pub architecture: String,
    /// Whether the instance was deleted when it stopped.
    pub ephemeral: bool,
    /// The instance's profiles, in order.
    pub profiles: Vec<String>,
    /// The instance's own config, `volatile.*` included.
    pub config: Config,
    /// The instance's own devices.
    pub devices: Devices,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; empty for never.
    pub expires_at: String,
    /// RFC 3339; when the instance was last used by then.
    pub last_used_at: String,
    /// Bytes its tree takes beyond what it shares.
    pub size: u64,
    /// What was kept with the instance's volume.
    #[serde(default)]
    pub volume: OwnVolume,
}

impl Row for Snapshot {
    const KIND: &'static str = "instance-snapshots";
}

/// One file that is rendered into a rootfs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The file inside.
    pub path: String,
    /// `create`, `copy`, `rename`, `start`.
    pub when: Vec<String>,
    /// Whether an existing file is left alone.
    pub create_only: bool,
    /// Its owner inside; that of the file it replaces, or root, when none.
    pub uid: Option<u32>,
    /// Its group inside.
    pub gid: Option<u32>,
    /// Its mode.
    pub mode: Option<u32>,
    /// For the text.
    pub properties: Config,
    /// The text.
    pub content: String,
    /// The name of the file with the text; templates with the same one have the same text. Empty in old rows.
    #[serde(default)]
    pub name: String,
}

/// What an image says about itself, once somebody changed it in an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// `x86_64` …
    pub architecture: String,
    /// Seconds since 1970.
    pub creation_date: i64,
    /// Seconds since 1970; 0 for never.
    pub expiry_date: i64,
    /// Properties.
    pub properties: Config,
}

/// The metadata of an instance's image with its templates, kept apart so that listing instances does not read them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Templates {
    /// In the image's order.
    pub templates: Vec<Template>,
    /// Texts that no template uses, by the names of their files.
    #[serde(default)]
    pub spare: BTreeMap<String, String>,
    /// The rest of the metadata; none is as the image and the instance's config say.
    #[serde(default)]
    pub about: Option<About>,
}

impl Row for Templates {
    const KIND: &'static str = "instance-templates";
}

/// A change of an instance that is under way, and that the next start of the daemon finishes or takes back
/// when this one does not. Named as the instance; there is none for changes whose traces speak for themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Intent {
    /// The tree moves to another name.
    Rename {
        /// The new name.
        to: String,
    },
    /// The running container gets other limits, nics or disks.
    Update,
    /// The same, when there are disks among them.
    Disks {
        /// Where disks are mounted anew: paths inside.
        mounted: Vec<String>,
    },
    /// The container is stopped in order to be started again.
    Restart,
    /// The container is frozen for the moment in which it is copied.
    Hold,
    /// A snapshot's tree moves to another name.
    RenameSnapshot {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// A new tree takes the place of the instance's.
    Rebuild {
        /// What marks the tree that was put in place.
        mark: String,
        /// The config afterwards.
        config: Config,
        /// The templates afterwards.
        templates: Vec<Template>,
    },
    /// The tree of a snapshot takes the place of the instance's.
    Restore {
        /// The snapshot.
        snapshot: String,
        /// What marks the tree that was put in place.
        mark: String,
        /// Whether the config stays.
        disk_only: bool,
        /// Whether it ran before and is to run again.
        again: bool,
        /// The volumes that are restored with it, by the names of their rows: before it, and taken back with it.
        #[serde(default)]
        volumes: Vec<String>,
    },
    /// The tree of another instance takes the place of the instance's, and its snapshots come along.
    Refresh {
        /// The other instance.
        source: String,
        /// What marks the tree that was put in place.
        mark: String,
        /// The source's snapshots that come along, by name, and when each was made.
        missing: BTreeMap<String, String>,
        /// The instance's snapshots that go.
        gone: Vec<String>,
    },
}

impl Row for Intent {
    const KIND: &'static str = "intents";
}

/// A backup that is kept; its name is `INSTANCE/BACKUP`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; empty for never.
    pub expires_at: String,
    /// Whether the snapshots are left out.
    pub instance_only: bool,
    /// Whether it is in the storage driver's own form.
    #[serde(default)]
    pub optimized: bool,
    /// The name of its file.
    pub file: String,
}

impl Row for Backup {
    const KIND: &'static str = "instance-backups";
}

/// A profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// For people.
    pub description: String,
    /// Config.
    pub config: Config,
    /// Devices.
    pub devices: Devices,
}

impl Row for Profile {
    const KIND: &'static str = "profiles";
}

/// A managed network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// For people.
    pub description: String,
    /// `bridge`.
    pub kind: String,
    /// Config, `auto` resolved.
    pub config: Config,
}

impl Row for Network {
    const KIND: &'static str = "networks";
}

/// A storage pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// For people.
    pub description: String,
    /// `overlay`, `dir`.
    pub driver: String,
    /// Config.
    pub config: Config,
}

impl Row for Pool {
    const KIND: &'static str = "pools";
}

/// A custom volume; its name is `POOL/VOLUME`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// For people.
    pub description: String,
    /// Config.
    pub config: Config,
    /// RFC 3339.
    pub created_at: String,
}

impl Row for Volume {
    const KIND: &'static str = "volumes";
}

/// A snapshot of a custom volume; its name is `POOL/VOLUME/SNAPSHOT`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeSnapshot {
    /// For people.
    pub description: String,
    /// The volume's config by then.
    pub config: Config,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; empty for never.
    pub expires_at: String,
}

impl Row for VolumeSnapshot {
    const KIND: &'static str = "volume-snapshots";
}

/// A backup of a custom volume that is kept; its name is `POOL/VOLUME/BACKUP`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeBackup {
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; empty for never.
    pub expires_at: String,
    /// Whether the snapshots are left out.
    pub volume_only: bool,
    /// Whether it is in the storage driver's own form.
    #[serde(default)]
    pub optimized: bool,
    /// The name of its file.
    pub file: String,
}

impl Row for VolumeBackup {
    const KIND: &'static str = "volume-backups";
}

/// A change of a custom volume that is under way, and that the next start of the daemon finishes or takes back
/// when this one does not. Named as the volume: `POOL/VOLUME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VolumeIntent {
    /// The tree moves to another name in the pool.
    Rename {
        /// The new name.
        to: String,
    },
    /// A snapshot's tree moves to another name.
    RenameSnapshot {
        /// The old name.
        from: String,
        /// The new name.
        to: String,
    },
    /// Another tree takes the place of the volume's: that of a snapshot; that of another volume, whose snapshots come
    /// along; or one that came with a restoring of an instance that has gone since.
    Refresh {
        /// What marks the tree that was put in place.
        mark: String,
    },
}

impl Row for VolumeIntent {
    const KIND: &'static str = "volume-intents";
}

/// An image; its name is the fingerprint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Whether a newer one is fetched by itself.
    pub auto_update: bool,
    /// Properties.
    pub properties: Config,
    /// Whether anybody may read it.
    pub public: bool,
    /// RFC 3339; empty for never.
    pub expires_at: String,
    /// Profiles given to instances made from it.
    pub profiles: Vec<String>,
    /// `x86_64` …
    pub architecture: String,
    /// Whether it was fetched for an instance, not asked for.
    pub cached: bool,
    /// The file name for downloads.
    pub filename: String,
    /// Bytes of all its files.
    pub size: u64,
    /// Whether the rootfs is a file of its own.
    pub split: bool,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; empty for never.
    pub last_used_at: String,
    /// RFC 3339.
    pub uploaded_at: String,
    /// Where it was made: a shipped definition's name, or empty.
    pub built_from: String,
    /// Its templates.
    pub templates: Vec<Template>,
}

impl Row for Image {
    const KIND: &'static str = "images";
}

/// An image alias.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// For people.
    pub description: String,
    /// The fingerprint.
    pub target: String,
}

impl Row for Alias {
    const KIND: &'static str = "image-aliases";
}

/// The server's own config; one row named `server`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Config.
    pub config: Config,
    /// Whether the defaults of a fresh host were made (or were not wanted).
    pub initialised: bool,
}

impl Row for Server {
    const KIND: &'static str = "server";
}
