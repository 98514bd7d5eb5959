//! Clients that are many, slow, endless, broken or deaf: the daemon's memory stays bounded, what they leave behind
//! is nothing, and others are served meanwhile. CABIN_TORTURE makes them more.

use std::time::{Duration, Instant};

use cabin_tests::hostile::{BINARY, CLOSE, CONTINUATION, Exec, LAST, Line, PING, SFTP, TEXT};
use cabin_tests::machine;
use cabin_tests::race::urls;
use cabin_tests::stage::{Stage, torture};
use cabin_tests::subject::Subject;
use cabin_tests::wait::{until_true, while_others_go_on};
use serde_json::{Value, json};

/// How far a slow client comes before it says no more.
const STAGES: &[(&str, &str)] = &[
    ("no byte", ""),
    ("half a line", "GET /1.0/inst"),
    ("half the headers", "GET /1.0 HTTP/1.1\r\nHost: a\r\nX-Half: "),
    ("half a body", "POST /1.0/instances HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"name\":"),
    (
        "half a chunk",
        "POST /1.0/profiles HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n20\r\n{\"name\":",
    ),
    ("half a chunk's size", "POST /1.0/profiles HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2"),
    (
        "one chunk of two",
        "PUT /1.0/instances/box HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
    ),
    (
        "half the trailers",
        "PATCH /1.0/instances/box HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Half: ",
    ),
    (
        "half a command",
        "POST /1.0/instances/box/exec HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{\"command\":",
    ),
    ("half a handshake", "GET /1.0/events HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: webso"),
    (
        "half an upgrade to SFTP",
        "GET /1.0/instances/box/sftp HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: sf",
    ),
];

/// How far frames come: half the head, half the length, half the mask, half of what they hold.
const HALF_FRAMES: &[&[u8]] = &[
    &[LAST | TEXT],
    &[LAST | TEXT, 0x80 | 126, 1],
    &[LAST | BINARY, 0x80 | 127, 0, 0, 0, 0],
    &[LAST | TEXT, 0x80 | 100, 0, 0],
    &[LAST | TEXT, 0x80 | 100, 0, 0, 0, 0, b'h', b'a'],
    // The first part of a message alone.
    &[TEXT, 0x80 | 2, 0, 0, 0, 0, b'h', b'a'],
];

/// How far a client of SFTP comes: nowhere, half the length of its greeting, half its greeting.
const HALF_GREETINGS: &[&[u8]] = &[&[], &[0, 0], &[0, 0, 0, 5, 1, 0]];

/// Uploads may pause for longer: in the long form alone.
const UPLOADS: &[(&str, &str)] = &[
    (
        "half an image",
        "POST /1.0/images HTTP/1.1\r\nHost: a\r\nContent-Type: application/octet-stream\r\n\
         Content-Length: 100\r\n\r\nhalf",
    ),
    (
        "half a file",
        "POST /1.0/instances/box/files?path=/root/half HTTP/1.1\r\nHost: a\r\nX-Incus-type: file\r\n\
         Content-Length: 100\r\n\r\nhalf",
    ),
];

/// Connections that are what they asked for, and stop in the middle of what they say: each holds itself up and nothing else.
fn half_said(subject: &Subject, each: usize) -> (Vec<Line>, Vec<Exec>) {
    let mut lines = Vec::new();
    let mut commands = Vec::new();
    let mut hold = |mut line: Line, bytes: &[u8]| {
        line.send(bytes);
        lines.push(line);
    };
    for half in HALF_FRAMES {
        for _ in 0..each / 2 {
            hold(Line::websocket(subject, "/1.0/events"), half);
        }
        for half_of in ["0", "control"] {
            let exec = Exec::start(subject, "box", &["sleep", "1000"]);
            for name in ["0", "1", "2", "control"] {
                hold(exec.connect(subject, name), if name == half_of { half } else { &[] });
            }
            commands.push(exec);
        }
    }
    for half in HALF_GREETINGS {
        for _ in 0..each / 2 {
            hold(Line::upgraded(subject, "/1.0/instances/box/sftp", SFTP), half);
        }
    }
    (lines, commands)
}

/// Servers of files whose clients have gone.
fn file_servers(subject: &Subject) -> Vec<String> {
    let is_one = |line: &String| line.contains("cabin-files");
    subject.processes().into_iter().map(|(_, line)| line).filter(is_one).collect()
}

