//! Which host ids an instance gets: a run of 65,536 of its own, never shared with another instance of any Cabin on the
//! host. Others that cut from root's range, as Incus and LXD do, know nothing of that: on a host with both, each is given
//! a part of its own.
//!
//! The runs are cut from what /etc/subuid and /etc/subgid give to root; without such lines from
//! 1,000,000 on, a billion long (as Incus does), less what those files give to others. Each run that is
//! taken has a file in one registry of the host, made with `O_EXCL`, so that several daemons on one host
//! cannot take the same one. A run whose daemon's directory was taken away is free again; one whose directory
//! is on a filesystem that is not mounted now is not.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use cabin_store::rows::Ids;
use cabin_sys::dir::HostDir;
use cabin_undo::Undo;

use crate::{Error, Host, Settings};

/// Ids of one instance.
pub const SIZE: u32 = 65_536;

/// Where the host's daemons register the runs they took: a file for each, named by its first id.
const REGISTRY: &str = "/var/lib/cabin-ids";

/// Whose the run is that images are unpacked with; not the name of any instance.
const UNPACKER: &str = ".unpacker";

const FALLBACK: Range = Range { base: 1_000_000, size: 1_000_000_000 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    base: u32,
    size: u32,
}

impl Range {
    fn overlaps(self, other: Range) -> bool {
        u64::from(self.base) < u64::from(other.base) + u64::from(other.size)
            && u64::from(other.base) < u64::from(self.base) + u64::from(self.size)
    }
}

/// What the registry says of a run: a line of its file each.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    /// The directory of the daemon that took it.
    owner: String,
    /// The instance that has it.
    name: String,
    /// The filesystem that directory is on, as statvfs(3) names it; unknown in a file of an older Cabin.
    filesystem: Option<u64>,
}

impl Claim {
    fn parse(text: &str) -> Option<Claim> {
        let mut lines = text.lines();
        let (owner, name) = (lines.next()?.to_owned(), lines.next()?.to_owned());
        Some(Claim { owner, name, filesystem: lines.next().and_then(|line| line.parse().ok()) })
    }

    /// Whether the daemon's directory was taken away: it is not there, and what would hold it is on the filesystem
    /// that held it. (A disk that comes later than another daemon, or that is mounted elsewhere for a repair, still has
    /// its containers.)
    fn is_abandoned(&self) -> bool {
        let dir = Path::new(&self.owner);
        match HostDir::open(&dir.join("database")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            _ => return false,
        }
        let Some(before) = self.filesystem else { return true };
        let place = dir.ancestors().find_map(|place| HostDir::open(place).ok());
        place.is_some_and(|place| place.filesystem().is_ok_and(|now| now == before))
    }
}

impl std::fmt::Display for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let filesystem = self.filesystem.map(|id| format!("{id}\n")).unwrap_or_default();
        write!(f, "{}\n{}\n{filesystem}", self.owner, self.name)
    }
}

/// The host's registry, as one daemon uses it.
pub(crate) struct Registry {
    dir: HostDir,
    owner: String,
    filesystem: u64,
    /// What a file has for a name until it is whole; held while one is made.
    temporary: parking_lot::Mutex<String>,
    whole: Range,
    others: Vec<Range>,
}

impl Registry {
    /// Opens the registry and frees what daemons took whose directories are gone.
    ///
    /// # Errors
    /// When the registry cannot be made or read.
    pub fn open(settings: &Settings) -> Result<Registry, Error> {
        let act = || format!("open the registry of host ids `{REGISTRY}`");
        let dir = HostDir::ensure(Path::new(REGISTRY), 0o700).map_err(Error::io(act()))?;
        let (whole, others) = host_ranges();
        let owner = settings.dir.display().to_string();
        let temporary = parking_lot::Mutex::new(format!(".{}.new", settings.prefix));
        let filesystem =
            HostDir::open(&settings.dir).and_then(|dir| dir.filesystem()).map_err(Error::io(act()))?;
        let registry = Registry { dir, owner, filesystem, temporary, whole, others };
        for entry in registry.dir.list().map_err(Error::io(act()))? {
            let Some(claim) = registry.read(&entry.name) else { continue };
            if claim.owner != registry.owner && claim.is_abandoned() {
                registry.dir.remove_file(&entry.name).map_err(Error::io(act()))?;
            }
        }
        Ok(registry)
    }

