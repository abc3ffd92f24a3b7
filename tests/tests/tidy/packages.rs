//! What the packages depend on: nothing that was not decided on, from one registry, under licences that are allowed.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::tree;

/// Everything that the core may depend on.
const CORE: [&str; 9] =
    ["cobs", "crc32c", "defmt", "embedded-io", "heapless", "log", "postcard", "serde", "thiserror"];

/// Which packages of the workspace a package may depend on, test dependencies left aside.
const EDGES: [(&str, &[&str]); 9] = [
    ("liner-proto", &[]),
    ("liner-mio", &["liner-proto"]),
    ("liner-store", &["liner-proto"]),
    ("liner-store-sqlite", &["liner-proto", "liner-store"]),
    ("liner-store-redis", &["liner-proto", "liner-store"]),
    ("liner-store-postgres", &["liner-proto", "liner-store"]),
    (
        "liner",
        &[
            "liner-mio",
            "liner-proto",
            "liner-store",
            "liner-store-postgres",
            "liner-store-redis",
            "liner-store-sqlite",
        ],
    ),
    ("liner-tests", &["liner", "liner-mio", "liner-proto", "liner-store", "liner-store-sqlite"]),
    ("readings", &[]),
];

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What cargo knows of the packages that are built on this machine. Those of other systems are left out: they need not
/// have been fetched, and this asks the registry for nothing that the build did not ask for.
fn metadata() -> Value {
    let tool = |name: &str, fallback: &str| std::env::var(name).unwrap_or_else(|_| fallback.to_owned());
    let version = run(Command::new(tool("RUSTC", "rustc")).arg("-vV"));
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    assert!(!host.is_empty(), "the compiler does not name its host: {version}");
    let mut cargo = Command::new(tool("CARGO", "cargo"));
    cargo.args(["metadata", "--format-version", "1", "--locked", "--filter-platform", host]);
    serde_json::from_str(&run(&mut cargo)).unwrap_or(Value::Null)
}

fn run(command: &mut Command) -> String {
    let output = command.current_dir(tree::root()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(tree::root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or("")
}

/// Names of what a package needs to be built and used.
fn dependencies<'a>(metadata: &'a Value, package: &str) -> BTreeSet<&'a str> {
    packages(metadata)
        .filter(|candidate| text(candidate, "name") == package && candidate["source"].is_null())
        .flat_map(|candidate| candidate["dependencies"].as_array().into_iter().flatten())
        .filter(|dependency| text(dependency, "kind") != "dev")
        .map(|dependency| text(dependency, "name"))
        .collect()
}

/// What is built on a runtime that brings threads and tasks, if asked to: the loop belongs to the host. The clients of the servers are,
/// and the stores keep them to themselves, on the node's worker.
const RUNTIMES: [&str; 3] = ["tokio", "tokio-postgres", "redis"];
const MAY_USE_RUNTIMES: [&str; 2] = ["liner-store-postgres", "liner-store-redis"];

fn check_runtimes(metadata: &Value) -> Vec<String> {
    let ours = packages(metadata).filter(|package| package["source"].is_null());
    let others = ours.map(|package| text(package, "name")).filter(|name| !MAY_USE_RUNTIMES.contains(name));
    let uses =
        |name: &str| RUNTIMES.into_iter().find(|runtime| dependencies(metadata, name).contains(runtime));
    others
        .filter_map(|name| uses(name).map(|runtime| format!("`{name}` must not depend on `{runtime}`")))
        .collect()
}

fn check_edges(metadata: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in packages(metadata).filter(|package| package["source"].is_null()) {
        let name = text(package, "name");
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| *known == name) else {
            complaints.push(format!("the package `{name}` has no place among the edges"));
            continue;
        };
        for dependency in dependencies(metadata, name) {
            if EDGES.iter().any(|(known, _)| *known == dependency) && !allowed.contains(&dependency) {
                complaints.push(format!("`{name}` must not depend on `{dependency}`"));
            }
        }
    }
    complaints
}

