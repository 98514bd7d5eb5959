//! `monitor`: events as they happen.

use cabin_api::event::{Event, Lifecycle, Logging};
use serde_json::Value;

use super::Context;
use crate::cli::system::{EventFormat, Monitor};
use crate::output;

/// Levels of log lines, the most important first.
const LEVELS: [&str; 5] = ["error", "warning", "info", "debug", "trace"];

/// `monitor`. Ends when the daemon does, or when the person has seen enough.
pub async fn run(context: &Context, args: Monitor) -> anyhow::Result<()> {
    let format = if args.pretty { EventFormat::Pretty } else { args.format };
    let mut kinds = args.kinds.join(",");
    if kinds.is_empty() && (args.loglevel.is_some() || args.pretty) {
        "lifecycle,logging,operation".clone_into(&mut kinds);
    }
    let mut events = context.client().await?.events(&kinds, args.all_projects).await?;
    while let Some(event) = events.next().await? {
        if !is_loud_enough(&event, args.loglevel.as_deref()) {
            continue;
        }
        let text = match format {
            EventFormat::Json => serde_json::to_string(&event)?,
            EventFormat::Yaml => output::yaml::text(&event)?,
            EventFormat::Pretty => pretty(&event),
        };
        output::line(text)?;
        output::flush()?;
    }
    Ok(())
}

fn is_loud_enough(event: &Event, least: Option<&str>) -> bool {
    let Some(least) = least else { return true };
    let rank = |level: &str| LEVELS.iter().position(|known| known.starts_with(level)).unwrap_or(LEVELS.len());
    event.kind != "logging" || rank(event.metadata["level"].as_str().unwrap_or_default()) <= rank(least)
}

/// One line: when, how important, what.
fn pretty(event: &Event) -> String {
    let metadata = event.metadata.clone();
    let (level, said) = match event.kind.as_str() {
        "lifecycle" => match serde_json::from_value::<Lifecycle>(metadata) {
            Ok(life) => {
                let by = life.requestor.map(|by| format!(" by {}", by.username)).unwrap_or_default();
                ("INFO".to_owned(), format!("{} {}{by}{}", life.action, life.source, fields(&life.context)))
            }
            Err(_) => ("INFO".to_owned(), event.metadata.to_string()),
        },
        "logging" => match serde_json::from_value::<Logging>(metadata) {
            Ok(log) => (log.level.to_uppercase(), format!("{}{}", log.message, fields(&log.context))),
            Err(_) => ("INFO".to_owned(), event.metadata.to_string()),
        },
        _ => {
            let text = |key: &str| event.metadata[key].as_str().unwrap_or_default().to_owned();
            ("INFO".to_owned(), format!("{} {}: {}", text("id"), text("description"), text("status")))
        }
    };
    let time = event.timestamp.get(..19).unwrap_or(&event.timestamp);
    format!("{time} {level:<7} [{}] {said}", event.kind)
}

fn fields(context: &Value) -> String {
    let fields = context.as_object().into_iter().flatten();
    fields
        .map(|(key, value)| match value {
            Value::String(text) => format!(" {key}={text}"),
            other => format!(" {key}={other}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, metadata: Value) -> Event {
        Event {
            kind: kind.to_owned(),
            timestamp: "2026-11-21T07:03:00.123Z".to_owned(),
            metadata,
            location: String::new(),
            project: String::new(),
        }
    }

    #[test]
    fn events_become_lines() {
        let life = json!({"action": "instance-started", "source": "/1.0/instances/web",
            "requestor": {"username": "root", "protocol": "unix"}});
        let line = pretty(&event("lifecycle", life));
        assert_eq!(
            line,
            "2026-11-21T07:03:00 INFO    [lifecycle] instance-started /1.0/instances/web by root"
        );
    }

    #[test]
    fn quiet_lines_are_left_out() {
        let log = event("logging", json!({"level": "debug", "message": "m", "context": null}));
        assert!(is_loud_enough(&log, None));
        assert!(is_loud_enough(&log, Some("debug")));
        assert!(!is_loud_enough(&log, Some("info")));
    }
}
