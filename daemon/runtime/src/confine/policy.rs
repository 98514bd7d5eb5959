//! The system calls a container is refused, as a table.
//!
//! It is a list of denials, not of permissions: a container runs whole distributions. What is listed either
//! acts on the host as a whole, or has been a way out of containers.

/// The binary interfaces an x86-64 kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// 64-bit.
    X86_64,
    /// 32-bit, `int 0x80` and its kin.
    I386,
}

/// When a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// When argument `arg` has any of these bits.
    AnyBit {
        /// The argument, from 0.
        arg: u8,
        /// The bits.
        bits: u32,
    },
    /// When argument `arg` has none of these bits.
    NoBit {
        /// The argument, from 0.
        arg: u8,
        /// The bits.
        bits: u32,
    },
    /// When argument `arg` is any of these.
    AnyOf {
        /// The argument, from 0.
        arg: u8,
        /// The values.
        values: &'static [u32],
    },
    /// When it asks for a socket of a family not in [`FAMILIES`], or for the kernel's audit.
    Socket,
}

/// One refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Under which interface.
    pub abi: Abi,
    /// The call's number there.
    pub number: u32,
    /// When it is refused.
    pub when: When,
    /// What the caller is told.
    pub errno: u32,
}

/// `EPERM`.
pub const EPERM: u32 = 1;
/// `EACCES`.
pub const EACCES: u32 = 13;
/// `ENOTTY`.
pub const ENOTTY: u32 = 25;
/// `ENOSYS`.
pub const ENOSYS: u32 = 38;
/// `EAFNOSUPPORT`.
pub const EAFNOSUPPORT: u32 = 97;

/// Socket families a container may use: unix, IPv4, IPv6, netlink, packet. The rest are rarely used code in
/// the kernel that runs with no regard to namespaces, or reaches the host (vsock).
pub const FAMILIES: &[u32] = &[1, 2, 10, 16, 17];
/// `AF_NETLINK`.
pub const NETLINK: u32 = 16;
/// `NETLINK_AUDIT`. Refused like an unknown family, login programs go on without it.
pub const AUDIT: u32 = 9;

/// `MNT_FORCE` of umount2(2).
const MNT_FORCE: u32 = 1;
/// `UFFD_USER_MODE_ONLY` of userfaultfd(2).
const USER_MODE_ONLY: u32 = 1;

/// The ioctls that make subvolumes and snapshots on btrfs: SUBVOL_CREATE, SNAP_CREATE, and the second form of each.
/// They would hold what no limit counts. Programs such as systemd make a directory instead, as on any other filesystem.
const SUBVOLUMES: &[u32] = &[0x5000_940e, 0x5000_9401, 0x5000_9418, 0x5000_9417];

/// Calls always refused: name, number for x86-64, for i386, errno.
const REFUSED: &[(&str, Option<u32>, Option<u32>, u32)] = &[
    // The kernel's own code.
    ("create_module", Some(174), Some(127), ENOSYS),
    ("init_module", Some(175), Some(128), ENOSYS),
    ("delete_module", Some(176), Some(129), ENOSYS),
    ("get_kernel_syms", Some(177), Some(130), ENOSYS),
    ("query_module", Some(178), Some(167), ENOSYS),
    ("finit_module", Some(313), Some(350), ENOSYS),
    ("kexec_load", Some(246), Some(283), ENOSYS),
    ("kexec_file_load", Some(320), None, ENOSYS),
    // Opens by inode number, past every directory in between.
    ("open_by_handle_at", Some(304), Some(342), ENOSYS),
    // Looking into the kernel.
    ("perf_event_open", Some(298), Some(336), EPERM),
    ("lookup_dcookie", Some(212), Some(253), EPERM),
    ("bpf", Some(321), Some(357), EPERM),
    // Does what other calls do without making them, so that no rule below is asked: with it a socket of any family can
    // be had (IORING_OP_SOCKET, Linux 5.19).
    ("io_uring_setup", Some(425), Some(425), EPERM),
    ("io_uring_enter", Some(426), Some(426), EPERM),
    ("io_uring_register", Some(427), Some(427), EPERM),
    // The host's swap, quotas and accounting.
    ("swapon", Some(167), Some(87), ENOSYS),
    ("swapoff", Some(168), Some(115), ENOSYS),
    ("quotactl", Some(179), Some(131), ENOSYS),
    ("quotactl_fd", Some(443), Some(443), ENOSYS),
    ("acct", Some(163), Some(51), ENOSYS),
    // Obsolete.
    ("nfsservctl", Some(180), Some(169), ENOSYS),
    ("uselib", Some(134), Some(86), ENOSYS),
    ("ustat", Some(136), Some(62), ENOSYS),
    ("sysfs", Some(139), Some(135), ENOSYS),
    ("_sysctl", Some(156), Some(149), ENOSYS),
    ("vm86old", None, Some(113), ENOSYS),
    ("vm86", None, Some(166), ENOSYS),
    // The machine's ports.
    ("iopl", Some(172), Some(110), ENOSYS),
    ("ioperm", Some(173), Some(101), ENOSYS),
    // One call for all socket calls, its arguments behind a pointer: it would pass by every rule below.
    // The C library then makes the direct calls.
    ("socketcall", None, Some(102), ENOSYS),
];

/// Calls refused by their arguments: name, number for x86-64, for i386, when, errno.
const CONDITIONAL: &[(&str, u32, u32, When, u32)] = &[
    ("umount2", 166, 52, When::AnyBit { arg: 1, bits: MNT_FORCE }, EACCES),
    ("userfaultfd", 323, 374, When::NoBit { arg: 0, bits: USER_MODE_ONLY }, EPERM),
    ("ioctl", 16, 54, When::AnyOf { arg: 1, values: SUBVOLUMES }, ENOTTY),
    ("socket", 41, 359, When::Socket, EAFNOSUPPORT),
    ("socketpair", 53, 360, When::Socket, EAFNOSUPPORT),
];

/// Every refusal.
#[must_use]
pub fn rules() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (_, wide, narrow, errno) in REFUSED {
        for (abi, number) in [(Abi::X86_64, wide), (Abi::I386, narrow)] {
            if let Some(number) = *number {
                rules.push(Rule { abi, number, when: When::Always, errno: *errno });
            }
        }
    }
    for (_, wide, narrow, when, errno) in CONDITIONAL {
        for (abi, number) in [(Abi::X86_64, *wide), (Abi::I386, *narrow)] {
            rules.push(Rule { abi, number, when: *when, errno: *errno });
        }
    }
    rules
}
