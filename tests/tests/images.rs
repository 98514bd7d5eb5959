//! Images: every form we read, the same bytes out as in, aliases, and archives that mean harm.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cabin_tests::cli::host;
use cabin_tests::desk::Desk;
use cabin_tests::lab::Lab;
use cabin_tests::wait::until_true;

/// Writes a small tree with an init of busybox, and its metadata, below `place`.
fn tree(place: &Path) {
    let _ = std::fs::remove_dir_all(place);
    let bin = place.join("rootfs/bin");
    std::fs::create_dir_all(&bin).unwrap();
    for dir in ["etc", "proc", "sys", "dev", "tmp", "root", "sbin", "run"] {
        std::fs::create_dir_all(place.join("rootfs").join(dir)).unwrap();
    }
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox (package busybox-static)");
    for name in ["sh", "cat", "echo", "stat", "ls"] {
        std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("../bin/busybox", place.join("rootfs/sbin/init")).unwrap();
    std::fs::write(place.join("rootfs/etc/marker"), "from the archive").unwrap();
    // Two tests in one second would else write the same bytes, and so the same image.
    let origin = place.file_name().unwrap().to_string_lossy().into_owned();
    std::fs::write(place.join("rootfs/etc/origin"), origin).unwrap();
    std::fs::write(place.join("rootfs/etc/inittab"), "::sysinit:/bin/busybox true\n").unwrap();
    let metadata = "architecture: x86_64\ncreation_date: 1700000000\nproperties:\n  description: made by a test\n  os: test\n";
    std::fs::write(place.join("metadata.yaml"), metadata).unwrap();
}

fn sh(script: &str) {
    host(&["sh", "-ec", script]).ok();
}

fn place(lab: &Lab, name: &str) -> PathBuf {
    let place = lab.home().join(name);
    tree(&place);
    place
}

#[test]
fn unified_tarballs_of_every_compression_start() {
    let lab = Lab::shared();
    let at = place(&lab, "unified");
    let dir = at.display();
    sh(&format!(
        "cd {dir}; tar -cf plain.tar metadata.yaml rootfs; gzip -k plain.tar; xz -0 -k plain.tar; zstd -q -k plain.tar"
    ));
    for ending in ["tar", "tar.gz", "tar.xz", "tar.zst"] {
        let alias = format!("form-{}", ending.replace('.', "-"));
        let file = format!("{dir}/plain.{ending}");
        lab.cabin(&["image", "import", &file, "--alias", &alias]).ok();
        let sum = host(&["sha256sum", &file]).ok();
        let shown = lab.cabin(&["image", "list", "-f", "json", &alias]).json();
        assert_eq!(shown[0]["fingerprint"].as_str(), sum.split(' ').next(), "{alias}");
        assert_eq!(shown[0]["properties"]["os"], "test");
        lab.cabin(&["launch", &alias, &alias]).ok();
        assert_eq!(lab.sh(&alias, "cat /etc/marker"), "from the archive");
        lab.cabin(&["delete", "-f", &alias]).ok();
        lab.cabin(&["image", "delete", &alias]).ok();
    }
}

#[test]
fn the_first_launch_builds_the_image_and_shows_how_far_it_is() {
    let lab = Arc::new(Lab::own());
    let desk = Desk { lab: lab.clone(), stock: None, prefix: "first".to_owned() };
    assert_eq!(lab.cabin(&["image", "list", "-f", "csv"]).ok(), "");
    let heard = lab.home().join("heard");
    let mut monitor = lab
        .command(&desk.program(), &["monitor", "--type", "operation", "--format", "json"])
        .stdin(Stdio::null())
        .stdout(File::create(&heard).unwrap())
        .spawn()
        .unwrap();
    let hears = |words: &[&str]| {
        let said = std::fs::read_to_string(&heard).unwrap();
        said.lines().any(|line| words.iter().all(|word| line.contains(word)))
    };
    // The listener is there once it hears of work that is done again and again until then.
    until_true("an event of an operation", 20, || {
        lab.cabin(&["create", "--empty", "quick"]).ok();
        lab.cabin(&["delete", "quick"]).ok();
        hears(&["quick"])
    });
    let began = Instant::now();
    let launched = desk.on_a_terminal("launch busybox one", "");
    let took = began.elapsed();
    assert_eq!(launched.code, 0, "{launched:?}");
    assert_eq!(lab.status("one"), "Running");
    // What is over at once draws nothing.
    assert!(took < Duration::from_millis(500) || launched.out.contains("Launching one: "), "{launched:?}");
    until_true("progress in the operation's metadata", 10, || {
        hears(&["\"image_build_progress\":\"Building busybox\"", "/1.0/instances/one"])
    });
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    assert_eq!(lab.cabin(&["image", "list", "-f", "csv", "-c", "l"]).ok(), "busybox");
    // The second one has it already.
    let again = desk.on_a_terminal("launch busybox two", "");
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!(lab.get("/1.0/images").as_array().unwrap().len(), 1);
}

#[test]
fn split_images_start_and_come_out_as_they_went_in() {
    let lab = Lab::shared();
    let at = place(&lab, "split");
    let dir = at.display();
    sh(&format!(
        "cd {dir}; tar -cJf meta.tar.xz metadata.yaml; mksquashfs rootfs root.squashfs -quiet -no-progress"
    ));
    let (meta, root) = (format!("{dir}/meta.tar.xz"), format!("{dir}/root.squashfs"));
    lab.cabin(&["image", "import", &meta, &root, "--alias", "split"]).ok();
    let sum = host(&["sh", "-c", &format!("cat {meta} {root} | sha256sum")]).ok();
    let shown = lab.cabin(&["image", "list", "-f", "json", "split"]).json();
    assert_eq!(shown[0]["fingerprint"].as_str(), sum.split(' ').next());
    lab.cabin(&["launch", "split", "split"]).ok();
    assert_eq!(lab.sh("split", "cat /etc/marker"), "from the archive");
    let out = format!("{dir}/out");
    std::fs::create_dir(&out).unwrap();
    lab.cabin(&["image", "export", "split", &format!("{out}/image")]).ok();
    let mut back: Vec<Vec<u8>> =
        std::fs::read_dir(&out).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    let mut kept = vec![std::fs::read(&meta).unwrap(), std::fs::read(&root).unwrap()];
    back.sort();
    kept.sort();
    assert!(back == kept, "the exported bytes are not the imported ones");
    lab.cabin(&["delete", "-f", "split"]).ok();
    lab.cabin(&["image", "delete", "split"]).ok();
}

#[test]
fn an_image_is_shared_and_never_written_by_its_instances() {
    let lab = Lab::shared();
    let at = place(&lab, "shared");
    let file = format!("{}/image.tar", at.display());
    sh(&format!("cd {}; tar -cf image.tar metadata.yaml rootfs", at.display()));
    lab.cabin(&["image", "import", &file, "--alias", "shared"]).ok();
    for name in ["one-of-two", "two-of-two"] {
        lab.cabin(&["launch", "shared", name]).ok();
    }
    lab.sh("one-of-two", "echo changed >/etc/marker");
    assert_eq!(lab.sh("two-of-two", "cat /etc/marker"), "from the archive");
    assert_eq!(lab.sh("two-of-two", "stat -c '%u %g' /etc/marker"), "0 0");
    // An image may go while its instances stay, and restart.
    lab.cabin(&["image", "delete", "shared"]).ok();
    lab.cabin(&["restart", "--force", "one-of-two"]).ok();
    assert_eq!(lab.sh("one-of-two", "cat /etc/marker"), "changed");
    lab.cabin(&["delete", "-f", "one-of-two", "two-of-two"]).ok();
}

#[test]
fn archives_that_mean_harm_are_refused_or_kept_inside() {
    let lab = Lab::shared();
    let at = place(&lab, "harm");
    let dir = at.display().to_string();
    let canary = lab.home().join("canary");
    std::fs::write(&canary, "untouched").unwrap();
    let up = format!("../../../../../../../../../../..{}", canary.display());
    let cases = [
        (
            "climb",
            format!("tar -cf climb.tar -P --transform 's|^evil$|rootfs/{up}|' metadata.yaml rootfs evil"),
        ),
        (
            "absolute",
            format!(
                "tar -cf absolute.tar -P --transform 's|^evil$|{}|' metadata.yaml rootfs evil",
                canary.display()
            ),
        ),
        (
            "link",
            format!(
                "ln -sfn {} rootfs/out; tar -cf link.tar metadata.yaml rootfs; rm rootfs/out; mkdir rootfs/out; \
                 cp evil rootfs/out/canary; tar -rf link.tar rootfs/out/canary; rm -r rootfs/out",
                lab.home().display()
            ),
        ),
    ];
    std::fs::write(at.join("evil"), "overwritten").unwrap();
    for (name, script) in cases {
        sh(&format!("cd {dir}; {script}"));
        let imported = lab.cabin(&["image", "import", &format!("{dir}/{name}.tar"), "--alias", name]);
        if imported.code == 0 {
            let _ = lab.cabin(&["create", name, &format!("harm-{name}")]);
            let _ = lab.cabin(&["delete", "-f", &format!("harm-{name}")]);
            let _ = lab.cabin(&["image", "delete", name]);
        }
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "untouched", "{name} wrote outside");
    }
}

#[test]
fn what_is_no_image_is_refused_with_a_reason() {
    let lab = Lab::shared();
    let home = lab.home();
    let cases: [(&str, &[u8]); 4] = [
        ("empty", b""),
        ("text", b"not an archive at all"),
        ("cut.xz", b"\xfd7zXZ\x00\x00\x04"),
        ("cut.gz", b"\x1f\x8b\x08"),
    ];
    for (name, bytes) in cases {
        let file = home.join(name);
        std::fs::write(&file, bytes).unwrap();
        let said =
            lab.cabin(&["image", "import", &file.display().to_string(), "--alias", "nothing"]).refused();
        assert!(!said.is_empty());
    }
    assert_eq!(lab.call("GET", "/1.0/images/aliases/nothing", None).status, 404);
}
