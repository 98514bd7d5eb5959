//! The files of the tree as the house rules see them: whole, without comments, and without strings too.

use std::path::{Path, PathBuf};

/// A file of the tree.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its path below the workspace's folder, with `/` between the parts.
    pub path: String,
    /// All of it.
    pub text: String,
    /// Comments blanked out, line by line; for files that are not Rust the same as `text`.
    pub code: String,
    /// Comments and the insides of strings blanked out.
    pub bare: String,
}

impl Source {
    /// A file with this path and content; Rust is told by the ending of the path.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Source {
        let (code, bare) =
            if path.ends_with(".rs") { strip(text) } else { (text.to_owned(), text.to_owned()) };
        Source { path: path.to_owned(), text: text.to_owned(), code, bare }
    }

    /// The part of `code` that is not inside `#[cfg(test)]` modules: everything before the first one,
    /// since those stand at the bottom of a file.
    #[must_use]
    pub fn product(&self) -> &str {
        self.code.find("#[cfg(test)]").map_or(self.code.as_str(), |end| self.code.get(..end).unwrap_or(""))
    }

    /// The rest: what [`Source::product`] leaves out, without comments and strings.
    #[must_use]
    pub fn tests(&self) -> &str {
        self.bare.find("#[cfg(test)]").map_or("", |start| self.bare.get(start..).unwrap_or(""))
    }

    /// Whether the path is in or below one of these.
    #[must_use]
    pub fn within(&self, places: &[&str]) -> bool {
        places.iter().any(|place| {
            self.path.strip_prefix(place).is_some_and(|rest| {
                rest.is_empty() || place.ends_with('/') || rest.starts_with('/') || rest == ".rs"
            })
        })
    }
}

/// All Rust files of the tree.
#[must_use]
pub fn rust() -> Vec<Source> {
    files(&["rs"])
}

/// All files whose names end in one of these, build output apart.
///
/// # Panics
/// When a folder cannot be read.
#[must_use]
pub fn files(endings: &[&str]) -> Vec<Source> {
    let root = crate::root();
    let mut found = Vec::new();
    let mut left = vec![root.clone()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|why| panic!("{}: {why}", dir.display())) {
            let path = entry.expect("an entry of the tree").path();
            if path.is_dir() && !path.is_symlink() {
                if !skipped(&path) {
                    left.push(path);
                }
            } else if endings.iter().any(|end| is_named(&path, end)) {
                found.push(read(&root, &path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn skipped(dir: &Path) -> bool {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    name == "target" || name == ".git"
}

fn is_named(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|it| it == ending) || path.file_name().is_some_and(|name| name == ending)
}

fn read(root: &Path, path: &PathBuf) -> Source {
    let below = path.strip_prefix(root).expect("a path below the root").to_string_lossy().into_owned();
    let bytes = std::fs::read(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    Source::new(&below, &String::from_utf8_lossy(&bytes))
}

/// What the walk through Rust text is inside of.
enum State {
    Code,
    Line,
    Block(u32),
    Text { hashes: Option<usize> },
}

/// Blanks comments out, and in the second text the insides of strings too. Line breaks stay.
fn strip(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut bare) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut state = State::Code;
    let mut at = 0;
    while let Some(&now) = chars.get(at) {
        let next = chars.get(at + 1).copied().unwrap_or('\0');
        let (keep_code, keep_bare, step) = match state {
            State::Code => match (now, next) {
                ('/', '/') => {
                    state = State::Line;
                    (false, false, 1)
                }
                ('/', '*') => {
                    state = State::Block(1);
                    (false, false, 2)
                }
                ('"', _) => {
                    state = State::Text { hashes: raw_hashes(&chars, at) };
                    (true, true, 1)
                }
                ('\'', _) => (true, true, literal_length(&chars, at)),
                _ => (true, true, 1),
            },
            State::Line => {
                if now == '\n' {
                    state = State::Code;
                }
                (false, false, 1)
            }
            State::Block(depth) => match (now, next) {
                ('*', '/') => {
                    state = if depth == 1 { State::Code } else { State::Block(depth - 1) };
                    (false, false, 2)
                }
                ('/', '*') => {
                    state = State::Block(depth + 1);
                    (false, false, 2)
                }
                _ => (false, false, 1),
            },
            State::Text { hashes } => match (now, hashes) {
                ('\\', None) => (true, false, 2),
                ('"', None) => {
                    state = State::Code;
                    (true, true, 1)
                }
                ('"', Some(many)) if closes(&chars, at, many) => {
                    state = State::Code;
                    (true, true, 1 + many)
                }
                _ => (true, false, 1),
            },
        };
        for one in chars.iter().skip(at).take(step) {
            let blank = if *one == '\n' { '\n' } else { ' ' };
            code.push(if keep_code { *one } else { blank });
            bare.push(if keep_bare { *one } else { blank });
        }
        at += step;
    }
    (code, bare)
}

/// `Some(n)` when the quote at `at` opens a raw string with n hashes.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars.get(..at)?.iter().rev().take_while(|it| **it == '#').count();
    let mark = at.checked_sub(hashes + 1)?;
    (chars.get(mark) == Some(&'r')).then_some(hashes)
}

fn closes(chars: &[char], at: usize, hashes: usize) -> bool {
    chars.iter().skip(at + 1).take(hashes).filter(|it| **it == '#').count() == hashes
}

/// How many characters a character literal at `at` has; 1 for the quote of a lifetime.
fn literal_length(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), Some(_)) => {
            chars.iter().skip(at + 3).take(10).position(|it| *it == '\'').map_or(1, |end| end + 4)
        }
        (Some(_), Some('\'')) => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    fn check(text: &str, code: &str, bare: &str) {
        let source = Source::new("a.rs", text);
        assert_eq!((source.code.trim_end(), source.bare.trim_end()), (code, bare));
    }

    #[test]
    fn comments_and_strings_are_blanked() {
        check("let a = 1; // unsafe", "let a = 1;", "let a = 1;");
        check("let a = \"unsafe // x\";", "let a = \"unsafe // x\";", "let a = \"           \";");
        check("a /* b /* c */ d */ e", "a                   e", "a                   e");
        check("r#\"a\"b\"# + c", "r#\"a\"b\"# + c", "r#\"   \"# + c");
        check("let q = '\"'; unsafe", "let q = '\"'; unsafe", "let q = '\"'; unsafe");
        check("let q = '\\''; &'a str", "let q = '\\''; &'a str", "let q = '\\''; &'a str");
    }

    #[test]
    fn a_place_is_a_file_or_a_folder_but_no_prefix_of_a_name() {
        assert!(Source::new("daemon/a.rs", "").within(&["daemon/a"]));
        assert!(Source::new("daemon/a/b.rs", "").within(&["daemon/a"]));
        assert!(!Source::new("daemon/ab.rs", "").within(&["daemon/a"]));
    }
}
