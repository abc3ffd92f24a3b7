//! Every row of `docs/messages.md` names tests that exist, and every test that is named after a row stands there.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::tree::{self, File, code_of, identifier, word_positions};

const PAGE: &str = "docs/messages.md";
const ROWS: RangeInclusive<u32> = 1..=26;

fn check(page: &str, tests: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    let mut rows: Vec<u32> = Vec::new();
    for line in page.lines() {
        let Some((row, rest)) = line.strip_prefix("| M").and_then(|rest| rest.split_once(" |")) else {
            continue;
        };
        let Ok(number) = row.parse() else { continue };
        rows.push(number);
        // Every other piece between back quotes is code.
        let spans: Vec<&str> =
            rest.split('`').skip(1).step_by(2).filter(|span| row_of(span).is_some()).collect();
        if spans.is_empty() {
            complaints.push(format!("{PAGE}: row M{number} names no test"));
        }
        for span in spans {
            named.insert(span);
            if row_of(span) != Some(number) {
                complaints.push(format!("{PAGE}: `{span}` stands in row M{number}"));
            }
            if !tests.contains(span) {
                complaints.push(format!("{PAGE}: there is no test `{span}`"));
            }
        }
    }
    if !rows.iter().copied().eq(ROWS) {
        complaints.push(format!("{PAGE}: the rows are {rows:?}"));
    }
    let left_out = tests.iter().filter(|test| !named.contains(test.as_str()));
    complaints.extend(left_out.map(|test| format!("{PAGE}: the test `{test}` is left out")));
    complaints
}

/// The row that a test is named after: `m03_` and words.
fn row_of(name: &str) -> Option<u32> {
    let digits = name.strip_prefix('m')?.get(..3)?.strip_suffix('_')?;
    digits.parse().ok()
}

fn tests_in(files: &[File]) -> BTreeSet<String> {
    let mut tests = BTreeSet::new();
    for file in files {
        let code = code_of(&file.text);
        let names = word_positions(&code, "fn").map(|at| identifier(code[at + 2..].trim_start()));
        tests.extend(names.filter(|name| row_of(name).is_some()).map(str::to_owned));
    }
    tests
}

#[test]
fn rows_name_tests_that_exist() {
    let files = tree::files();
    let page = files.iter().find(|file| file.path == PAGE).map_or("", |file| &file.text);
    crate::no_complaints(&check(page, &tests_in(&tree::rust_files())));
}

#[test]
fn rows_without_a_test_are_found() {
    let file =
        File { path: "a.rs".into(), text: "#[test]\nfn m01_a() {}\n// fn m02_no\nfn m1_no() {}".into() };
    let tests = tests_in(&[file]);
    assert_eq!(tests, BTreeSet::from(["m01_a".to_owned()]));
    let page = |first: &str| {
        let rows = (2..=26).map(|row| format!("| M{row} | `x` | `m{row:02}_b` |\n"));
        format!("| row | x |\n|---|---|\n{first}{}", rows.collect::<String>())
    };
    let tests: BTreeSet<String> =
        (2..=26).map(|row| format!("m{row:02}_b")).chain(["m01_a".into()]).collect();
    let complaints = |first: &str| check(&page(first), &tests).len();
    assert_eq!(complaints("| M1 | x | `m01_a` |\n"), 0);
    assert_eq!(complaints("| M1 | x | none |\n"), 2, "no test, and one left out");
    assert_eq!(complaints("| M1 | x | `m01_a`, `m01_gone` |\n"), 1);
    assert_eq!(complaints("| M1 | x | `m01_a`, `m02_b` |\n"), 1);
    assert_eq!(complaints(""), 2, "a row is missing, and a test left out");
}
