//! The arrows between crates: what each `Cargo.toml` depends on, and what it may.

use std::collections::BTreeSet;

/// The crates of the tree with those of our own each may see. Ground first; an arrow only goes down, and the
/// crates of floor 1 never see each other.
pub const ARROWS: &[(&str, &[&str])] = &[
    ("cabin-sys", &[]),
    ("cabin-undo", &[]),
    ("cabin-api", &[]),
    ("cabin-profiles", &[]),
    ("cabin-templates", &[]),
    ("cabin-runtime", &["cabin-sys", "cabin-undo"]),
    ("cabin-storage", &["cabin-sys", "cabin-undo"]),
    ("cabin-network", &["cabin-sys", "cabin-undo"]),
    ("cabin-images", &["cabin-sys", "cabin-undo"]),
    ("cabin-store", &["cabin-sys", "cabin-undo"]),
    (
        "cabin-core",
        &[
            "cabin-sys",
            "cabin-undo",
            "cabin-api",
            "cabin-profiles",
            "cabin-templates",
            "cabin-runtime",
            "cabin-storage",
            "cabin-network",
            "cabin-images",
            "cabin-store",
        ],
    ),
    ("cabin-client", &["cabin-api"]),
    ("cabind", &["cabin-core", "cabin-api", "cabin-sys", "cabin-undo", "cabin-profiles"]),
    ("cabin", &["cabin-client", "cabin-api", "cabin-profiles"]),
    ("cabin-distrobuilder", &["cabin-images", "cabin-sys", "cabin-undo", "cabin-templates"]),
    ("cabin-tests", &["cabin-profiles", "cabin-api"]),
];

/// What the two crates at the very bottom may take from outside.
pub const OUTSIDE: &[(&str, &[&str])] = &[
    ("cabin-api", &["serde", "serde_json"]),
    ("cabin-sys", &["nix", "rustix", "libc", "thiserror", "tempfile"]),
];

/// What a `Cargo.toml` says about its package.
#[derive(Debug, Default)]
pub struct Manifest {
    /// The package's name; empty for the workspace's own file.
    pub name: String,
    /// The names under any `dependencies` table, development ones included.
    pub dependencies: BTreeSet<String>,
    /// Whether `[lints]` says `workspace = true`.
    pub shares_lints: bool,
}

impl Manifest {
    /// Reads what is needed here of TOML: tables, `key = …` lines.
    #[must_use]
    pub fn parse(text: &str) -> Manifest {
        let mut found = Manifest::default();
        let mut table = String::new();
        for line in text.lines().map(str::trim) {
            if let Some(head) = line.strip_prefix('[') {
                table = head.trim_end_matches(']').to_owned();
                // `[dependencies.name]` is a dependency too.
                if let Some((kind, name)) = table.rsplit_once('.')
                    && kind.ends_with("dependencies")
                    && kind != "workspace.dependencies"
                {
                    found.dependencies.insert(name.to_owned());
                }
            } else if let Some((key, value)) = line.split_once('=') {
                let key = key.trim();
                match table.as_str() {
                    "package" if key == "name" => value.trim().trim_matches('"').clone_into(&mut found.name),
                    "lints" if key == "workspace" => found.shares_lints = value.trim() == "true",
                    "workspace.dependencies" => {}
                    kind if kind.ends_with("dependencies") => {
                        let name = key.split('.').next().unwrap_or(key);
                        found.dependencies.insert(name.to_owned());
                    }
                    _ => {}
                }
            }
        }
        found
    }

    /// Where this package's arrows go that they may not.
    #[must_use]
    pub fn wrong_arrows(&self) -> Vec<String> {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == self.name) else {
            return vec![format!("`{}` has no place in the table of floors", self.name)];
        };
        let ours = self.dependencies.iter().filter(|name| ARROWS.iter().any(|(own, _)| own == name));
        let mut wrong: Vec<String> = ours
            .filter(|name| !allowed.contains(&name.as_str()))
            .map(|name| format!("`{}` may not see `{name}`", self.name))
            .collect();
        if let Some((_, outside)) = OUTSIDE.iter().find(|(name, _)| *name == self.name) {
            wrong.extend(
                self.dependencies
                    .iter()
                    .filter(|name| !outside.contains(&name.as_str()) && !allowed.contains(&name.as_str()))
                    .map(|name| format!("`{}` may not take `{name}` from outside", self.name)),
            );
        }
        wrong
    }
}