    /// The ids that images are unpacked with.
    ///
    /// # Errors
    /// As [`claim`].
    pub fn unpacker(&self) -> Result<Ids, Error> {
        for entry in self.dir.list().map_err(Error::io("read the registry of host ids"))? {
            if self.read(&entry.name).is_some_and(|claim| self.is_own(&claim) && claim.name == UNPACKER)
                && let Ok(base) = entry.name.parse()
            {
                return Ok(Ids { base, size: SIZE });
            }
        }
        self.take(UNPACKER)
    }

    /// Takes the first run that is free. It is on disk before anything is made with it: after a power cut
    /// another daemon may be the first to look.
    fn take(&self, name: &str) -> Result<Ids, Error> {
        let temporary = self.temporary.lock();
        let text = self.claim(name).to_string();
        let taken: BTreeSet<u32> = self
            .dir
            .list()
            .map_err(Error::io("read the registry of host ids"))?
            .iter()
            .filter_map(|entry| entry.name.parse().ok())
            .collect();
        for base in free(self.whole, &self.others, &taken) {
            match self.dir.create_whole(&base.to_string(), &temporary, text.as_bytes(), 0o600) {
                Ok(()) => return Ok(Ids { base, size: SIZE }),
                // Another daemon was faster.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("register host ids")(error)),
            }
        }
        Err(Error::NoIds)
    }

    /// Gives a run back. One that is not ours stays; gone is success.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn release(&self, ids: Ids) -> Result<(), Error> {
        let name = ids.base.to_string();
        if self.read(&name).is_none_or(|claim| self.is_own(&claim)) {
            self.dir.remove_file(&name).map_err(Error::io(format!("give back the host ids from {name}")))?;
        }
        Ok(())
    }

    /// Gives back all runs that an instance of this daemon has had.
    ///
    /// # Errors
    /// When the registry cannot be read, or a file cannot be removed.
    pub fn release_all(&self, name: &str) -> Result<(), Error> {
        let had = self.claims()?.into_iter().filter(|(_, owner)| owner == name);
        had.map(|(base, _)| Ids { base, size: SIZE }).try_for_each(|run| self.release(run))
    }

    /// Makes the registry say what the rows say: runs of ours that no instance has are given back, and
    /// those that instances have are registered.
    ///
    /// # Errors
    /// When the registry cannot be read or written, or another daemon has taken a run; the others are put right then too.
    pub fn reconcile(&self, instances: &[(String, Ids)]) -> Result<(), Error> {
        for entry in self.dir.list().map_err(Error::io("read the registry of host ids"))? {
            let ours =
                self.read(&entry.name).is_some_and(|claim| self.is_own(&claim) && claim.name != UNPACKER);
            let known = instances.iter().any(|(_, ids)| ids.base.to_string() == entry.name);
            if ours && !known {
                self.dir.remove_file(&entry.name).map_err(Error::io("give back host ids"))?;
            }
        }
        let mut done = Ok(());
        for (name, ids) in instances {
            done = done.and(self.assign(*ids, name));
        }
        done
    }

    /// Writes down whose a run of this daemon is.
    ///
    /// # Errors
    /// When another daemon has it, or the file cannot be written.
    pub fn assign(&self, ids: Ids, name: &str) -> Result<(), Error> {
        let file = ids.base.to_string();
        let claim = self.claim(name);
        match self.read(&file) {
            Some(present) if present == claim => Ok(()),
            Some(present) if !self.is_own(&present) => Err(Error::InUse {
                what: "run of host ids",
                name: file,
                by: format!("instance `{}` of the daemon of `{}`", present.name, present.owner),
            }),
            _ => {
                let text = claim.to_string();
                self.dir.replace(&file, text.as_bytes(), 0o600).map_err(Error::io("register host ids"))
            }
        }
    }

    /// The first ids of the runs that instances of this daemon have, and the instances' names.
    ///
    /// # Errors
    /// When the registry cannot be read.
    pub fn claims(&self) -> Result<Vec<(u32, String)>, Error> {
        let entries = self.dir.list().map_err(Error::io("read the registry of host ids"))?;
        let mine = |file: &str| {
            let claim = self.read(file)?;
            let base = file.parse().ok()?;
            (self.is_own(&claim) && claim.name != UNPACKER).then_some((base, claim.name))
        };
        Ok(entries.iter().filter_map(|entry| mine(&entry.name)).collect())
    }

    fn claim(&self, name: &str) -> Claim {
        Claim { owner: self.owner.clone(), name: name.to_owned(), filesystem: Some(self.filesystem) }
    }

    fn is_own(&self, claim: &Claim) -> bool {
        claim.owner == self.owner
    }

    fn read(&self, file: &str) -> Option<Claim> {
        Claim::parse(&String::from_utf8(self.dir.read(file, 8192).ok()?).ok()?)
    }
}

