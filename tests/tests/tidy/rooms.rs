//! The rooms of `liner-proto` know only the rooms before them.

use std::collections::BTreeSet;

use crate::tree::{self, File, block_end, code_of, identifier, line_of, without_tests, word_positions};

/// The order of the rooms. Rooms of one entry do not know each other.
const ORDER: [&[&str]; 17] = [
    &["logging"],
    &["planted"],
    &["rng"],
    &["time"],
    &["id"],
    &["config"],
    &["memory", "timer"],
    &["frame"],
    &["seal"],
    &["wire"],
    &["line"],
    &["session", "delivery"],
    &["effect"],
    &["endpoint"],
    &["router"],
    &["store"],
    &["pump"],
];

const SOURCE: &str = "liner-proto/src/";

fn place(room: &str) -> Option<usize> {
    ORDER.iter().position(|entry| entry.contains(&room))
}

fn check(file: &File) -> Vec<String> {
    let Some(inner) = file.path.strip_prefix(SOURCE) else { return Vec::new() };
    if inner == "lib.rs" || inner.ends_with("/tests.rs") || inner.contains("/tests/") {
        return Vec::new();
    }
    let room = identifier(inner);
    let Some(own) = place(room) else {
        return vec![format!("{}: the room `{room}` has no place in the order", file.path)];
    };
    let code = without_tests(&code_of(&file.text));
    let mut complaints = Vec::new();
    for (line, target) in edges(&code, depth(inner)) {
        if target == room {
            continue;
        }
        match place(&target) {
            Some(other) if other < own => {}
            Some(_) => complaints.push(format!("{}:{line}: `{room}` must not know `{target}`", file.path)),
            None => complaints.push(format!("{}:{line}: `crate::{target}` is no room", file.path)),
        }
    }
    complaints
}

/// How many `super` lead from the file's module to the crate's root.
fn depth(inner: &str) -> usize {
    let module = inner.trim_end_matches(".rs").trim_end_matches("/mod");
    module.split('/').count()
}

/// Every room that the code names, with its line.
fn edges(code: &str, depth: usize) -> BTreeSet<(usize, String)> {
    let mut edges = BTreeSet::new();
    for at in word_positions(code, "crate") {
        if let Some(path) = code[at + "crate".len()..].strip_prefix("::") {
            collect(path, line_of(code, at), &mut edges);
        }
    }
    for at in word_positions(code, "super") {
        let mut path = &code[at..];
        let mut ups = 0;
        while let Some(next) = path.strip_prefix("super::") {
            path = next;
            ups += 1;
        }
        if ups < depth || code[..at].ends_with("super::") {
            continue;
        }
        let mut named = BTreeSet::new();
        collect(path, line_of(code, at), &mut named);
        // A module inside the file may mean the file itself with its `super`: only rooms are taken from here.
        edges.extend(named.into_iter().filter(|(_, name)| place(name).is_some()));
    }
    edges
}

fn collect(path: &str, line: usize, edges: &mut BTreeSet<(usize, String)>) {
    if !path.starts_with('{') {
        edges.insert((line, identifier(path).to_owned()));
        return;
    }
    let group = &path[1..block_end(path, 0).saturating_sub(1)];
    let mut nested = 0_usize;
    let mut expected = true;
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => nested += 1,
            b'}' => nested = nested.saturating_sub(1),
            b',' if nested == 0 => expected = true,
            _ if expected && !byte.is_ascii_whitespace() => {
                edges.insert((line, identifier(&group[at..]).to_owned()));
                expected = false;
            }
            _ => {}
        }
    }
}

fn complaints_of(path: &str, text: &str) -> usize {
    check(&File { path: format!("{SOURCE}{path}"), text: text.into() }).len()
}

#[test]
fn no_room_knows_a_later_one() {
    let complaints: Vec<String> = tree::rust_files().iter().flat_map(check).collect();
    crate::no_complaints(&complaints);
}

#[test]
fn every_room_of_the_crate_has_a_place() {
    let files = tree::rust_files();
    let lib = files.iter().find(|file| file.path == format!("{SOURCE}lib.rs"));
    let code = lib.map(|file| code_of(&file.text)).unwrap_or_default();
    let rooms: Vec<&str> =
        word_positions(&code, "mod").map(|at| identifier(code[at + 3..].trim_start())).collect();
    assert!(rooms.len() > 10, "lib.rs names only {rooms:?}");
    let strangers: Vec<&&str> = rooms.iter().filter(|room| place(room).is_none()).collect();
    assert!(strangers.is_empty(), "{strangers:?} have no place in the order");
}

#[test]
fn forbidden_edges_are_found() {
    assert_eq!(complaints_of("session.rs", "use crate::delivery::Window;"), 1);
    assert_eq!(complaints_of("delivery/window.rs", "use crate::session;"), 1);
    assert_eq!(complaints_of("wire/mod.rs", "use crate::{\n  id::Epoch,\n  router::{Router, wire},\n};"), 1);
    assert_eq!(complaints_of("time.rs", "fn f() -> crate::timer::Timer {}"), 1);
    assert_eq!(complaints_of("frame/cobs.rs", "use super::super::wire::Tag;"), 1);
    assert_eq!(complaints_of("frame.rs", "use super::{id, endpoint};"), 1);
    assert_eq!(complaints_of("wire.rs", "use crate::Anything;"), 1);
    assert_eq!(complaints_of("attic.rs", ""), 1);
}

#[test]
fn allowed_edges_are_not() {
    assert_eq!(
        complaints_of("effect.rs", "use crate::wire::record::GapReason; use crate::id::{Epoch, Class};"),
        0
    );
    assert_eq!(complaints_of("endpoint/mod.rs", "use crate::{session::Session, delivery};"), 0);
    assert_eq!(
        complaints_of("store/ram.rs", "use super::Store; use crate::store::Store; use crate::effect;"),
        0
    );
    assert_eq!(
        complaints_of("time.rs", "// use crate::router;\n#[cfg(test)]\nmod tests { use crate::router; }"),
        0
    );
}
