//! What a workload inside pays: files, network, new processes, beside the bare host.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cabin_tests::cli::host;
use cabin_tests::lab::Lab;
use serde_json::Value;

use crate::figures::Figures;
use crate::steps::Tool;

const IMAGE: &str = "busybox";
const NAME: &str = "inside";
const OTHER: &str = "inside2";
const VOLUME: &str = "insidevol";

/// Where the host's programs lie inside.
const PLACE: &str = "/opt/bench";

/// Seconds of each measurement.
const SECONDS: u32 = 3;

/// What fio does, and whether its figure is a bandwidth.
const FILES: &[(&str, &str, bool)] = &[
    ("sequential read", "--rw=read --bs=1M", true),
    ("sequential write", "--rw=write --bs=1M", true),
    ("random read, 4 KiB", "--rw=randread --bs=4k", false),
    ("random write, 4 KiB", "--rw=randwrite --bs=4k", false),
];

/// Processes started in a row.
const PROCESSES: u32 = 2000;

/// How long a server may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Measures all of it; needs fio and iperf3 on the host.
pub fn look(lab: &Lab, tools: &[Tool]) -> Figures {
    cabin_tests::cli::run(Command::new("sh").arg(cabin_tests::root().join(".ci/packages")).args([
        "fio",
        "iperf3",
        "busybox-static",
    ]))
    .ok();
    lab.image(IMAGE);
    let programs = Programs::gather();
    let mut figures = Figures::default();
    bare(&mut figures, lab, &programs);
    for tool in tools {
        let measured = guests(&mut figures, lab, tool, &programs);
        if let Err(why) = measured {
            eprintln!("{}: what is inside is left out: {why}", tool.name);
        }
        let _ = tool.run(&format!("delete -f {NAME} {OTHER}"));
        let _ = tool.run(&format!("storage volume delete {} {VOLUME}", pool(tool)));
    }
    let _ = std::fs::remove_dir_all(&programs.dir);
    figures
}

/// fio and iperf3 with the libraries they need, so that they run in any rootfs.
struct Programs {
    dir: PathBuf,
}

impl Programs {
    fn gather() -> Programs {
        let dir = std::env::temp_dir().join(format!("cabin-inside-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory for the programs");
        for program in ["/usr/bin/fio", "/usr/bin/iperf3"] {
            let needs = host(&["ldd", program]).ok();
            let libraries = needs.split_whitespace().filter(|word| word.starts_with('/'));
            for file in libraries.chain([program]) {
                let name = Path::new(file).file_name().expect("a file");
                std::fs::copy(file, dir.join(name)).expect("a program of the host");
            }
        }
        std::fs::copy("/bin/busybox", dir.join("true")).expect("busybox (package busybox-static)");
        Programs { dir }
    }

    /// The words that run a program, with the directory they lie in.
    fn line(dir: &str, program: &str) -> String {
        format!("{dir}/ld-linux-x86-64.so.2 --library-path {dir} {dir}/{program}")
    }
}

fn fio(dir: &str, file: &str, how: &str) -> String {
    format!(
        "{} --name=bench --filename={file} --size=256M {how} --direct=1 --ioengine=psync --time_based \
         --runtime={SECONDS} --output-format=json",
        Programs::line(dir, "fio")
    )
}

/// MiB, or thousands of operations, per second.
fn fio_figure(text: &str, bandwidth: bool) -> Result<f64, String> {
    let json = text.find('{').and_then(|at| serde_json::from_str::<Value>(text.get(at..)?).ok());
    let job = json.ok_or("fio wrote no JSON")?["jobs"][0].clone();
    let sum = |key: &str| ["read", "write"].iter().filter_map(|way| job[*way][key].as_f64()).sum::<f64>();
    Ok(if bandwidth { sum("bw_bytes") / f64::from(1 << 20) } else { sum("iops") / 1000.0 })
}

fn iperf_figure(text: &str) -> Result<f64, String> {
    let json: Value = serde_json::from_str(text).map_err(|why| why.to_string())?;
    json["end"]["sum_received"]["bits_per_second"]
        .as_f64()
        .map(|bits| bits / 1e9)
        .ok_or("no figure".to_owned())
}

fn client(dir: &str, address: &str) -> String {
    format!("{} -c {address} -t {SECONDS} -J", Programs::line(dir, "iperf3"))
}

fn server(dir: &str) -> String {
    format!("{} -s", Programs::line(dir, "iperf3"))
}

/// Starts processes in a row with busybox's shell.
fn processes(dir: &str) -> String {
    format!("i=0; while [ $i -lt {PROCESSES} ]; do {dir}/true; i=$((i+1)); done")
}

fn unit(bandwidth: bool) -> &'static str {
    if bandwidth { "MiB/s" } else { "1000 ops/s" }
}

