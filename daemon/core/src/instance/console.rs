//! The console: what it said, and taking part in it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde_json::Value;

use super::{address, load, running};
use crate::live::Live;
use crate::{Error, Host};

/// A console somebody is attached to.
pub struct Console {
    live: Arc<Live>,
    stream: OwnedFd,
}

impl Console {
    /// The bytes both ways; the attachment ends when it is closed.
    ///
    /// # Errors
    /// When the descriptor cannot be duplicated.
    pub fn stream(&self) -> Result<OwnedFd, Error> {
        self.stream.try_clone().map_err(Error::io("duplicate the console's descriptor"))
    }

    /// Tells the terminal its size in characters.
    ///
    /// # Errors
    /// When the container is gone.
    pub fn resize(&self, width: u16, height: u16) -> Result<(), Error> {
        Ok(self.live.supervisor.resize_console(width, height)?)
    }
}

/// The last 128 KiB that the console said; of a stopped instance, what its last run said.
///
/// # Errors
/// When there is no such instance.
pub fn console_log(host: &Host, project: &str, name: &str) -> Result<Vec<u8>, Error> {
    load(host, project, name)?;
    let said = match host.live().get(name) {
        Some(live) if live.exit().is_none() => live.supervisor.console_log()?,
        _ => match host.dir().read(&format!("logs/{name}/console.log"), 1 << 20) {
            Ok(kept) => kept,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(Error::io(format!("read the console log of `{name}`"))(error)),
        },
    };
    host.events().lifecycle(project, "instance-console-retrieved", &address(name), name, Value::Null, None);
    Ok(said)
}

/// Forgets what the console said.
///
/// # Errors
/// When there is no such instance, or the container is gone.
pub fn clear_console_log(host: &Host, project: &str, name: &str) -> Result<(), Error> {
    load(host, project, name)?;
    if let Some(live) = host.live().get(name).filter(|live| live.exit().is_none()) {
        live.supervisor.clear_console_log()?;
    }
    host.dir()
        .remove_file(&format!("logs/{name}/console.log"))
        .map_err(Error::io(format!("clear the console log of `{name}`")))?;
    host.events().lifecycle(project, "instance-console-reset", &address(name), name, Value::Null, None);
    Ok(())
}

/// Takes part in the console of a running instance.
///
/// # Errors
/// When it is not running.
pub fn attach_console(host: &Host, project: &str, name: &str) -> Result<Console, Error> {
    let live = running(host, project, name)?;
    let stream = live.supervisor.attach_console()?;
    host.events().lifecycle(project, "instance-console", &address(name), name, Value::Null, None);
    Ok(Console { live, stream })
}
