//! Words people type: `KEY=VALUE`, `INSTANCE/PATH`, device lists.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::{output, terminal};

/// A person who waits longer than this for a pipe should know of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// One `KEY=VALUE`. The value `-` is read from standard input.
pub fn pair(word: &str) -> anyhow::Result<(String, String)> {
    let Some((key, value)) = word.split_once('=') else {
        bail!("`{word}` is not KEY=VALUE");
    };
    if key.is_empty() {
        bail!("`{word}` has no key");
    }
    let value = if value == "-" { standard_input()? } else { value.to_owned() };
    Ok((key.to_owned(), value))
}

/// Many `KEY=VALUE`. Two words without `=` are one key and its value.
pub fn pairs(words: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    if let [key, value] = words
        && !key.contains('=')
    {
        return Ok([pair(&format!("{key}={value}"))?].into());
    }
    words.iter().map(|word| pair(word)).collect()
}

/// All of standard input, as text.
pub fn standard_input() -> anyhow::Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

/// The YAML that was piped in, when something was: what a pipe or a file gives, up to its end. A terminal and
/// /dev/null give nothing.
pub fn piped_yaml() -> anyhow::Result<String> {
    if !terminal::input_is_given() {
        return Ok(String::new());
    }
    if !terminal::input_arrives_within(PATIENCE) {
        output::note("Reading YAML from standard input, which is a pipe; `</dev/null` gives none");
    }
    standard_input()
}

/// The words of `config set`: whose keys, and the keys. Without an instance they are the server's.
pub fn owner_and_pairs(words: &[String]) -> anyhow::Result<(Option<&str>, BTreeMap<String, String>)> {
    let plain = words.iter().all(|word| !word.contains('='));
    match words {
        [first, ..] if first.contains('=') => Ok((None, pairs(words)?)),
        [_, _] if plain => Ok((None, pairs(words)?)),
        [owner, rest @ ..] if !rest.is_empty() => Ok((Some(owner), pairs(rest)?)),
        _ => bail!("no KEY=VALUE given"),
    }
}

/// The words of `config unset`: whose keys, and the keys.
pub fn owner_and_keys(words: &[String]) -> anyhow::Result<(Option<&str>, &[String])> {
    match words {
        [_] => Ok((None, words)),
        [owner, keys @ ..] => Ok((Some(owner), keys)),
        [] => bail!("a key is needed"),
    }
}

/// The words of `config get`: whose key, and the key.
pub fn owner_and_key(words: &[String]) -> anyhow::Result<(Option<&str>, &str)> {
    match words {
        [key] => Ok((None, key)),
        [owner, key] => Ok((Some(owner), key)),
        _ => bail!("a key is needed"),
    }
}

/// `DEVICE,KEY=VALUE,…` gathered by device.
pub fn devices(words: &[String]) -> anyhow::Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut devices: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for word in words {
        let Some((name, rest)) = word.split_once(',') else {
            bail!("`{word}` is not DEVICE,KEY=VALUE");
        };
        let device = devices.entry(name.to_owned()).or_default();
        for field in rest.split(',') {
            let (key, value) = pair(field)?;
            device.insert(key, value);
        }
    }
    Ok(devices)
}

/// `INSTANCE/PATH` taken apart; the path begins with `/`.
pub fn place(word: &str) -> anyhow::Result<(&str, &str)> {
    let word = crate::remote::local(word)?;
    match word.find('/') {
        Some(slash) if slash > 0 => Ok(word.split_at(slash)),
        _ => bail!("`{word}` is not INSTANCE/PATH"),
    }
}

/// `KEY=VALUE` lines of a file, without empty ones and comments.
pub fn environment(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (key, value) = line.split_once('=').with_context(|| format!("`{line}` is not KEY=VALUE"))?;
            Ok((format!("environment.{}", key.trim()), value.trim().trim_matches('"').to_owned()))
        })
        .collect()
}

/// A value in the daemon's language of filters.
pub fn filter_value(value: &str) -> String {
    if value.contains(char::is_whitespace) || value.is_empty() {
        format!("\"{value}\"")
    } else {
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_owner_is_told_from_the_keys() {
        let check = |text: &str, owner: Option<&str>, expected: &[(&str, &str)]| {
            let words = words(text);
            let (found, pairs) = owner_and_pairs(&words).unwrap();
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!((found, pairs.as_slice()), (owner, expected), "{text}");
        };
        check("web limits.cpu=2", Some("web"), &[("limits.cpu", "2")]);
        check("web limits.cpu 2", Some("web"), &[("limits.cpu", "2")]);
        check("web a=1 b=x=y", Some("web"), &[("a", "1"), ("b", "x=y")]);
        check("core.https_address=:8443", None, &[("core.https_address", ":8443")]);
        check("core.https_address :8443", None, &[("core.https_address", ":8443")]);
        assert!(owner_and_pairs(&words("web")).is_err());
        assert!(owner_and_pairs(&words("web a b c")).is_err());
    }

    #[test]
    fn devices_are_gathered_by_name() {
        let found = devices(&words("root,size=5GiB,pool=p eth0,mtu=1400 root,path=/")).unwrap();
        assert_eq!(found["root"].len(), 3);
        assert_eq!(found["eth0"]["mtu"], "1400");
        assert!(devices(&words("root")).is_err());
        assert!(devices(&words("root,size")).is_err());
    }

    #[test]
    fn places_need_an_instance_and_a_path() {
        assert_eq!(place("web/etc/hosts").unwrap(), ("web", "/etc/hosts"));
        assert_eq!(place("local:web/").unwrap(), ("web", "/"));
        assert!(place("/etc/hosts").is_err());
        assert!(place("web").is_err());
    }

    #[test]
    fn environment_files_skip_comments() {
        let found = environment("# no\nA=1\n\nB=\"x y\"\n").unwrap();
        assert_eq!(found["environment.A"], "1");
        assert_eq!(found["environment.B"], "x y");
    }
}
