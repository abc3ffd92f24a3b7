//! What must not stand in the tree: paths of one machine, hosts nobody decided on, sleeping, skipped tests, `unsafe`.

use crate::tree::{self, File, code_of, line_of, word_positions};

/// Folders that exist on one machine only. Written in two parts, so that this file does not hold them itself.
const PATHS: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Every host that a URL in the tree may name. Another one is added here on purpose, or is a slip.
const HOSTS: [&str; 19] = [
    "127.0.0.1",
    "localhost",
    "apache.org",
    "www.apache.org",
    "crates.io",
    "doc.rust-lang.org",
    "docs.rs",
    "github.com",
    "keepachangelog.com",
    "opensource.org",
    "postcard.jamesmunns.com",
    "rustup.rs",
    "semver.org",
    "spdx.org",
    "sqlite.org",
    "www.sqlite.org",
    "www.rfc-editor.org",
    "www.w3.org",
    "en.wikipedia.org",
];

/// Where the one kind of code that the compiler cannot check may stand.
const UNSAFE_ALLOWED: [&str; 3] = ["bindings/c/", "firmware-example/src/board.rs", "tests/shims/"];

fn check(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |at: usize, what: String| {
        complaints.push(format!("{}:{}: {what}", file.path, line_of(&file.text, at)));
    };
    for path in PATHS {
        for (at, _) in file.text.match_indices(path) {
            let before = file.text[..at].chars().next_back();
            if !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}' | '>')) {
                complain(at, format!("`{path}` is a path of one machine"));
            }
        }
    }
    for (at, host) in hosts(&file.text) {
        if !HOSTS.contains(&host) {
            complain(at, format!("the host `{host}` is not among those that may be named"));
        }
    }
    for (at, line) in shell_lines(file) {
        if line.trim_start().starts_with(concat!("sle", "ep ")) {
            complain(at, "waits for time to pass instead of for what it needs".into());
        }
    }
    complaints
}

fn check_rust(file: &File) -> Vec<String> {
    let code = code_of(&file.text);
    let mut complaints = Vec::new();
    let mut complain = |at: usize, what: &str| {
        complaints.push(format!("{}:{}: {what}", file.path, line_of(&code, at)));
    };
    for at in word_positions(&code, "sleep") {
        let path = code[..at].rsplit([';', '}', '\n', '(', '=']).next().unwrap_or("");
        if path.contains("thread::") || path.contains("time::") {
            complain(at, "sleeps: wait for an event, a deadline or virtual time");
        }
    }
    for at in word_positions(&code, "ignore") {
        if code[..at].trim_end().ends_with("#[")
            || code[..at].trim_end().ends_with(',') && in_attribute(&code, at)
        {
            complain(at, "a test is skipped");
        }
    }
    if !UNSAFE_ALLOWED.iter().any(|place| file.path.starts_with(place)) {
        for at in word_positions(&code, "unsafe") {
            complain(at, "`unsafe` has no place here");
        }
    }
    complaints
}

fn in_attribute(code: &str, at: usize) -> bool {
    let before = &code[..at];
    before.rfind("#[").is_some_and(|open| !before[open..].contains(']'))
}

/// The host of every URL in the text, without user and port.
fn hosts(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices("://").filter_map(|(at, _)| {
        let scheme = &text[..at];
        if !scheme.ends_with("http") && !scheme.ends_with("https") {
            return None;
        }
        let rest = &text[at + 3..];
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '@' | ':')))
            .unwrap_or(rest.len());
        let host = rest[..end].rsplit('@').next()?.split(':').next()?.trim_end_matches('.');
        (!host.is_empty()).then_some((at, host))
    })
}

fn shell_lines(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let shell = file.path.ends_with(".sh") || file.text.starts_with("#!");
    let mut at = 0;
    file.text.split_inclusive('\n').filter_map(move |line| {
        let begin = at;
        at += line.len();
        shell.then_some((begin, line))
    })
}

fn sample(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

#[test]
fn the_tree_holds_no_foreign_words() {
    let complaints: Vec<String> = tree::files().iter().flat_map(check).collect();
    crate::no_complaints(&complaints);
}

#[test]
fn the_code_does_not_sleep_skip_or_trust() {
    let complaints: Vec<String> = tree::rust_files().iter().flat_map(check_rust).collect();
    crate::no_complaints(&complaints);
}

#[test]
fn foreign_words_are_found() {
    for path in PATHS {
        assert_eq!(check(&sample("a.md", &format!("see {path}x"))).len(), 1, "{path}");
        assert!(check(&sample("a.md", &format!("see ..{path}x, net{path}x"))).is_empty(), "{path}");
    }
    let url = |host: &str| sample("a.toml", &format!("registry = \"https://{host}/index\""));
    assert_eq!(check(&url("mirror.invalid:8081")).len(), 1);
    assert_eq!(check(&url("user@mirror.invalid")).len(), 1);
    assert!(check(&url("docs.rs")).is_empty());
    let script = format!("#!/bin/sh\n  sle{} 5\n", "ep");
    assert_eq!(check(&sample("run", &script)).len(), 1);
    assert!(check(&sample("a.md", &script[2..])).is_empty());
}

#[test]
fn sleeping_skipping_and_trusting_are_found() {
    let found = |text: &str| check_rust(&sample("liner/src/a.rs", text)).len();
    assert_eq!(found("std::thread::sleep(d);"), 1);
    assert_eq!(found("use std::thread::{self, sleep};"), 1);
    assert_eq!(found("#[test]\n#[ignore]\nfn a() {}"), 1);
    assert_eq!(found("#[ignore = \"slow\"]\nfn a() {}"), 1);
    assert_eq!(found("#[cfg_attr(windows, ignore)]\nfn a() {}"), 1);
    assert_eq!(found("fn a() { unsafe { b() } }"), 1);
    assert_eq!(found("// unsafe\nfn sleep(ignore: u8) { f(\"unsafe\", ignore) }"), 0);
    assert!(check_rust(&sample("bindings/c/src/lib.rs", "unsafe fn a() {}")).is_empty());
}
