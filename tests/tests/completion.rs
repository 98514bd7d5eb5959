//! The shell completes what a person may write: a real bash reads the generated script and asks a real daemon.

use std::path::Path;
use std::sync::Arc;

use cabin_tests::binary;
use cabin_tests::cli::run;
use cabin_tests::lab::Lab;

/// What bash offers once the tab key is pressed at the end of the words. As readline does, `=` is a word.
fn offered(lab: &Lab, words: &[&str]) -> Vec<String> {
    let script = r#"
        eval "$(cabin completion bash)"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_TYPE=9
        _clap_complete_cabin cabin "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let programs = binary("cabin").parent().unwrap().display().to_string();
    let mut command = lab.command(Path::new("/bin/bash"), &["--norc", "-c", script, "bash", "cabin"]);
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let found = run(command.args(words).env("PATH", path)).ok();
    // Where nothing is typed yet, flags can come too.
    let all = words.last().is_some_and(|word| word.starts_with('-'));
    found.lines().filter(|word| all || !word.starts_with('-')).map(str::to_owned).collect()
}

#[track_caller]
fn check(lab: &Lab, line: &str, expected: &[&str]) {
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(offered(lab, &words), expected, "cabin {line}");
}

/// What stands among the offers, and what must not.
#[track_caller]
fn among(lab: &Lab, line: &str, there: &[&str], missing: &[&str]) {
    let words: Vec<&str> = line.split(' ').collect();
    let found = offered(lab, &words);
    for word in there {
        assert!(found.iter().any(|it| it == word), "no `{word}` for `cabin {line}` among {found:?}");
    }
    for word in missing {
        assert!(!found.iter().any(|it| it == word), "`{word}` for `cabin {line}` among {found:?}");
    }
}

fn shared() -> Arc<Lab> {
    let lab = Lab::shared();
    lab.image("busybox");
    lab
}

#[test]
fn verbs_and_flags_are_completed() {
    let lab = shared();
    check(&lab, "pau", &["pause"]);
    check(&lab, "fre", &["freeze"]);
    among(&lab, "", &["launch", "pause", "resume", "list"], &["freeze", "unfreeze", "ls"]);
    among(&lab, "profile ", &["assign", "rename"], &["apply", "mv"]);
    check(&lab, "launch --ephe", &["--ephemeral"]);
    check(&lab, "monitor --type li", &["lifecycle"]);
    check(&lab, "monitor --type = li", &["lifecycle"]);
    check(&lab, "storage create more ov", &["overlay"]);
    check(&lab, "list --format ya", &["yaml"]);
}

#[test]
fn names_are_completed() {
    let lab = shared();
    let name = |words: &[&str]| drop(lab.cabin(words).ok());
    name(&["create", "busybox", "namely"]);
    name(&["profile", "create", "nameless"]);
    name(&["snapshot", "create", "namely", "before"]);
    name(&["snapshot", "create", "namely", "below"]);
    check(&lab, "info name", &["namely"]);
    check(&lab, "config device add name", &["namely"]);
    check(&lab, "profile device add name", &["nameless"]);
    check(&lab, "launch --profile name", &["nameless"]);
    check(&lab, "create busy", &["busybox"]);
    check(&lab, "launch debian/12", &["debian/12", "debian/12/sysvinit"]);
    check(&lab, "image build busy", &["busybox"]);
    check(&lab, "image delete debian/", &[]);
    check(&lab, "rebuild busybox name", &["namely"]);
    check(&lab, "move namely --storage def", &["default"]);
    check(&lab, "create busybox x --network cab", &["cabinbr0"]);
    check(&lab, "--project def", &["default"]);
    check(&lab, "project show def", &["default"]);
    for line in
        ["restore namely be", "snapshot delete namely be", "snapshot rename namely be", "diff namely be"]
    {
        check(&lab, line, &["before", "below"]);
    }
    check(&lab, "copy namely/bef", &["namely/before"]);
    check(&lab, "publish namely/", &["namely/before", "namely/below"]);
    let socket = lab.socket().display().to_string();
    let elsewhere = |words: &[&str]| {
        let words = [&["--project", "default"], words].concat();
        offered(&lab, &words)
    };
    assert_eq!(elsewhere(&["--socket", "/nonexistent", "info", "name"]), [""; 0]);
    assert_eq!(elsewhere(&["--socket", &socket, "info", "name"]), ["namely"]);
    name(&["delete", "namely"]);
    name(&["profile", "delete", "nameless"]);
}