#[test]
fn who_comes_half_way_is_not_waited_for() {
    let mut stage = Stage::set();
    let each = 20 * torture();
    let began = Instant::now();
    let mut slow: Vec<(&str, Line)> = Vec::new();
    let uploads = if torture() > 1 { UPLOADS } else { &[] };
    for (name, bytes) in STAGES.iter().chain(uploads) {
        for _ in 0..each {
            let mut line = Line::open(&stage.subject);
            line.send(bytes.as_bytes());
            slow.push((name, line));
        }
    }
    // Those that say one byte now and then are bounded as well.
    let mut dribbling: Vec<Line> = (0..each).map(|_| Line::open(&stage.subject)).collect();
    // One of three websockets never comes: for the first, and for the last.
    let halves: Vec<(Exec, Vec<Line>)> = [&["0", "1"][..], &["1", "2"], &["control"], &[]]
        .into_iter()
        .map(|names| {
            let exec = Exec::start(&stage.subject, "box", &["sleep", "1000"]);
            let lines = names.iter().map(|name| exec.connect(&stage.subject, name)).collect();
            (exec, lines)
        })
        .collect();
    let held = half_said(&stage.subject, each);
    stage.others(|_| {
        for _ in 0..80 {
            for line in &mut dribbling {
                line.send(b"G");
            }
            while_others_go_on(Duration::from_millis(50));
        }
    });
    for (exec, lines) in halves {
        let ended = exec.ended(&stage.subject, 20);
        let why = ended["err"].as_str().unwrap_or_default();
        if ended["status"] != "Failure" || !why.contains("websockets") {
            stage.fault(format!("an exec with {} of its websockets ended so: {ended}", lines.len()));
        }
    }
    let waited = 20_u64.saturating_sub(began.elapsed().as_secs());
    for (name, line) in &mut slow {
        let more = if UPLOADS.iter().any(|(upload, _)| upload == name) { 60 } else { 0 };
        if !line.is_hung_up(waited.max(1) + more) {
            stage.wrong.push(format!("{name}: still held after {} s", began.elapsed().as_secs()));
        }
    }
    for line in &mut dribbling {
        if !line.is_hung_up(waited.max(1)) {
            stage.wrong.push("one that says a byte now and then is still held".to_owned());
        }
    }
    let (framed, commands) = held;
    let count = framed.len();
    drop((slow, framed, dribbling));
    for command in commands {
        let ended = command.ended(&stage.subject, 20);
        if !matches!(ended["status"].as_str(), Some("Success" | "Failure")) {
            stage.fault(format!("a command whose client went in the middle of a frame goes on: {ended}"));
        }
    }
    let hung = stage.subject.exec("box", "pidof sleep || true").expect("a command");
    if !hung.is_empty() {
        stage.fault(format!("a command of a half connected exec runs: {hung}"));
    }
    until_true("servers of files without clients to end", 20, || file_servers(&stage.subject).is_empty());
    stage.close(each * (STAGES.len() + uploads.len() + 1) + count, "half way at every stage");
}

