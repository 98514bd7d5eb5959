//! Files of containers through `cabin-files`: what arrives, whose it is on disk, and that nothing of the
//! host is in reach. Needs root.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use cabin_runtime::Runtime;
use cabin_runtime::cgroup::Cgroups;
use cabin_runtime::files::{self, FilesSession, FilesTarget};
use cabin_runtime::spec::{CgroupLimits, IdMap, IdRange, InitSpec, RootSpec};
use cabin_sys::command::{Program, Programs};
use cabin_sys::namespace::{IdRun, write_id_maps};
use cabin_undo::atomically;
use russh_sftp::client::RawSftpSession;
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const IDS: IdMap = IdMap::Isolated(IdRange { base: 1_000_000, size: 65536 });

static SERIAL: AtomicU32 = AtomicU32::new(0);

/// A host directory with a canary outside of the container's tree and a small tree.
struct Lab {
    dir: PathBuf,
    overlay: bool,
    ids: IdMap,
}

impl Lab {
    fn each(test: impl Fn(&Lab)) {
        for (overlay, ids) in
            [(false, IDS), (true, IDS), (false, IdMap::Privileged), (true, IdMap::Privileged)]
        {
            let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
            let dir = std::env::temp_dir().join(format!("cabin-files-{}-{serial}", std::process::id()));
            let lab = Lab { dir, overlay, ids };
            for part in ["rootfs/etc", "rootfs/bin", "rootfs/tmp", "state/u", "state/w"] {
                std::fs::create_dir_all(lab.dir.join(part)).unwrap();
            }
            std::fs::write(lab.dir.join("rootfs/etc/hostname"), "inside\n").unwrap();
            std::fs::write(lab.dir.join("canary"), "host\n").unwrap();
            std::os::unix::fs::symlink("/etc", lab.dir.join("rootfs/evil")).unwrap();
            std::os::unix::fs::symlink(lab.dir.join("canary"), lab.dir.join("rootfs/bird")).unwrap();
            let up = "../".repeat(20);
            std::os::unix::fs::symlink(format!("{up}{}", lab.dir.display()), lab.dir.join("rootfs/up"))
                .unwrap();
            test(&lab);
        }
    }

    fn spec(&self) -> RootSpec {
        let path = self.dir.join("rootfs");
        if self.overlay {
            RootSpec::Overlay { lowers: vec![path], state: self.dir.join("state") }
        } else {
            RootSpec::Dir { path }
        }
    }

    /// Where a path of the container that was written to lies on the host.
    fn on_disk(&self, path: &str) -> PathBuf {
        self.dir.join(if self.overlay { "state/u" } else { "rootfs" }).join(path)
    }

    fn open(&self) -> FilesSession {
        let target = FilesTarget::Stopped { root: self.spec(), ids: self.ids };
        match files::open(Path::new(env!("CARGO_BIN_EXE_cabin-files")), target) {
            Ok(session) => session,
            Err(e) => {
                panic!("{e}: {:?} (overlay: {}, {:?})", std::error::Error::source(&e), self.overlay, self.ids)
            }
        }
    }

    /// Runs a client against a file server of its own.
    fn client<T>(&self, work: impl AsyncFnOnce(RawSftpSession) -> T) -> T {
        talk(&self.open(), work)
    }
}

fn talk<T>(session: &FilesSession, work: impl AsyncFnOnce(RawSftpSession) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = std::os::unix::net::UnixStream::from(session.duplicate().unwrap());
        stream.set_nonblocking(true).unwrap();
        let client = RawSftpSession::new(tokio::net::UnixStream::from_std(stream).unwrap());
        client.set_timeout(60);
        client.init().await.unwrap();
        work(client).await
    })
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

const NEW: OpenFlags = OpenFlags::WRITE.union(OpenFlags::CREATE).union(OpenFlags::TRUNCATE);

