//! The house rules over the whole tree, and for each rule a sample that it refuses.

use cabin_tests::manifest::{ARROWS, Manifest};
use cabin_tests::rules;
use cabin_tests::swept;
use cabin_tests::tree::{Source, files, rust};

type Rule = fn(&Source) -> Vec<String>;

/// Every Rust file keeps the rule, and the sample does not.
#[track_caller]
fn holds(rule: Rule, path: &str, sample: &str) {
    assert!(!rule(&Source::new(path, sample)).is_empty(), "the rule accepts its bad sample:\n{sample}");
    all_keep(rule, &rust());
}

#[track_caller]
fn all_keep(rule: Rule, tree: &[Source]) {
    let wrong: Vec<String> = tree.iter().flat_map(rule).collect();
    assert!(tree.len() > 20, "the walk found only {} files", tree.len());
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    holds(rules::size, "a.rs", &"\n".repeat(601));
}

#[test]
fn files_open_with_what_they_own() {
    holds(rules::opening, "a.rs", "use std::fs;\n//! too late\n");
}

#[test]
fn only_sys_is_unsafe() {
    holds(rules::no_unsafe, "daemon/core/src/a.rs", "fn a() { unsafe { b() } }");
    assert!(!rules::no_unsafe(&Source::new("daemon/core/src/lib.rs", "//! No root may lack it.")).is_empty());
    assert!(rules::no_unsafe(&Source::new("daemon/core/src/a.rs", "// unsafe in a comment")).is_empty());
}

#[test]
fn everything_outside_has_one_owner() {
    holds(rules::fences, "daemon/core/src/a.rs", "let dir = \"/sys/fs/cgroup/x\";");
    for (mark, owners, _) in rules::FENCES {
        let sample = format!("fn a() {{ {mark}; }}");
        assert!(
            !rules::fences(&Source::new("elsewhere/src/a.rs", &sample)).is_empty(),
            "`{mark}` is not fenced"
        );
        for owner in *owners {
            assert!(
                rules::fences(&Source::new(&format!("{owner}.rs"), &sample))
                    .iter()
                    .all(|it| !it.contains(mark))
            );
        }
    }
}

#[test]
fn modules_have_names_that_mean_something() {
    holds(rules::names, "daemon/core/src/util.rs", "");
}

#[test]
fn nobody_sleeps_instead_of_waiting() {
    holds(rules::no_sleep, "a.rs", "std::thread::sleep(TEN);");
}

#[test]
fn no_test_is_switched_off() {
    holds(rules::no_ignored_test, "a.rs", "#[test]\n#[ignore]\nfn a_b_c() {}");
}

#[test]
fn tests_are_named_by_sentences() {
    holds(rules::sentences, "a.rs", "#[test]\nfn works() {}");
}

#[test]
fn only_output_prints() {
    holds(rules::prints, "client/src/commands/list.rs", "fn a() { println!(\"x\"); }");
}

#[test]
fn strings_end_above_the_floor_of_matter() {
    holds(rules::no_string_maps, "daemon/storage/src/a.rs", "fn a(config: &BTreeMap<String, String>) {}");
}

#[test]
fn below_core_nothing_logs_or_is_async() {
    holds(rules::floors, "daemon/storage/src/a.rs", "tracing::warn!(\"x\");");
    holds(rules::floors, "daemon/storage/src/a.rs", "tokio::spawn(a);");
}

#[test]
fn the_tree_speaks_of_the_project_alone() {
    let sample = concat!("// TO", "DO: see iss", "ue 7");
    assert_eq!(rules::words(&Source::new("a.rs", sample)).len(), 2);
    all_keep(
        rules::words,
        &files(&["rs", "md", "toml", "yaml", "tpl", "sh", "Makefile", "service", "socket"]),
    );
}

#[test]
fn arrows_only_go_down() {
    let bad = Manifest::parse(
        "[package]\nname = \"cabin-storage\"\n[dependencies]\ncabin-network.workspace = true\n",
    );
    assert_eq!(bad.wrong_arrows(), ["`cabin-storage` may not see `cabin-network`"]);
    let bad = Manifest::parse("[package]\nname = \"cabin-api\"\n[dependencies]\ntokio = \"1\"\n");
    assert_eq!(bad.wrong_arrows(), ["`cabin-api` may not take `tokio` from outside"]);

    let manifests: Vec<Manifest> = files(&["Cargo.toml"])
        .iter()
        .map(|file| Manifest::parse(&file.text))
        .filter(|it| !it.name.is_empty())
        .collect();
    assert_eq!(manifests.len(), ARROWS.len(), "crates in the tree and in the table of floors");
    let wrong: Vec<String> = manifests.iter().flat_map(Manifest::wrong_arrows).collect();
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn every_crate_shares_the_lints() {
    let apart: Vec<String> = files(&["Cargo.toml"])
        .iter()
        .map(|file| Manifest::parse(&file.text))
        .filter(|it| !it.name.is_empty() && it.name != "cabin-tests" && !it.shares_lints)
        .map(|it| it.name)
        .collect();
    assert!(apart.is_empty(), "without `[lints] workspace = true`: {apart:?}");
    let root = std::fs::read_to_string(cabin_tests::root().join("Cargo.toml")).unwrap();
    for lint in
        ["unsafe_code", "undocumented_unsafe_blocks", "unwrap_used", "expect_used", "panic", "too_many_lines"]
    {
        assert!(root.contains(&format!("{lint} = \"deny\"")), "`{lint}` is not denied in Cargo.toml");
    }
}

#[test]
fn the_architecture_names_tests_that_exist() {
    let page = std::fs::read_to_string(cabin_tests::root().join("ARCHITECTURE.md")).unwrap();
    let tests: String = files(&["rs"]).iter().map(|file| file.bare.clone()).collect();
    let words: Vec<&str> = page.split('`').skip(1).step_by(2).collect();
    // A test is named by a sentence, with or without its file before it.
    let sentence = |word: &&str| word.matches('_').count() > 2 && !word.contains(['/', ' ', '.']);
    let bare = words.iter().map(|word| word.rsplit("::").next().unwrap_or(word));
    let of_tidy = words.iter().filter_map(|word| word.strip_prefix("tidy::"));
    let named: Vec<&str> = bare.filter(sentence).chain(of_tidy).filter(|name| *name != "…").collect();
    assert!(named.len() > 20, "the table of invariants names {} tests", named.len());
    for path in
        words.iter().filter(|word| word.contains('/') && word.ends_with(".rs") && !word.contains(['{', '*']))
    {
        assert!(
            cabin_tests::root().join(path).exists(),
            "ARCHITECTURE.md names `{path}`, which does not exist"
        );
    }
    for name in named {
        assert!(
            tests.contains(&format!("fn {name}()")),
            "ARCHITECTURE.md names `{name}`, which does not exist"
        );
    }
}

#[test]
fn every_route_that_changes_something_is_swept_or_says_why_not() {
    let bad = r#"row!(PUT "/1.0/moons/{name}", moons::update, "Replace a moon")"#;
    let wrong = swept::wrong(bad);
    assert!(wrong.iter().any(|it| it.starts_with("PUT /1.0/moons/{name}: no verb")), "{wrong:?}");
    assert!(wrong.iter().any(|it| it.ends_with("PUT /1.0: there is no such route")), "{wrong:?}");

    let routes = std::fs::read_to_string(cabin_tests::root().join("daemon/src/routes.rs")).unwrap();
    let wrong = swept::wrong(&routes);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
