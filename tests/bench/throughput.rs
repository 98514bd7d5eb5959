//! How much goes through: clients at once, reads of the API, long streams, files, events to many listeners.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use cabin_tests::lab::Lab;
use sha2::{Digest as _, Sha256};

use crate::figures::Figures;
use crate::steps::Tool;

const IMAGE: &str = "busybox";
const NAME: &str = "through";

/// Clients at once, and how often each launches and deletes.
const CLIENTS: usize = 8;
const LIVES: usize = 6;

/// How long the API is read.
const READING: Duration = Duration::from_secs(3);

/// MiB of a stream or a file.
const MUCH: u64 = 1024;

/// Who listens, and to how many events.
const LISTENERS: usize = 100;
const EVENTS: usize = 100;

/// Measures all of it. The socket of a peer is where its daemon is asked without its client.
pub fn look(lab: &Lab, tools: &[Tool], sockets: &[(String, String)]) -> Figures {
    lab.image(IMAGE);
    let mut figures = Figures::default();
    for (at, tool) in tools.iter().enumerate() {
        let given = sockets.iter().find(|(name, _)| *name == tool.name).map(|(_, path)| path.into());
        let socket = if at == 0 { Some(lab.socket()) } else { given };
        figures.note(&tool.name, "8 clients: launched and deleted", "per second", lives(tool));
        if let Err(why) = tool.run(&format!("launch {IMAGE} {NAME}")) {
            eprintln!("{}: no container to send through: {why}", tool.name);
            continue;
        }
        if let Some(socket) = socket {
            figures.note(&tool.name, "reads of an instance, 8 connections", "per second", reads(&socket));
            match events(&socket) {
                Ok((lost, median, worst)) => {
                    figures.note(&tool.name, "events lost, 100 listeners", "events", Ok(lost));
                    figures.note(&tool.name, "event heard, median of 100 listeners", "ms", Ok(median));
                    figures.note(&tool.name, "event heard, 99 of 100", "ms", Ok(worst));
                }
                Err(why) => eprintln!("{}: events are left out: {why}", tool.name),
            }
        }
        streams(&mut figures, tool);
        files(&mut figures, tool);
        let _ = tool.run(&format!("delete -f {NAME}"));
    }
    figures
}

fn lives(tool: &Tool) -> Result<f64, String> {
    let began = Instant::now();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || -> Result<(), String> {
                    for life in 0..LIVES {
                        let name = format!("client{client}x{life}");
                        tool.run(&format!("launch {IMAGE} {name}"))?;
                        tool.run(&format!("delete -f {name}"))?;
                    }
                    Ok(())
                })
            })
            .collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().map_err(|_| "a client panicked".to_owned())?)
    })?;
    Ok((CLIENTS * LIVES) as f64 / began.elapsed().as_secs_f64())
}

fn reads(socket: &Path) -> Result<f64, String> {
    let request = format!("GET /1.0/instances/{NAME} HTTP/1.1\r\nHost: bench\r\n\r\n");
    let reader = || -> std::io::Result<usize> {
        let mut stream = UnixStream::connect(socket)?;
        let (mut count, began) = (0, Instant::now());
        let mut buffer = Vec::new();
        while began.elapsed() < READING {
            stream.write_all(request.as_bytes())?;
            answer(&mut stream, &mut buffer)?;
            count += 1;
        }
        Ok(count)
    };
    let counts = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(reader)).collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader")).collect::<Result<Vec<_>, _>>()
    });
    let counts = counts.map_err(|why| why.to_string())?;
    Ok(counts.iter().sum::<usize>() as f64 / READING.as_secs_f64())
}

/// Reads one answer to its end, of known length or in chunks.
fn answer(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.clear();
    let mut piece = [0; 16 * 1024];
    loop {
        let got = stream.read(&mut piece)?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer.extend_from_slice(&piece[..got]);
        let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
        let length: Option<usize> =
            text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let whole = match length {
            Some(length) => buffer.len() >= head + 4 + length,
            None => buffer.ends_with(b"0\r\n\r\n"),
        };
        if whole {
            return Ok(());
        }
    }
}

