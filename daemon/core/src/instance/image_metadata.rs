//! What the image of an instance says about itself, as the instance keeps it: properties, and which template becomes
//! which file inside at the next start, copy or renaming. Both can be changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use cabin_api::ConfigMap;
use cabin_api::image::{ImageMetadata, ImageMetadataTemplate};
use cabin_images::{MAX_TEMPLATES, MAX_TEMPLATES_SIZE, Metadata, is_template_name};
use cabin_store::rows::{self, About, Config, Templates};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{address, load, turn};
use crate::{Error, Host, etag, image};

const WHAT: &str = "metadata of instance";

/// What the config of an instance tells of its image.
pub(crate) fn properties(config: &Config) -> Config {
    let told = config.iter().filter_map(|(key, value)| Some((key.strip_prefix("image.")?, value)));
    told.map(|(key, value)| (key.to_owned(), value.clone())).collect()
}

/// Templates of old rows get names of their own.
pub(crate) fn named(mut templates: Vec<rows::Template>) -> Vec<rows::Template> {
    let mut taken: Vec<String> = templates.iter().map(|template| template.name.clone()).collect();
    for (number, template) in templates.iter_mut().enumerate().filter(|(_, one)| one.name.is_empty()) {
        template.name = format!("{number}.tpl");
        while taken.contains(&template.name) {
            template.name.insert(0, '_');
        }
        taken.push(template.name.clone());
    }
    templates
}

fn kept(host: &Host, project: &str, name: &str) -> Result<Templates, Error> {
    let found = host.store().rows::<Templates>().get(project, name)?;
    let found = found.map(|found| found.row).unwrap_or_default();
    Ok(Templates { templates: named(found.templates), ..found })
}

/// What is said of the image, unless somebody said otherwise.
fn about(host: &Host, project: &str, row: &rows::Instance) -> Result<About, Error> {
    let seconds = |time: &str| time.parse::<Timestamp>().map_or(0, Timestamp::as_second);
    let image = match row.config.get("volatile.base_image") {
        Some(fingerprint) => host.store().rows::<rows::Image>().get(project, fingerprint)?,
        None => None,
    };
    let (made, ends) = match &image {
        Some(image) => (seconds(&image.row.created_at), seconds(&image.row.expires_at)),
        None => (seconds(&row.created_at), 0),
    };
    Ok(About {
        architecture: row.architecture.clone(),
        creation_date: made,
        expiry_date: ends,
        properties: properties(&row.config),
    })
}

/// What the image of an instance says about itself.
///
/// # Errors
/// When there is no such instance.
pub fn image_metadata(host: &Host, project: &str, name: &str) -> Result<ImageMetadata, Error> {
    let row = load(host, project, name)?.row;
    let found = shown(host, project, &row, kept(host, project, name)?)?;
    tell(host, project, name, "instance-metadata-retrieved", Value::Null);
    Ok(found)
}

fn shown(host: &Host, project: &str, row: &rows::Instance, kept: Templates) -> Result<ImageMetadata, Error> {
    let about = kept.about.map_or_else(|| about(host, project, row), Ok)?;
    let one = |template: rows::Template| ImageMetadataTemplate {
        when: template.when,
        create_only: template.create_only,
        template: template.name,
        properties: ConfigMap(template.properties),
        uid: template.uid.map(|uid| uid.to_string()),
        gid: template.gid.map(|gid| gid.to_string()),
        mode: template.mode.map(|mode| format!("{mode:04o}")),
    };
    Ok(ImageMetadata {
        architecture: about.architecture,
        creation_date: about.creation_date,
        expiry_date: about.expiry_date,
        properties: ConfigMap(about.properties),
        templates: kept
            .templates
            .into_iter()
            .map(|template| (template.path.clone(), one(template)))
            .collect(),
    })
}

/// The tag of what PUT changes.
#[must_use]
pub fn metadata_tag(found: &ImageMetadata) -> String {
    etag::etag(found)
}

/// Replaces what the image of an instance says about itself. Templates that are named no more are kept, unused.
///
/// # Errors
/// When there is no such instance, somebody else changed it, a template that is named is not there, or it makes no
/// sense.
pub fn update_metadata(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    put: ImageMetadata,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _turn = turn(host, project, name, "update")?;
    change(host, project, name, &put, if_match)
}

