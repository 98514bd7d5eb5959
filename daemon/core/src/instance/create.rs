//! `create`: an instance from an image (or nothing), and its first start when asked.

use std::sync::Arc;

use cabin_api::instance::{InstanceStatePut, InstancesPost};
use cabin_profiles::Who;
use cabin_store::rows::{self, Config};
use cabin_undo::atomically;
use rand::RngExt as _;
use serde_json::Value;

use super::checked::Checked;
use super::{WHAT, address, expand, place, profiles_of, root_pool};
use crate::image::{Resolved, Wanted};
use crate::{Error, Host, Op, clock, ids, image, limits, quota, resolve, storage};

/// Refuses at once what can be seen to fail, and fills in what was left out: name and profiles.
///
/// # Errors
/// For a bad or taken name, unknown keys, missing profiles, pools or networks, and kinds of source this
/// version does not have.
pub fn check_new(host: &Host, project: &str, post: &mut InstancesPost) -> Result<(), Error> {
    if !matches!(post.kind.as_str(), "" | "container") {
        let reason = "this server runs containers only";
        return Err(Error::Unsupported { what: format!("instance type `{}`", post.kind), reason });
    }
    check_architecture(&post.put.architecture)?;
    if !post.instance_type.is_empty() {
        apply_size(post)?;
    }
    match post.source.kind.as_str() {
        "image" => {
            let profiles = check_image(host, project, post)?;
            if post.put.profiles.is_none() && !profiles.is_empty() {
                post.put.profiles = Some(profiles);
            }
        }
        "none" => {}
        "copy" => {
            super::copy::check(host, project, post)?;
            if refreshes(host, project, post)? {
                return super::refresh::check(host, project, post);
            }
        }
        "" => return Err(Error::invalid("no source was given: use an image, or `--empty`")),
        other => {
            let reason = "this version makes instances from images, instances and snapshots";
            return Err(Error::Unsupported { what: format!("source type `{other}`"), reason });
        }
    }
    let present = super::names(host, project)?;
    if post.name.is_empty() {
        post.name = made_up_name(&present);
    }
    cabin_profiles::value::name::instance(&post.name)?;
    if present.contains(&post.name) {
        return Err(Error::Exists { what: WHAT, name: post.name.clone() });
    }
    limits::one_more("instances", present.len(), limits::INSTANCES)?;
    let profiles = post.put.profiles.get_or_insert_with(|| vec!["default".to_owned()]).clone();
    let row = row_of(post, Config::new());
    check_config(host, project, &row, &profiles)?;
    resolve::check_paths(host, &rows::Devices::new(), &row.devices)
}

/// The final merged state must make sense, and what it names must exist.
pub(crate) fn check_config(
    host: &Host,
    project: &str,
    row: &rows::Instance,
    profiles: &[String],
) -> Result<(), Error> {
    cabin_profiles::validate_instance_config(&row.config, Who::Instance)?;
    cabin_profiles::validate_devices(&row.devices, Who::Instance)?;
    let known = profiles_of(host, project, profiles)?;
    check_expanded(host, &expand(row, &known))
}

pub(crate) fn check_expanded(host: &Host, expanded: &super::Expanded) -> Result<(), Error> {
    root_pool(&expanded.devices)?;
    cabin_profiles::validate_expanded_devices(&expanded.devices)?;
    cabin_profiles::Limits::resolve(&expanded.config, &host.facts)?;
    storage::look_up(host, &root_pool(&expanded.devices)?)?;
    quota::check(host, &root_pool(&expanded.devices)?, quota::of_root(expanded)?)?;
    resolve::check_disks(host, &expanded.devices)?;
    resolve::check_nics(host, &expanded.devices)
}

/// An instance is of this host's architecture; clients write it as the kernel does or as Debian does.
fn check_architecture(asked: &str) -> Result<(), Error> {
    let own = std::env::consts::ARCH;
    let same = match asked {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    };
    if asked.is_empty() || same == own {
        return Ok(());
    }
    let asked: String = asked.chars().take(40).collect();
    Err(Error::invalid(format!("architecture `{asked}` does not run here: this server is `{own}`")))
}

/// Whether it is a copy that is there, and to be brought up to date.
fn refreshes(host: &Host, project: &str, post: &InstancesPost) -> Result<bool, Error> {
    let wanted = post.source.kind == "copy" && post.source.refresh;
    Ok(wanted && host.store().rows::<rows::Instance>().get(project, &post.name)?.is_some())
}

/// The profiles that an image gives to whom asks for none; none when it is yet to be built.
fn check_image(host: &Host, project: &str, post: &InstancesPost) -> Result<Vec<String>, Error> {
    let source = &post.source;
    if !source.server.is_empty() && source.protocol != "build" {
        let reason = "this version makes instances from local images and shipped definitions";
        return Err(Error::Unsupported { what: format!("the image server `{}`", source.server), reason });
    }
    Ok(match image::resolve(host, project, source)? {
        Wanted::Here(found) => found.row.profiles,
        Wanted::Build(_) => Vec::new(),
    })
}

