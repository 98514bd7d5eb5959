//! Which init a container runs, and the signals it wants.

/// An init, as far as its signals go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InitKind {
    /// systemd.
    Systemd,
    /// The init of busybox (Alpine's too: there OpenRC only runs the services).
    Busybox,
    /// `openrc-init`.
    OpenRc,
    /// sysvinit, or something that behaves like it.
    SysV,
    /// Something else, a shell maybe.
    Unknown,
}

impl InitKind {
    /// The kind of the program at `path`. The path comes from the guest: it decides on nothing but which
    /// of these signals is sent.
    #[must_use]
    pub fn of_program(path: &str) -> InitKind {
        let path = path.trim_end_matches(" (deleted)");
        match path.rsplit('/').next().unwrap_or(path) {
            "systemd" => InitKind::Systemd,
            "busybox" | "busybox.static" => InitKind::Busybox,
            "openrc-init" => InitKind::OpenRc,
            "init" => InitKind::SysV,
            _ => InitKind::Unknown,
        }
    }

    /// The signal that asks for a clean power-off.
    #[must_use]
    pub fn poweroff_signal(self) -> i32 {
        match self {
            // SIGRTMIN+4 of the C library, where the first two real-time signals are its own.
            InitKind::Systemd => 38,
            // SIGUSR2.
            InitKind::Busybox => 12,
            // SIGTERM.
            InitKind::OpenRc => 15,
            // SIGPWR: what container images hang their shutdown on.
            InitKind::SysV | InitKind::Unknown => 30,
        }
    }

    /// The signal that asks for a clean reboot.
    #[must_use]
    pub fn reboot_signal(self) -> i32 {
        match self {
            // SIGRTMIN+5.
            InitKind::Systemd => 39,
            // SIGTERM.
            InitKind::Busybox => 15,
            // SIGINT, as for Ctrl-Alt-Del.
            InitKind::OpenRc | InitKind::SysV | InitKind::Unknown => 2,
        }
    }
}

/// Whether an init with that command line says that it is still booting, as sysvinit does (`init boot`; `init [2]` then):
/// what its inittab has for signals it does later, and only for those that come later.
pub(crate) fn is_booting(title: &[u8]) -> bool {
    title.starts_with(b"init boot")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_init_is_known_by_its_program() {
        let check = |path, kind| assert_eq!(InitKind::of_program(path), kind, "{path}");
        check("/usr/lib/systemd/systemd", InitKind::Systemd);
        check("/lib/systemd/systemd (deleted)", InitKind::Systemd);
        check("/bin/busybox", InitKind::Busybox);
        check("/usr/sbin/openrc-init", InitKind::OpenRc);
        check("/sbin/init", InitKind::SysV);
        check("/bin/dash", InitKind::Unknown);
    }
}
