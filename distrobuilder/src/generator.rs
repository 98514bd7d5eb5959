//! Generators: files made, changed or removed in the tree, and the templates the image carries along.

use std::path::Path;

use cabin_images::Template;
use cabin_sys::dir::{EntryKind, HostDir};
use cabin_templates::{Context, InstanceFacts, Shipped, Trigger};

use crate::definition::{Definition, FileEntry, Generator};
use crate::error::{Error, Result, io};

/// The largest file that `copy` takes, in bytes.
const MOST_COPIED: u64 = 256 * 1024 * 1024;

/// Does what `entry` says in `tree`; gives the template that is to come along, if it makes one.
///
/// # Errors
/// When a path leads over a link, or a file cannot be written.
pub fn run(definition: &Definition, entry: &FileEntry, tree: &HostDir) -> Result<Option<Template>> {
    let path = entry.path.trim_start_matches('/');
    match entry.generator {
        Generator::Dump => {
            let content = match entry.pongo {
                true => definition.fill(&entry.path, &entry.content)?,
                false => entry.content.clone(),
            };
            write(tree, path, content.as_bytes(), entry).map(|()| None)
        }
        Generator::Copy => {
            let source = Path::new(&entry.source);
            let (dir, name) =
                (source.parent().unwrap_or(Path::new("/")), source.file_name().unwrap_or_default());
            let content = HostDir::open(dir)
                .and_then(|dir| dir.read(&name.to_string_lossy(), MOST_COPIED))
                .map_err(io("read", source))?;
            write(tree, path, &content, entry).map(|()| None)
        }
        Generator::Remove => remove(tree, path).map(|()| None),
        Generator::Template => Ok(Some(Template {
            path: entry.path.clone(),
            when: entry.template.when.iter().map(|trigger| trigger.name().to_owned()).collect(),
            name: template_file(&entry.name),
            mode: entry.mode.as_deref().and_then(|text| u32::from_str_radix(text, 8).ok()),
            uid: entry.owner().0,
            gid: entry.owner().1,
            properties: entry.template.properties.clone(),
            content: entry.content.clone(),
            ..Template::default()
        })),
        Generator::Hostname => shipped(definition, entry, tree, "hostname.tpl").map(Some),
        Generator::Hosts => shipped(definition, entry, tree, "hosts.tpl").map(Some),
    }
}

fn template_file(name: &str) -> String {
    if name.ends_with(".tpl") { name.to_owned() } else { format!("{name}.tpl") }
}

/// Adds a shipped template, and renders it once for the tree itself.
fn shipped(definition: &Definition, entry: &FileEntry, tree: &HostDir, file: &str) -> Result<Template> {
    let wrong = |source| Error::Render { what: format!("template `{file}`"), source };
    let all = cabin_templates::shipped().map_err(wrong)?;
    let Some(found) = all.into_iter().find(|template: &Shipped| template.file == file) else {
        return Err(Error::Unknown { name: file.to_owned(), known: "hostname.tpl, hosts.tpl".to_owned() });
    };
    let context = Context {
        trigger: Trigger::Create,
        path: entry.path.clone(),
        instance: InstanceFacts { name: definition.image.distribution.clone(), ..InstanceFacts::default() },
        config: Default::default(),
        devices: Default::default(),
        properties: Default::default(),
    };
    let text = cabin_templates::render(found.content, &context).map_err(wrong)?;
    write(tree, entry.path.trim_start_matches('/'), text.as_bytes(), entry)?;
    Ok(Template {
        path: entry.path.clone(),
        when: found.when,
        name: found.file,
        create_only: found.create_only,
        mode: found.mode,
        content: found.content.to_owned(),
        ..Template::default()
    })
}

fn write(tree: &HostDir, path: &str, content: &[u8], entry: &FileEntry) -> Result<()> {
    let mut made = String::new();
    for part in
        path.rsplit_once('/').map_or("", |(parents, _)| parents).split('/').filter(|part| !part.is_empty())
    {
        made.push_str(part);
        if !tree.exists(&made).map_err(io("look for", &made))? {
            tree.create_dir(&made, 0o755).map_err(io("make", &made))?;
        }
        made.push('/');
    }
    let mode = entry.mode_or(0o644);
    tree.replace(path, content, mode).map_err(io("write", &entry.path))?;
    let file = tree.open_file(path).map_err(io("open", &entry.path))?;
    let (uid, gid) = entry.owner();
    let (uid, gid) =
        (rustix::fs::Uid::from_raw(uid.unwrap_or(0)), rustix::fs::Gid::from_raw(gid.unwrap_or(0)));
    rustix::fs::fchown(&file, Some(uid), Some(gid))
        .and_then(|()| rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode)))
        .map_err(|errno| io("set owner and mode of", &entry.path)(errno.into()))
}

fn remove(tree: &HostDir, path: &str) -> Result<()> {
    let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
    let kind = match tree.open_dir(parent).and_then(|dir| dir.list()) {
        Ok(entries) => entries.into_iter().find(|entry| entry.name == name).map(|entry| entry.kind),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(io("look for", path)(error)),
    };
    match kind {
        Some(EntryKind::Dir) => tree.remove_tree(path).map_err(io("remove", path)),
        Some(_) => tree.remove_file(path).map_err(io("remove", path)),
        None => Ok(()),
    }
}