fn check_licences(metadata: &Value, allowed: &BTreeSet<String>) -> Vec<String> {
    packages(metadata)
        .filter(|package| !Licence::new(text(package, "license")).allowed(allowed))
        .map(|package| {
            format!("{} has the licence `{}`, see deny.toml", text(package, "name"), text(package, "license"))
        })
        .collect()
}

/// Packages of the lock file that come from elsewhere than the one registry, or are banned.
fn check_lock(lock: &str, banned: &BTreeSet<String>) -> Vec<String> {
    let mut complaints = Vec::new();
    for package in lock.split("[[package]]").skip(1) {
        let field = |name: &str| {
            let start = format!("{name} = \"");
            package
                .lines()
                .find_map(|line| line.strip_prefix(&start))
                .map(|value| value.trim_end_matches('"'))
        };
        let name = field("name").unwrap_or("?");
        if field("source").is_some_and(|source| source != REGISTRY) {
            complaints.push(format!("{name} comes from {}", field("source").unwrap_or("?")));
        }
        if banned.contains(name) {
            complaints.push(format!("{name} is banned, see deny.toml"));
        }
    }
    complaints
}

/// The quoted values of a list in a table of `deny.toml`: all of them, or only those behind `key = `.
fn listed(toml: &str, table: &str, list: &str, key: Option<&str>) -> BTreeSet<String> {
    let header = format!("[{table}]");
    let lines = toml.lines().map(|line| line.split(" #").next().unwrap_or("").trim());
    let inside = lines.skip_while(|line| *line != header).skip(1).take_while(|line| !line.starts_with('['));
    let body: Vec<&str> = inside.filter(|line| !line.starts_with('#')).collect();
    let body = body.join("\n");
    let start = format!("\n{list} = [");
    let body = format!("\n{body}");
    let Some((_, rest)) = body.split_once(&start) else { return BTreeSet::new() };
    let rest = rest.split("\n]").next().unwrap_or("");
    let quoted: Vec<&str> = rest.split('"').collect();
    quoted
        .chunks_exact(2)
        .filter(|pair| key.is_none_or(|key| pair[0].trim_end().ends_with(&format!("{key} ="))))
        .map(|pair| pair[1].to_owned())
        .collect()
}

/// An SPDX expression: names joined by `AND`, `OR` (or the old `/`) and brackets.
struct Licence<'a> {
    words: Vec<&'a str>,
    at: usize,
}

impl<'a> Licence<'a> {
    fn new(expression: &'a str) -> Self {
        let mut words = Vec::new();
        for word in expression.split_whitespace() {
            let mut rest = word;
            while let Some(at) = rest.find(['(', ')', '/']) {
                words.extend([&rest[..at], &rest[at..=at]].into_iter().filter(|part| !part.is_empty()));
                rest = &rest[at + 1..];
            }
            words.extend(Some(rest).filter(|rest| !rest.is_empty()));
        }
        Self { words, at: 0 }
    }

    fn allowed(mut self, names: &BTreeSet<String>) -> bool {
        self.any(names) && self.at == self.words.len()
    }

    fn any(&mut self, names: &BTreeSet<String>) -> bool {
        let mut allowed = self.all(names);
        while self.take("OR") || self.take("/") {
            allowed |= self.all(names);
        }
        allowed
    }

    fn all(&mut self, names: &BTreeSet<String>) -> bool {
        let mut allowed = self.one(names);
        while self.take("AND") {
            allowed &= self.one(names);
        }
        allowed
    }

    fn one(&mut self, names: &BTreeSet<String>) -> bool {
        if self.take("(") {
            let allowed = self.any(names);
            return self.take(")") && allowed;
        }
        let Some(name) = self.words.get(self.at).copied() else { return false };
        self.at += 1;
        if !self.take("WITH") {
            return names.contains(name);
        }
        let exception = self.words.get(self.at).copied().unwrap_or("");
        self.at += 1;
        names.contains(name) || names.contains(&format!("{name} WITH {exception}"))
    }

    fn take(&mut self, word: &str) -> bool {
        let taken = self.words.get(self.at) == Some(&word);
        self.at += usize::from(taken);
        taken
    }
}

