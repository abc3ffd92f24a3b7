//! Inputs that make no work possible: each is one sentence with the right exit code, and nothing is lost or changed.
//!
//! A list of addresses that was cut belongs here as soon as a command reads one: so far only programs do.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{Ended, free_port, run, run_in};

/// What is wrong, with which words, the exit code, and what the sentence has to hold.
struct Row<'a> {
    input: &'a str,
    command: Vec<&'a str>,
    code: i32,
    sentence: &'a str,
}

/// The same without the command.
type Input = (&'static str, &'static str, i32, &'static str);

const GATEWAY: &[&str] =
    &["gateway", "--name", "edge", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"];
const SUB: &[&str] = &["sub", "t", "--name", "edge", "--peer", "127.0.0.1:1"];
const PUB: &[&str] = &["pub", "t", "x", "--name", "edge", "--peer", "127.0.0.1:1"];
const DRAIN: &[&str] = &["drain", "--name", "edge", "--wait", "100ms"];
const FORGET: &[&str] = &["forget", "w", "--name", "edge"];
const LOOKS: [&[&str]; 6] = [
    &["pending"],
    &["topics"],
    &["dlq", "list"],
    &["dlq", "read", "1"],
    &["dlq", "redrive", "1"],
    &["dlq", "drop", "--all"],
];

/// What all that opens a store says of one.
const STORES: &[Input] = &[
    (
        "unknown scheme",
        "mysql://u:secret@h",
        2,
        "--store: there is no store of the kind `mysql`: write sqlite:PATH",
    ),
    ("no scheme", "good.db", 2, "--store: a store URL begins with its kind: write sqlite:good.db"),
    (
        "directory as file",
        "sqlite:there",
        2,
        "`there` is a directory: name a file in it, for instance sqlite:",
    ),
    (
        "no such folder",
        "sqlite:no/a.db",
        1,
        "no/a.db: No such file or directory (os error 2); make sure that its",
    ),
    ("text as store", "sqlite:diary.txt", 1, "diary.txt is no database; name a file that does not exist yet"),
    ("another's database", "sqlite:foreign.db", 1, "another program"),
    (
        "newer schema",
        "sqlite:newer.db",
        1,
        "newer.db has schema 9999 and this release knows up to 3; use the",
    ),
    ("link to itself", "sqlite:loop", 1, "loop"),
];

/// The same of what reads a store only.
const STORES_READ: &[Input] = &[
    ("no such store", "sqlite:nothing.db", 1, "there is no store at"),
    ("memory as store", "ram:", 2, "ram: "),
];

/// The same of what makes its own.
const STORES_MADE: &[Input] = &[
    ("unknown scheme", "mysql://h", 2, "--store: there is no store of the kind `mysql`"),
    ("directory as file", "sqlite:there", 2, "there is there already: name a new folder"),
    ("store as folder", "sqlite:good.db", 2, "good.db is there already: name a new folder"),
    ("no such folder", "sqlite:no/such", 1, "cannot make the folder no/such"),
];

/// What a gateway says of a file with options.
const CONFIGS: &[Input] = &[
    ("garbage TOML", "garbage.toml", 2, "garbage.toml:1: this is no TOML, write KEY = VALUE"),
    ("cut TOML", "cut.toml", 2, "cut.toml:2: this is no TOML"),
    ("binary as TOML", "binary.toml", 2, "binary.toml:1: this is no text in UTF-8"),
    ("unknown key", "unknown.toml", 2, "unknown.toml:1: there is no option `sotre`"),
    ("directory as file", "there", 2, "there is a directory: name a file in it"),
    ("database as TOML", "good.db", 2, "good.db:"),
    ("no such file", "nothing.toml", 2, "nothing.toml cannot be read, name a file that can"),
];

fn rows(taken: &str) -> Vec<Row<'_>> {
    let storing = [GATEWAY, SUB, PUB, DRAIN, FORGET].into_iter().chain(LOOKS);
    let reading = [DRAIN, FORGET].into_iter().chain(LOOKS);
    let stores = storing.flat_map(|command| STORES.iter().map(move |input| (command, "--store", input)));
    let read = reading.flat_map(|command| STORES_READ.iter().map(move |input| (command, "--store", input)));
    let made = STORES_MADE.iter().map(|input| (&["bench"][..], "--store", input));
    let gateways = [&["gateway"][..], &["gateway", "--check-config"]];
    let configs = gateways
        .into_iter()
        .flat_map(|command| CONFIGS.iter().map(move |input| (command, "--config", input)));
    let of_inputs = stores.chain(read).chain(made).chain(configs).map(|(command, option, input)| {
        let (input, value, code, sentence) = *input;
        Row { input, command: [command, &[option, value]].concat(), code, sentence }
    });
    let ports: [&[&str]; 4] = [
        &["gateway", "--store", "ram:", "--device-listen", "127.0.0.1:0", "--listen"],
        &["gateway", "--store", "ram:", "--listen", "127.0.0.1:0", "--device-listen"],
        &["sub", "t", "--listen"],
        &["drain", "--name", "edge", "--store", "sqlite:good.db", "--listen"],
    ];
    let of_ports = ports.into_iter().map(|command| {
        let command = [command, &[taken]].concat();
        Row { input: "occupied port", command, code: 3, sentence: "in use" }
    });
    let names: [(&str, &[&str], i32, &str); 4] = [
        ("unknown name", &["w", "--name", "edge"], 1, "edge knows no node named w: it knows nobody"),
        ("own name", &["edge", "--name", "edge"], 2, "edge is the node that forgets"),
        ("unknown owner", &["w", "--name", "nobody"], 1, "no node named \"nobody\" has used"),
        ("empty name", &["", "--name", "edge"], 2, "a name must not be empty"),
    ];
    let of_names = names.into_iter().map(|(input, words, code, sentence)| {
        let command = [&["forget", "--store", "sqlite:good.db"], words].concat();
        Row { input, command, code, sentence }
    });
    of_inputs.chain(of_ports).chain(of_names).collect()
}

/// The files that are in the way, and one that is in order.
fn prepare(folder: &Path) {
    let path = |name: &str| folder.join(name);
    let stored = run(folder, &[PUB, &["--count", "3", "--store", "sqlite:good.db"]].concat());
    assert_eq!(stored.code, Some(0), "{:?}", stored.errors);
    fs::copy(path("good.db"), path("newer.db")).unwrap();
    let newer = rusqlite::Connection::open(path("newer.db")).unwrap();
    newer.execute_batch("PRAGMA user_version = 9999; PRAGMA journal_mode = DELETE").unwrap();
    let foreign = rusqlite::Connection::open(path("foreign.db")).unwrap();
    foreign.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (v)").unwrap();
    fs::write(path("diary.txt"), "my diary").unwrap();
    fs::create_dir(path("there")).unwrap();
    symlink("loop", path("loop")).unwrap();
    fs::write(path("garbage.toml"), "\u{1}{]]= name").unwrap();
    fs::write(path("cut.toml"), "name = 'edge'\nstore = \"sqlite:go").unwrap();
    fs::write(path("binary.toml"), [0x7f, b'E', b'L', b'F', 0xff, 0xfe]).unwrap();
    fs::write(path("unknown.toml"), "sotre = 'ram:'").unwrap();
}

#[test]
fn hostile_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    prepare(folder);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();

    let before = contents(folder);
    for Row { input, command, code, sentence } in &rows(&taken) {
        assert_one_sentence(
            &run(folder, command),
            *code,
            sentence,
            &format!("{input}: liner {}", command.join(" ")),
        );
    }
    for words in [PUB, &["dlq", "list"]] {
        let refused = run_in(folder, words, &[("LINER_STORE", "mysql://u:secret@h")]);
        assert_one_sentence(&refused, 2, "LINER_STORE: there is no store of the kind `mysql`", "LINER_STORE");
    }
    assert_eq!(contents(folder), before, "what was there is as it was, and nothing has come");
    let pending = run(folder, &["pending", "--store", "sqlite:good.db"]);
    assert_eq!(pending.errors, ["liner: 3 messages wait"]);
}

