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
