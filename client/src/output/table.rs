//! Lists: tables as Incus draws them, compact ones, CSV, Markdown, JSON and YAML.

use std::str::FromStr;

use anyhow::Context as _;
use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use comfy_table::{Cell, CellAlignment, ContentArrangement, ContentLineStyle, LineStyle, TableStyle};
use serde::Serialize;

/// Borders everywhere, as in Incus.
const BORDERED: TableStyle = TableStyle::new()
    .top_border(LineStyle::new('+', '-', '+', '+'))
    .header_lines(ContentLineStyle::new('|', '|', '|'))
    .header_separator(LineStyle::new('+', '-', '+', '+'))
    .content_lines(ContentLineStyle::new('|', '|', '|'))
    .row_separator(LineStyle::new('+', '-', '+', '+'))
    .bottom_border(LineStyle::new('+', '-', '+', '+'));

/// How a list is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Table,
    Compact,
    Csv,
    Json,
    Yaml,
    Markdown,
}

/// A format as it is asked for, `table,noheader` say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format {
    style: Style,
    header: bool,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Format, String> {
        let mut words = text.split(',');
        let style = match words.next().unwrap_or_default() {
            "table" => Style::Table,
            "compact" => Style::Compact,
            "csv" => Style::Csv,
            "json" => Style::Json,
            "yaml" => Style::Yaml,
            "markdown" => Style::Markdown,
            _ => return Err("it is none of table, compact, csv, json, yaml, markdown".to_owned()),
        };
        let mut header = style != Style::Csv;
        for word in words {
            match word {
                "header" => header = true,
                "noheader" => header = false,
                _ => return Err(format!("`{word}` is neither header nor noheader")),
            }
        }
        Ok(Format { style, header })
    }
}

impl Format {
    /// Whether the objects themselves are wanted, not columns of them.
    pub fn wants_json(self) -> bool {
        self.style == Style::Json
    }

    /// Whether columns do not matter.
    pub fn wants_objects(self) -> bool {
        matches!(self.style, Style::Json | Style::Yaml)
    }
}

/// Heads and rows.
#[derive(Debug, Clone, Default)]
pub struct Table {
    heads: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table with these heads.
    pub fn new(heads: impl IntoIterator<Item = impl Into<String>>) -> Table {
        Table { heads: heads.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = impl Into<String>>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table as text, with a line break at its end.
    pub fn render(&self, format: Format) -> String {
        if format.style == Style::Csv {
            return self.csv(format.header);
        }
        let mut table = comfy_table::Table::new();
        table.set_content_arrangement(ContentArrangement::Disabled);
        if format.header {
            let alignment = match format.style {
                Style::Table => CellAlignment::Center,
                _ => CellAlignment::Left,
            };
            table.set_header(self.heads.iter().map(|head| Cell::new(head).set_alignment(alignment)));
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| visible(cell)));
        }
        table.load_style(match format.style {
            // Without rows the line under the heads is the last one.
            Style::Table if self.rows.is_empty() => BORDERED.header_separator(LineStyle::none()),
            Style::Table => BORDERED,
            Style::Markdown => ASCII_MARKDOWN,
            _ => NOTHING,
        });
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn csv(&self, header: bool) -> String {
        let rows = header.then_some(&self.heads).into_iter().chain(&self.rows);
        rows.map(|row| row.iter().map(|cell| quoted(cell)).collect::<Vec<_>>().join(",") + "\n").collect()
    }
}

/// A cell for people: names of files and descriptions are other people's, and must not steer the terminal.
fn visible(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for letter in cell.chars() {
        match letter.is_control() && letter != '\n' {
            true => text.extend(letter.escape_debug()),
            false => text.push(letter),
        }
    }
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.into()
    }
}

/// Shows a list: the objects as JSON or YAML, or a table made from them.
pub fn show<T: Serialize>(format: Format, objects: &T, table: impl FnOnce() -> Table) -> anyhow::Result<()> {
    match format.style {
        Style::Json => super::line(serde_json::to_string(objects).context("cannot write JSON")?)?,
        Style::Yaml => super::yaml::show(objects)?,
        _ => super::raw(table().render(format).as_bytes())?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(["NAME", "IPV4"]);
        table.row(["web", "10.0.0.2 (eth0)\n10.0.1.2 (eth1)"]);
        table.row(["a-long-name", ""]);
        table
    }

    fn format(text: &str) -> Format {
        text.parse().unwrap()
    }

    #[test]
    fn tables_look_as_in_incus() {
        let expected = "\
+-------------+-----------------+
|     NAME    |       IPV4      |
+-------------+-----------------+
| web         | 10.0.0.2 (eth0) |
|             | 10.0.1.2 (eth1) |
+-------------+-----------------+
| a-long-name |                 |
+-------------+-----------------+
";
        assert_eq!(sample().render(format("table")), expected);
    }

    #[test]
    fn an_empty_table_is_its_heads() {
        let expected = "+------+------+\n| NAME | IPV4 |\n+------+------+\n";
        assert_eq!(Table::new(["NAME", "IPV4"]).render(format("table")), expected);
    }

    #[test]
    fn csv_quotes_what_needs_it() {
        let expected = "web,\"10.0.0.2 (eth0)\n10.0.1.2 (eth1)\"\na-long-name,\n";
        assert_eq!(sample().render(format("csv")), expected);
        assert!(sample().render(format("csv,header")).starts_with("NAME,IPV4\n"));
        assert_eq!(quoted("say \"hi\""), "\"say \"\"hi\"\"\"");
    }

    #[test]
    fn what_would_steer_the_terminal_is_shown_instead() {
        let mut table = Table::new(["NAME"]);
        table.row(["a\u{1b}[31m\r\u{9b}2J\tb"]);
        let shown = table.render(format("table"));
        assert!(shown.contains(r"a\u{1b}[31m\r\u{9b}2J\tb"), "{shown}");
        assert!(!shown.contains(|letter: char| letter.is_control() && letter != '\n'), "{shown}");
        // Programs get it as it is.
        assert!(table.render(format("csv")).contains('\u{1b}'));
    }

    #[test]
    fn heads_can_be_left_out() {
        assert!(!sample().render(format("table,noheader")).contains("NAME"));
        assert!(sample().render(format("compact")).contains("NAME"));
        assert!(sample().render(format("markdown")).contains("|---"));
        assert!("tables".parse::<Format>().is_err());
        assert!("csv,heads".parse::<Format>().is_err());
    }
}