async fn push(client: &RawSftpSession, path: &str, content: &[u8], attributes: FileAttributes) {
    let handle = client.open(path, NEW, attributes).await.unwrap().handle;
    client.write(handle.as_str(), 0, content.to_vec()).await.unwrap();
    client.close(handle).await.unwrap();
}

async fn pull(client: &RawSftpSession, path: &str) -> Result<Vec<u8>, String> {
    let handle =
        client.open(path, OpenFlags::READ, FileAttributes::empty()).await.map_err(|e| e.to_string())?;
    let data = client.read(handle.handle.as_str(), 0, 65536).await.map_err(|e| e.to_string())?;
    client.close(handle.handle).await.map_err(|e| e.to_string())?;
    Ok(data.data)
}

async fn names(client: &RawSftpSession, path: &str) -> Vec<String> {
    let handle = client.opendir(path).await.unwrap().handle;
    let mut names = Vec::new();
    while let Ok(batch) = client.readdir(handle.as_str()).await {
        names.extend(batch.files.into_iter().map(|f| f.filename));
    }
    client.close(handle).await.unwrap();
    names.sort();
    names
}

fn mode(permissions: u32) -> FileAttributes {
    FileAttributes { permissions: Some(permissions), ..FileAttributes::empty() }
}

fn owner(uid: u32, gid: u32) -> FileAttributes {
    FileAttributes { uid: Some(uid), gid: Some(gid), ..FileAttributes::empty() }
}

#[test]
fn files_go_in_and_out_with_mode_owner_and_times() {
    Lab::each(|lab| {
        lab.client(async |client| {
            assert_eq!(pull(&client, "/etc/hostname").await.unwrap(), b"inside\n");
            push(&client, "/etc/new", b"content", mode(0o640)).await;
            assert_eq!(pull(&client, "etc/new").await.unwrap(), b"content", "relative to the root");
            client
                .setstat("/etc/new", FileAttributes { size: Some(3), ..FileAttributes::empty() })
                .await
                .unwrap();
            assert_eq!(pull(&client, "/etc/new").await.unwrap(), b"con");
            client.setstat("/etc/new", owner(33, 44)).await.unwrap();
            client.setstat("/etc/new", mode(0o4755)).await.unwrap();
            let times =
                FileAttributes { atime: Some(1_000_000), mtime: Some(2_000_000), ..FileAttributes::empty() };
            client.setstat("/etc/new", times).await.unwrap();
            let seen = client.stat("/etc/new").await.unwrap().attrs;
            assert_eq!((seen.uid, seen.gid, seen.size), (Some(33), Some(44), Some(3)));
            assert_eq!((seen.atime, seen.mtime), (Some(1_000_000), Some(2_000_000)));
            client.mkdir("/etc/sub", FileAttributes::empty()).await.unwrap();
            client.setstat("/etc/sub", owner(65535, 65535)).await.unwrap();
            assert_eq!(names(&client, "/etc").await, ["hostname", "new", "sub"]);
        });
        let meta = std::fs::metadata(lab.on_disk("etc/new")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode()), (33, 44, 0o10_0755 | 0o4000));
        let meta = std::fs::metadata(lab.on_disk("etc/sub")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (65535, 65535, 0o755));
        if lab.overlay {
            assert!(!lab.dir.join("rootfs/etc/new").exists(), "the shared layer stays as it is");
        }
    });
}

#[test]
fn a_new_file_belongs_to_the_containers_root_and_an_id_outside_is_refused() {
    Lab::each(|lab| {
        lab.client(async |client| {
            push(&client, "/tmp/plain", b"", FileAttributes::empty()).await;
            if lab.ids == IDS {
                assert!(client.setstat("/tmp/plain", owner(65536, 0)).await.is_err());
            }
        });
        let meta = std::fs::metadata(lab.on_disk("tmp/plain")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (0, 0, 0o644));
    });
}

