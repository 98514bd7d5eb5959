//! Whole builds by the binary, on the real kernel. They need root and the package `busybox-static`.

#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const BASE: &str = "image: {distribution: probe, release: '1'}\nsource: {downloader: busybox}\n";

fn distrobuilder(lab: &TempDir, what: &str, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_distrobuilder"))
        .args(["build", what])
        .arg(lab.path().join("out"))
        .arg("--cache-dir")
        .arg(lab.path().join("cache"))
        .args(more)
        .output()
        .unwrap()
}

fn definition(lab: &TempDir, text: &str) -> String {
    let path = lab.path().join("probe.yaml");
    std::fs::write(&path, format!("{BASE}{text}")).unwrap();
    path.display().to_string()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

/// What a build left in its cache that is no finished image.
fn leftovers(lab: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(lab.path().join("cache")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("staging-"))
        .collect()
}

fn unpack(archive: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    let done = Command::new("tar").arg("-C").arg(to).arg("-xf").arg(archive).status().unwrap();
    assert!(done.success());
}

#[test]
fn busybox_is_built_once_and_then_comes_from_the_cache() {
    let lab = TempDir::new().unwrap();
    let first = distrobuilder(&lab, "busybox", &["--progress", "json"]);
    assert!(first.status.success(), "{}", said(&first));
    let text = String::from_utf8(first.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["result"]["alias"], "busybox");
    assert!(last["result"]["rootfs"].is_null());
    let mut done = 0;
    for line in text.lines().take(text.lines().count() - 1) {
        let step: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(step["done"].as_u64().unwrap() >= done && step["total"] == 100, "{line}");
        done = step["done"].as_u64().unwrap();
    }
    let tree = lab.path().join("tree");
    unpack(Path::new(last["result"]["meta"].as_str().unwrap()), &tree);
    assert!(tree.join("rootfs/bin/busybox").is_file() && tree.join("templates/hostname.tpl").is_file());
    let metadata = std::fs::read_to_string(tree.join("metadata.yaml")).unwrap();
    assert!(metadata.contains("os: busybox") && metadata.contains("/etc/hosts"), "{metadata}");
    let again = distrobuilder(&lab, "busybox", &[]);
    assert!(said(&again).contains("built before"), "{}", said(&again));
    assert!(leftovers(&lab).is_empty());
}

#[test]
fn a_split_image_has_a_squashfs() {
    let lab = TempDir::new().unwrap();
    let built = distrobuilder(&lab, "busybox", &["--type", "split"]);
    assert!(built.status.success(), "{}", said(&built));
    let head = std::fs::read(lab.path().join("out/rootfs.squashfs")).unwrap();
    assert_eq!(&head[..4], b"hsqs");
    assert!(lab.path().join("out/incus.tar.gz").is_file());
}

#[test]
fn actions_run_inside_the_tree_and_cannot_reach_out() {
    let lab = TempDir::new().unwrap();
    let canary = lab.path().join("canary");
    std::fs::write(&canary, "host").unwrap();
    let script = format!(
        "#!/bin/sh\nset -e\ntest ! -e {canary}\ntest $$ -lt 10\ntest \"$(hostname)\" = distrobuilder\n\
         if mknod /tmp/sda b 8 0 2>/dev/null; then echo a device; exit 1; fi\n\
         if mount -t tmpfs none /mnt 2>/dev/null; then echo a mount; exit 1; fi\n\
         if echo 1 2>/dev/null >/proc/sys/kernel/domainname; then echo the kernel; exit 1; fi\n\
         echo x > /dev/null\nsleep 1000 &\necho done > /root/mark\n",
        canary = canary.display()
    );
    let indented = script.replace('\n', "\n      ");
    let file =
        definition(&lab, &format!("actions:\n  - trigger: post-files\n    action: |\n      {indented}\n"));
    let built = distrobuilder(&lab, &file, &[]);
    assert!(built.status.success(), "{}", said(&built));
    let tree = lab.path().join("tree");
    unpack(&lab.path().join("out/image.tar.zst"), &tree);
    assert_eq!(std::fs::read_to_string(tree.join("rootfs/root/mark")).unwrap(), "done\n");
    assert!(!tree.join("rootfs/.distrobuilder-script").exists());
    let dev = std::fs::read_dir(tree.join("rootfs/dev")).unwrap().count();
    assert_eq!(dev, 0, "what was mounted over /dev is not in the image");
}

#[test]
fn a_failed_action_says_why_and_leaves_nothing() {
    let lab = TempDir::new().unwrap();
    let file =
        definition(&lab, "actions:\n  - {trigger: post-packages, action: \"echo the reason; exit 3\"}\n");
    let built = distrobuilder(&lab, &file, &[]);
    assert!(!built.status.success());
    let text = said(&built);
    assert!(text.contains("post-packages") && text.contains("the reason"), "{text}");
    assert!(leftovers(&lab).is_empty());
    assert_eq!(std::fs::read_dir(lab.path().join("out")).unwrap().count(), 0);
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(lab.path().to_str().unwrap()), "{mounts}");
}

