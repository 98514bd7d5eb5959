//! The log files of an instance, and recorded output of commands.

use std::fs::File;
use std::io::Write as _;

use serde_json::Value;

use super::{address, load};
use crate::{Error, Host};

/// The names of an instance's log files.
///
/// # Errors
/// When there is no such instance, or its directory cannot be read.
pub fn logs(host: &Host, project: &str, name: &str) -> Result<Vec<String>, Error> {
    load(host, project, name)?;
    list(host, &format!("logs/{name}"))
}

/// A log file, opened.
///
/// # Errors
/// When there is no such instance or file.
pub fn read_log(host: &Host, project: &str, name: &str, file: &str) -> Result<File, Error> {
    load(host, project, name)?;
    let dir = format!("logs/{name}");
    if file == LOG && matches!(host.dir().exists(&format!("{dir}/{LOG}")), Ok(false)) {
        // Of an instance that never started there is nothing to say; clients ask all the same.
        return File::open("/dev/null").map_err(Error::io("open /dev/null"));
    }
    let open = open(host, &dir, file)?;
    tell(host, project, name, "instance-log-retrieved", file);
    Ok(open)
}

/// Deletes a log file.
///
/// # Errors
/// When there is no such instance or file.
pub fn delete_log(host: &Host, project: &str, name: &str, file: &str) -> Result<(), Error> {
    load(host, project, name)?;
    remove(host, &format!("logs/{name}"), file)?;
    tell(host, project, name, "instance-log-deleted", file);
    Ok(())
}

/// The names of an instance's recorded outputs.
///
/// # Errors
/// When there is no such instance, or its directory cannot be read.
pub fn list_exec_output(host: &Host, project: &str, name: &str) -> Result<Vec<String>, Error> {
    load(host, project, name)?;
    list(host, &format!("logs/{name}/exec-output"))
}

/// A recorded output, opened.
///
/// # Errors
/// When there is no such instance or file.
pub fn read_exec_output(host: &Host, project: &str, name: &str, file: &str) -> Result<File, Error> {
    load(host, project, name)?;
    let open = open(host, &format!("logs/{name}/exec-output"), file)?;
    tell(host, project, name, "instance-log-retrieved", &format!("exec-output/{file}"));
    Ok(open)
}

/// Deletes a recorded output.
///
/// # Errors
/// When there is no such instance or file.
pub fn delete_exec_output(host: &Host, project: &str, name: &str, file: &str) -> Result<(), Error> {
    load(host, project, name)?;
    forget_exec_output(host, name, file)?;
    tell(host, project, name, "instance-log-deleted", &format!("exec-output/{file}"));
    Ok(())
}

/// Takes the file of an output away of which nobody was told.
///
/// # Errors
/// When there is no such file.
pub fn forget_exec_output(host: &Host, name: &str, file: &str) -> Result<(), Error> {
    remove(host, &format!("logs/{name}/exec-output"), file)
}

fn tell(host: &Host, project: &str, name: &str, action: &str, file: &str) {
    let source = format!("{}/logs/{file}", address(name));
    host.events().lifecycle(project, action, &source, name, Value::Null, None);
}

/// Makes the two files a command's output is recorded in: their names, stdout, stderr.
///
/// # Errors
/// When there is no such instance, or the host refuses.
pub fn create_exec_output(
    host: &Host,
    project: &str,
    name: &str,
) -> Result<([String; 2], File, File), Error> {
    load(host, project, name)?;
    let act = || format!("make files for recorded output of `{name}`");
    let dir = log_dir(host, name)?.ensure_dir("exec-output", 0o700).map_err(Error::io(act()))?;
    let id = uuid::Uuid::new_v4();
    let names = [format!("exec_{id}.stdout"), format!("exec_{id}.stderr")];
    let stdout = dir.create_file(&names[0], 0o600).map_err(Error::io(act()))?;
    let stderr = dir.create_file(&names[1], 0o600).map_err(Error::io(act()))?;
    Ok((names, stdout, stderr))
}

/// The log a client shows with `info --show-log`, by the name stock clients ask for.
const LOG: &str = "lxc.log";

/// How long that log may grow, in bytes, before its older part is dropped.
const LOG_LIMIT: u64 = 256 * 1024;

/// Adds a line to an instance's log. It is for people: one that cannot be written is not worth failing for.
pub(crate) fn note(host: &Host, name: &str, line: &str) {
    let Ok(dir) = log_dir(host, name) else { return };
    if dir.read(LOG, LOG_LIMIT).is_err() && matches!(dir.exists(LOG), Ok(true)) {
        let _ = dir.remove_file(LOG);
    }
    if let Ok(mut file) = dir.append_file(LOG, 0o600) {
        let _ = writeln!(file, "{} {line}", crate::clock::now());
    }
}

/// The directory of an instance's logs, made when missing.
pub(crate) fn log_dir(host: &Host, name: &str) -> Result<cabin_sys::dir::HostDir, Error> {
    host.dir()
        .ensure_dir(&format!("logs/{name}"), 0o700)
        .map_err(Error::io(format!("make the log directory of `{name}`")))
}

fn list(host: &Host, dir: &str) -> Result<Vec<String>, Error> {
    match host.dir().open_dir(dir).and_then(|dir| dir.list()) {
        Ok(entries) => Ok(entries
            .into_iter()
            .filter(|entry| entry.kind == cabin_sys::dir::EntryKind::File)
            .map(|entry| entry.name)
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(format!("list `{dir}`"))(error)),
    }
}

/// A log's name is one name, not a path.
fn checked(file: &str) -> Result<(), Error> {
    let good = !file.is_empty()
        && file.len() <= 255
        && !file.starts_with('.')
        && file.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if good { Ok(()) } else { Err(Error::invalid(format!("`{file}` is not the name of a log file"))) }
}

fn open(host: &Host, dir: &str, file: &str) -> Result<File, Error> {
    checked(file)?;
    match host.dir().open_file(&format!("{dir}/{file}")) {
        Ok(open) => Ok(open),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::not_found("log file", file)),
        Err(error) => Err(Error::io(format!("open the log file `{file}`"))(error)),
    }
}

fn remove(host: &Host, dir: &str, file: &str) -> Result<(), Error> {
    open(host, dir, file)?;
    host.dir()
        .remove_file(&format!("{dir}/{file}"))
        .map_err(Error::io(format!("delete the log file `{file}`")))
}