/// Events that were lost, and milliseconds from a request to its event at a listener: median and 99 of 100.
fn events(socket: &Path) -> Result<(f64, f64, f64), String> {
    let ready = Barrier::new(LISTENERS + 1);
    let told = |why: std::io::Error| why.to_string();
    let (sent, heard) = std::thread::scope(|scope| {
        let listeners: Vec<_> = (0..LISTENERS)
            .map(|_| {
                scope.spawn(|| {
                    let stream = listen(socket);
                    ready.wait();
                    stream.map(|mut stream| hear(&mut stream))
                })
            })
            .collect();
        ready.wait();
        let mut sent = Vec::new();
        let mut asking = UnixStream::connect(socket).map_err(told)?;
        let mut buffer = Vec::new();
        for number in 0..EVENTS {
            let body = format!("{{\"config\":{{\"user.number\":\"{number}\"}}}}");
            let request = format!(
                "PATCH /1.0/instances/{NAME} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            sent.push(Instant::now());
            asking.write_all(request.as_bytes()).map_err(told)?;
            answer(&mut asking, &mut buffer).map_err(told)?;
        }
        let heard: Result<Vec<Vec<Instant>>, _> =
            listeners.into_iter().map(|listener| listener.join().expect("a listener")).collect();
        Ok::<_, String>((sent, heard.map_err(told)?))
    })?;
    let lost: usize = heard.iter().map(|one| EVENTS.saturating_sub(one.len())).sum();
    let mut late: Vec<f64> = heard
        .iter()
        .flat_map(|one| one.iter().zip(&sent).map(|(heard, sent)| (*heard - *sent).as_secs_f64() * 1000.0))
        .collect();
    late.sort_by(f64::total_cmp);
    let at = |part: usize| late.get(late.len() * part / 100).copied().unwrap_or(f64::NAN);
    Ok((lost as f64, at(50), at(99)))
}

/// A websocket of the lifecycle's events.
fn listen(socket: &Path) -> std::io::Result<UnixStream> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(
        b"GET /1.0/events?type=lifecycle HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut one = [0];
        stream.read_exact(&mut one)?;
        head.push(one[0]);
    }
    Ok(stream)
}

/// When each event came, until all came or none for a while (RFC 6455, frames of a server).
fn hear(stream: &mut UnixStream) -> Vec<Instant> {
    let mut times = Vec::new();
    while times.len() < EVENTS {
        let Ok(frame) = frame(stream) else { break };
        if frame.windows(16).any(|text| text == b"instance-updated") {
            times.push(Instant::now());
        }
    }
    times
}

fn frame(stream: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 2];
    stream.read_exact(&mut head)?;
    let length = match head[1] & 0x7f {
        126 => {
            let mut long = [0; 2];
            stream.read_exact(&mut long)?;
            u64::from(u16::from_be_bytes(long))
        }
        127 => {
            let mut long = [0; 8];
            stream.read_exact(&mut long)?;
            u64::from_be_bytes(long)
        }
        short => u64::from(short),
    };
    let mut data = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut data)?;
    Ok(data)
}

