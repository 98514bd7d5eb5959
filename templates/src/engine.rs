//! The engine: minijinja with no loader, few filters, bounded work and bounded output.

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind};

use crate::context::Context;
use crate::error::Error;
use crate::rewrite::rewrite;

/// The longest template, in bytes.
pub const MOST_SOURCE: usize = 64 * 1024;

/// The longest result, in bytes.
pub const MOST_OUTPUT: usize = 1024 * 1024;

/// Instructions one rendering may take: a real template takes some hundred.
const FUEL: u64 = 200_000;

/// Renders a template for an instance.
///
/// # Errors
/// When it is too long, uses what is not supported, or takes too much work or room.
pub fn render(template: &str, context: &Context) -> Result<String, Error> {
    let config = context.config.clone();
    let mut engine = engine();
    engine.add_function("config_get", move |key: String, default: Option<Value>| match config.get(&key) {
        Some(value) => Value::from(value.as_str()),
        None => default.unwrap_or_default(),
    });
    run(&engine, template, context.value())
}

/// Renders a template with values that are not an instance's.
///
/// # Errors
/// As [`render`].
pub fn render_with(template: &str, values: impl serde::Serialize) -> Result<String, Error> {
    run(&engine(), template, Value::from(Serde(values)))
}

fn engine() -> Environment<'static> {
    // Empty: no builtin filter, function or test that we did not look at for what it can blow up to.
    let mut engine = Environment::empty();
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        engine.set_syntax(syntax);
    }
    engine.set_fuel(Some(FUEL));
    engine.set_recursion_limit(32);
    engine.add_filter("upper", |text: String| text.to_uppercase());
    engine.add_filter("lower", |text: String| text.to_lowercase());
    engine.add_filter("trim", |text: String| text.trim().to_owned());
    engine.add_filter("safe", |value: Value| value);
    engine.add_filter("length", |value: Value| value.len().unwrap_or(0));
    // As Pongo2 does it, for whatever is not true: the empty text too.
    engine.add_filter("default", |value: Value, other: Value| if value.is_true() { value } else { other });
    engine.add_filter("items", items);
    engine
}

/// The entries of a map as pairs; anything else as it is.
fn items(value: Value) -> Result<Value, minijinja::Error> {
    if value.kind() != ValueKind::Map {
        return Ok(value);
    }
    let mut pairs = Vec::new();
    for key in value.try_iter()? {
        let entry = value.get_item(&key)?;
        pairs.push(Value::from(vec![key, entry]));
    }
    Ok(Value::from(pairs))
}

fn run(engine: &Environment<'_>, template: &str, values: Value) -> Result<String, Error> {
    if template.len() > MOST_SOURCE {
        return Err(Error::TooLong { size: template.len(), most: MOST_SOURCE });
    }
    let source = rewrite(template)?;
    let mut out = Bounded(Vec::new());
    engine
        .template_from_str(&source)
        .and_then(|parsed| parsed.render_captured_to(values, &mut out).map(drop))
        .map_err(|source| Error::Render { source })?;
    String::from_utf8(out.0).map_err(|source| Error::NotText { source })
}

struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MOST_OUTPUT {
            return Err(io::Error::other(minijinja::Error::new(
                ErrorKind::InvalidOperation,
                "the result is longer than 1 MiB",
            )));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Trigger;
    use crate::context::InstanceFacts;
    use std::collections::BTreeMap;

    fn context() -> Context {
        let map = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        Context {
            trigger: Trigger::Create,
            path: "/etc/hostname".to_owned(),
            instance: InstanceFacts {
                name: "web".to_owned(),
                architecture: "x86_64".to_owned(),
                ..Default::default()
            },
            config: map(&[("user.a", "one"), ("user.empty", ""), ("user.html", "<a&b>")]),
            devices: [("eth0".to_owned(), map(&[("type", "nic")]))].into_iter().collect(),
            properties: map(&[("default", "text")]),
        }
    }

    #[test]
    fn what_public_images_use_is_rendered() {
        let check = |source: &str, expected: &str| {
            assert_eq!(render(source, &context()).unwrap(), expected, "{source}")
        };
        check("{{ container.name }}\n", "web\n");
        check("{{ instance.name|upper }} {{ trigger }} {{ path }}", "WEB create /etc/hostname");
        check("{{ config_get(\"user.a\", \"d\") }} {{ config_get('user.b', 'd') }}", "one d");
        check("{% if config_get(\"user.b\", \"\") == \"\" %}none{% else %}some{% endif %}", "none");
        check("{% if instance.privileged == \"false\" && !config.nothing %}x{% endif %}", "x");
        check("{% if config.nothing || trigger == \"create\" %}x{% endif %}", "x");
        check("{{ config.nothing|default:\"d\" }}{{ properties.default }}", "dtext");
        check("{% autoescape off %}{{ config_get(\"user.html\",\"\") }}{% endautoescape %}", "<a&b>");
        check("{% for name, device in devices %}{{ name }}={{ device.type }};{% endfor %}", "eth0=nic;");
        check(
            "{% for key in config %}{{ forloop.Counter }}{{ key }} {% endfor %}",
            "1user.a 2user.empty 3user.html ",
        );
        check("local-hostname: {{ instance.name }}{# note #}", "local-hostname: web");
    }

    #[test]
    fn a_template_can_neither_load_nor_call_what_is_not_there() {
        for source in [
            "{{ include(\"/etc/shadow\") }}",
            "{{ debug() }}",
            "{{ range(9999) }}",
            "{{ \"a\"|indent:9999 }}",
            "{{ config.a.b.c }}",
            "{{ self }}{{ nothing() }}",
            "{% if %}x",
            "{{",
            "{% for a in 5 %}{% endfor %}",
        ] {
            assert!(render(source, &context()).is_err(), "{source}");
        }
    }

    #[test]
    fn a_template_ends_soon_and_stays_small() {
        let deep = "{% for a in config %}".repeat(12) + "x" + &"{% endfor %}".repeat(12);
        assert!(matches!(render(&deep, &context()), Err(Error::Render { .. })));
        let mut large = context();
        large.config.insert("user.large".to_owned(), "x".repeat(200_000));
        let source = "{{ config_get(\"user.large\") }}".repeat(10);
        assert!(matches!(render(&source, &large), Err(Error::Render { .. })));
        assert!(matches!(render(&"x".repeat(MOST_SOURCE + 1), &context()), Err(Error::TooLong { .. })));
        assert!(
            render(&format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)), &context()).is_err()
        );
    }

    #[test]
    fn other_values_can_be_rendered_too() {
        let values = BTreeMap::from([("image", BTreeMap::from([("release", "bookworm")]))]);
        assert_eq!(render_with("deb {{ image.release }}", values).unwrap(), "deb bookworm");
    }
}
