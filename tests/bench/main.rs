//! `make bench`: times the same life of a container under Cabin and, when they are given, under Incus and LXD,
//! turn by turn in one run. What is typed is timed whole, the client's own start included.
//!
//! Writes `bench/results.json`, `bench/results.svg` and the table in README. How to give peers: docs/bench.md.

mod boot;
mod changed;
mod figures;
mod flat;
mod inside;
mod memory;
mod report;
mod scale;
mod steps;
mod throughput;

use std::path::PathBuf;
use std::process::Command;

use cabin_tests::cli::host;
use cabin_tests::lab::Lab;

use crate::steps::{Table, Tool};

/// What the words on the command line ask for.
struct Wish {
    rounds: usize,
    image: String,
    readme: bool,
    much: usize,
    flat: bool,
    boot: usize,
    scale: usize,
    peers: usize,
    throughput: bool,
    inside: bool,
    sockets: Vec<(String, String)>,
    tools: Vec<Tool>,
}

fn wish() -> Wish {
    let mut wish = Wish {
        rounds: 7,
        image: "debian/12".to_owned(),
        readme: true,
        much: 0,
        flat: false,
        boot: 0,
        scale: 0,
        peers: 0,
        throughput: false,
        inside: false,
        sockets: Vec::new(),
        tools: Vec::new(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--rounds" => wish.rounds = words.next().and_then(|it| it.parse().ok()).expect("--rounds NUMBER"),
            "--image" => wish.image = words.next().expect("--image NAME"),
            "--no-readme" => wish.readme = false,
            "--much" => wish.much = words.next().and_then(|it| it.parse().ok()).expect("--much ROUNDS"),
            "--flat" => wish.flat = true,
            "--boot" => wish.boot = words.next().and_then(|it| it.parse().ok()).expect("--boot ROUNDS"),
            "--scale" => {
                wish.scale = words.next().and_then(|it| it.parse().ok()).expect("--scale CONTAINERS")
            }
            "--scale-peers" => {
                wish.peers = words.next().and_then(|it| it.parse().ok()).expect("--scale-peers CONTAINERS")
            }
            "--throughput" => wish.throughput = true,
            "--inside" => wish.inside = true,
            "--socket" => {
                let word = words.next().unwrap_or_default();
                let (name, path) = word.split_once('=').expect("--socket NAME=PATH");
                wish.sockets.push((name.to_owned(), path.to_owned()));
            }
            _ => {
                let (name, prefix) = word.split_once('=').unwrap_or_else(|| {
                    eprintln!("usage: cabin-bench [--rounds N] [--much ROUNDS] [--flat] [--boot ROUNDS] [--scale N] [--scale-peers N] [--throughput] [--inside] [--socket NAME=PATH] [--image NAME] [--no-readme] [NAME=COMMAND]…");
                    std::process::exit(2)
                });
                wish.tools.push(Tool::new(name, prefix));
            }
        }
    }
    wish
}

/// The program that starts other managers, when CABIN_PEERS names one.
struct Peers(Option<PathBuf>);

impl Peers {
    fn ask(&self, words: &[&str]) -> String {
        self.0.as_ref().map(|it| cabin_tests::cli::run(Command::new(it).args(words)).ok()).unwrap_or_default()
    }
}

fn main() {
    let mut wish = wish();
    let peers = Peers(std::env::var_os("CABIN_PEERS").map(PathBuf::from));
    let lab = Lab::own();
    lab.image(&wish.image);
    let cabin = Tool::of(lab.command(&cabin_tests::binary("cabin"), &[] as &[&str]));
    let mut tools = vec![cabin];
    tools.append(&mut wish.tools);
    // What many containers, streams and the like are made of is small.
    let small = (wish.throughput || wish.inside || wish.peers > 0).then_some("busybox");
    for line in peers.ask(&["up"]).lines() {
        if let Some((name, prefix)) = line.split_once('=') {
            let takes_part = !name.ends_with(changed::ONLY) || wish.rounds == 0 && wish.much > 0;
            if !takes_part {
                continue;
            }
            for image in [Some(wish.image.as_str()), small].into_iter().flatten() {
                let files = cabin_tests::images::files(image);
                let mut words = vec!["import".to_owned(), name.to_owned(), image.to_owned()];
                words.extend(files.iter().map(|path| path.display().to_string()));
                peers.ask(&words.iter().map(String::as_str).collect::<Vec<_>>());
            }
            tools.push(Tool::new(name, prefix));
        }
    }

    let mut table = Table::new(&tools);
    for round in (0..=wish.rounds).filter(|_| wish.rounds > 0) {
        eprintln!(
            "round {round} of {}{}",
            wish.rounds,
            if round == 0 { " (warm-up, not counted)" } else { "" }
        );
        for tool in &mut tools {
            table.live(tool, &wish.image, round);
        }
    }
    for round in 0..=wish.much {
        if wish.much > 0 {
            eprintln!("much changed, round {round} of {}", wish.much);
            tools.iter_mut().for_each(|tool| changed::live(&mut table, tool, &wish.image, round));
        }
    }
    tools.retain(|tool| !tool.name.ends_with(changed::ONLY));
    let flat = if wish.flat { flat::look(&lab, &tools[0]) } else { Vec::new() };
    let boots = if wish.boot > 0 { boot::look(&tools, &wish.image, wish.boot) } else { Vec::new() };
    let scale = match wish.scale {
        0 => Vec::new(),
        most => scale::look(&lab, &tools, most, wish.peers),
    };
    let throughput = if wish.throughput {
        throughput::look(&lab, &tools, &wish.sockets)
    } else {
        figures::Figures::default()
    };
    let inside = if wish.inside { inside::look(&lab, &tools) } else { figures::Figures::default() };
    let memory = if wish.rounds > 0 { memory::look(&lab, &mut tools, &wish.image) } else { Vec::new() };
    peers.ask(&["down"]);

    let host = machine();
    let mut page = String::new();
    if wish.rounds > 0 {
        page = report::markdown(&table, &memory, &host, wish.rounds);
        report::write(&table, &memory, &host, wish.readme.then_some(page.as_str()));
    }
    // Beside the usual life they are part of its table.
    let much = wish.much > 0 && wish.rounds == 0;
    // The parts that were asked for.
    for (name, text, json) in [
        ("much", report::steps(&table), much.then(|| report::steps_json(&table))),
        ("flat", flat::markdown(&flat), (!flat.is_empty()).then(|| flat::json(&flat))),
        ("boot", boot::markdown(&boots), (!boots.is_empty()).then(|| boot::json(&boots))),
        ("scale", scale::markdown(&scale), (!scale.is_empty()).then(|| scale::json(&scale))),
        ("throughput", throughput.markdown("what goes through"), throughput.json()),
        ("inside", inside.markdown("inside"), inside.json()),
    ] {
        let Some(json) = json else { continue };
        page.push_str(&text);
        report::section(name, &host, &text, json, wish.readme);
    }
    println!("{page}");
}

/// One line about the machine.
fn machine() -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = host(&["uname", "-r"]).ok();
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: u64 = memory.split_whitespace().nth(1).and_then(|it| it.parse().ok()).unwrap_or_default();
    let date = host(&["date", "-u", "+%Y-%m-%d"]).ok();
    format!("{processors} processors, {} GiB, Linux {kernel}, {date}", kib / (1 << 20))
}
