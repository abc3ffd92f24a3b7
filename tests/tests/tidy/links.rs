//! Relative links in the documentation lead to a file, and to a heading that is in it.

use std::path::{Component, Path, PathBuf};

use crate::tree::{self, File};

fn check(
    file: &File,
    exists: &dyn Fn(&str) -> bool,
    text_of: &dyn Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, target) in links(&file.text) {
        if target.contains("://") || target.starts_with("mailto:") {
            continue;
        }
        let (path, heading) = target.split_once('#').unwrap_or((target.as_str(), ""));
        let path = if path.is_empty() { file.path.clone() } else { resolve(&file.path, path) };
        if !exists(&path) {
            complaints.push(format!("{}:{line}: `{target}` leads nowhere", file.path));
        } else if !heading.is_empty() && text_of(&path).is_some_and(|text| !has_heading(&text, heading)) {
            complaints.push(format!("{}:{line}: `{path}` has no heading `{heading}`", file.path));
        }
    }
    complaints
}

/// Targets of `[text](target)` and `[name]: target` outside of code.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut links = Vec::new();
    for (line, prose) in prose_lines(text) {
        for (at, _) in prose.match_indices("](") {
            let rest = &prose[at + 2..];
            if let Some(end) = rest.find([')', ' ']) {
                links.push((line, rest[..end].to_owned()));
            }
        }
        if let Some((_, target)) = prose.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
            links.push((line, target.trim().to_owned()));
        }
    }
    links
}

/// Numbered lines outside of fenced code, with inline code taken out.
fn prose_lines(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((index + 1, line.split('`').step_by(2).collect::<Vec<_>>().join("")));
        }
    }
    lines
}

fn resolve(from: &str, target: &str) -> String {
    let mut path: PathBuf = Path::new(from).parent().unwrap_or(Path::new("")).to_path_buf();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir if path.pop() => {}
            Component::CurDir => {}
            Component::Normal(_) | Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                path.push(part);
            }
        }
    }
    path.to_string_lossy().into_owned()
}

fn has_heading(text: &str, wanted: &str) -> bool {
    let mut fenced = false;
    text.lines().any(|line| {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        !fenced && line.starts_with('#') && slug(line.trim_start_matches('#')) == wanted
    })
}

/// The anchor that code hosts make of a heading.
fn slug(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|&c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let files = tree::files();
    let exists = |path: &str| tree::root().join(path).exists();
    let text_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.text.clone());
    let documents = files.iter().filter(|file| file.path.ends_with(".md"));
    let complaints: Vec<String> = documents.flat_map(|file| check(file, &exists, &text_of)).collect();
    crate::no_complaints(&complaints);
}

#[test]
fn dangling_links_are_found() {
    let exists = |path: &str| matches!(path, "docs/A.md" | "README.md" | "docs/adr/0001-x.md");
    let text_of =
        |path: &str| (path == "README.md").then(|| "# Title\n## Two words, one\n```\n# no\n```\n".to_owned());
    let complaints = |text: &str| {
        let file = File { path: "docs/A.md".into(), text: text.into() };
        check(&file, &exists, &text_of).len()
    };
    assert_eq!(complaints("[a](B.md) and [b](../NOTHING.md#x)"), 2);
    assert_eq!(complaints("[a](../README.md#three-words)"), 1);
    assert_eq!(complaints("[a](../README.md#no)"), 1);
    assert_eq!(complaints("[a]: gone.md"), 1);
    assert_eq!(
        complaints("[a](../README.md#two-words-one) [b](adr/0001-x.md) [c](https://docs.rs/x) [d](./A.md)"),
        0
    );
    assert_eq!(complaints("`[a](B.md)`\n```\n[a](B.md)\n```\n"), 0);
}