/// A file's worth of bytes out of a command, by pipe and by terminal.
fn streams(figures: &mut Figures, tool: &Tool) {
    let made = tool.run(&format!("exec {NAME} -- dd if=/dev/urandom of=/root/big bs=1M count={MUCH}"));
    let known = made.and_then(|_| tool.output(&format!("exec {NAME} -- sha256sum /root/big")));
    let known = match known {
        Ok(line) => line.split_whitespace().next().unwrap_or_default().to_owned(),
        Err(why) => return eprintln!("{}: no file to send: {why}", tool.name),
    };
    // A terminal would make two characters of each end of a line.
    let raw = b"#!/bin/sh\nstty raw -echo\nexec cat /root/big\n";
    let _ = tool.feed(&format!("exec {NAME} -- tee /root/raw"), raw);
    let _ = tool.run(&format!("exec {NAME} -- chmod 755 /root/raw"));
    for (what, line) in [
        ("1 GiB out of a command", format!("exec {NAME} -- cat /root/big")),
        ("1 GiB out of a terminal", format!("exec -t {NAME} -- /root/raw")),
    ] {
        let rate = drain(tool, &line, None).and_then(|took| {
            // Once more for what came, not for how fast.
            let mut sum = Sha256::new();
            drain(tool, &line, Some(&mut sum))?;
            match hex::encode(sum.finalize()) == known {
                true => Ok(MUCH as f64 / took.as_secs_f64()),
                false => Err("what came is not what was sent".to_owned()),
            }
        });
        figures.note(&tool.name, what, "MiB/s", rate);
    }
}

fn drain(tool: &Tool, line: &str, mut sum: Option<&mut Sha256>) -> Result<Duration, String> {
    let began = Instant::now();
    let mut child = tool
        .command(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|why| why.to_string())?;
    let mut out = child.stdout.take().ok_or("no output")?;
    let (mut buffer, mut total) = (vec![0; 256 * 1024], 0);
    loop {
        match out.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => {
                total += got as u64;
                if let Some(sum) = &mut sum {
                    sum.update(&buffer[..got]);
                }
            }
            Err(why) => return Err(why.to_string()),
        }
    }
    let took = began.elapsed();
    let done = child.wait().map_err(|why| why.to_string())?;
    match done.success() && total == MUCH << 20 {
        true => Ok(took),
        false => Err(format!("{total} bytes came, and it ended with {done}")),
    }
}

/// A file in and out again, beside cp(1) on the host.
fn files(figures: &mut Figures, tool: &Tool) {
    let place = std::env::temp_dir().join(format!("cabin-bench-{}", std::process::id()));
    let (file, back) = (place.join("file"), place.join("back"));
    let rate = |took: Duration| MUCH as f64 / took.as_secs_f64();
    let go = |figures: &mut Figures| -> Result<(), String> {
        std::fs::create_dir_all(&place).map_err(|why| why.to_string())?;
        let host = |words: &[&str]| {
            let began = Instant::now();
            let done = cabin_tests::cli::host(words);
            if done.code == 0 { Ok(began.elapsed()) } else { Err(done.err) }
        };
        let (file, back) = (file.display().to_string(), back.display().to_string());
        host(&["dd", "if=/dev/urandom", &format!("of={file}"), "bs=1M", &format!("count={MUCH}")])?;
        figures.note("host", "file of 1 GiB in (host: cp)", "MiB/s", host(&["cp", &file, &back]).map(rate));
        // By descriptors: a manager may live in a root of its own, where the paths are others.
        let through = |line: String| -> Result<Duration, String> {
            let (source, target) = (File::open(&file), File::create(&back));
            let mut command = tool.command(&line);
            command
                .stdin(source.map_err(|why| why.to_string())?)
                .stdout(target.map_err(|why| why.to_string())?);
            let began = Instant::now();
            let done = command.stderr(Stdio::piped()).output().map_err(|why| why.to_string())?;
            let took = began.elapsed();
            if done.status.success() {
                Ok(took)
            } else {
                Err(String::from_utf8_lossy(&done.stderr).into_owned())
            }
        };
        let pushed = through(format!("file push - {NAME}/root/pushed"));
        figures.note(&tool.name, "file of 1 GiB in (host: cp)", "MiB/s", pushed.map(rate));
        let pulled = through(format!("file pull {NAME}/root/pushed -"));
        figures.note(&tool.name, "file of 1 GiB out", "MiB/s", pulled.map(rate));
        host(&["cmp", &file, &back]).map(drop)
    };
    if let Err(why) = go(figures) {
        eprintln!("{}: files: {why}", tool.name);
    }
    let _ = std::fs::remove_dir_all(&place);
}