#[test]
fn a_file_is_never_written_over_a_link() {
    let lab = TempDir::new().unwrap();
    let outside = lab.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let text = format!(
        "actions:\n  - {{trigger: post-unpack, action: \"ln -s {} /etc/trap\"}}\n\
         files:\n  - {{generator: dump, path: /etc/trap/file, content: x}}\n",
        outside.display()
    );
    let built = distrobuilder(&lab, &definition(&lab, &text), &[]);
    assert!(!built.status.success(), "{}", said(&built));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn files_are_dumped_copied_and_removed() {
    let lab = TempDir::new().unwrap();
    let source = lab.path().join("source");
    std::fs::write(&source, "copied").unwrap();
    let text = format!(
        "files:\n  - {{generator: dump, path: /a/b/c, content: '{{{{ image.release }}}}', pongo: true, mode: '0600', uid: '7'}}\n\
         \x20 - {{generator: copy, path: /copy, source: {}}}\n  - {{generator: remove, path: /usr/share}}\n\
         \x20 - {{generator: remove, path: /not/there}}\n\
         \x20 - {{generator: template, path: /etc/x, name: x, content: '{{{{ instance.name }}}}', template: {{when: [start]}}}}\n",
        source.display()
    );
    let built = distrobuilder(&lab, &definition(&lab, &text), &["--compression", "gzip"]);
    assert!(built.status.success(), "{}", said(&built));
    let tree = lab.path().join("tree");
    unpack(&lab.path().join("out/image.tar.gz"), &tree);
    assert_eq!(std::fs::read_to_string(tree.join("rootfs/a/b/c")).unwrap(), "1");
    let made = std::fs::metadata(tree.join("rootfs/a/b/c")).unwrap();
    use std::os::unix::fs::MetadataExt;
    assert_eq!((made.mode() & 0o7777, made.uid()), (0o600, 7));
    assert_eq!(std::fs::read_to_string(tree.join("rootfs/copy")).unwrap(), "copied");
    assert!(!tree.join("rootfs/usr/share").exists());
    assert_eq!(std::fs::read_to_string(tree.join("templates/x.tpl")).unwrap(), "{{ instance.name }}");
}

#[test]
fn what_is_not_known_is_refused() {
    let lab = TempDir::new().unwrap();
    let check = |output: Output, words: &str| {
        assert!(!output.status.success() && said(&output).contains(words), "{}", said(&output));
    };
    check(distrobuilder(&lab, "plan/9", &[]), "debian/12");
    check(distrobuilder(&lab, "busybox", &["-o", "image.colour=red"]), "image.colour");
    check(distrobuilder(&lab, &definition(&lab, "environment: {}\n"), &[]), "line 3");
}