#[track_caller]
fn assert_one_sentence(ended: &Ended, code: i32, sentence: &str, what: &str) {
    let Ended { errors, lines, .. } = ended;
    assert_eq!(ended.code, Some(code), "{what}: {errors:?}");
    let [line] = &errors[..] else { panic!("{what}: {errors:?}") };
    assert!(line.starts_with("liner: ") && line.contains(sentence), "{what}: {line}");
    assert!(lines.is_empty() && !line.contains("panicked"), "{what}: {lines:?} {line}");
}

/// The files that hold something, with what they hold. Locks are empty, and stay.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    let mut files: Vec<_> = files
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(&path).unwrap()))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect();
    files.sort();
    files
}

/// Runs a script that may mount file systems, which nobody else sees: for that it takes root, or namespaces that a user may make.
fn mounts(folder: &Path, script: &str) -> (Option<i32>, String, String) {
    shell(folder, &["unshare", "--map-root-user", "--mount", "sh", "-c"], &format!("mkdir -p disk\n{script}"))
}

fn shell(folder: &Path, command: &[&str], script: &str) -> (Option<i32>, String, String) {
    let mut shell = Command::new(command[0]);
    shell.args(&command[1..]).arg(format!("set -e\nliner() {{ env -u LINER \"$LINER\" \"$@\"; }}\n{script}"));
    shell.env("LINER", env!("CARGO_BIN_EXE_liner")).current_dir(folder).stdin(Stdio::null());
    let output = shell.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_disk_that_cannot_be_written_to() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    for words in [GATEWAY, SUB, PUB, DRAIN, FORGET].into_iter().chain(LOOKS) {
        let script = format!(
            "cp good.db disk/good.db\nmount --bind disk disk\nmount -o remount,ro,bind disk\nliner {} --store sqlite:disk/good.db",
            words.join(" ")
        );
        let (code, stdout, stderr) = mounts(folder.path(), &script);
        let what = format!("{words:?}: {stderr}");
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(1), "", 1), "{what}");
        assert!(stderr.starts_with("liner: cannot ") && stderr.contains("disk/good.db"), "{what}");
        assert!(stderr.contains("can be written to") || stderr.contains("may write to the file"), "{what}");
    }
}