#[test]
fn nothing_of_the_host_is_reached_by_links_or_dots() {
    Lab::each(|lab| {
        let canary = lab.dir.join("canary");
        lab.client(async |client| {
            let host = canary.to_str().unwrap();
            let dots = format!("{}{host}", "../".repeat(30));
            for path in ["/bird", host, dots.as_str(), "/up/canary", "/evil/../../../../bird"] {
                assert!(pull(&client, path).await.is_err(), "{path}");
            }
            assert_eq!(pull(&client, "/evil/hostname").await.unwrap(), b"inside\n", "a link leads within");
            for path in ["/bird", "/up/pushed", "/../../../../pushed"] {
                if let Ok(handle) = client.open(path, NEW, FileAttributes::empty()).await {
                    client.write(handle.handle.as_str(), 0, b"x".to_vec()).await.unwrap();
                }
            }
            let _ = client.remove(host).await;
            let _ = client.setstat("/bird", mode(0o777)).await;
            assert!(!names(&client, "/../../..").await.contains(&"proc".to_owned()), "the root is the root");
            assert_eq!(client.realpath("/../../..").await.unwrap().files[0].filename, "/");
        });
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "host\n");
        assert_eq!(std::fs::metadata(&canary).unwrap().permissions().mode() & 0o7777, 0o644);
        assert!(!lab.dir.join("pushed").exists() && !Path::new("/pushed").exists());
        assert!(lab.on_disk("pushed").exists(), "dots end at the container's root");
    });
}

#[test]
fn links_renames_and_removals_do_what_their_names_say() {
    Lab::each(|lab| {
        lab.client(async |client| {
            push(&client, "/a", b"a", FileAttributes::empty()).await;
            push(&client, "/b", b"b", FileAttributes::empty()).await;
            // As OpenSSH and pkg/sftp send it: the target first.
            client.symlink("target/of", "/link").await.unwrap();
            assert_eq!(client.readlink("/link").await.unwrap().files[0].filename, "target/of");
            assert!(client.lstat("/link").await.unwrap().attrs.is_symlink());
            assert!(client.stat("/link").await.is_err());
            let handle = client.opendir("/").await.unwrap().handle;
            let listed = client.readdir(handle.as_str()).await.unwrap().files;
            let kind = |name: &str| listed.iter().find(|f| f.filename == name).unwrap().longname[..1].to_owned();
            assert_eq!((kind("link"), kind("etc"), kind("a")), ("l".into(), "d".into(), "-".into()));
            assert!(client.rename("/a", "/b").await.is_err(), "a plain rename does not overwrite");
            client.rename("/a", "/c").await.unwrap();
            let names_of = |old: &str, new: &str| {
                let mut data = Vec::new();
                for name in [old, new] {
                    data.extend(u32::try_from(name.len()).unwrap().to_be_bytes());
                    data.extend(name.as_bytes());
                }
                data
            };
            client.extended("posix-rename@openssh.com", names_of("/c", "/b")).await.unwrap();
            assert_eq!(pull(&client, "/b").await.unwrap(), b"a");
            client.hardlink("/b", "/d").await.unwrap();
            client.remove("/b").await.unwrap();
            assert_eq!(pull(&client, "/d").await.unwrap(), b"a");
            assert!(client.rmdir("/etc").await.is_err(), "not empty");
            client.remove("/etc/hostname").await.unwrap();
            client.rmdir("/etc").await.unwrap();
            assert!(client.stat("/etc").await.is_err());
            let free = client.statvfs("/").await.unwrap();
            assert!(free.blocks > 0 && free.fragment_size > 0 && free.name_max >= 255);
            assert!(client.extended("unheard@of", Vec::new()).await.is_ok_and(|packet| {
                matches!(packet, russh_sftp::protocol::Packet::Status(s) if s.status_code == StatusCode::OpUnsupported)
            }));
        });
        if lab.overlay {
            assert!(lab.dir.join("rootfs/etc/hostname").exists(), "the shared layer stays as it is");
        }
    });
}