/// How many runs of the host's range are taken, by whatever daemon, and how many there are.
pub(crate) fn room() -> (u64, u64) {
    let (whole, others) = host_ranges();
    let entries = HostDir::open(Path::new(REGISTRY)).and_then(|dir| dir.list()).unwrap_or_default();
    let taken: BTreeSet<u32> = entries.iter().filter_map(|entry| entry.name.parse().ok()).collect();
    let all = free(whole, &others, &BTreeSet::new()).count() as u64;
    (all - free(whole, &others, &taken).count() as u64, all)
}

/// Whether an administrator gave root ids that are not used, for they are too few or not the same for users and groups.
pub(crate) fn is_grant_unused() -> bool {
    let [users, groups] = ["subuid", "subgid"].map(text_of);
    let given = parse(&users).0.is_some() || parse(&groups).0.is_some();
    given && common(&users, &groups).is_none()
}

/// Takes a run for an instance.
///
/// # Errors
/// [`Error::NoIds`] when the host's range is used up; when the registry cannot be written.
pub(crate) fn claim(host: &Arc<Host>, name: &str, undo: &mut Undo) -> Result<Ids, Error> {
    let ids = host.ids().take(name)?;
    let host = host.clone();
    undo.push(format!("host ids from {}", ids.base), move || host.ids().release(ids))?;
    Ok(ids)
}

/// The first ids of the runs of `whole` that nobody has.
fn free(whole: Range, others: &[Range], taken: &BTreeSet<u32>) -> impl Iterator<Item = u32> {
    (0..whole.size / SIZE)
        .map(move |slot| Range { base: whole.base + slot * SIZE, size: SIZE })
        .filter(|run| !others.iter().any(|other| run.overlaps(*other)))
        .filter(|run| taken.range(run.base.saturating_sub(SIZE - 1)..run.base + SIZE).next().is_none())
        .map(|run| run.base)
}

/// Root's range, and the ranges of others that may lie in it.
fn host_ranges() -> (Range, Vec<Range>) {
    ranges_of(&text_of("subuid"), &text_of("subgid"))
}

