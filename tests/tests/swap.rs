//! `limits.memory.swap` by what it does inside, on swap space of the test's own. A file of its own, because
//! with swap on the host a limit of memory alone kills nobody.

use cabin_tests::cli::host;
use cabin_tests::lab::Lab;

/// Swap space for as long as this lives.
struct Swap {
    file: String,
}

impl Swap {
    fn on() -> Swap {
        let file = format!("/var/tmp/cabin-test-swap-{}", std::process::id());
        let script =
            "umask 077; dd if=/dev/zero of=$0 bs=1M count=256 status=none && mkswap -q $0 && swapon $0";
        let made = Swap { file };
        host(&["sh", "-c", script, &made.file]).ok();
        made
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        let _ = host(&["swapoff", &self.file]);
        let _ = std::fs::remove_file(&self.file);
    }
}

#[test]
fn swap_is_had_as_far_as_it_is_allowed() {
    let lab = Lab::own();
    let _swap = Swap::on();
    lab.launch("busybox", "swap", &["-c", "limits.memory=64MiB"]);
    let take = |size: &str| {
        lab.exec("swap", &["dd", "if=/dev/zero", "of=/dev/null", &format!("bs={size}"), "count=1"]).code
    };
    let set = |rule: &str| lab.cabin(&["config", "set", "swap", &format!("limits.memory.swap={rule}")]).ok();
    assert_eq!(take("120M"), 0, "without a rule there is as much as the host has");
    set("false");
    assert_eq!(take("120M"), 137, "none is allowed");
    // Twice the memory: on a slow disk that much may be on its way out before any of it is free.
    set("128MiB");
    assert_eq!(take("120M"), 0, "128 MiB are allowed beyond the memory");
    assert_eq!(take("240M"), 137, "more than 128 MiB are not");
    set("true");
    assert_eq!(take("120M"), 0, "the rule was lifted");
    assert_eq!(lab.status("swap"), "Running");
    lab.cabin(&["delete", "-f", "swap"]).ok();
}
