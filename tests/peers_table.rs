//! `docs/peers.md` names a test for each row: they are there.

use std::fs;
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 15] = [
    "Transports, listeners",
    "Accepting and balance",
    "Events",
    "Reading",
    "Writing",
    "Timers",
    "From other threads",
    "Connecting out",
    "Detach and enrol",
    "Half-close, abort",
    "Blocking work",
    "Socket options",
    "Life of a server",
    "Protocols",
    "Platforms",
];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The source of `tests/NAME.rs`, or of all files in `tests/NAME/`; of `src/NAME.rs` where there is
/// no such test.
fn source(name: &str) -> String {
    let file = |folder: &str| fs::read_to_string(root(folder).join(format!("{name}.rs")));
    if let Ok(text) = file("tests").or_else(|_| file("src")) {
        return text;
    }
    let entries = fs::read_dir(root("tests").join(name));
    let entries = entries.unwrap_or_else(|_| panic!("docs/peers.md names a test file {name}"));
    let read = |entry: std::io::Result<fs::DirEntry>| fs::read_to_string(entry.unwrap().path());
    entries.map(|entry| read(entry).unwrap()).collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn each_row_names_a_test_that_is_there() {
    let page = fs::read_to_string(root("docs/peers.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| "));
    let mut sections = Vec::new();
    let mut looked_at = 0;
    for row in rows.skip(1) {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        if let Some(section) = cells[0].strip_prefix("**") {
            sections.push(section.trim_end_matches("**").to_owned());
            continue;
        }
        assert_eq!(cells.len(), 3, "a row has three cells: {row}");
        let tests: Vec<_> = quoted(cells[2])
            .filter_map(|test| test.split_once("::"))
            .collect();
        assert!(!tests.is_empty(), "a row names its test: {row}");
        for (file, name) in tests {
            let is_there = source(file).contains(&format!("fn {name}("));
            assert!(is_there, "there is no test {name} in {file}: {row}");
            looked_at += 1;
        }
    }
    assert_eq!(sections, SECTIONS);
    assert!(
        looked_at > 60,
        "only {looked_at} tests were found in the table"
    );
}
