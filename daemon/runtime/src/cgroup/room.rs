//! How many processes there is room for: what one container may have that was given no limit of its own, and what
//! all of them may have together, so that the host can always start another process.

/// What a kernel has room for when it does not say.
const USUAL: u64 = 32_768;

/// The most that one container has without asking: what systemd gives to a machine.
const MACHINE: u64 = 16_384;

/// What one container may have without `limits.processes`: a quarter of what the kernel has room for, and no more than
/// [`MACHINE`]. Incus has no such bound; there, one container keeps every other from starting a command.
pub(super) fn of_one() -> u64 {
    (of_host() / 4).min(MACHINE)
}

/// What all containers of a daemon may have together.
pub(super) fn of_all() -> u64 {
    let room = of_host();
    room - room / 8
}

fn of_host() -> u64 {
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    ["pid_max", "threads-max"].into_iter().filter_map(read).min().unwrap_or(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leaves_room_for_others_and_all_leave_room_for_the_host() {
        assert!(of_one() > 0 && of_one() < of_all() && of_all() < of_host());
    }
}