#[test]
fn opens_append_and_insist_on_a_new_file() {
    Lab::each(|lab| {
        lab.client(async |client| {
            push(&client, "/log", b"one", FileAttributes::empty()).await;
            let append = OpenFlags::WRITE | OpenFlags::APPEND;
            let handle = client.open("/log", append, FileAttributes::empty()).await.unwrap().handle;
            client.write(handle.as_str(), 0, b"two".to_vec()).await.unwrap();
            client.fsync(handle.as_str()).await.unwrap();
            assert_eq!(client.fstat(handle.as_str()).await.unwrap().attrs.size, Some(6));
            client.fsetstat(handle.as_str(), mode(0o600)).await.unwrap();
            client.close(handle.as_str()).await.unwrap();
            assert!(client.close(handle).await.is_err(), "closed once");
            assert_eq!(pull(&client, "/log").await.unwrap(), b"onetwo");
            let exclusive = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
            assert!(client.open("/log", exclusive, FileAttributes::empty()).await.is_err());
            assert!(client.open("/log/x", OpenFlags::READ, FileAttributes::empty()).await.is_err());
            assert!(client.opendir("/log").await.is_err());
        });
        assert_eq!(std::fs::metadata(lab.on_disk("log")).unwrap().permissions().mode() & 0o7777, 0o600);
    });
}

/// Directory and link change places as fast as they can, as a hostile container would have them.
#[test]
fn a_link_that_takes_a_directorys_place_meanwhile_leads_no_file_out() {
    Lab::each(|lab| {
        // What lies below an overlay must not change while it is mounted.
        if lab.overlay {
            return;
        }
        let (root, outside) = (lab.dir.join("rootfs"), lab.dir.join("outside"));
        for dir in [root.join("x"), outside.clone()] {
            std::fs::create_dir(&dir).unwrap();
        }
        std::fs::write(root.join("x/secret"), "inside").unwrap();
        std::fs::write(outside.join("secret"), "host").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("y")).unwrap();
        let enough = std::sync::atomic::AtomicBool::new(false);
        let exchange = || {
            use rustix::fs::{CWD, RenameFlags, renameat_with};
            while !enough.load(Ordering::Relaxed) {
                renameat_with(CWD, root.join("x"), CWD, root.join("y"), RenameFlags::EXCHANGE).unwrap();
            }
        };
        let (mut inside, mut refused) = (0, 0);
        let rounds = if std::env::var_os("CABIN_TORTURE").is_some() { 10_000 } else { 500 };
        std::thread::scope(|threads| {
            for _ in 0..8 {
                threads.spawn(exchange);
            }
            lab.client(async |client| {
                for n in 0..rounds {
                    match pull(&client, "/x/secret").await {
                        Ok(content) => {
                            assert_eq!(content, b"inside");
                            inside += 1;
                        }
                        Err(_) => refused += 1,
                    }
                    let path = format!("/x/new{n}");
                    if let Ok(opened) = client.open(path.as_str(), NEW, FileAttributes::empty()).await {
                        client.close(opened.handle).await.unwrap();
                    }
                    let _ = client.mkdir(format!("/x/dir{n}"), FileAttributes::empty()).await;
                    if let Ok(handle) = client.opendir("/x").await {
                        let _ = client.readdir(handle.handle.as_str()).await;
                        let _ = client.close(handle.handle).await;
                    }
                    let _ = client.rename(format!("/x/new{n}"), format!("/x/old{n}")).await;
                    let _ = client.remove(format!("/x/old{n}")).await;
                    let _ = client.rmdir(format!("/x/dir{n}")).await;
                    let _ = client.symlink(format!("/x/link{n}"), "secret").await;
                    let _ = client
                        .setstat(
                            "/x/secret",
                            FileAttributes { permissions: Some(0o600), ..FileAttributes::empty() },
                        )
                        .await;
                }
            });
            enough.store(true, Ordering::Relaxed);
        });
        assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused: they never met");
        let found: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|it| it.unwrap().file_name()).collect();
        assert_eq!(found, ["secret"]);
        let kept = std::fs::metadata(outside.join("secret")).unwrap();
        assert_eq!(kept.permissions().mode() & 0o777, 0o644);
    });
}

