//! From the Pongo2 that public images use to the Jinja that minijinja reads. Only what is between the
//! delimiters is touched; the text around it stays byte for byte.

use crate::error::Error;

/// The tags a template may use. None can load, define or repeat: what a template makes is then bounded by
/// its own length times the loops it runs, and those by fuel.
const TAGS: &[&str] =
    &["if", "elif", "else", "endif", "for", "empty", "endfor", "autoescape", "endautoescape"];

/// Rewrites `source`.
///
/// # Errors
/// For a tag that is not closed or not in the list, and for `*`.
pub(crate) fn rewrite(source: &str) -> Result<String, Error> {
    let (mut out, mut rest) = (String::with_capacity(source.len() + 64), source);
    while let Some(at) = opening(rest) {
        let line = line_of(source, rest, at);
        out.push_str(&rest[..at]);
        let (opened, closing) = match &rest[at..at + 2] {
            "{{" => ("{{", "}}"),
            "{%" => ("{%", "%}"),
            _ => ("{#", "#}"),
        };
        let body = &rest[at + 2..];
        let end = closed(body, closing).ok_or(Error::Unclosed { line, opened })?;
        let inner = &body[..end];
        match opened {
            "{#" => out.push_str(&format!("{{#{inner}#}}")),
            "{{" => out.push_str(&format!("{{{{{}}}}}", expression(inner, line)?)),
            _ => out.push_str(&format!("{{%{}%}}", tag(inner, line)?)),
        }
        rest = &body[end + 2..];
    }
    out.push_str(rest);
    Ok(out)
}

fn opening(text: &str) -> Option<usize> {
    ["{{", "{%", "{#"].into_iter().filter_map(|mark| text.find(mark)).min()
}

fn line_of(source: &str, rest: &str, at: usize) -> usize {
    source[..source.len() - rest.len() + at].matches('\n').count() + 1
}

/// Where the closing mark is: not inside a string, unless it closes a comment.
fn closed(body: &str, closing: &str) -> Option<usize> {
    if closing == "#}" {
        return body.find(closing);
    }
    let mut quote = None;
    let mut letters = body.char_indices();
    while let Some((at, letter)) = letters.next() {
        match (quote, letter) {
            (Some(_), '\\') => {
                letters.next();
            }
            (Some(open), _) if letter == open => quote = None,
            (None, '"' | '\'') => quote = Some(letter),
            (None, _) if body[at..].starts_with(closing) => return Some(at),
            _ => {}
        }
    }
    None
}

fn tag(inner: &str, line: usize) -> Result<String, Error> {
    let (left, rest) = match inner.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", inner),
    };
    let (rest, right) = match rest.strip_suffix('-') {
        Some(rest) => (rest, "-"),
        None => (rest, ""),
    };
    let body = rest.trim();
    let (word, after) = body.split_at(body.find(char::is_whitespace).unwrap_or(body.len()));
    if !TAGS.contains(&word) {
        return Err(Error::Tag { line, tag: word.chars().take(40).collect() });
    }
    let text = match word {
        // Nothing is ever escaped here: these are files, not web pages.
        "autoescape" => "if true".to_owned(),
        "endautoescape" => "endif".to_owned(),
        "empty" => "else".to_owned(),
        "for" => loop_head(after, line)?,
        _ => format!("{word}{}", expression(after, line)?),
    };
    Ok(format!("{left} {text} {right}"))
}

/// `for key, value in map` walks the entries of a map in Pongo2.
fn loop_head(after: &str, line: usize) -> Result<String, Error> {
    match after.split_once(" in ") {
        Some((names, of)) if names.contains(',') => {
            Ok(format!("for {} in ({})|items", names.trim(), expression(of.trim(), line)?))
        }
        _ => Ok(format!("for{}", expression(after, line)?)),
    }
}

