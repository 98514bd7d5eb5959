//! What README tells a newcomer to type is typed here, line by line.

use cabin_tests::cli::run_with;
use cabin_tests::lab::Lab;

/// The lines of the fenced block after this mark, prompts and comments taken off.
fn block(mark: &str) -> Vec<String> {
    let page = std::fs::read_to_string(cabin_tests::root().join("README.md")).unwrap();
    let after = page.split(mark).nth(1).unwrap_or_else(|| panic!("README.md has no `{mark}`"));
    let fenced = after.split("```").nth(1).expect("a fenced block");
    let lines = fenced.lines().skip(1).map(|line| line.split(" #").next().unwrap_or_default().trim());
    lines.filter(|line| !line.is_empty()).map(|line| line.trim_start_matches("sudo ").to_owned()).collect()
}

#[test]
fn the_first_container_of_the_readme_works() {
    let lab = Lab::shared();
    lab.image("debian/12");
    let path =
        format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", cabin_tests::binary("cabin").parent().unwrap().display());
    let lines = block("<!-- first container -->");
    assert!(lines.len() >= 5, "{lines:?}");
    for line in lines {
        let mut command = lab.command(std::path::Path::new("/bin/sh"), &["-ec", &line]);
        // Somebody who enters a shell leaves it again; all else is not given anything to read.
        let typed: &[u8] = if line.contains(" shell ") { b"exit\n" } else { b"" };
        let done = run_with(command.env("PATH", &path).current_dir(cabin_tests::root()), typed);
        assert_eq!(done.code, 0, "`{line}`: {}{}", done.out, done.err);
    }
}
