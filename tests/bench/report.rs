//! The results as people and programs read them: a table, JSON, a plot.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::memory::Memory;
use crate::steps::Table;

/// The pages that show results, between marks with the name of the section.
const PAGES: [&str; 2] = ["README.md", "docs/bench.md"];

/// Where programs read them.
const RESULTS: &str = "bench/results.json";

/// The table, with ratios to ours.
pub fn markdown(table: &Table, memory: &[Memory], host: &str, rounds: usize) -> String {
    let mut page = format!("{host}; medians of {rounds} rounds, milliseconds of whole commands.\n");
    page.push_str(&steps(table));
    let (ours, peers) = table.tools.split_first().expect("at least our own");
    for (what, pick) in rows() {
        let of = |tool: &str| memory.iter().find(|it| it.tool == tool).and_then(pick);
        let _ = write!(page, "| {what} | {} |", number(of(ours)));
        for peer in peers {
            let ratio = of(peer).zip(of(ours)).map(|(other, own)| other / own);
            let _ = write!(page, " {} | {} |", number(of(peer)), number(ratio));
        }
        page.push('\n');
    }
    page
}

/// The steps that were timed, with ratios to ours.
pub fn steps(table: &Table) -> String {
    let (ours, peers) = table.tools.split_first().expect("at least our own");
    let mut page = format!("\n| step | {ours} |");
    for peer in peers {
        let _ = write!(page, " {peer} | {peer} / {ours} |");
    }
    let _ = write!(page, "\n|---|---:|{}", "---:|---:|".repeat(peers.len()));
    for label in Table::labels() {
        let own = table.median(label, ours);
        if table.tools.iter().all(|tool| table.median(label, tool).is_none()) {
            continue;
        }
        let _ = write!(page, "\n| {label} | {} |", number(own));
        for peer in peers {
            let other = table.median(label, peer);
            let ratio = other.zip(own).map(|(other, own)| other / own);
            let _ = write!(page, " {} | {} |", number(other), number(ratio));
        }
    }
    page.push('\n');
    page
}

/// The same for programs.
pub fn steps_json(table: &Table) -> Value {
    let one = |label: &'static str| {
        let times: serde_json::Map<String, Value> = table
            .tools
            .iter()
            .filter_map(|tool| Some((tool.clone(), json!(table.median(label, tool)?))))
            .collect();
        (!times.is_empty()).then(|| json!({"step": label, "median_ms": times}))
    };
    Table::labels().filter_map(one).collect()
}

type Pick = fn(&Memory) -> Option<f64>;

fn rows() -> [(&'static str, Pick); 2] {
    [("daemon, resident MiB", |it| it.daemon), ("supervisor, MiB per instance", |it| it.supervisor)]
}

fn number(value: Option<f64>) -> String {
    value
        .map_or_else(|| "—".to_owned(), |it| if it < 100.0 { format!("{it:.1}") } else { format!("{it:.0}") })
}

/// Writes the files, and README's table when there is one to write.
pub fn write(table: &Table, memory: &[Memory], host: &str, page: Option<&str>) {
    let root = cabin_tests::root();
    std::fs::create_dir_all(root.join("bench")).expect("the folder `bench`");
    let memory: Vec<Value> = memory
        .iter()
        .map(|it| json!({"tool": it.tool, "daemon_mib": it.daemon, "supervisor_mib": it.supervisor}))
        .collect();
    let mut all = kept();
    all.extend([
        ("host".to_owned(), json!(host)),
        ("steps".to_owned(), steps_json(table)),
        ("memory".to_owned(), json!(memory)),
    ]);
    keep(all);
    std::fs::write(root.join("bench/results.svg"), svg(table, host)).expect("bench/results.svg");
    if let Some(page) = page {
        show("bench", page);
    }
}

/// Writes a part that is measured only when it is asked for; the others stay as they were.
pub fn section(name: &str, host: &str, text: &str, results: Value, pages: bool) {
    let mut all = kept();
    all.insert(name.to_owned(), json!({"host": host, "results": results}));
    keep(all);
    if pages {
        show(&format!("bench {name}"), &format!("{host}.\n{text}"));
    }
}

/// What earlier runs wrote.
fn kept() -> serde_json::Map<String, Value> {
    let text = std::fs::read_to_string(cabin_tests::root().join(RESULTS)).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn keep(all: serde_json::Map<String, Value>) {
    let text = serde_json::to_string_pretty(&Value::Object(all)).expect("plain data");
    std::fs::write(cabin_tests::root().join(RESULTS), text + "\n").expect("bench/results.json");
}

/// Puts a text between the marks of that name, on each page that has them.
fn show(name: &str, text: &str) {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    for page in PAGES {
        let path = cabin_tests::root().join(page);
        let whole = std::fs::read_to_string(&path).expect(page);
        if let Some((before, rest)) = whole.split_once(&begin)
            && let Some((_, after)) = rest.split_once(&end)
        {
            std::fs::write(&path, format!("{before}{begin}\n{text}{end}{after}")).expect(page);
        }
    }
}

/// Bars on a logarithmic scale, a group for each step.
fn svg(table: &Table, host: &str) -> String {
    const COLORS: [&str; 4] = ["#2b6cb0", "#c05621", "#718096", "#b7791f"];
    const LEFT: f64 = 170.0;
    const WIDTH: f64 = 560.0;
    let bar = 11.0;
    let labels: Vec<&str> = Table::labels()
        .filter(|label| table.tools.iter().any(|tool| table.median(label, tool).is_some()))
        .collect();
    let group = bar * table.tools.len() as f64 + 9.0;
    let height = group * labels.len() as f64 + 70.0;
    let x = |ms: f64| LEFT + WIDTH * (ms.max(1.0).log10() / 4.0).min(1.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"780\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"11\"><rect width=\"780\" height=\"{height}\" fill=\"white\"/>\
         <text x=\"10\" y=\"16\">Milliseconds of whole commands, logarithmic ({host})</text>"
    );
    for (at, tool) in table.tools.iter().enumerate() {
        let left = LEFT + 120.0 * at as f64;
        let color = COLORS[at % COLORS.len()];
        let _ = write!(out, "<rect x=\"{left}\" y=\"24\" width=\"10\" height=\"10\" fill=\"{color}\"/>");
        let _ = write!(out, "<text x=\"{}\" y=\"33\">{tool}</text>", left + 14.0);
    }
    for power in 0..=4 {
        let ms = 10_f64.powi(power);
        let (at, bottom) = (x(ms), height - 18.0);
        let _ = write!(out, "<line x1=\"{at}\" y1=\"42\" x2=\"{at}\" y2=\"{bottom}\" stroke=\"#e2e8f0\"/>");
        let _ = write!(out, "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{ms}</text>", height - 5.0);
    }
    for (row, label) in labels.iter().enumerate() {
        let top = 48.0 + group * row as f64;
        let middle = top + bar * table.tools.len() as f64 / 2.0 + 4.0;
        let _ = write!(out, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0);
        for (at, tool) in table.tools.iter().enumerate() {
            let Some(ms) = table.median(label, tool) else { continue };
            let y = top + bar * at as f64;
            let (long, color) = (x(ms) - LEFT, COLORS[at % COLORS.len()]);
            let _ = write!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{long}\" height=\"{}\" fill=\"{color}\"/>",
                bar - 1.0
            );
            let _ =
                write!(out, "<text x=\"{}\" y=\"{}\" font-size=\"9\">{ms:.0}</text>", x(ms) + 3.0, y + 8.5);
        }
    }
    out + "</svg>\n"
}