/// Rewrites an expression: `a|f:x` → `a|f(x)`, `&&`, `||`, `!`, `forloop.X`.
fn expression(text: &str, line: usize) -> Result<String, Error> {
    let letters: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len() + 8);
    let mut at = 0;
    while let Some(letter) = letters.get(at).copied() {
        let next = letters.get(at + 1).copied();
        match (letter, next) {
            ('"' | '\'', _) => {
                let end = string_end(&letters, at);
                out.extend(&letters[at..end]);
                at = end;
            }
            ('&', Some('&')) => {
                out.push_str(" and ");
                at += 2;
            }
            ('|', Some('|')) => {
                out.push_str(" or ");
                at += 2;
            }
            ('!', next) if next != Some('=') => {
                out.push_str(" not ");
                at += 1;
            }
            ('*', _) => return Err(Error::Multiplied { line }),
            ('|', _) => {
                let end = filter(&letters, at, &mut out);
                at = end;
            }
            (letter, _) if letter.is_alphabetic() || letter == '_' => {
                let end = word_end(&letters, at, true);
                let word: String = letters[at..end].iter().collect();
                out.push_str(&loop_word(&word));
                at = end;
            }
            _ => {
                out.push(letter);
                at += 1;
            }
        }
    }
    Ok(out)
}

fn loop_word(word: &str) -> String {
    match word {
        "forloop.Counter" => "loop.index".to_owned(),
        "forloop.Counter0" => "loop.index0".to_owned(),
        "forloop.First" => "loop.first".to_owned(),
        "forloop.Last" => "loop.last".to_owned(),
        _ => word.to_owned(),
    }
}

fn string_end(letters: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < letters.len() && letters[at] != letters[start] {
        at += if letters[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(letters.len())
}

fn word_end(letters: &[char], start: usize, dots: bool) -> usize {
    let part = |letter: &char| letter.is_alphanumeric() || *letter == '_' || (dots && *letter == '.');
    start + letters[start..].iter().take_while(|letter| part(letter)).count()
}

/// Writes the filter that starts with the `|` at `start`; gives where it ends.
fn filter(letters: &[char], start: usize, out: &mut String) -> usize {
    let blank = |at: usize| at + letters[at..].iter().take_while(|letter| letter.is_whitespace()).count();
    let name = blank(start + 1);
    let end = word_end(letters, name, false);
    out.push('|');
    out.extend(&letters[name..end]);
    if letters.get(end) != Some(&':') {
        return end;
    }
    let argument = blank(end + 1);
    let last = match letters.get(argument) {
        Some('"' | '\'') => string_end(letters, argument),
        _ => word_end(letters, argument, true),
    };
    out.push('(');
    out.extend(&letters[argument..last]);
    out.push(')');
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pongo_becomes_jinja() {
        let check = |source: &str, expected: &str| assert_eq!(rewrite(source).unwrap(), expected, "{source}");
        check("plain && text | x:1 !", "plain && text | x:1 !");
        check("{{ a|default:\"x\" }}", "{{ a|default(\"x\") }}");
        check("{{ a|default:b.c|upper }}", "{{ a|default(b.c)|upper }}");
        check("{{ a | default: 'x' }}", "{{ a |default('x') }}");
        check("{{ \"a|b:c && d\" }}", "{{ \"a|b:c && d\" }}");
        check("{% if a && !b || c != d %}", "{% if a  and   not b  or  c != d %}");
        check("{%- else -%}", "{%- else -%}");
        check("{% autoescape off %}{{ a }}{% endautoescape %}", "{% if true %}{{ a }}{% endif %}");
        check("{% for k, v in devices %}", "{% for k, v in (devices)|items %}");
        check("{% for a in b %}{{ forloop.Counter }}", "{% for a in b %}{{ loop.index }}");
        check("{{ \"}}\" }}", "{{ \"}}\" }}");
        check("{# it's a comment #}x", "{# it's a comment #}x");
    }

    #[test]
    fn what_could_load_define_or_multiply_is_refused() {
        for tag in [
            "include \"/etc/shadow\"",
            "import x",
            "extends \"a\"",
            "macro a()",
            "set a = 1",
            "ssi \"/a\"",
            "from x import y",
            "block a",
            "with a",
            "raw",
            "do a",
            "filter upper",
            "",
        ] {
            let error = rewrite(&format!("\n{{% {tag} %}}")).unwrap_err();
            assert!(matches!(error, Error::Tag { line: 2, .. }), "{tag}: {error}");
        }
        assert!(matches!(rewrite("{{ \"x\" * 1000 }}"), Err(Error::Multiplied { line: 1 })));
    }

    #[test]
    fn what_is_not_closed_is_named_with_its_line() {
        for source in ["a\n{{ b", "a\n{% if", "a\n{# x", "a\n{{ \"}} "] {
            assert!(matches!(rewrite(source), Err(Error::Unclosed { line: 2, .. })), "{source}");
        }
    }
}
