//! A world for each test: own network, mount and pid namespaces, so that nothing reaches the host and the
//! end of the test ends every process of it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cabin_network::{
    BridgeSpec, Dhcp4, Dhcp6, Filter, Ipv4Side, Ipv6Side, Isolation, Nat, NatOrder, Network, NicSpec, Rates,
};
use cabin_sys::command::Programs;

const INSIDE: &str = "CABIN_TEST_WORLD";

#[allow(clippy::disallowed_methods)]
pub fn program(name: &str) -> Command {
    Command::new(name)
}

/// Runs `body` in a world of its own: the test program calls itself there, for this one test.
pub fn in_own_world(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        run("ip", &["link", "set", "lo", "up"]);
        return body();
    }
    let status = program("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare(1) of util-linux is needed, and root");
    assert!(status.success(), "{test} failed in its world");
}

/// Runs a program to its good end and gives what it printed.
pub fn run(name: &str, args: &[&str]) -> String {
    let done = program(name).args(args).output().unwrap_or_else(|why| panic!("{name}: {why}"));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{name} {args:?}: {text}{}", String::from_utf8_lossy(&done.stderr));
    text
}

/// Polls until `holds`, or fails saying what it waited for.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience(Duration::from_secs(10));
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// What usually takes at most so long, as many times longer as an emulated machine is slower (`CABIN_SLOWER`).
fn patience(usual: Duration) -> Duration {
    usual * std::env::var("CABIN_SLOWER").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A network namespace with a process in it.
pub struct Guest {
    holder: Child,
    netns: File,
}

impl Guest {
    pub fn new() -> Guest {
        let mut holder = program("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec sleep 600"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let netns = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap();
        Guest { holder, netns }
    }

    pub fn netns(&self) -> BorrowedFd<'_> {
        self.netns.as_fd()
    }

    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A routing socket that was opened inside: a thread that ends goes in to make it.
    pub fn routing_socket(&self) -> std::os::fd::OwnedFd {
        let go = || {
            rustix::thread::move_into_link_name_space(
                self.netns(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            rustix::net::socket(rustix::net::AddressFamily::NETLINK, rustix::net::SocketType::RAW, None)
                .unwrap()
        };
        std::thread::scope(|scope| scope.spawn(go).join().unwrap())
    }

    pub fn command(&self, name: &str) -> Command {
        let mut command = program("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg(name);
        command
    }

    /// Runs a program inside; its exit status and what it printed.
    pub fn try_run(&self, name: &str, args: &[&str]) -> (bool, String) {
        let done = self.command(name).args(args).output().unwrap();
        let text = [done.stdout, done.stderr].concat();
        (done.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    pub fn run(&self, name: &str, args: &[&str]) -> String {
        let (good, text) = self.try_run(name, args);
        assert!(good, "{name} {args:?}: {text}");
        text
    }

    /// Brings `eth0` up and gets it an address by DHCP.
    pub fn dhcp(&self, dir: &Path) -> String {
        let script = dir.join("udhcpc.sh");
        if !script.exists() {
            let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip addr add $ip/$mask dev $interface\n\
                        ip route add default via $router\necho address $ip domain $domain dns $dns name $hostname\n";
            std::fs::write(&script, text).unwrap();
            run("chmod", &["755", script.to_str().unwrap()]);
        }
        self.run("ip", &["link", "set", "eth0", "up"]);
        let args =
            ["udhcpc", "-i", "eth0", "-n", "-q", "-t", "20", "-T", "1", "-s", script.to_str().unwrap()];
        let text = self.run("busybox", &args);
        let address =
            text.lines().find_map(|line| line.split_once("address ")).unwrap_or_else(|| panic!("{text}"));
        address.1.split(' ').next().unwrap().to_owned()
    }

    /// Sends frames by `eth0`, as they are.
    pub fn send(&self, frames: &[Vec<u8>]) {
        const SCRIPT: &str = "import socket,sys
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW)
s.bind(('eth0',0))
for line in sys.stdin:
    s.send(bytes.fromhex(line))";
        let mut child = self
            .command("python3")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .spawn()
            .expect("python3 is needed");
        let mut input = child.stdin.take().unwrap();
        for frame in frames {
            let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(input, "{digits}").unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }

    /// Listens by `eth0` until a frame ends with `last`; gives the four last bytes of each that begins there
    /// with `CB`.
    pub fn sniff(&self, last: [u8; 4]) -> Sniffer {
        const SCRIPT: &str = "import socket,sys
s=socket.socket(socket.AF_PACKET,socket.SOCK_RAW,socket.htons(3))
s.bind(('eth0',3))
s.setsockopt(socket.SOL_SOCKET,33,1<<23) # SO_RCVBUFFORCE
s.settimeout(30)
print('ready',flush=True)
while True:
    f=s.recv(65535)
    if f[-4:-2]==b'CB': print(f[-4:].hex(),flush=True)
    if f[-4:].hex()==sys.argv[1]: break";
        let last: String = last.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut child =
            self.command("python3").args(["-c", SCRIPT, &last]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Sniffer { child, lines }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

pub struct Sniffer {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Sniffer {
    pub fn marks(mut self) -> Vec<u16> {
        let lines: Vec<String> = self.lines.by_ref().lines().map(Result::unwrap).collect();
        assert!(
            self.child.wait().unwrap().success(),
            "the last frame never came; {} others did",
            lines.len()
        );
        lines.iter().map(|line| u16::from_str_radix(&line[4..], 16).unwrap()).collect()
    }
}

/// A directory and a network in it.
pub struct Host {
    pub network: Network,
    pub dir: PathBuf,
    _keep: tempfile::TempDir,
}

impl Host {
    pub fn new() -> Host {
        let keep = tempfile::Builder::new().prefix("cabin-network-").tempdir().unwrap();
        // The name server's own user must get through.
        run("chmod", &["711", keep.path().to_str().unwrap()]);
        let dir = keep.path().to_owned();
        Host { network: open(&dir), dir, _keep: keep }
    }
}

pub fn open(dir: &Path) -> Network {
    Network::new(&dir.join("networks"), "cabin_test", Programs::find()).unwrap()
}

pub fn bridge(name: &str, ipv4: &str, ipv6: &str) -> BridgeSpec {
    let mut spec = BridgeSpec::bare(name.parse().unwrap());
    let order = NatOrder::Before;
    spec.ipv4 = Some(Ipv4Side {
        address: ipv4.parse().unwrap(),
        nat: Some(Nat { address: None, order }),
        dhcp: Some(Dhcp4::default()),
        firewall: true,
        routing: true,
    });
    spec.ipv6 = Some(Ipv6Side {
        address: ipv6.parse().unwrap(),
        nat: Some(Nat { address: None, order }),
        dhcp: Dhcp6::Stateless,
        firewall: true,
        routing: true,
    });
    spec.dns.domain = Some("cabin".parse().unwrap());
    spec
}

pub fn nic(instance: &str, number: u8) -> NicSpec {
    NicSpec {
        instance: instance.parse().unwrap(),
        host_name: format!("vethtest{number}").parse().unwrap(),
        guest_name: "eth0".parse().unwrap(),
        mac: format!("00:16:3e:00:00:{number:02x}").parse().unwrap(),
        mtu: None,
        queue: None,
        ipv4: None,
        ipv6: None,
        filter: Filter::ALL,
        isolation: Isolation::Shared,
        routes: Vec::new(),
        rates: Rates::default(),
        priority: None,
    }
}

/// Does something that takes an undo stack, and keeps it.
pub fn keep<T>(work: impl FnOnce(&mut cabin_undo::Undo) -> cabin_network::Result<T>) -> T {
    cabin_undo::atomically(work).unwrap_or_else(|failed| panic!("{:?}", failed.cause))
}

/// What the kernel has of networks, for before and after.
pub fn kernel_state() -> String {
    run("ip", &["-br", "link"])
        + &run("ip", &["addr"])
        + &run("nft", &["list", "ruleset"])
        + &run("ip", &["route"])
}