/// Merges into it: properties and templates one by one.
///
/// # Errors
/// As [`update_metadata`].
pub fn patch_metadata(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    body: Value,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let _turn = turn(host, project, name, "update")?;
    let row = load(host, project, name)?.row;
    let mut whole = json!(shown(host, project, &row, kept(host, project, name)?)?);
    let sent = match body {
        Value::Object(sent) => sent,
        _ => return Err(Error::invalid("the body is no object")),
    };
    for (field, value) in sent {
        match (whole.get_mut(&field), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new),
            (Some(old), new) => *old = new,
            (None, _) => {}
        }
    }
    let put = serde_json::from_value(whole).map_err(|source| Error::Body { source })?;
    change(host, project, name, &put, if_match)
}

/// The caller holds the turn.
fn change(
    host: &Host,
    project: &str,
    name: &str,
    put: &ImageMetadata,
    if_match: Option<&str>,
) -> Result<(), Error> {
    let row = load(host, project, name)?.row;
    let old = kept(host, project, name)?;
    etag::check(WHAT, name, &metadata_tag(&shown(host, project, &row, old.clone())?), if_match)?;
    let new = replaced(old, put)?;
    write(host, project, name, &new)?;
    tell(host, project, name, "instance-metadata-updated", Value::Null);
    Ok(())
}

/// The same texts, with what is said anew of them.
fn replaced(old: Templates, put: &ImageMetadata) -> Result<Templates, Error> {
    let yaml = serde_yaml::to_string(put).map_err(|source| Error::Document { source })?;
    let said = Metadata::parse(yaml.as_bytes())?;
    let mut spare = texts(old);
    let mut templates = image::templates(said.templates);
    for template in &mut templates {
        let text = spare.get(&template.name).ok_or_else(|| {
            Error::invalid(format!(
                "there is no template `{}` for `{}`: make it first, with `config template create`",
                template.name, template.path
            ))
        })?;
        template.content.clone_from(text);
    }
    spare.retain(|name, _| templates.iter().all(|template| template.name != *name));
    let about = About {
        architecture: said.architecture,
        creation_date: said.creation_date,
        expiry_date: said.expiry_date,
        properties: said.properties,
    };
    Ok(Templates { templates, spare, about: Some(about) })
}

/// All texts, by the names of their files.
fn texts(kept: Templates) -> BTreeMap<String, String> {
    let mut all = kept.spare;
    all.extend(kept.templates.into_iter().map(|template| (template.name, template.content)));
    all
}

/// The names of an instance's templates.
///
/// # Errors
/// When there is no such instance.
pub fn templates(host: &Host, project: &str, name: &str) -> Result<Vec<String>, Error> {
    load(host, project, name)?;
    Ok(texts(kept(host, project, name)?).into_keys().collect())
}

/// The text of a template.
///
/// # Errors
/// When there is none of that name.
pub fn template(host: &Host, project: &str, name: &str, file: &str) -> Result<String, Error> {
    load(host, project, name)?;
    let text = texts(kept(host, project, name)?).remove(file);
    let text = text.ok_or_else(|| Error::not_found("template", file))?;
    tell(host, project, name, "instance-metadata-template-retrieved", json!({ "path": file }));
    Ok(text)
}

/// Makes a template, or replaces its text.
///
/// # Errors
/// When there is no such instance, the name is none of a file, or it is not UTF-8 or too much.
pub fn write_template(
    host: &Arc<Host>,
    project: &str,
    name: &str,
    file: &str,
    text: &[u8],
) -> Result<(), Error> {
    let _turn = turn(host, project, name, "update")?;
    if !is_template_name(file) {
        let shown: String = file.chars().take(60).collect();
        return Err(Error::invalid(format!(
            "`{}` is no name of a template: letters, digits and `._-+@`, and no `.` first",
            shown.escape_debug()
        )));
    }
    let text = str::from_utf8(text)
        .map_err(|_| Error::invalid(format!("template `{file}` is not UTF-8")))?
        .to_owned();
    let new = rewritten(kept(host, project, name)?, file, text)?;
    write(host, project, name, &new)?;
    tell(host, project, name, "instance-metadata-template-created", json!({ "path": file }));
    Ok(())
}

