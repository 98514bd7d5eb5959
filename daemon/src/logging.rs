//! Events of type `logging`: the lines of the daemon's log for whoever listens to them, whatever is written to stderr.
//! While nobody does nothing is put into words.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

use cabin_api::event::Logging;
use cabin_core::Host;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// Set once there is somebody to listen to: the log begins before.
static HOST: OnceLock<Arc<Host>> = OnceLock::new();

/// From now on listeners are told what is logged.
pub fn tell_listeners_of(host: &Arc<Host>) {
    // There is one host in a process.
    let _ = HOST.set(host.clone());
}

/// What hands the lines on.
pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    Lines.with_filter(Heard)
}

struct Lines;

/// Our own lines, debug and above, while somebody listens.
struct Heard;

fn is_ours(metadata: &Metadata<'_>) -> bool {
    // Those of the libraries are for who debugs the daemon, on stderr.
    *metadata.level() <= Level::DEBUG && metadata.target().starts_with("cabin") && metadata.is_event()
}

impl<S> Filter<S> for Heard {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        is_ours(metadata) && HOST.get().is_some_and(|host| host.events().log_is_heard())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_ours(metadata) { Interest::sometimes() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let Some(host) = HOST.get() else { return };
        let mut said = Said::default();
        event.record(&mut said);
        let level = level(*event.metadata().level()).to_owned();
        let line = Logging { message: said.message, level, context: Value::Object(said.context) };
        host.events().logging(&line);
    }
}

/// A level in the words of Incus.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    }
}

/// A line taken apart; every field is text, as Incus has them.
#[derive(Default)]
struct Said {
    message: String,
    context: Map<String, Value>,
}

impl Visit for Said {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => drop(self.context.insert(name.to_owned(), value.into())),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