#[test]
fn a_body_without_end_is_ended() {
    let mut stage = Stage::set();
    let chunk = |size: usize| [format!("{size:x}\r\n").as_bytes(), &vec![b'a'; size], b"\r\n"].concat();
    let block = chunk(256 * 1024);
    for (method, target) in [
        ("POST", "/1.0/instances"),
        ("PUT", "/1.0/instances/box"),
        ("POST", "/1.0/profiles"),
        ("PUT", "/1.0"),
    ] {
        let (sent, status) = stage.others(|subject| {
            let mut line = Line::open(subject);
            line.head(method, target, "Transfer-Encoding: chunked\r\n");
            line.send(b"1\r\n\"\r\n");
            (line.flood(&block, 1 << 30), line.status(10))
        });
        if sent > 16 << 20 || !matches!(status, None | Some(400 | 413)) {
            stage.fault(format!("{method} {target}: {sent} bytes were taken, and {status:?} said"));
        }
    }
    for length in ["9223372036854775807", "1099511627776"] {
        let mut line = Line::open(&stage.subject);
        line.head("POST", "/1.0/instances", &format!("Content-Length: {length}\r\n"));
        let status = line.status(10);
        if status != Some(413) {
            stage.fault(format!("a body of {length} bytes: {status:?}"));
        }
    }
    // An upload is as large as it is; it costs no memory, and goes with its client.
    let much = (200 << 20) * torture() as u64;
    let image = stage.others(|subject| {
        let mut line = Line::open(subject);
        line.head(
            "POST",
            "/1.0/images",
            "Content-Type: application/octet-stream\r\nTransfer-Encoding: chunked\r\n",
        );
        line.flood(&block, much)
    });
    let pushed = stage.others(|subject| {
        let mut line = Line::open(subject);
        let target = "/1.0/instances/box/files?path=/root/endless";
        line.head("POST", target, "X-Incus-type: file\r\nTransfer-Encoding: chunked\r\n");
        line.flood(&block, much)
    });
    if image < much || pushed < much {
        stage.fault(format!("of {much} bytes {image} and {pushed} were taken"));
    }
    let images = stage.subject.dir.join("images");
    until_true("the upload that broke off to be gone", 10, || {
        std::fs::read_dir(&images).into_iter().flatten().flatten().count() == 1
    });
    stage.subject.exec("box", "rm /root/endless").expect("a command");
    // What is recorded of a command lies on the host's disk, and the command is the container's.
    let record = |subject: &Subject, script: &str| {
        let body =
            json!({ "command": ["sh", "-c", script], "record-output": true, "wait-for-websocket": false });
        subject.ask("POST", "/1.0/instances/box/exec", &body)
    };
    let endless = stage.others(|subject| record(subject, "yes $(seq 1 200)"));
    if !endless.as_ref().is_err_and(|why| why.contains("recorded")) {
        stage.fault(format!("a command that writes for ever: {endless:?}"));
    }
    let left_behind = record(&stage.subject, "yes & sleep 0.1; echo done >&2").expect("a command");
    let files = urls(&stage.subject, "/1.0/instances/box/logs/exec-output");
    if left_behind["metadata"]["return"] != 0 || files.len() != 2 {
        stage.fault(format!("a command that leaves a writer behind: {left_behind}, of {files:?}"));
    }
    until_true("the writer that was left behind to be gone", 10, || {
        stage.subject.exec("box", "! pidof yes").is_ok()
    });
    stage.close(10, "bodies and outputs without end");
}

