//! Images for people: the columns of `image list`.

use anyhow::bail;
use cabin_api::image::Image;

use super::{Table, text};

/// Letters and heads.
const LETTERS: &[(char, &str)] = &[
    ('l', "ALIAS"),
    ('L', "ALIASES"),
    ('f', "FINGERPRINT"),
    ('F', "FINGERPRINT"),
    ('p', "PUBLIC"),
    ('d', "DESCRIPTION"),
    ('e', "PROJECT"),
    ('a', "ARCHITECTURE"),
    ('s', "SIZE"),
    ('u', "UPLOAD DATE"),
    ('t', "TYPE"),
];

/// The columns a word asks for.
pub fn columns(word: &str) -> anyhow::Result<Vec<char>> {
    for letter in word.chars() {
        if !LETTERS.iter().any(|(known, _)| *known == letter) {
            bail!("`{letter}` in `{word}` is no column; `cabin image list --help` shows them");
        }
    }
    Ok(word.chars().collect())
}

/// A table of images.
pub fn rows(columns: &[char], images: &[Image]) -> Table {
    let head = |letter: &char| LETTERS.iter().find(|(known, _)| known == letter).map_or("", |(_, head)| head);
    let mut table = Table::new(columns.iter().map(head));
    for image in images {
        table.row(columns.iter().map(|letter| cell(*letter, image)));
    }
    table
}

/// Whether an image is meant by a word: part of an alias, the beginning of the fingerprint, or a property.
pub fn matches(image: &Image, word: &str) -> bool {
    if let Some((key, value)) = word.split_once('=') {
        return match key {
            "type" => image.kind == value,
            "architecture" => image.architecture == value,
            "public" => image.public.to_string() == value,
            _ => {
                let key = key.strip_prefix("properties.").unwrap_or(key);
                image.properties.0.get(key).is_some_and(|found| found.eq_ignore_ascii_case(value))
            }
        };
    }
    let word = word.strip_prefix("local:").or(word.strip_prefix("images:")).unwrap_or(word).to_lowercase();
    image.fingerprint.starts_with(&word)
        || image.aliases.iter().any(|alias| alias.name.to_lowercase().contains(&word))
        || description(image).to_lowercase().contains(&word)
}

/// The shortest alias, to sort by and to show.
pub fn first_alias(image: &Image) -> &str {
    let names = image.aliases.iter().map(|alias| alias.name.as_str());
    names.min_by_key(|name| (name.len(), *name)).unwrap_or_default()
}

fn description(image: &Image) -> String {
    image.properties.0.get("description").cloned().unwrap_or_default()
}

fn cell(letter: char, image: &Image) -> String {
    match letter {
        'l' => match image.aliases.len() {
            0 | 1 => first_alias(image).to_owned(),
            many => format!("{} ({} more)", first_alias(image), many - 1),
        },
        'L' => image.aliases.iter().map(|alias| alias.name.as_str()).collect::<Vec<_>>().join("\n"),
        'f' => image.fingerprint.chars().take(12).collect(),
        'F' => image.fingerprint.clone(),
        'p' => if image.public { "yes" } else { "no" }.to_owned(),
        'd' => description(image),
        'e' => image.project.clone(),
        'a' => image.architecture.clone(),
        's' => text::size(image.size),
        'u' => text::time(&image.uploaded_at),
        't' => image.kind.to_uppercase(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Image {
        serde_json::from_value(json!({
            "fingerprint": "0123456789abcdef", "size": 1024, "architecture": "x86_64", "type": "container",
            "aliases": [{"name": "debian/bookworm"}, {"name": "debian/12"}],
            "properties": {"os": "Debian", "description": "Debian 12 (bookworm)"},
        }))
        .unwrap()
    }

    #[test]
    fn words_find_images() {
        let check = |word: &str, expected: bool| assert_eq!(matches(&sample(), word), expected, "{word}");
        check("0123", true);
        check("debian/12", true);
        check("local:debian", true);
        check("BOOKWORM", true);
        check("os=debian", true);
        check("os=busybox", false);
        check("architecture=x86_64", true);
        check("busybox", false);
    }

    #[test]
    fn cells_say_what_their_letters_mean() {
        let cells: Vec<_> = columns("lfsp").unwrap().iter().map(|letter| cell(*letter, &sample())).collect();
        assert_eq!(cells, ["debian/12 (1 more)", "0123456789ab", "1.00KiB", "no"]);
        assert!(columns("lz").is_err());
    }
}
