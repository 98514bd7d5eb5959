//! Which host ids an instance gets: a run of 65,536 of its own, never shared.
//!
//! The runs are cut from what /etc/subuid and /etc/subgid give to root; without such lines from
//! 1,000,000 on, a billion long (as Incus does). Instances and the unpacker of this daemon never overlap,
//! by a check against every row; daemons of one host begin at different places of the range.

use cabin_store::rows::{self, Ids};
use cabin_sys::dir::HostDir;

use crate::{Error, Host};

/// Ids of one instance.
pub const SIZE: u32 = 65_536;

const FALLBACK: Range = Range { base: 1_000_000, size: 1_000_000_000 };

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    base: u32,
    size: u32,
}

/// The first run of ids that no instance of this daemon has. The first run of the range is kept for the
/// unpacking of images.
///
/// # Errors
/// When the rows cannot be read, or the range is used up.
pub fn free(host: &Host) -> Result<Ids, Error> {
    let range = host_range(host.settings().mark());
    let taken: Vec<u32> =
        host.store().rows::<rows::Instance>().all()?.into_iter().map(|found| found.row.ids.base).collect();
    pick(range, &taken).ok_or_else(|| {
        Error::invalid("no host ids are left for another instance: give root a larger range in /etc/subuid and /etc/subgid")
    })
}

/// The ids that images are unpacked with.
#[must_use]
pub fn unpacker(mark: &str) -> Ids {
    Ids { base: host_range(mark).base, size: SIZE }
}

fn pick(range: Range, taken: &[u32]) -> Option<Ids> {
    let slots = range.size / SIZE;
    let mut used: Vec<u32> =
        taken.iter().filter_map(|base| Some(base.checked_sub(range.base)? / SIZE)).collect();
    used.sort_unstable();
    let mut slot = 1;
    for other in used {
        if other == slot {
            slot += 1;
        } else if other > slot {
            break;
        }
    }
    (slot < slots).then(|| Ids { base: range.base + slot * SIZE, size: SIZE })
}

/// This daemon's part of the host's range: another daemon on the host begins elsewhere.
fn host_range(mark: &str) -> Range {
    let whole = subordinate().unwrap_or(FALLBACK);
    let parts = (whole.size / SIZE / 4096).max(1);
    let part = u32::from_str_radix(mark, 16).map_or(0, |mark| mark % parts);
    let size = (whole.size / SIZE / parts) * SIZE;
    Range { base: whole.base + part * size, size }
}

fn subordinate() -> Option<Range> {
    let etc = HostDir::open(std::path::Path::new("/etc")).ok()?;
    let read = |file| parse(&String::from_utf8_lossy(&etc.read(file, 1 << 20).ok()?));
    let (users, groups) = (read("subuid")?, read("subgid")?);
    let base = users.base.max(groups.base);
    let end = (users.base + users.size).min(groups.base + groups.size);
    (end > base && end - base >= 2 * SIZE).then_some(Range { base, size: end - base })
}

/// The largest range of root in the format of subuid(5).
fn parse(text: &str) -> Option<Range> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.trim().split(':');
            let owner = fields.next()?;
            let (base, size) = (fields.next()?.parse().ok()?, fields.next()?.parse::<u32>().ok()?);
            let size = size.min(u32::MAX - base);
            matches!(owner, "root" | "0").then_some(Range { base, size })
        })
        .max_by_key(|range| range.size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_is_taken_and_the_first_run_is_kept() {
        let range = Range { base: 1000, size: 4 * SIZE };
        let at = |n: u32| 1000 + n * SIZE;
        assert_eq!(pick(range, &[]).map(|ids| ids.base), Some(at(1)));
        assert_eq!(pick(range, &[at(1), at(3)]).map(|ids| ids.base), Some(at(2)));
        assert_eq!(pick(range, &[at(2), at(1)]).map(|ids| ids.base), Some(at(3)));
        assert_eq!(pick(range, &[at(1), at(2), at(3)]), None);
        assert_eq!(pick(range, &[5, at(1)]).map(|ids| ids.base), Some(at(2)), "foreign bases do not matter");
    }

    #[test]
    fn the_largest_range_of_root_counts() {
        let text = "bob:100000:65536\nroot:200000:65536\nroot:1000000:1000000000\n# x\n0:5:1\n";
        assert_eq!(parse(text), Some(Range { base: 1_000_000, size: 1_000_000_000 }));
        assert_eq!(parse("bob:1:2\n"), None);
    }
}