#[test]
fn a_pipe_without_a_peer_does_not_hold_up_the_session() {
    Lab::each(|lab| {
        let fifo = lab.dir.join("rootfs/tmp/pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
        lab.client(async |client| {
            let start = std::time::Instant::now();
            assert!(client.open("/tmp/pipe", OpenFlags::WRITE, FileAttributes::empty()).await.is_err());
            let _ = pull(&client, "/tmp/pipe").await;
            assert!(start.elapsed() < std::time::Duration::from_secs(5));
            assert!(client.lstat("/tmp/pipe").await.unwrap().attrs.is_fifo());
            assert_eq!(pull(&client, "/etc/hostname").await.unwrap(), b"inside\n");
        });
    });
}

#[test]
fn a_big_directory_is_listed_whole() {
    Lab::each(|lab| {
        for n in 0..1000 {
            std::fs::write(lab.dir.join(format!("rootfs/tmp/{n:04}")), "").unwrap();
        }
        let listed = lab.client(async |client| names(&client, "/tmp").await);
        assert_eq!(listed, (0..1000).map(|n| format!("{n:04}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_quarter_of_a_gibibyte_arrives_intact_both_ways() {
    const SIZE: usize = 256 << 20;
    let content: Vec<u8> =
        (0..SIZE as u64 / 8).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    Lab::each(|lab| {
        if lab.ids != IDS {
            return;
        }
        let session = lab.open();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stream = std::os::unix::net::UnixStream::from(session.duplicate().unwrap());
            stream.set_nonblocking(true).unwrap();
            let stream = tokio::net::UnixStream::from_std(stream).unwrap();
            let client = russh_sftp::client::SftpSession::new(stream).await.unwrap();
            let start = std::time::Instant::now();
            let mut file = client.create("/big").await.unwrap();
            file.write_all(&content).await.unwrap();
            file.shutdown().await.unwrap();
            let pushed = start.elapsed();
            let start = std::time::Instant::now();
            let mut back = Vec::with_capacity(SIZE);
            client.open("/big").await.unwrap().read_to_end(&mut back).await.unwrap();
            assert!(back == content, "the content changed on its way");
            println!("pushed 256 MiB in {pushed:?}, pulled in {:?}", start.elapsed());
        });
        assert_eq!(std::fs::metadata(lab.on_disk("big")).unwrap().len(), SIZE as u64);
    });
}

#[test]
fn the_helper_holds_nothing_but_what_files_need_and_goes_with_its_session() {
    Lab::each(|lab| {
        let session = lab.open();
        let proc = PathBuf::from(format!("/proc/{}", session.pid()));
        let status = std::fs::read_to_string(proc.join("status")).unwrap();
        let field = |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().to_owned();
        // chown, dac_override, fowner, fsetid
        assert_eq!(field("CapEff:"), "000000000000001b");
        assert_eq!(field("CapBnd:"), "000000000000001b");
        assert_eq!(field("NoNewPrivs:"), "1");
        let uid = if lab.ids == IDS { "1000000\t1000000\t1000000\t1000000" } else { "0\t0\t0\t0" };
        assert_eq!(field("Uid:"), uid);
        let mounts = std::fs::read_to_string(proc.join("mountinfo")).unwrap();
        assert_eq!(mounts.lines().count(), 1, "{mounts}");
        let mine = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mine.contains(lab.dir.to_str().unwrap()), "its mounts stay its own");
        drop(session);
        assert!(!proc.exists());
    });
}

#[test]
fn a_root_that_is_not_there_is_refused_with_the_step_and_the_reason() {
    let root = RootSpec::Dir { path: PathBuf::from("/nowhere/at/all") };
    let helper = Path::new(env!("CARGO_BIN_EXE_cabin-files"));
    let error = files::open(helper, FilesTarget::Stopped { root, ids: IDS }).unwrap_err();
    assert_eq!(error.to_string(), "the file server could not take `/nowhere/at/all` for the root filesystem");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.starts_with("No such file or directory"), "{source}");
}

/// A process in namespaces of its own whose root is the lab's tree.
struct Guest(std::process::Child);

impl Guest {
    fn start(lab: &Lab) -> Guest {
        let programs = Programs::find();
        let busybox = programs.command(Program::Busybox).expect("install `busybox-static`");
        let root = lab.dir.join("rootfs");
        std::fs::copy(busybox.get_program(), root.join("bin/busybox")).unwrap();
        std::fs::create_dir(root.join("old")).unwrap();
        let chown = ["chown", "-hR", "1000000:1000000", root.to_str().unwrap()];
        assert!(programs.command(Program::Busybox).unwrap().args(chown).status().unwrap().success());
        // One process holds the user namespace until its maps are written: only then can another be its root.
        let busybox = |args: &[&str]| {
            let mut command = programs.command(Program::Busybox).unwrap();
            command.args(args).current_dir(&root).stdin(Stdio::piped()).stdout(Stdio::piped());
            Guest(command.spawn().unwrap())
        };
        let mut holder = busybox(&["unshare", "-U", "sh", "-c", "echo made; read end"]);
        holder.expect(b"made\n");
        let map = [IdRun { inside: 0, outside: 1_000_000, count: 65536 }];
        write_id_maps(holder.0.id(), &map, &map).unwrap();
        let script = "mount --bind . . && cd \"$PWD\" && pivot_root . old && cd / && exec /bin/busybox sh -c \
                      '/bin/busybox umount -l /old; echo inside; exec /bin/busybox sleep 1000'";
        let pid = holder.0.id().to_string();
        let mut guest = busybox(&[
            "nsenter", "-t", &pid, "-U", "-S", "0", "-G", "0", "busybox", "unshare", "-m", "sh", "-c", script,
        ]);
        guest.expect(b"inside\n");
        guest
    }

    fn expect(&mut self, line: &[u8]) {
        let mut said = vec![0; line.len()];
        self.0.stdout.as_mut().unwrap().read_exact(&mut said).expect("the guest goes on");
        assert_eq!(said, line);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_running_container_is_entered_by_its_init_and_nothing_else_is_seen() {
    Lab::each(|lab| {
        if lab.overlay || lab.ids != IDS {
            return;
        }
        let guest = Guest::start(lab);
        let pid = rustix::process::Pid::from_child(&guest.0);
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let helper = Path::new(env!("CARGO_BIN_EXE_cabin-files"));
        let session = files::open(helper, FilesTarget::Running { pidfd: pidfd.as_fd() }).unwrap();
        for kind in ["user", "mnt"] {
            let of = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_eq!(of(session.pid()), of(guest.0.id()), "{kind}");
            assert_ne!(of(session.pid()), of(std::process::id()), "{kind}");
        }
        talk(&session, async |client| {
            assert_eq!(pull(&client, "/etc/hostname").await.unwrap(), b"inside\n");
            let host = lab.dir.join("canary");
            let dots = format!("{}{}", "../".repeat(30), host.display());
            for path in ["/bird", "/up/canary", host.to_str().unwrap(), dots.as_str()] {
                assert!(pull(&client, path).await.is_err(), "{path}");
            }
            push(&client, "/../pushed", b"x", mode(0o600)).await;
        });
        assert_eq!(std::fs::read(lab.dir.join("rootfs/pushed")).unwrap(), b"x");
        drop(guest);
        let error = files::open(helper, FilesTarget::Running { pidfd: pidfd.as_fd() }).unwrap_err();
        assert!(matches!(error, files::Error::Ended), "init has ended: {error}");
    });
}

/// Started containers of a test, ended and cleaned up whatever happens.
struct Started {
    runtime: Runtime,
    name: String,
}

impl Started {
    fn new(lab: &Lab) -> Started {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cabin-files-{}-{serial}", std::process::id());
        let bin = Path::new(env!("CARGO_BIN_EXE_cabin-init")).parent().unwrap();
        let runtime = Runtime::new(&lab.dir.join("run"), bin, Cgroups::new(&prefix).unwrap()).unwrap();
        let busybox = Programs::find().command(Program::Busybox).expect("install `busybox-static`");
        let root = lab.dir.join("rootfs");
        for part in ["proc", "sys", "dev", "run", "sbin"] {
            std::fs::create_dir_all(root.join(part)).unwrap();
        }
        std::fs::copy(busybox.get_program(), root.join("bin/busybox")).unwrap();
        let started = Started { runtime, name: format!("files{serial}") };
        let init = "echo up >/tmp/up; while :; do /bin/busybox sleep 1; done";
        let spec = InitSpec {
            name: started.name.clone(),
            root: lab.spec(),
            ids: lab.ids,
            argv: ["/bin/busybox", "sh", "-c", init].map(str::to_owned).to_vec(),
            env: vec![("PATH".to_owned(), "/bin".to_owned())],
            nesting: false,
            rlimits: Vec::new(),
            oom_score_adj: 0,
            files: Vec::new(),
        };
        let running = atomically(|undo| -> Result<(), cabin_runtime::Error> {
            started.runtime.spawn(&spec, &CgroupLimits::default(), undo)?.release().map(drop)
        });
        if let Err(e) = running {
            panic!("{e}: {:?}", e.cause);
        }
        started
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let cgroups = self.runtime.cgroups();
        let _ = self.runtime.kill(&self.name);
        let _ = cgroups.destroy(&self.name);
        let _ = cgroups.close();
    }
}

#[test]
fn the_files_of_a_started_container_are_those_its_processes_see() {
    Lab::each(|lab| {
        let started = Started::new(lab);
        let supervisor = started.runtime.connect(&started.name).unwrap().expect("it runs");
        let helper = Path::new(env!("CARGO_BIN_EXE_cabin-files"));
        let session = files::open(helper, FilesTarget::Running { pidfd: supervisor.pidfd() }).unwrap();
        talk(&session, async |client| {
            while pull(&client, "/tmp/up").await.ok().as_deref() != Some(b"up\n") {}
            push(&client, "/etc/new", b"pushed", mode(0o640)).await;
            client.setstat("/etc/new", owner(33, 44)).await.unwrap();
            let seen = client.stat("/etc/new").await.unwrap().attrs;
            assert_eq!((seen.uid, seen.gid), (Some(33), Some(44)));
            let command = String::from_utf8(pull(&client, "/proc/1/cmdline").await.unwrap()).unwrap();
            assert!(command.starts_with("/bin/busybox\0sh\0-c\0"), "its own /proc: {command:?}");
            let host = lab.dir.join("canary");
            let dots = format!("{}{}", "../".repeat(30), host.display());
            let through = format!("/proc/1/root{}", host.display());
            for path in ["/bird", "/up/canary", host.to_str().unwrap(), dots.as_str(), through.as_str()] {
                assert!(pull(&client, path).await.is_err(), "{path}");
            }
        });
        let meta = std::fs::metadata(lab.on_disk("etc/new")).unwrap();
        assert_eq!((meta.uid(), meta.gid(), meta.permissions().mode() & 0o7777), (33, 44, 0o640));
        assert_eq!(std::fs::read_to_string(lab.dir.join("canary")).unwrap(), "host\n");
    });
}