fn names(list: &[&str]) -> BTreeSet<String> {
    list.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn the_core_depends_on_what_was_decided() {
    let metadata = metadata();
    assert_eq!(dependencies(&metadata, "liner-proto"), BTreeSet::from(CORE));
    crate::no_complaints(&check_edges(&metadata));
    crate::no_complaints(&check_runtimes(&metadata));
}

#[test]
fn licences_are_allowed() {
    let allowed = listed(&read("deny.toml"), "licenses", "allow", None);
    assert!(allowed.contains("MIT") && allowed.contains("Apache-2.0"), "deny.toml allows {allowed:?}");
    let metadata = metadata();
    assert!(packages(&metadata).count() > 10, "cargo names no packages");
    crate::no_complaints(&check_licences(&metadata, &allowed));
}

#[test]
fn everything_comes_from_one_registry() {
    let banned = listed(&read("deny.toml"), "bans", "deny", Some("crate"));
    assert!(!banned.is_empty(), "deny.toml bans nothing");
    let lock = read("Cargo.lock");
    assert!(lock.contains(REGISTRY));
    crate::no_complaints(&check_lock(&lock, &banned));
}

#[test]
fn expressions_are_judged() {
    let allowed = names(&["MIT", "Apache-2.0", "BSD-3-Clause"]);
    let judge = |expression| Licence::new(expression).allowed(&allowed);
    let good = [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "(MIT OR X) AND BSD-3-Clause",
        "Apache-2.0 WITH LLVM-exception",
    ];
    for expression in good {
        assert!(judge(expression), "{expression}");
    }
    let bad = ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR X) AND Y", "MIT)", "X OR MIT AND Y", "(MIT"];
    for expression in bad {
        assert!(!judge(expression), "{expression}");
    }
}

#[test]
fn lists_are_read_from_their_own_table() {
    let toml = "[a]\nallow = [\"no\"]\n[b]\n# allow = [\"no\"]\nallow = [\n  \"x\", # why\n  \"y\",\n]\ndeny = [\n  \
        { crate = \"z\", reason = \"w\" },\n]\n";
    assert_eq!(listed(toml, "b", "allow", None), names(&["x", "y"]));
    assert_eq!(listed(toml, "b", "deny", Some("crate")), names(&["z"]));
    assert!(listed(toml, "c", "allow", None).is_empty());
}

#[test]
fn foreign_packages_are_found() {
    let lock = format!(
        "version = 4\n[[package]]\nname = \"a\"\nsource = \"{REGISTRY}\"\n[[package]]\nname = \"b\"\n\
         [[package]]\nname = \"c\"\nsource = \"git+ssh://somewhere\"\n"
    );
    assert_eq!(check_lock(&lock, &names(&["z"])), ["c comes from git+ssh://somewhere"]);
    assert_eq!(check_lock(&lock, &names(&["a"])).len(), 2);
}

#[test]
fn foreign_edges_and_licences_are_found() {
    let package = |name: &str, on: &str, kind: Value| {
        serde_json::json!({
            "name": name, "source": null, "license": "GPL-3.0",
            "dependencies": [{ "name": on, "kind": kind }],
        })
    };
    let metadata = |package: Value| serde_json::json!({ "packages": [package] });
    let bad = metadata(package("liner-proto", "liner-mio", Value::Null));
    assert_eq!(check_edges(&bad), ["`liner-proto` must not depend on `liner-mio`"]);
    assert_eq!(check_edges(&metadata(package("attic", "serde", Value::Null))).len(), 1);
    assert!(check_edges(&metadata(package("liner-proto", "liner-mio", Value::from("dev")))).is_empty());
    assert_eq!(check_runtimes(&metadata(package("liner-mio", "tokio", Value::Null))).len(), 1);
    assert!(check_runtimes(&metadata(package("liner-store-postgres", "tokio", Value::Null))).is_empty());
    assert_eq!(check_licences(&bad, &names(&["MIT"])).len(), 1);
    assert!(check_licences(&bad, &names(&["GPL-3.0"])).is_empty());
}