/// `c2-m4`, `c0.5-m0.2` and `t2.micro`-like sizes: the first two are understood, the last need a table we do not have.
/// A part of a processor is one processor for that part of the time.
fn apply_size(post: &mut InstancesPost) -> Result<(), Error> {
    let size = post.instance_type.clone();
    let parsed = size.split_once('-').and_then(|(cpu, memory)| {
        Some((hundredths(cpu.strip_prefix('c')?)?, hundredths(memory.strip_prefix('m')?)?))
    });
    let Some((cpu, memory)) = parsed.filter(|(cpu, memory)| *cpu > 0 && *memory > 0) else {
        return Err(Error::invalid(format!("instance size `{size}` is not known: use the form c2-m4")));
    };
    let config = &mut post.put.config.0;
    let processors = cpu.div_ceil(100);
    if cpu % 100 != 0 {
        config.entry("limits.cpu.allowance".into()).or_insert(format!("{}%", cpu / processors));
    }
    config.entry("limits.cpu".into()).or_insert(processors.to_string());
    config.entry("limits.memory".into()).or_insert(format!("{}MiB", memory * 1024 / 100));
    Ok(())
}

/// A number with at most two digits after its point, in hundredths.
fn hundredths(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !plain(whole) || !plain(part) || whole.len() > 6 || part.len() > 2 {
        return None;
    }
    Some(whole.parse::<u64>().ok()? * 100 + format!("{part:0<2}").parse::<u64>().ok()?)
}

pub(super) fn row_of(post: &InstancesPost, added: Config) -> rows::Instance {
    let mut config = post.put.config.clone().given();
    config.extend(added);
    rows::Instance {
        description: post.put.description.clone(),
        architecture: std::env::consts::ARCH.to_owned(),
        ephemeral: post.put.ephemeral,
        profiles: post.put.profiles.clone().unwrap_or_else(|| vec!["default".to_owned()]),
        config,
        devices: post.put.devices.clone().given(),
        created_at: clock::now(),
        last_used_at: String::new(),
        pool: String::new(),
        ids: rows::Ids { base: 0, size: ids::SIZE },
        power: rows::Power::Stopped,
        volume: rows::OwnVolume::default(),
    }
}

/// Makes the instance, and starts it when the request says so. If the start fails the instance stays,
/// stopped, as a user of `launch` would expect to find it.
///
/// # Errors
/// As [`check_new`]; when the image cannot be built or unpacked; when the host refuses.
pub fn create(host: &Arc<Host>, op: &Op, project: &str, post: InstancesPost) -> Result<(), Error> {
    let name = post.name.clone();
    let copied = post.source.kind == "copy";
    let mut names = vec![name.as_str()];
    names.extend(copied.then(|| super::copy::origin(&post)));
    let turns = host.busy().take_all(&names, if copied { "copy" } else { "create" })?;
    for name in names {
        super::snapshot::settle(host, project, name)?;
    }
    if refreshes(host, project, &post)? {
        super::refresh::refresh(host, op, project, &post)?;
        drop(turns);
        return Ok(());
    }
    // Somebody else may have made it while we waited for our turn.
    if host.store().rows::<rows::Instance>().get(project, &name)?.is_some() {
        return Err(Error::Exists { what: WHAT, name });
    }
    match post.source.kind.as_str() {
        "copy" => super::copy::create(host, op, project, &post)?,
        _ => make(host, op, project, &post)?,
    }
    drop(turns);
    if post.start {
        let start = InstanceStatePut { action: "start".to_owned(), ..InstanceStatePut::default() };
        super::change_state(host, op, project, &name, &start)?;
    }
    Ok(())
}

/// Makes an instance from an image or nothing; the caller holds its turn.
fn make(host: &Arc<Host>, op: &Op, project: &str, post: &InstancesPost) -> Result<(), Error> {
    let name = post.name.clone();
    let image = match post.source.kind.as_str() {
        "image" => Some(image::obtain(host, op, project, image::resolve(host, project, &post.source)?)?),
        _ => None,
    };
    let mut row = row_of(post, volatile(image.as_ref()));
    let profiles = profiles_of(host, project, &row.profiles)?;
    row.pool = root_pool(&expand(&row, &profiles).devices)?;
    let pool = storage::pool(host, &row.pool)?;
    if let Some(image) = &image {
        // Told as what it is when it failed because somebody took the pool or the image away meanwhile.
        let unpacked = image::ensure_unpacked(host, op, &pool, image);
        unpacked.or_else(|why| {
            storage::pool(host, &row.pool).and(image::still_here(host, image)).and(Err(why))
        })?;
    }
    let volume = place::clear(host, project, &pool, &name)?;
    let templates = image.as_ref().map(|image| image.row.templates.clone()).unwrap_or_default();
    let templates = rows::Templates { templates, ..rows::Templates::default() };
    let kept = host.keep_layout();
    // What it names may have gone, or be another, since the image was unpacked.
    let pool = storage::pool(host, &row.pool)?;
    if let Some(image) = &image {
        image::still_here_in(host, &pool, image)?;
    }
    let mut new = Checked::in_its_pool(host, project, row)?;
    atomically(|undo| -> Result<(), Error> {
        new.row.ids = ids::claim(host, &name, undo)?;
        match &image {
            Some(image) => pool.create_from_image(&volume, &image.fingerprint, undo)?,
            None => pool.create_empty(&volume, undo)?,
        }
        link(host, &name, &new.row.pool, undo)?;
        resolve::reserve_fixed(host, &name, &new.row, &new.expanded, undo)?;
        let txn = new.insert(host.store().begin(), project, &name)?.write(project, &name, &templates)?;
        match txn.commit() {
            Err(cabin_store::Error::Changed { .. }) => Err(Error::Exists { what: WHAT, name: name.clone() }),
            other => Ok(other.map(drop)?),
        }
    })?;
    drop(kept);
    host.events().lifecycle(project, "instance-created", &address(&name), &name, Value::Null, op.requestor());
    Ok(())
}

