//! `make demo`: run twice it works twice, and `make demo-clean` takes away all that it made.

use std::path::{Path, PathBuf};
use std::process::Command;

use cabin_tests::audit;
use cabin_tests::cli::{Outcome, host, run};

/// A place and a network of its own for the demo.
struct Stage {
    dir: PathBuf,
    netns: String,
}

impl Stage {
    fn new(letter: char) -> Stage {
        let id = format!("{letter}{}", std::process::id());
        let stage = Stage { dir: format!("/var/tmp/cabin-test-{id}").into(), netns: format!("cbt{id}") };
        host(&["ip", "netns", "add", &stage.netns]).ok();
        stage
    }

    fn demo(&self, words: &[&str]) -> Outcome {
        run(Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.netns))
            .args(["sh", ".ci/demo"])
            .args(words)
            .current_dir(cabin_tests::root())
            .env("CABIN_DIR", &self.dir)
            .env("CABIN_PROFILE", cabin_tests::profile()))
    }

    fn init(&self) -> String {
        let mut cabin = Command::new(cabin_tests::binary("cabin"));
        let state = run(cabin.args(["query", "/1.0/instances/first/state"]).env("CABIN_DIR", &self.dir));
        state.json()["pid"].to_string()
    }

    fn beside(&self, end: &str) -> PathBuf {
        Path::new(&format!("{}{end}", self.dir.display())).to_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        audit::clear(&self.dir, &self.netns);
        for end in [".pid", ".log"] {
            let _ = std::fs::remove_file(self.beside(end));
        }
    }
}

/// The network of the test leads nowhere, so the place is as after a build whose container was deleted: the demo's own,
/// with what was built in the daemon's cache.
fn as_after_a_build(stage: &Stage) {
    let out = std::env::temp_dir().join(format!("cabin-demo-{}", std::process::id()));
    let mut builder = Command::new(cabin_tests::binary("distrobuilder"));
    run(builder.args(["build", "debian/12"]).arg(&out)).ok();
    std::fs::remove_dir_all(&out).unwrap();
    std::fs::create_dir(&stage.dir).unwrap();
    std::fs::write(stage.dir.join("made-by-demo"), "").unwrap();
    host(&["cp", "-a", "/var/cache/cabin/distrobuilder", &stage.dir.join("cache").to_string_lossy()]).ok();
}

#[test]
fn the_demo_works_twice_and_is_taken_away_whole() {
    let stage = Stage::new('d');
    as_after_a_build(&stage);
    let first = stage.demo(&[]).ok();
    for shown in ["Debian GNU/Linux 12", "host name first, init systemd", "running", "remove everything"] {
        assert!(first.contains(shown), "no `{shown}` in {first}");
    }
    let init = stage.init();
    let again = stage.demo(&[]).ok();
    assert!(again.contains("first is there from an earlier run"), "{again}");
    assert_eq!(stage.init(), init, "the container did not live on under the daemon that followed");

    stage.demo(&["clean"]).ok();
    assert_eq!(audit::leftovers(&stage.dir, &stage.netns), Vec::<String>::new());
    for gone in ["", ".pid", ".log"] {
        assert!(!stage.beside(gone).exists(), "{} is left", stage.beside(gone).display());
    }
}

#[test]
fn what_the_demo_did_not_make_it_does_not_take_away() {
    let stage = Stage::new('e');
    std::fs::create_dir_all(stage.dir.join("database")).unwrap();
    let refused = stage.demo(&["clean"]).refused();
    assert!(refused.contains("was there before the demo"), "{refused}");
    assert!(stage.dir.join("database").exists());
}
