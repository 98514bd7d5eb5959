//! From what a request calls an image to an image that is here and unpacked.

use std::sync::Arc;

use cabin_api::instance::InstanceSource;
use cabin_images::ImageFiles;
use cabin_storage::Pool;
use cabin_store::rows;
use cabin_undo::{Undo, atomically};

use super::{WHAT, build, find, touch};
use crate::{DEFAULT_PROJECT, Error, Host, Op};

/// What a request's words lead to.
pub(crate) enum Wanted {
    /// An image that is here.
    Here(Box<Resolved>),
    /// A shipped definition that must be built first.
    Build(String),
}

/// An image that is here.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    pub fingerprint: String,
    pub row: rows::Image,
}

/// Finds the image a source names: by fingerprint, alias, or properties; an alias that is none but is the
/// name of a shipped definition is to be built.
pub(crate) fn resolve(host: &Host, project: &str, source: &InstanceSource) -> Result<Wanted, Error> {
    let here = |fingerprint: &str| {
        let found = find(host, fingerprint)?;
        Ok(Wanted::Here(Box::new(Resolved { fingerprint: found.name, row: found.row })))
    };
    if !source.fingerprint.is_empty() {
        return here(&source.fingerprint).or_else(|error| {
            match by_alias(host, project, &source.fingerprint)? {
                Some(target) => here(&target),
                None => Err(error),
            }
        });
    }
    if !source.alias.is_empty() {
        if let Some(target) = by_alias(host, project, &source.alias)? {
            return here(&target);
        }
        if build::shipped(host)?.contains(&source.alias) {
            return Ok(Wanted::Build(source.alias.clone()));
        }
        return here(&source.alias).map_err(|_| Error::not_found(WHAT, &source.alias));
    }
    if !source.properties.is_empty() {
        return by_properties(host, project, source);
    }
    Err(Error::invalid("no image was named: give an alias, a fingerprint or properties"))
}

fn by_alias(host: &Host, project: &str, alias: &str) -> Result<Option<String>, Error> {
    Ok(host.store().rows::<rows::Alias>().get(project, alias)?.map(|found| found.row.target))
}

/// The newest image that has all the properties.
fn by_properties(host: &Host, project: &str, source: &InstanceSource) -> Result<Wanted, Error> {
    let has = |row: &rows::Image| {
        source.properties.iter().all(|(key, value)| row.properties.get(key) == Some(value))
    };
    host.store()
        .rows::<rows::Image>()
        .list(project)?
        .into_iter()
        .filter(|image| has(&image.row))
        .max_by(|a, b| a.row.created_at.cmp(&b.row.created_at))
        .map(|found| Wanted::Here(Box::new(Resolved { fingerprint: found.name, row: found.row })))
        .ok_or_else(|| Error::not_found(WHAT, "with these properties"))
}

/// The image itself, built when it has to be.
pub(crate) fn obtain(host: &Arc<Host>, op: &Op, project: &str, wanted: Wanted) -> Result<Resolved, Error> {
    match wanted {
        Wanted::Here(resolved) => Ok(*resolved),
        Wanted::Build(name) => {
            // Somebody else may have built it while we waited for our turn.
            let _one_at_a_time = host.building.lock();
            if by_alias(host, project, &name)?.is_none() {
                build::build_held(host, op, &name)?;
            }
            let target = by_alias(host, project, &name)?.ok_or_else(|| Error::not_found(WHAT, &name))?;
            let found = find(host, &target)?;
            Ok(Resolved { fingerprint: found.name, row: found.row })
        }
    }
}

/// An image that was here a while ago may have been deleted since.
///
/// # Errors
/// When it has.
pub(crate) fn still_here(host: &Host, image: &Resolved) -> Result<(), Error> {
    let found = host.store().rows::<rows::Image>().get(DEFAULT_PROJECT, &image.fingerprint)?;
    found.map(drop).ok_or_else(|| Error::not_found(WHAT, &image.fingerprint))
}

/// The same of one that was unpacked into a pool just now. If it was deleted before, nobody else would take the tree away.
/// The caller keeps the layout.
///
/// # Errors
/// As [`still_here`].
pub(crate) fn still_here_in(host: &Host, pool: &Pool, image: &Resolved) -> Result<(), Error> {
    let here = still_here(host, image);
    if here.is_err() {
        pool.delete_image(&image.fingerprint)?;
    }
    here
}

/// Unpacks an image into a pool unless it is there; everyone who wants the same one waits for the first.
pub(crate) fn ensure_unpacked(host: &Arc<Host>, op: &Op, pool: &Pool, image: &Resolved) -> Result<(), Error> {
    if !pool.has_image(&image.fingerprint)? {
        let _one_at_a_time = host.unpacking.lock();
        if !pool.has_image(&image.fingerprint)? {
            unpack(host, op, pool, image)?;
        }
    }
    if image.row.last_used_at.is_empty() {
        touch(host, &image.fingerprint)?;
    }
    Ok(())
}

/// As [`ensure_unpacked`], with what another pool has unpacked. One that was deleted since goes from there too when
/// nothing stands on it.
pub(crate) fn ensure_carried(
    host: &Host,
    (from, to): (&Pool, &Pool),
    image: &str,
    undo: &mut Undo,
) -> Result<(), Error> {
    let (pool, name) = (to.clone(), image.to_owned());
    undo.push(format!("image {image}"), move || pool.reap(&name))?;
    if !to.has_image(image)? {
        let _one_at_a_time = host.unpacking.lock();
        if !to.has_image(image)? {
            atomically(|undo| to.take_image(from, image, undo).map_err(Error::from))?;
        }
    }
    Ok(())
}

fn unpack(host: &Arc<Host>, op: &Op, pool: &Pool, image: &Resolved) -> Result<(), Error> {
    let open = |name: String| host.dir().open_file(&name).map_err(Error::io(format!("open `{name}`")));
    let files = ImageFiles {
        meta: open(format!("images/{}", image.fingerprint))?,
        rootfs: match image.row.split {
            true => Some(open(format!("images/{}.rootfs", image.fingerprint))?),
            false => None,
        },
    };
    let mut last = u64::MAX;
    let mut progress = |done: u64, total: u64| {
        let percent = (done * 100).checked_div(total).unwrap_or(0);
        if percent != last {
            last = percent;
            op.progress("create_instance_from_image_unpack_progress", format!("Unpack: {percent}%"));
        }
    };
    atomically(|undo| -> Result<(), Error> {
        pool.create_image(
            &image.fingerprint,
            |target| host.unpacker().unpack(&files, target, &mut progress).map(drop).map_err(Error::from),
            undo,
        )
    })?;
    Ok(())
}

/// Removes what an import or a build that was cut off left.
pub(crate) fn sweep(host: &Host) -> Result<(), Error> {
    let known = host.store().rows::<rows::Image>().list(DEFAULT_PROJECT)?;
    let dir = host.dir().open_dir("images").map_err(Error::io("list the images' files"))?;
    for entry in dir.list().map_err(Error::io("list the images' files"))? {
        let base = entry.name.strip_suffix(".rootfs").unwrap_or(&entry.name);
        if !known.iter().any(|image| image.name == base) {
            dir.remove_tree(&entry.name)
                .map_err(Error::io(format!("remove the stray image file `{}`", entry.name)))?;
        }
    }
    Ok(())
}