/// Runs a command line of the host in a network namespace, if one is named.
fn on_host(netns: Option<&str>, line: &str) -> Command {
    let mut words: Vec<&str> = netns.map(|name| vec!["ip", "netns", "exec", name]).unwrap_or_default();
    words.extend(line.split_whitespace());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

fn output(mut command: Command) -> Result<String, String> {
    let done = command.stdin(Stdio::null()).output().map_err(|why| why.to_string())?;
    match done.status.success() {
        true => Ok(String::from_utf8_lossy(&done.stdout).into_owned()),
        false => {
            Err(String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr))
        }
    }
}

/// Asks a server that may not listen yet.
fn through(
    begin: impl FnOnce() -> std::io::Result<Child>,
    ask: impl Fn() -> Result<String, String>,
) -> Result<f64, String> {
    let mut server = begin().map_err(|why| why.to_string())?;
    let began = Instant::now();
    let answer = loop {
        match ask().and_then(|text| iperf_figure(&text)) {
            Err(_) if began.elapsed() < PATIENCE => {}
            other => break other,
        }
    };
    let _ = server.kill();
    let _ = server.wait();
    answer
}

fn quietly(mut command: Command) -> std::io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// The same on the host: its own filesystem, a plain bridge with plain veth pairs, its own processes.
fn bare(figures: &mut Figures, lab: &Lab, programs: &Programs) {
    let dir = programs.dir.display().to_string();
    let file = lab.dir.with_extension("fio").display().to_string();
    for (what, how, bandwidth) in FILES {
        let figure =
            output(on_host(None, &fio(&dir, &file, how))).and_then(|text| fio_figure(&text, *bandwidth));
        figures.note("host", &format!("rootfs: {what}"), unit(*bandwidth), figure.clone());
        figures.note("host", &format!("volume: {what}"), unit(*bandwidth), figure);
    }
    let _ = std::fs::remove_file(&file);
    let ends = Ends::make();
    let two = through(
        || quietly(on_host(Some(&ends.names[0]), &server(&dir))),
        || output(on_host(Some(&ends.names[1]), &client(&dir, "192.0.2.1"))),
    );
    figures.note("host", "network, from one to the other", "Gbit/s", two);
    let up = through(
        || quietly(on_host(Some(&ends.names[2]), &server(&dir))),
        || output(on_host(Some(&ends.names[1]), &client(&dir, "192.0.2.9"))),
    );
    figures.note("host", "network, to the host", "Gbit/s", up);
    drop(ends);
    let began = Instant::now();
    let done = host(&["/bin/busybox", "sh", "-c", &processes(&dir)]);
    let rate = f64::from(PROCESSES) / began.elapsed().as_secs_f64();
    figures.note(
        "host",
        "processes started",
        "per second",
        if done.code == 0 { Ok(rate) } else { Err(done.err) },
    );
}

/// Two network namespaces on a plain bridge in a third.
struct Ends {
    names: [String; 3],
}