/// A frame that no client may send: its first byte, payload, and whether it is masked.
type Broken = (&'static str, u8, Vec<u8>, bool);

fn broken() -> Vec<Broken> {
    vec![
        ("reserved bits", LAST | 0x40 | BINARY, b"x".to_vec(), true),
        ("a kind that is none", LAST | 3, b"x".to_vec(), true),
        ("a control kind that is none", LAST | 0xb, b"x".to_vec(), true),
        ("a control frame in parts", PING, b"x".to_vec(), true),
        ("a long control frame", LAST | PING, vec![b'x'; 300], true),
        ("no mask", LAST | BINARY, b"x".to_vec(), false),
        ("the middle of nothing", LAST | CONTINUATION, b"x".to_vec(), true),
        ("a close of one byte", LAST | CLOSE, b"x".to_vec(), true),
        ("a close with a code that is none", LAST | CLOSE, vec![0, 1], true),
        ("text that is none", LAST | TEXT, vec![0xff, 0xfe], true),
        ("more than may be", LAST | BINARY, vec![b'x'; 5 << 20], true),
    ]
}

#[test]
fn a_broken_frame_ends_its_connection_alone() {
    let mut stage = Stage::set();
    let mut count = 0;
    for _ in 0..torture() {
        for (name, first, payload, masked) in broken() {
            for place in ["0", "1", "2", "control", "events", "console"] {
                count += 1;
                let wrong = stage
                    .others(|subject| break_one(subject, place, |line| line.frame(first, &payload, masked)));
                stage.wrong.extend(wrong.map(|why| format!("{name} on {place}: {why}")));
            }
        }
        for place in ["0", "control", "events"] {
            count += 1;
            // The head of a frame of 2^62 bytes.
            let head = [&[LAST | BINARY, 0x80 | 127][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
            let wrong = stage.others(|subject| break_one(subject, place, |line| line.send(&head)));
            stage.wrong.extend(wrong.map(|why| format!("a frame of 2^62 bytes on {place}: {why}")));
        }
    }
    let hung = stage.subject.exec("box", "pidof cat || true").expect("a command");
    if !hung.is_empty() {
        stage.fault(format!("commands whose clients have gone still run: {hung}"));
    }
    stage.close(count, "broken frames");
}

/// Breaks one websocket of a command (or another), and hangs the others up.
fn break_one(subject: &Subject, place: &str, act: impl Fn(&mut Line) -> bool) -> Option<String> {
    let ended = |line: &mut Line| line.parting(10).is_none().then(|| "it is not ended".to_owned());
    if place == "events" {
        let mut line = Line::websocket(subject, "/1.0/events");
        act(&mut line);
        return ended(&mut line);
    }
    let (exec, names) = match place {
        "console" => (Exec::console(subject, "box"), vec!["0"]),
        _ => (Exec::start(subject, "box", &["cat"]), vec!["0", "1", "2", "control"]),
    };
    let mut lines: Vec<(&str, Line)> =
        names.iter().map(|name| (*name, exec.connect(subject, name))).collect();
    let wanted = if place == "console" { "0" } else { place };
    let line = lines.iter_mut().find(|(name, _)| *name == wanted).map(|(_, line)| line)?;
    act(line);
    let wrong = ended(line);
    drop(lines);
    let operation = exec.ended(subject, 15);
    let over = matches!(operation["status"].as_str(), Some("Success" | "Failure"));
    wrong.or_else(|| (!over).then(|| format!("the operation goes on: {operation}")))
}

/// How many listeners the daemon's log says were dropped.
fn dropped(subject: &Subject) -> usize {
    let log = std::fs::read_to_string(subject.dir.with_extension("log")).unwrap_or_default();
    log.matches("does not read; it is dropped").count()
}

#[test]
fn who_never_reads_holds_nobody_up() {
    let mut stage = Stage::set();
    let each = 10 * torture();
    stage.subject.exec("box", "dd if=/dev/zero of=/root/large bs=1M count=64").expect("a large file");
    stage.subject.must(
        "POST",
        "/1.0/instances",
        &json!({ "name": "idle",
        "source": { "type": "image", "alias": "busybox" } }),
    );
    let fingerprint = stage.subject.get("/1.0/images")[0].as_str().unwrap_or_default().to_owned();
    let mut deaf: Vec<Line> = Vec::new();
    let mut loud: Vec<Exec> = Vec::new();
    for _ in 0..each {
        let exec = Exec::start(&stage.subject, "box", &["yes"]);
        deaf.extend(["0", "1", "2", "control"].map(|name| exec.connect(&stage.subject, name)));
        loud.push(exec);
        deaf.push(Line::websocket(&stage.subject, "/1.0/events"));
        for target in
            [format!("{fingerprint}/export"), "/1.0/instances/box/files?path=/root/large".to_owned()]
        {
            let mut line = Line::open(&stage.subject);
            line.head("GET", &target, "");
            deaf.push(line);
        }
    }
    let console = Exec::console(&stage.subject, "box");
    deaf.extend(["0", "control"].map(|name| console.connect(&stage.subject, name)));
    stage.subject.exec("box", "yes >/dev/console & true").expect("a command");
    stage.others(|subject| {
        let began = Instant::now();
        let mut number = 0;
        while number < 1200 || began.elapsed() < Duration::from_secs(2) {
            number += 1;
            let body = json!({ "config": { "user.note": "x".repeat(300) + &number.to_string() } });
            subject.must("PATCH", "/1.0/instances/idle", &body);
        }
    });
    // What they hold does not hold up an end.
    let began = Instant::now();
    stage.others(|subject| {
        subject.power("box", "stop").expect("a stop");
        subject.must("DELETE", "/1.0/instances/box", &Value::Null);
    });
    let took = began.elapsed();
    if took > machine::time(Duration::from_secs(15)) {
        stage.fault(format!("stop and delete took {took:?}"));
    }
    until_true("those who listen to events and do not read to be dropped", 25, || {
        dropped(&stage.subject) >= each
    });
    let count = deaf.len();
    drop(deaf);
    for exec in loud {
        let ended = exec.ended(&stage.subject, 10);
        if !matches!(ended["status"].as_str(), Some("Success" | "Failure") | None) {
            stage.fault(format!("a command that nobody heard goes on: {ended}"));
        }
    }
    stage.close(count, "who never reads");
}

#[test]
fn who_leaves_without_hearing_a_command_out_ends_it() {
    let subject = Subject::start();
    subject.import("busybox").expect("the image");
    subject.create("box", &json!({}));
    subject.power("box", "start").expect("a start");
    // The end of its terminal alone does not end it.
    let script = "trap '' HUP; while :; do echo flood; done";
    for round in 0..8 {
        let exec = Exec::terminal(&subject, "box", &["sh", "-c", script]);
        let line = exec.connect(&subject, "0");
        // So long nothing is read that the daemon waits to send more.
        while_others_go_on(Duration::from_millis(300));
        drop(line);
        let ended = exec.ended(&subject, 10);
        assert_eq!(ended["status"], "Success", "round {round}: {ended}");
    }
}
