//! Commands inside: streams, exit codes, signals, recorded output, large amounts, and what a command may see.

use cabin_tests::cli::run_with;
use cabin_tests::lab::Lab;
use serde_json::json;

#[test]
fn streams_are_apart_and_the_exit_code_comes_back() {
    let lab = Lab::shared();
    lab.busybox("streams");
    let done = lab.exec("streams", &["sh", "-c", "echo out; echo err >&2; exit 42"]);
    assert_eq!((done.out.as_str(), done.err.as_str(), done.code), ("out\n", "err\n", 42));
    assert_eq!(lab.exec("streams", &["sh", "-c", "kill -9 $$"]).code, 137);
    assert_eq!(lab.exec("streams", &["no-such-program"]).code, 127);
    assert_eq!(lab.exec("streams", &["/etc/hostname"]).code, 126);
    lab.cabin(&["delete", "-f", "streams"]).ok();
}

#[test]
fn much_goes_through_intact_in_both_directions() {
    let lab = Lab::shared();
    lab.busybox("much");
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let back = lab.cabin_with(&["exec", "much", "--", "cat"], &bytes);
    assert_eq!(back.code, 0, "{}", back.err);
    assert!(back.bytes == bytes, "{} bytes came back of {}", back.bytes.len(), bytes.len());
    lab.cabin(&["delete", "-f", "much"]).ok();
}

#[test]
fn a_command_has_the_user_directory_and_environment_it_was_given() {
    let lab = Lab::shared();
    lab.launch("busybox", "given", &["-c", "environment.EDITOR=ed"]);
    let words =
        ["exec", "given", "--user", "1234", "--group", "5678", "--cwd", "/tmp", "--env", "A=b c", "--"];
    let script = ["sh", "-c", "id -u; id -g; pwd; echo $A $EDITOR"];
    let done = lab.cabin(&[words.as_slice(), script.as_slice()].concat()).ok();
    assert_eq!(done, "1234\n5678\n/tmp\nb c ed");
    assert_eq!(lab.sh("given", "echo $HOME $USER $PWD"), "/root root /root");
    lab.cabin(&["delete", "-f", "given"]).ok();
}

#[test]
fn output_can_be_recorded() {
    let lab = Lab::shared();
    lab.busybox("record");
    let body = json!({"command": ["sh", "-c", "echo kept; echo too >&2; exit 3"], "record-output": true});
    let done = lab.operate("POST", "/1.0/instances/record/exec", &body);
    assert_eq!(done["metadata"]["return"], 3, "{done}");
    let read = |stream: &str| {
        let url = done["metadata"]["output"][stream].as_str().unwrap_or_else(|| panic!("no output: {done}"));
        lab.call("GET", url, None).text()
    };
    assert_eq!((read("1").as_str(), read("2").as_str()), ("kept\n", "too\n"));
    lab.cabin(&["delete", "-f", "record"]).ok();
}

#[test]
fn recorded_output_and_logs_are_listed_until_they_are_deleted() {
    let lab = Lab::shared();
    lab.busybox("listed");
    let body = json!({"command": ["echo", "kept"], "record-output": true});
    let output = lab.operate("POST", "/1.0/instances/listed/exec", &body)["metadata"]["output"].clone();
    let logs = "/1.0/instances/listed/logs";
    let mut wanted = [output["1"].clone(), output["2"].clone()].to_vec();
    wanted.sort_by_key(ToString::to_string);
    let outputs = || {
        let mut found = lab.get(&format!("{logs}/exec-output")).as_array().unwrap().clone();
        found.sort_by_key(ToString::to_string);
        found
    };
    assert_eq!(outputs(), wanted);
    let log = json!(format!("{logs}/lxc.log"));
    assert!(lab.get(logs).as_array().unwrap().contains(&log), "{}", lab.get(logs));
    for address in [&wanted[0], &log] {
        let address = address.as_str().unwrap();
        assert_eq!(lab.call("DELETE", address, None).status, 200);
        assert_eq!(lab.call("DELETE", address, None).status, 404, "{address} twice");
    }
    assert_eq!(outputs(), wanted[1..]);
    assert!(!lab.get(logs).as_array().unwrap().contains(&log), "{}", lab.get(logs));
    lab.cabin(&["delete", "-f", "listed"]).ok();
}

#[test]
fn a_terminal_has_the_size_it_was_given() {
    let lab = Lab::shared();
    lab.busybox("sized");
    let line = format!(
        "stty rows 33 cols 99; {} exec sized -t -- stty size",
        cabin_tests::binary("cabin").display()
    );
    let mut command = lab.command(
        std::path::Path::new("/usr/bin/script"),
        &["--quiet", "--return", "--command", &line, "/dev/null"],
    );
    let done = run_with(&mut command, b"");
    assert!(done.out.contains("33 99"), "{done:?}");
    lab.cabin(&["delete", "-f", "sized"]).ok();
}

#[test]
fn a_command_is_inside_the_container_and_sees_no_open_file_of_ours() {
    let lab = Lab::shared();
    lab.busybox("inside");
    let files = lab.sh("inside", "ls /proc/self/fd | wc -l");
    assert!(files.parse::<u32>().unwrap() <= 4, "{files} open files (three streams and the listing's own)");
    let caps = lab.sh("inside", "grep -E 'CapInh|CapAmb' /proc/self/status | tr -d '[:space:]'");
    assert_eq!(caps, "CapInh:0000000000000000CapAmb:0000000000000000");
    assert_eq!(lab.sh("inside", "grep Seccomp: /proc/self/status | cut -f2"), "2");
    let escaped = lab.cabin(&["exec", "inside", "--cwd", "/proc/self/fd/7", "--", "pwd"]);
    assert!(escaped.code != 0, "{escaped:?}");
    lab.cabin(&["delete", "-f", "inside"]).ok();
}

#[test]
fn a_command_on_a_stopped_instance_is_refused() {
    let lab = Lab::shared();
    lab.image("busybox");
    lab.cabin(&["create", "busybox", "asleep"]).ok();
    let said = lab.exec("asleep", &["true"]).refused();
    assert!(said.contains("asleep") && said.contains("running"), "{said}");
    lab.cabin(&["delete", "asleep"]).ok();
}

#[test]
fn a_command_may_be_as_long_as_the_kernel_takes_it() {
    let lab = Lab::shared();
    lab.busybox("wordy");
    let words = ["a", "b", "c", "d", "e"].map(|letter| letter.repeat(100_000));
    let mut line = vec!["exec", "wordy", "--", "sh", "-c", "echo $# ${#5}", "sh"];
    line.extend(words.iter().map(String::as_str));
    assert_eq!(lab.cabin(&line).ok(), "5 100000");
    lab.cabin(&["delete", "-f", "wordy"]).ok();
}
