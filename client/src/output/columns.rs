//! Lists whose columns are chosen by letters.

use anyhow::bail;

use super::Table;

/// One column of a list of `T`.
#[derive(Debug)]
pub struct Column<T> {
    /// The letter that chooses it.
    pub letter: char,
    /// What stands above it.
    pub head: &'static str,
    /// What stands in it.
    pub cell: fn(&T) -> String,
}

/// The columns that the letters choose, in their order; commas may stand between.
pub fn chosen<'a, T>(all: &'a [Column<T>], letters: &str) -> anyhow::Result<Vec<&'a Column<T>>> {
    let mut columns = Vec::new();
    for letter in letters.chars().filter(|letter| *letter != ',') {
        let Some(column) = all.iter().find(|column| column.letter == letter) else {
            bail!("`{letter}` in `{letters}` is no column; `--help` of this list shows them");
        };
        columns.push(column);
    }
    Ok(columns)
}

/// A table of `objects`.
pub fn rows<T>(columns: &[&Column<T>], objects: &[T]) -> Table {
    let mut table = Table::new(columns.iter().map(|column| column.head));
    for object in objects {
        table.row(columns.iter().map(|column| (column.cell)(object)));
    }
    table
}

/// `yes` or `no` as lists write it.
pub fn yes(truth: bool) -> String {
    if truth { "YES" } else { "NO" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: &[Column<&str>] = &[
        Column { letter: 'n', head: "NAME", cell: |it| (*it).to_owned() },
        Column { letter: 'l', head: "LENGTH", cell: |it| it.len().to_string() },
    ];

    #[test]
    fn letters_choose_columns_in_their_order() {
        let columns = chosen(LENGTHS, "l,n").unwrap();
        assert_eq!(rows(&columns, &["web"]).render("csv,header".parse().unwrap()), "LENGTH,NAME\n3,web\n");
        assert!(chosen(LENGTHS, "nx").unwrap_err().to_string().contains("`x`"));
    }
}