#[test]
fn a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let nobody = format!("127.0.0.1:{}", free_port());
    // Full before it begins: what is there stays there, and is seen as soon as there is room.
    let full = "mount -t tmpfs -o size=6m tmpfs disk\ncp good.db disk/good.db\n\
                dd if=/dev/zero of=disk/fill bs=4k 2>/dev/null || true\n";
    let after = "rm disk/fill\nliner pending --store sqlite:disk/good.db --json 2>/dev/null\nexit $code\n";
    for words in [GATEWAY, SUB, PUB, DRAIN, FORGET] {
        let script = format!(
            "{full}code=0\nliner {} --store sqlite:disk/good.db || code=$?\n{after}",
            words.join(" ")
        );
        let (code, stdout, stderr) = mounts(folder.path(), &script);
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{words:?}: {stderr}");
        assert!(
            stderr.starts_with("liner: ") && stderr.ends_with("make room on the disk\n"),
            "{words:?}: {stderr}"
        );
        assert!(stdout.contains("\"messages\":3"), "{words:?}: {stdout}");
    }
    // Full while it works: it says how much is stored, and so much is.
    let script = format!(
        "mount -t tmpfs -o size=20m tmpfs disk\ncode=0\n\
         liner pub t --size 100 --count 1000000 --name p --peer {nobody} --store sqlite:disk/p.db --log warn || code=$?\n\
         liner pending --store sqlite:disk/p.db --json 2>/dev/null\nexit $code\n"
    );
    let (code, stdout, stderr) = mounts(folder.path(), &script);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    let kept = stderr.split(" of this run ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert!(kept.parse::<u64>().unwrap() > 1000, "{stderr}");
    assert!(stderr.contains("the store is full") && stderr.contains("send the others again"), "{stderr}");
    assert!(stdout.contains(&format!("\"messages\":{kept},")), "{stderr}: {stdout}");
}

/// As a quota of the file system makes it, or the user's own limit.
#[test]
fn a_file_that_may_not_grow() {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let nobody = format!("127.0.0.1:{}", free_port());
    let script = format!(
        "trap '' XFSZ\n(ulimit -f 4000; liner pub t --size 100 --count 1000000 --name edge --peer {nobody} \
         --store sqlite:good.db --log warn) || code=$?\nliner pending --store sqlite:good.db --json 2>/dev/null\nexit $code\n"
    );
    let (code, stdout, stderr) = shell(folder.path(), &["sh", "-c"], &script);
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.starts_with("liner: ") && stderr.contains("start the program again"), "{stderr}");
    assert!(stdout.contains("\"messages\":3,"), "what was there before is there: {stdout}");
}