fn text_of(file: &str) -> String {
    let text = HostDir::open(Path::new("/etc")).and_then(|etc| etc.read(file, 1 << 20)).unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

/// The same, of what stands in /etc/subuid and /etc/subgid.
fn ranges_of(subuid: &str, subgid: &str) -> (Range, Vec<Range>) {
    // What an administrator gave to root is root's, whatever the other lines say.
    common(subuid, subgid)
        .map_or_else(|| (FALLBACK, [parse(subuid).1, parse(subgid).1].concat()), |roots| (roots, Vec::new()))
}

/// What both files give to root, if it is enough for the unpacker and an instance.
fn common(subuid: &str, subgid: &str) -> Option<Range> {
    let (users, groups) = (parse(subuid).0?, parse(subgid).0?);
    let base = users.base.max(groups.base);
    let end = (users.base + users.size).min(groups.base + groups.size);
    (end > base && end - base >= 2 * SIZE).then(|| Range { base, size: end - base })
}

/// The largest range of root in the format of subuid(5), and the ranges of everybody else.
fn parse(text: &str) -> (Option<Range>, Vec<Range>) {
    let mut root: Option<Range> = None;
    let mut others = Vec::new();
    for line in text.lines() {
        let fields: Vec<&str> = line.trim().split(':').collect();
        let [owner, base, size] = fields[..] else { continue };
        let (Ok(base), Ok(size)) = (base.parse::<u32>(), size.parse::<u32>()) else { continue };
        let range = Range { base, size: size.min(u32::MAX - base) };
        match owner {
            "root" | "0" if root.is_none_or(|found| found.size < range.size) => root = Some(range),
            "root" | "0" => {}
            _ => others.push(range),
        }
    }
    (root, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_others_and_runs_that_are_taken_are_left_out() {
        let whole = Range { base: 1000, size: 5 * SIZE };
        let at = |n: u32| 1000 + n * SIZE;
        let found: Vec<u32> = free(whole, &[], &BTreeSet::new()).collect();
        assert_eq!(found, [at(0), at(1), at(2), at(3), at(4)]);
        let other = Range { base: at(1) + 5, size: 1 };
        let found: Vec<u32> = free(whole, &[other], &BTreeSet::from([at(0), at(3) + 7])).collect();
        assert_eq!(found, [at(2)], "a run that only overlaps is left out too");
    }

    #[test]
    fn a_run_is_abandoned_when_the_directory_was_taken_away_not_when_its_disk_is() {
        let dir = tempfile::tempdir().unwrap();
        let filesystem = HostDir::open(dir.path()).unwrap().filesystem().unwrap();
        let place = dir.path().join("daemon");
        let of = |filesystem| Claim { owner: place.display().to_string(), name: "c".into(), filesystem };
        assert!(of(Some(filesystem)).is_abandoned());
        assert!(!of(Some(filesystem + 1)).is_abandoned(), "its disk is not mounted");
        assert!(of(None).is_abandoned());
        HostDir::ensure(&place.join("database"), 0o700).unwrap();
        assert!(!of(Some(filesystem)).is_abandoned());
        for claim in [of(Some(7)), of(None)] {
            assert_eq!(Claim::parse(&claim.to_string()), Some(claim));
        }
        assert_eq!(Claim::parse("half"), None);
    }

    #[test]
    fn roots_range_is_what_both_files_give_it() {
        let both = |users: &str, groups: &str| ranges_of(users, groups).0;
        let roots = Range { base: 2_000_000, size: 20 * SIZE };
        let line = format!("root:{}:{}\n", roots.base, roots.size);
        assert_eq!(both(&line, &line), roots);
        let later = format!("root:{}:{}\n", roots.base + SIZE, roots.size);
        assert_eq!(both(&line, &later), Range { base: roots.base + SIZE, size: 19 * SIZE });
        for (users, groups) in [("", ""), (line.as_str(), ""), (&line, "root:5:1\n")] {
            assert_eq!(both(users, groups), FALLBACK);
        }
    }

    #[test]
    fn the_largest_range_of_root_counts_and_others_are_known() {
        let text = "bob:100000:65536\nroot:200000:65536\nroot:1000000:1000000000\n# x\n0:5:1\n";
        let (root, others) = parse(text);
        assert_eq!(root, Some(Range { base: 1_000_000, size: 1_000_000_000 }));
        assert_eq!(others, [Range { base: 100_000, size: 65_536 }]);
        assert_eq!(parse("bob:1:2\n").0, None);
    }
}
