//! The language of `?filter=`: `field eq value`, `ne`, `not`, `and`, `or`, read from left to right.
//!
//! Values are regular expressions, whole-string ones unless they hold `^` or `$`, and case does not count.
//! Fields walk into maps (`config.user.x`, `devices.eth0.network`). Works on JSON, knows no object.

use regex_lite::{Regex, RegexBuilder};
use serde_json::Value;

use crate::error::Fault;

/// The longest filter, in bytes.
const LONGEST: usize = 16 * 1024;

/// Fields that hold one of a fixed set of words: commas in their values part alternatives.
const ENUMERATED: [&str; 4] = ["status", "type", "architecture", "location"];

/// A parsed filter.
#[derive(Debug)]
pub struct Filter {
    clauses: Vec<Clause>,
}

#[derive(Debug)]
struct Clause {
    joined_by_or: bool,
    negated: bool,
    differs: bool,
    field: String,
    value: String,
    pattern: Option<Regex>,
}

impl Filter {
    /// Reads a filter; an empty one lets everything through.
    ///
    /// # Errors
    /// [`Fault::Invalid`] when it does not follow the language.
    pub fn parse(text: &str) -> Result<Filter, Fault> {
        if text.len() > LONGEST {
            return Err(Fault::invalid(format!("the filter is longer than {LONGEST} bytes")));
        }
        let mut words = words(text)?.into_iter().peekable();
        let mut clauses = Vec::new();
        let mut joined_by_or = false;
        while words.peek().is_some() {
            clauses.push(clause(&mut words, joined_by_or)?);
            match words.next() {
                None => return Ok(Filter { clauses }),
                Some(word) if word.eq_ignore_ascii_case("and") => joined_by_or = false,
                Some(word) if word.eq_ignore_ascii_case("or") => joined_by_or = true,
                Some(word) => {
                    return Err(Fault::invalid(format!("filter: expected `and` or `or`, not `{word}`")));
                }
            }
        }
        if clauses.is_empty() {
            return Ok(Filter { clauses });
        }
        Err(Fault::invalid("filter: it ends with `and` or `or`"))
    }

    /// Whether it lets everything through.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.clauses.is_empty()
    }

    /// Whether `object` is let through.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        let mut result = true;
        for clause in &self.clauses {
            let holds = clause.holds(object);
            result = if clause.joined_by_or { result || holds } else { result && holds };
        }
        result
    }
}

impl Clause {
    fn holds(&self, object: &Value) -> bool {
        let equal = lookup(object, &self.field).is_some_and(|value| self.equals(value));
        (equal != self.differs) != self.negated
    }

    fn equals(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.text_equals(text),
            Value::Bool(truth) => self.value.parse() == Ok(*truth),
            Value::Number(number) => {
                self.value.parse::<f64>().is_ok_and(|wanted| number.as_f64() == Some(wanted))
            }
            Value::Array(list) => list.iter().any(|one| self.equals(one)),
            Value::Null | Value::Object(_) => false,
        }
    }

    fn text_equals(&self, text: &str) -> bool {
        if ENUMERATED.contains(&self.field.as_str())
            && self.value.split(',').any(|one| one.trim().eq_ignore_ascii_case(text))
        {
            return true;
        }
        match &self.pattern {
            Some(pattern) => pattern.is_match(text),
            None => self.value.eq_ignore_ascii_case(text),
        }
    }
}

fn clause(words: &mut impl Iterator<Item = String>, joined_by_or: bool) -> Result<Clause, Fault> {
    let mut need = |what: &str| {
        words.next().ok_or_else(|| Fault::invalid(format!("filter: it ends where {what} should be")))
    };
    let mut field = need("a field")?;
    let mut negated = false;
    while field.eq_ignore_ascii_case("not") {
        negated = !negated;
        field = need("a field")?;
    }
    let differs = match need("`eq` or `ne`")?.to_ascii_lowercase().as_str() {
        "eq" => false,
        "ne" => true,
        other => return Err(Fault::invalid(format!("filter: expected `eq` or `ne`, not `{other}`"))),
    };
    let value = need("a value")?;
    let whole = if value.contains(['^', '$']) { value.clone() } else { format!("^(?:{value})$") };
    // What is no pattern is compared as it stands, as Incus does.
    let pattern = RegexBuilder::new(&whole).case_insensitive(true).build().ok();
    Ok(Clause { joined_by_or, negated, differs, field, value, pattern })
}

/// Splits at blanks outside quotes.
fn words(text: &str) -> Result<Vec<String>, Fault> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => word.get_or_insert_default().push(letter),
            None if letter == '"' || letter == '\'' => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            None if letter.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(letter),
        }
    }
    if quote.is_some() {
        return Err(Fault::invalid("filter: a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// The value at a dotted path. Keys of config maps hold dots themselves, so the longest key wins.
fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    let map = object.as_object()?;
    if let Some(value) = map.get(path) {
        return Some(value);
    }
    path.char_indices().rev().filter(|(_, letter)| *letter == '.').find_map(|(at, _)| {
        let (head, rest) = (path.get(..at)?, path.get(at + 1..)?);
        lookup(map.get(head)?, rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(filter: &str, expected: bool) {
        let object = json!({
            "name": "web1", "status": "Running", "type": "container", "ephemeral": false, "size": 12,
            "profiles": ["default", "small"],
            "config": {"user.role": "Front", "limits.cpu": "2"},
            "expanded_config": {"image.os": "debian"},
            "devices": {"eth0": {"network": "cabinbr0"}},
        });
        let parsed = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {}", error.report()));
        assert_eq!(parsed.matches(&object), expected, "{filter}");
    }

    #[test]
    fn filters_let_through_what_they_should() {
        for (filter, expected) in [
            ("", true),
            ("name eq web1", true),
            ("name eq WEB1", true),
            ("name eq web", false),
            ("name eq web.", true),
            ("name eq (^web$|^web.*)", true),
            ("name eq ^we", true),
            ("name ne web1", false),
            ("not name eq web2", true),
            ("name eq a or status eq running", true),
            ("name eq a or name eq b and status eq running", false),
            ("status eq stopped,RUNNING", true),
            ("status eq stopped,frozen", false),
            ("status eq (^stopped$|^running$)", true),
            ("ephemeral eq false", true),
            ("size eq 12", true),
            ("profiles eq small", true),
            ("config.user.role eq front", true),
            ("config.limits.cpu eq '2'", true),
            ("expanded_config.image.os eq Debian", true),
            ("devices.eth0.network eq cabinbr0", true),
            ("devices.eth1.network eq cabinbr0", false),
            ("missing eq x", false),
            ("missing ne x", true),
            ("name eq 'web(1'", false),
        ] {
            check(filter, expected);
        }
    }

    #[test]
    fn broken_filters_are_refused() {
        for filter in ["name", "name eq", "name is x", "name eq a b", "name eq a and", "not", "name eq 'a"] {
            assert!(Filter::parse(filter).is_err(), "{filter}");
        }
        assert!(Filter::parse(&"a".repeat(LONGEST + 1)).is_err());
    }
}