/// `containers/NAME` leads to where the pool keeps the instance, for scripts that look there.
pub(super) fn link(
    host: &Arc<Host>,
    name: &str,
    pool: &str,
    undo: &mut cabin_undo::Undo,
) -> Result<(), Error> {
    relink(host, name, pool)?;
    let (host, link) = (host.clone(), format!("containers/{name}"));
    undo.push(format!("link `{link}`"), move || host.dir().remove_file(&link))?;
    Ok(())
}

/// Makes `containers/NAME` lead to the pool, whatever it led to.
pub(crate) fn relink(host: &Host, name: &str, pool: &str) -> Result<(), Error> {
    let link = format!("containers/{name}");
    let target = format!("../storage-pools/{pool}/containers/{name}");
    host.dir().remove_file(&link).map_err(Error::io(format!("remove the old `{link}`")))?;
    host.dir()
        .symlink(std::path::Path::new(&target), &link)
        .map_err(Error::io(format!("make the link `{link}`")))
}

/// What the server keeps about a new instance, and the image's properties.
pub(super) fn volatile(image: Option<&Resolved>) -> Config {
    let mut config = Config::new();
    let uuid = uuid::Uuid::new_v4().to_string();
    config.insert("volatile.uuid.generation".into(), uuid.clone());
    config.insert("volatile.cloud-init.instance-id".into(), uuid::Uuid::new_v4().to_string());
    config.insert("volatile.uuid".into(), uuid);
    config.insert("volatile.apply_template".into(), "create".into());
    if let Some(image) = image {
        config.insert("volatile.base_image".into(), image.fingerprint.clone());
        for (key, value) in &image.row.properties {
            config.insert(format!("image.{key}"), value.clone());
        }
    }
    config
}

const FIRST: &[&str] = &[
    "able", "brave", "bright", "calm", "civil", "clever", "daring", "eager", "fair", "gentle", "glad",
    "happy", "keen", "kind", "lively", "loyal", "merry", "noble", "open", "proud", "quick", "quiet", "ready",
    "steady", "sunny", "swift", "true", "warm", "wise", "witty",
];
const SECOND: &[&str] = &[
    "badger", "beaver", "bison", "crane", "deer", "eagle", "falcon", "finch", "fox", "goose", "hare",
    "heron", "ibex", "jay", "kite", "lark", "lynx", "marten", "moose", "otter", "owl", "puffin", "raven",
    "robin", "seal", "stork", "swan", "tern", "vole", "wren",
];

fn made_up_name(present: &[String]) -> String {
    let mut random = rand::rng();
    loop {
        let first = FIRST[random.random_range(0..FIRST.len())];
        let second = SECOND[random.random_range(0..SECOND.len())];
        // A number joins when the short names run out.
        let name = match present.len() {
            0..200 => format!("{first}-{second}"),
            _ => format!("{first}-{second}-{}", random.random_range(1..1_000_000)),
        };
        if !present.contains(&name) {
            return name;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_processors_and_memory() {
        for (size, cpu, allowance, memory) in [
            ("c2-m4", "2", None, "4096MiB"),
            ("c0.5-m0.2", "1", Some("50%"), "204MiB"),
            ("c1.5-m1", "2", Some("75%"), "1024MiB"),
        ] {
            let mut post = InstancesPost { instance_type: size.to_owned(), ..InstancesPost::default() };
            apply_size(&mut post).unwrap();
            let said = |key: &str| post.put.config.0.get(key).map(String::as_str);
            assert_eq!(said("limits.cpu"), Some(cpu), "{size}");
            assert_eq!(said("limits.cpu.allowance"), allowance, "{size}");
            assert_eq!(said("limits.memory"), Some(memory), "{size}");
        }
        for size in ["", "c1", "m1", "c0-m1", "c1-m0", "c-m", "c1.-m1", "c1.555-m1", "t2.micro", "c+1-m1"] {
            let mut post = InstancesPost { instance_type: size.to_owned(), ..InstancesPost::default() };
            assert!(apply_size(&mut post).is_err(), "{size}");
        }
    }

    #[test]
    fn an_instance_is_of_the_hosts_architecture() {
        assert!(check_architecture("").is_ok());
        assert!(check_architecture(std::env::consts::ARCH).is_ok());
        assert!(check_architecture("pdp11").unwrap_err().to_string().contains("pdp11"));
    }
}