#[test]
fn keys_and_their_values_are_completed() {
    let lab = shared();
    let done = |words: &[&str]| drop(lab.cabin(words).ok());
    done(&["create", "busybox", "keyed", "-c", "user.colour=green", "-c", "limits.memory=64MiB"]);
    check(
        &lab,
        "config set keyed limits.me",
        &["limits.memory=", "limits.memory.enforce=", "limits.memory.swap="],
    );
    check(&lab, "config set keyed a=1 user.c", &["user.colour="]);
    check(&lab, "config get keyed user.", &["user.colour"]);
    check(&lab, "config get keyed limits.kernel.nof", &["limits.kernel.nofile"]);
    among(&lab, "config unset keyed ", &["user.colour", "limits.memory"], &["limits.cpu", "keyed"]);
    among(&lab, "config set ", &["keyed", "core.shutdown_timeout="], &["limits.cpu="]);
    check(&lab, "config set core.", &["core.metrics_authentication=", "core.shutdown_timeout="]);
    check(&lab, "config set keyed security.nesting = t", &["true"]);
    check(&lab, "config set keyed security.nesting ", &["true", "false"]);
    check(&lab, "config set keyed security.nesting=t", &["security.nesting=true"]);
    check(&lab, "launch -c limits.cpu.a", &["limits.cpu.allowance="]);
    check(&lab, "profile set default limits.proc", &["limits.processes="]);
    check(&lab, "network set cabinbr0 ipv4.dhcp.ex", &["ipv4.dhcp.expiry="]);
    check(&lab, "network get cabinbr0 ipv4.dhcp.ex", &["ipv4.dhcp.expiry"]);
    check(&lab, "storage set default volatile.", &[]);
    done(&["delete", "keyed"]);
}

#[test]
fn devices_and_their_properties_are_completed() {
    let lab = shared();
    let done = |words: &[&str]| drop(lab.cabin(words).ok());
    done(&["create", "busybox", "deviced"]);
    done(&["config", "device", "add", "deviced", "scratch", "disk", "source=tmpfs:", "path=/scratch"]);
    for verb in ["get", "set", "unset", "remove"] {
        check(&lab, &format!("config device {verb} deviced "), &["scratch"]);
    }
    check(&lab, "config device override deviced ", &["eth0", "root"]);
    check(&lab, "launch busybox --device eth0,ho", &["eth0,host_name="]);
    check(&lab, "launch busybox -d eth0,mtu=1400,security.mac", &["eth0,mtu=1400,security.mac_filtering="]);
    check(&lab, "launch busybox -d root,readonly=t", &["root,readonly=true"]);
    check(&lab, "launch busybox --profile nesting -d eth0,", &[]);
    check(&lab, "copy deviced other -d scratch,initial.m", &["scratch,initial.mode="]);
    check(&lab, "profile device get default e", &["eth0"]);
    check(&lab, "config device add deviced eth1 n", &["nic", "none"]);
    check(&lab, "config device add deviced eth1 nic net", &["network="]);
    check(&lab, "config device add deviced eth1 nic network = cab", &["cabinbr0"]);
    check(&lab, "config device set deviced scratch initial.m", &["initial.mode="]);
    check(&lab, "config device get deviced scratch sou", &["source"]);
    check(&lab, "config device unset deviced scratch ", &["path", "source", "type"]);
    done(&["delete", "deviced"]);
}

#[test]
fn files_are_completed_and_what_a_shell_would_run_is_not() {
    let lab = shared();
    let done = |words: &[&str]| drop(lab.cabin(words).ok());
    done(&["launch", "busybox", "filed"]);
    let _ = lab.sh(
        "filed",
        "mkdir -p /srv/deep /srv/odd; touch /srv/deep/leaf /srv/deep/lead '/srv/odd/$(id)' '/srv/odd/a b'",
    );
    std::fs::create_dir_all(lab.home().join("here/below")).unwrap();
    std::fs::write(lab.home().join("here/note"), "").unwrap();
    check(&lab, "file pull fil", &["filed/"]);
    check(&lab, "file pull filed/sr", &["filed/srv/"]);
    check(&lab, "file delete filed/srv/de", &["filed/srv/deep/"]);
    check(&lab, "file edit filed/srv/deep/lea", &["filed/srv/deep/lead", "filed/srv/deep/leaf"]);
    check(&lab, "file pull filed/srv/odd/", &[]);
    check(&lab, "file pull filed/srv/deep/leaf here/no", &["here/note"]);
    check(&lab, "file push here/", &["here/below/", "here/note"]);
    check(&lab, "file push fil", &[]);
    check(&lab, "file push here/note filed/srv/d", &["filed/srv/deep/"]);
    check(&lab, "import here/n", &["here/note"]);
    done(&["delete", "--force", "filed"]);
}

#[test]
fn volumes_with_their_snapshots_and_files_are_completed() {
    let lab = shared();
    let done = |words: &[&str]| drop(lab.cabin(words).ok());
    done(&["create", "busybox", "reader"]);
    done(&["storage", "volume", "create", "default", "shelf"]);
    done(&["storage", "volume", "snapshot", "create", "default", "shelf", "full"]);
    done(&["storage", "volume", "file", "create", "default", "shelf/book"]);
    done(&["storage", "volume", "attach", "default", "shelf", "reader", "books", "/srv"]);
    check(&lab, "storage volume show default ", &["shelf"]);
    check(&lab, "storage volume detach default shelf reader ", &["books"]);
    check(&lab, "storage volume snapshot restore default shelf ", &["full"]);
    check(&lab, "storage volume copy def", &["default/"]);
    check(&lab, "storage volume copy default/sh", &["default/shelf"]);
    check(&lab, "storage volume copy default/shelf/f", &["default/shelf/full"]);
    check(
        &lab,
        "storage volume set default shelf snapshots.exp",
        &["snapshots.expiry=", "snapshots.expiry.manual="],
    );
    check(&lab, "storage volume file pull default sh", &["shelf/"]);
    check(&lab, "storage volume file pull default shelf/b", &["shelf/book"]);
    done(&["delete", "reader"]);
    done(&["storage", "volume", "delete", "default", "shelf"]);
}