impl Ends {
    fn make() -> Ends {
        let names = ["a", "b", "bridge"].map(|end| format!("cbi{}{end}", std::process::id()));
        for name in &names {
            host(&["ip", "netns", "add", name]).ok();
            host(&["ip", "-n", name, "link", "set", "lo", "up"]).ok();
        }
        let bridge = &names[2];
        host(&["ip", "-n", bridge, "link", "add", "name", "plain", "type", "bridge"]).ok();
        host(&["ip", "-n", bridge, "addr", "add", "192.0.2.9/28", "dev", "plain"]).ok();
        host(&["ip", "-n", bridge, "link", "set", "plain", "up"]).ok();
        for (end, address) in [(&names[0], "192.0.2.1/28"), (&names[1], "192.0.2.2/28")] {
            host(&[
                "ip", "-n", end, "link", "add", "eth0", "type", "veth", "peer", "name", end, "netns", bridge,
            ])
            .ok();
            host(&["ip", "-n", end, "addr", "add", address, "dev", "eth0"]).ok();
            host(&["ip", "-n", end, "link", "set", "eth0", "up"]).ok();
            host(&["ip", "-n", bridge, "link", "set", end, "master", "plain", "up"]).ok();
        }
        Ends { names }
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = host(&["ip", "netns", "del", name]);
        }
    }
}

fn pool(tool: &Tool) -> &'static str {
    if tool.name == "cabin" { "default" } else { "btr" }
}

fn guests(figures: &mut Figures, lab: &Lab, tool: &Tool, programs: &Programs) -> Result<(), String> {
    let packed = Command::new("tar").arg("c").arg("-C").arg(&programs.dir).arg(".").output();
    let packed = packed.map_err(|why| why.to_string())?.stdout;
    tool.run(&format!("storage volume create {} {VOLUME}", pool(tool)))?;
    for name in [NAME, OTHER] {
        tool.run(&format!("launch {IMAGE} {name}"))?;
        tool.run(&format!("exec {name} -- mkdir -p {PLACE}"))?;
        tool.feed(&format!("exec {name} -- tar x -C {PLACE}"), &packed)?;
    }
    tool.run(&format!("storage volume attach {} {VOLUME} {NAME} vol /mnt", pool(tool)))?;
    for (place, file) in [("rootfs", "/root/fio"), ("volume", "/mnt/fio")] {
        for (what, how, bandwidth) in FILES {
            let line = format!("exec {NAME} -- {}", fio(PLACE, file, how));
            let figure = tool.output(&line).and_then(|text| fio_figure(&text, *bandwidth));
            figures.note(&tool.name, &format!("{place}: {what}"), unit(*bandwidth), figure);
        }
    }
    let address = address(tool, OTHER)?;
    let two = through(
        || quietly(tool.command(&format!("exec {OTHER} -- {}", server(PLACE)))),
        || tool.output(&format!("exec {NAME} -- {}", client(PLACE, &address))),
    );
    figures.note(&tool.name, "network, from one to the other", "Gbit/s", two);
    if tool.name == "cabin" {
        let dir = programs.dir.display().to_string();
        // The host is closed to guests but for what they need.
        lab.cabin(&["network", "set", "cabinbr0", "ipv4.firewall=false"]).ok();
        let own = lab.cabin(&["network", "get", "cabinbr0", "ipv4.address"]).ok();
        let gateway = own.split('/').next().unwrap_or_default().to_owned();
        let up = through(
            || quietly(on_host(Some(&lab.netns), &server(&dir))),
            || tool.output(&format!("exec {NAME} -- {}", client(PLACE, &gateway))),
        );
        figures.note(&tool.name, "network, to the host", "Gbit/s", up);
    }
    let script = processes(PLACE);
    tool.feed(&format!("exec {NAME} -- tee {PLACE}/many"), script.as_bytes())?;
    let took = tool.run(&format!("exec {NAME} -- sh {PLACE}/many"))?;
    let rate = f64::from(PROCESSES) / took.as_secs_f64();
    figures.note(&tool.name, "processes started", "per second", Ok(rate));
    Ok(())
}

fn address(tool: &Tool, name: &str) -> Result<String, String> {
    let began = Instant::now();
    loop {
        let line = tool.output(&format!("list {name} -f csv -c 4"))?;
        if let Some(address) = line.split_whitespace().next().filter(|_| line.contains("eth0")) {
            return Ok(address.trim_matches('"').to_owned());
        }
        if began.elapsed() > PATIENCE {
            return Err(format!("`{name}` has no address"));
        }
    }
}
