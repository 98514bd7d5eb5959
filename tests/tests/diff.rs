//! `cabin diff`: what differs between an instance's image, its snapshots, and what is now.

use cabin_tests::lab::Lab;
use serde_json::Value;

fn diff(lab: &Lab, args: &[&str]) -> Vec<String> {
    let all = [&["diff", "-f", "json"], args].concat();
    let told: Value = serde_json::from_str(&lab.cabin(&all).ok()).expect("JSON");
    assert_eq!(told["complete"], true, "{told}");
    let entries = told["entries"].as_array().cloned().unwrap_or_default();
    let count = |change: &str| entries.iter().filter(|it| it["change"] == change).count();
    for change in ["added", "changed", "removed"] {
        assert_eq!(told[change], count(change), "{told}");
    }
    let line = |it: &Value| {
        let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
        format!(
            "{} {} {} {}>{}",
            text("change"),
            text("type"),
            text("path"),
            it["size_before"],
            it["size_after"]
        )
    };
    entries.iter().map(line).collect()
}

#[test]
fn files_that_differ_are_told_with_their_sizes() {
    let lab = Lab::shared();
    lab.busybox("differs");
    lab.sh("differs", "mkdir -p /data/old; echo one >/data/file; echo gone >/data/old/gone; rm /etc/passwd");
    let first = diff(&lab, &["differs"]);
    for line in ["added file /data/file 0>4", "added directory /data 0>0", "added file /data/old/gone 0>5"] {
        assert!(first.iter().any(|it| it == line), "{line}: {first:?}");
    }
    assert!(first.iter().any(|it| it.starts_with("removed file /etc/passwd ")), "{first:?}");
    lab.cabin(&["snapshot", "create", "differs", "one"]).ok();
    lab.sh(
        "differs",
        "echo longer >/data/file; rm -r /data/old; ln -s file /data/link; : >\"$(printf '/data/a\\033b')\"",
    );
    let second = [
        "added file /data/a\u{1b}b 0>0",
        "changed file /data/file 4>7",
        "added symlink /data/link 0>0",
        "removed directory /data/old 0>0",
        "removed file /data/old/gone 5>0",
    ];
    let in_data = |told: Vec<String>| -> Vec<String> {
        told.into_iter().filter(|line| line.contains(" /data")).collect()
    };
    assert_eq!(in_data(diff(&lab, &["differs/one"])), second);
    // Stopped, what it holds is frozen, and tells the same.
    lab.cabin(&["stop", "-f", "differs"]).ok();
    lab.cabin(&["snapshot", "create", "differs", "two"]).ok();
    assert_eq!(in_data(diff(&lab, &["differs/one", "two"])), second);
    assert!(diff(&lab, &["differs/two"]).is_empty());
    let table = lab.cabin(&["diff", "differs/one", "two"]).ok();
    assert!(table.contains("REMOVED") && table.contains("/data/a?b") && !table.contains('\u{1b}'), "{table}");
    let csv = lab.cabin(&["diff", "differs/one", "two", "-f", "csv"]).ok();
    assert!(csv.lines().any(|line| line == "CHANGED,FILE,4B,7B,/data/file"), "{csv}");
    let yaml = lab.cabin(&["diff", "differs/one", "two", "-f", "yaml"]).ok();
    assert!(yaml.contains("path: /data/file"), "{yaml}");
    let none = lab.cabin(&["diff", "differs/none"]).refused();
    assert!(none.contains("not found"), "{none}");
    let none = lab.cabin(&["diff", "differs", "none"]).refused();
    assert!(none.contains("not found"), "{none}");
    lab.cabin(&["delete", "-f", "differs"]).ok();
}
