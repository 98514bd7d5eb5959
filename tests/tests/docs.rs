//! The pages of the tree say what the code says: generated ones are fresh, links lead somewhere.

use cabin_tests::tree::files;

#[test]
fn docs_are_fresh() {
    let path = cabin_tests::root().join("docs/config.md");
    let fresh = cabin_profiles::reference_markdown();
    if std::env::var_os("CABIN_BLESS").is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == fresh, "docs/config.md is not what the table of keys says: run `make docs`");
}

#[test]
fn the_readme_points_at_files_that_exist() {
    let root = cabin_tests::root();
    for page in files(&["md"]).iter().filter(|page| !page.path.contains("/images/")) {
        let folder = root.join(&page.path).parent().unwrap().to_path_buf();
        for part in page.text.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            let outside = target.is_empty() || target.contains("://");
            assert!(outside || folder.join(target).exists(), "{} points at `{target}`", page.path);
        }
    }
}

/// The words of a source file between a mark and the next sign, such as the names in a table.
fn words_after<'a>(text: &'a str, mark: &str, end: char) -> Vec<&'a str> {
    text.split(mark).skip(1).filter_map(|rest| rest.split(end).next()).collect()
}

#[test]
fn the_security_page_names_every_refused_call_and_withheld_capability() {
    let root = cabin_tests::root();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let page = read("docs/security.md");
    let policy = read("daemon/runtime/src/confine/policy.rs");
    let calls = words_after(&policy, "(\"", '"');
    assert!(calls.len() > 20, "{calls:?}");
    let capabilities = read("daemon/runtime/src/confine/capabilities.rs");
    let withheld: Vec<&str> = words_after(&capabilities, "Caps::", '\n')
        .into_iter()
        .map(|rest| rest.split(|it: char| it != '_' && !it.is_ascii_uppercase()).next().unwrap_or_default())
        .collect();
    assert!(withheld.len() > 8, "{withheld:?}");
    for name in calls.into_iter().chain(withheld) {
        assert!(page.contains(&format!("`{name}`")), "docs/security.md does not name `{name}`");
    }
}
