//! A tree of the host's static busybox: the program, a link for each applet, the usual directories.

use std::os::unix::fs::FileExt;
use std::path::Path;

use cabin_sys::command::{self, Program, Programs};
use cabin_sys::dir::HostDir;

use crate::error::{Error, Result, io};

/// The directories, with their permission bits; parents first.
const DIRS: &[(&str, u32)] = &[
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("lib", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/share", 0o755),
    ("var", 0o755),
    ("var/log", 0o755),
    ("var/lib", 0o755),
    ("var/tmp", 0o1777),
];

/// Fills the empty directory `tree`.
///
/// # Errors
/// When the host has no busybox or one that needs libraries, and as the files' calls.
pub fn fill(programs: &Programs, tree: &HostDir) -> Result<()> {
    let missing = |source| Error::Program { act: "make a busybox tree", source };
    let mut list = programs.command(Program::Busybox).map_err(missing)?;
    let program = list.get_program().to_owned();
    let program = Path::new(&program);
    check_static(program)?;
    for (dir, mode) in DIRS {
        tree.create_dir(dir, *mode).map_err(io("make", tree.path().join(dir)))?;
    }
    let mut from = std::fs::File::open(program).map_err(io("open", program))?;
    let mut to = tree.create_file("bin/busybox", 0o755).map_err(io("make", "bin/busybox"))?;
    std::io::copy(&mut from, &mut to).map_err(io("copy", program))?;
    set_mode(&to, 0o755)?;
    let applets = command::output(list.arg("--list-full")).map_err(io("list the applets of", program))?;
    for path in String::from_utf8_lossy(&applets).lines() {
        let known =
            DIRS.iter().any(|(dir, _)| path.rsplit_once('/').is_some_and(|(parent, _)| parent == *dir));
        if known && path != "bin/busybox" {
            tree.symlink(Path::new("/bin/busybox"), path).map_err(io("link", path))?;
        }
    }
    for needed in ["sbin/init", "bin/sh"] {
        if !tree.exists(needed).map_err(io("look for", needed))? {
            let said = format!("it has no `{needed}`");
            return Err(Error::Source { program: "busybox", said });
        }
    }
    Ok(())
}

fn set_mode(file: &std::fs::File, mode: u32) -> Result<()> {
    rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(mode))
        .map_err(|errno| io("set the mode of", "bin/busybox")(errno.into()))
}

/// A program that names an interpreter (ELF's `PT_INTERP`) needs libraries.
fn check_static(path: &Path) -> Result<()> {
    const INTERPRETER: u32 = 3;
    let file = std::fs::File::open(path).map_err(io("open", path))?;
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0).map_err(io("read", path))?;
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let not_static = || Error::NotStatic { path: path.display().to_string() };
    // 64 bits, little end first: what Cabin runs on.
    if !head.starts_with(&[0x7f, b'E', b'L', b'F', 2, 1]) {
        return Err(not_static());
    }
    let (table, size, count) = (number(&head[32..40]), number(&head[54..56]), number(&head[56..58]));
    for index in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table.saturating_add(index * size)).map_err(io("read", path))?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Err(not_static());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_libraries_is_refused() {
        assert!(check_static(Path::new("/bin/ls")).is_err());
        assert!(check_static(Path::new("/etc/passwd")).is_err());
    }
}
