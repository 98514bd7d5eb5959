//! Progress of long work, on standard error and only when a person watches.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// A line that changes until the work is over.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    title: String,
}

impl Progress {
    /// A line for `title`; nothing when nobody watches.
    pub fn new(title: &str, watched: bool) -> Progress {
        let bar = watched.then(|| {
            let bar = ProgressBar::new_spinner().with_style(style("{spinner} {msg} ({elapsed})"));
            bar.set_message(title.to_owned());
            bar
        });
        Progress { bar, title: title.to_owned() }
    }

    /// Shows what an operation says of itself: every key that ends in `_progress`.
    pub fn operation(&self, metadata: &Value) {
        let Some(bar) = &self.bar else { return };
        let said: Vec<&str> = metadata
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, _)| key.ends_with("_progress"))
            .filter_map(|(_, value)| value.as_str())
            .collect();
        let said = said.join(", ");
        let separator = if said.is_empty() { "" } else { ": " };
        bar.set_message(format!("{}{separator}{said}", self.title));
        // The length comes last: without it there is no bar that could show half of the news.
        bar.set_position(share(&said).unwrap_or(0));
        match share(&said) {
            Some(_) => bar.set_style(style("{spinner} {msg} [{bar:30}] ({elapsed})")),
            None => bar.set_style(style("{spinner} {msg} ({elapsed})")),
        }
        bar.set_length(100);
        bar.tick();
    }

    /// Shows how much of a file is through.
    pub fn bytes(&self, done: u64, total: Option<u64>) {
        let Some(bar) = &self.bar else { return };
        if let Some(total) = total {
            bar.set_length(total);
            bar.set_style(style("{spinner} {msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"));
        } else {
            bar.set_style(style("{spinner} {msg} {bytes} {bytes_per_sec}"));
        }
        bar.set_position(done);
    }

    /// Moves the spinner by itself, for work that says nothing.
    pub fn tick_alone(&self) {
        if let Some(bar) = &self.bar {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // A template that does not parse shows the plain one: better than no work.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The first percentage in a text.
fn share(text: &str) -> Option<u64> {
    let (before, _) = text.split_once('%')?;
    let digits = before.bytes().rev().take_while(u8::is_ascii_digit).count();
    before.get(before.len() - digits..)?.parse().ok().filter(|share| *share <= 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_found() {
        assert_eq!(share("packages: 43% (libc6)"), Some(43));
        assert_eq!(share("rootfs: 7%"), Some(7));
        assert_eq!(share("100% (12MB/s)"), Some(100));
        assert_eq!(share("unpacking"), None);
        assert_eq!(share("é% of"), None);
    }
}