fn rewritten(mut kept: Templates, file: &str, text: String) -> Result<Templates, Error> {
    let mut used = false;
    for template in kept.templates.iter_mut().filter(|template| template.name == file) {
        template.content.clone_from(&text);
        used = true;
    }
    if !used {
        kept.spare.insert(file.to_owned(), text);
    }
    let all = texts(kept.clone());
    if all.len() > MAX_TEMPLATES {
        return Err(Error::TooMany { what: "templates of an instance", limit: MAX_TEMPLATES });
    }
    if all.values().map(|text| text.len() as u64).sum::<u64>() > MAX_TEMPLATES_SIZE {
        return Err(Error::invalid("the templates of an instance may be 1 MiB together"));
    }
    Ok(kept)
}

/// Deletes a template.
///
/// # Errors
/// When there is none of that name, or the metadata names it.
pub fn delete_template(host: &Arc<Host>, project: &str, name: &str, file: &str) -> Result<(), Error> {
    let _turn = turn(host, project, name, "update")?;
    let mut kept = kept(host, project, name)?;
    if let Some(template) = kept.templates.iter().find(|template| template.name == file) {
        let by = format!("the metadata, for `{}`; take it out there first", template.path);
        return Err(Error::InUse { what: "template", name: file.to_owned(), by });
    }
    kept.spare.remove(file).ok_or_else(|| Error::not_found("template", file))?;
    write(host, project, name, &kept)?;
    tell(host, project, name, "instance-metadata-template-deleted", json!({ "path": file }));
    Ok(())
}

fn write(host: &Host, project: &str, name: &str, kept: &Templates) -> Result<(), Error> {
    Ok(host.store().begin().write(project, name, kept)?.commit().map(drop)?)
}

fn tell(host: &Host, project: &str, name: &str, action: &str, context: Value) {
    host.events().lifecycle(project, action, &address(name), name, context, None);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn one(path: &str, name: &str, content: &str) -> rows::Template {
        rows::Template {
            path: path.to_owned(),
            when: vec!["create".to_owned()],
            create_only: false,
            uid: None,
            gid: None,
            mode: Some(0o640),
            properties: Config::new(),
            content: content.to_owned(),
            name: name.to_owned(),
        }
    }

    fn put(templates: &[(&str, &str)]) -> ImageMetadata {
        let entry = |name: &str| ImageMetadataTemplate {
            when: vec!["start".to_owned()],
            template: name.to_owned(),
            mode: Some("0755".to_owned()),
            ..Default::default()
        };
        ImageMetadata {
            architecture: "x86_64".to_owned(),
            templates: templates.iter().map(|(path, name)| ((*path).to_owned(), entry(name))).collect(),
            ..Default::default()
        }
    }

    #[test]
    fn templates_of_old_rows_get_names_that_nothing_else_has() {
        let found = named(vec![one("/a", "", "A"), one("/b", "0.tpl", "B"), one("/c", "", "C")]);
        let names: Vec<_> = found.iter().map(|template| template.name.as_str()).collect();
        assert_eq!(names, ["_0.tpl", "0.tpl", "2.tpl"]);
    }

    #[test]
    fn texts_stay_when_what_is_said_of_them_changes() {
        let old = Templates { templates: vec![one("/a", "a.tpl", "A")], ..Default::default() };
        let none = replaced(old, &put(&[])).unwrap();
        assert!(none.templates.is_empty());
        assert_eq!(none.spare["a.tpl"], "A");
        let two = replaced(none, &put(&[("/x", "a.tpl"), ("/y", "a.tpl")])).unwrap();
        assert!(two.spare.is_empty());
        let told: Vec<_> =
            two.templates.iter().map(|it| (it.path.as_str(), it.content.as_str(), it.mode)).collect();
        assert_eq!(told, [("/x", "A", Some(0o755)), ("/y", "A", Some(0o755))]);
        let changed = rewritten(two, "a.tpl", "B".to_owned()).unwrap();
        assert!(changed.templates.iter().all(|template| template.content == "B"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |put: &ImageMetadata| replaced(Templates::default(), put).unwrap_err().report();
        assert!(refused(&put(&[("/x", "missing")])).contains("`missing` for `/x`"));
        assert!(refused(&put(&[("x", "missing")])).contains("absolute path"));
        assert!(refused(&put(&[("/x", "../etc/shadow")])).contains("plain file name"));
        assert!(rewritten(Templates::default(), "x", "x".repeat(2 << 20)).is_err());
    }
}
