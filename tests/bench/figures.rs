//! Figures of several tools side by side, for what is no step of a life: rates, megabytes, latencies.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

/// A row: what was measured, in what, and what each tool showed.
struct Row {
    what: String,
    unit: &'static str,
    values: BTreeMap<String, f64>,
}

/// Rows in the order they were first noted.
#[derive(Default)]
pub struct Figures {
    tools: Vec<String>,
    rows: Vec<Row>,
}

impl Figures {
    /// Takes down a figure, and tells the person who waits.
    pub fn note(&mut self, tool: &str, what: &str, unit: &'static str, value: Result<f64, String>) {
        let value = match value {
            Ok(value) => value,
            Err(why) => {
                eprintln!("{tool}: `{what}` is left out: {why}");
                return;
            }
        };
        eprintln!("{tool}: {what}: {value:.2} {unit}");
        if !self.tools.iter().any(|known| known == tool) {
            self.tools.push(tool.to_owned());
        }
        let at = self.rows.iter().position(|row| row.what == what).unwrap_or_else(|| {
            self.rows.push(Row { what: what.to_owned(), unit, values: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[at].values.insert(tool.to_owned(), value);
    }

    /// The table.
    pub fn markdown(&self, title: &str) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let mut page = format!("\n| {title} | unit |");
        for tool in &self.tools {
            let _ = write!(page, " {tool} |");
        }
        let _ = write!(page, "\n|---|---|{}", "---:|".repeat(self.tools.len()));
        for row in &self.rows {
            let _ = write!(page, "\n| {} | {} |", row.what, row.unit);
            for tool in &self.tools {
                let shown = row.values.get(tool).map_or("—".to_owned(), |value| match *value {
                    value if value < 100.0 => format!("{value:.1}"),
                    value => format!("{value:.0}"),
                });
                let _ = write!(page, " {shown} |");
            }
        }
        page.push('\n');
        page
    }

    /// The same for programs; nothing when nothing was measured.
    pub fn json(&self) -> Option<Value> {
        let rows =
            self.rows.iter().map(|row| json!({"what": row.what, "unit": row.unit, "values": row.values}));
        (!self.rows.is_empty()).then(|| Value::Array(rows.collect()))
    }
}
