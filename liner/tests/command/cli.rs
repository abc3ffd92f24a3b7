//! What the command says, and how it ends, when it is asked for what it cannot do.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;

use rustix::process::Signal;

use crate::path::gateway;
use crate::process::{Ended, Liner, run, run_with};

/// One sentence on standard error, without a backtrace, that holds these words; nothing on standard output.
#[track_caller]
pub(crate) fn assert_refused(ended: &Ended, code: i32, words: &[&str]) {
    let text = ended.errors.join("\n");
    assert_eq!(ended.code, Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in: {text}");
    }
    assert!(ended.lines.is_empty(), "{:?}", ended.lines);
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
}

#[test]
fn what_makes_no_sense_is_refused_with_words_that_help() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("there")).unwrap();
    let table: &[(&[&str], &[&str])] = &[
        (&["gateway", "--store", "mysql://h"], &["`mysql`", "sqlite:PATH"]),
        (&["gateway", "--store", "a.db"], &["sqlite:a.db"]),
        (&["gateway", "--store", "sqlite:"], &["path is missing"]),
        (&["gateway", "--store", "sqlite:there"], &["`there` is a directory", "sqlite:there/liner.db"]),
        (&["sub", "t", "--store", "ram:x"], &["ram:", "sqlite:x"]),
        (
            &["gateway", "--store", "sqlite:a.db?durability=process"],
            &["sqlite:a.db?durability=process", "--durability"],
        ),
        (&["gateway", "--store", "sqlite:a.db?durabilty=process"], &["`durabilty`", "--durability"]),
        (
            &["bench", "--store", "sqlite:x?durability=process"],
            &["sqlite:x?durability=process", "--durability"],
        ),
        (&["bench", "--store", "ram:", "--durability", "power"], &["ram:", "--durability"]),
        (&["gateway", "--listen", "0.0.0.0:0"], &["0.0.0.0:0", "--insecure", "127.0.0.1"]),
        (&["gateway", "--listen", "127.0.0.1:0", "--device-listen", "[::]:0"], &["--insecure"]),
        (&["sub", "t", "--listen", "0.0.0.0:0"], &["--insecure"]),
        (&["gateway", "--listen", "nonsense"], &["nonsense"]),
        (&["gateway", "--peer", "nonsense"], &["HOST:PORT"]),
        (&["gateway", "--demo", "--store", "ram:"], &["--demo", "--store"]),
        (&["gateway", "--listen", "127.0.0.1:7400", "--device-listen", "127.0.0.1:7400"], &["another port"]),
        (&["device", "--topic", "t", "--serial", "/dev/x", "--connect", "a:1"], &["--serial", "--connect"]),
        (&["completions", "sheep"], &["bash", "fish"]),
        (&["gateway", "--name", ""], &["name"]),
        (&["sub"], &["TOPIC"]),
        (&["sub", ""], &["topic"]),
        (&["sub", "t", "--count", "0"], &["--count"]),
        (&["device"], &["--topic"]),
        (&["device", "--topic", "t", "--every", "5"], &["100ms"]),
        (&["device", "--topic", "t", "--name", "a-name-that-no-device-would-ever-have"], &["32 bytes"]),
        (&["device", "--topic", "t", "--payload-from", "file"], &["--payload-from"]),
        (&["device", "--topic", "t", "--connect", "host"], &["HOST:PORT"]),
        (&["publish"], &["publish"]),
        (&["pub", "t"], &["PAYLOAD", "--size"]),
        (&["pub", "t", "x", "--size", "3"], &["PAYLOAD cannot be used with --size"]),
        (&["pub", "t", "--size", "20000000"], &["--size"]),
        (&["pub", "t", "x", "--best-effort", "--all"], &["--best-effort cannot be used with --all"]),
        (&["pub", "t", "x", "--best-effort", "--async"], &["--best-effort cannot be used with --async"]),
        (
            &["pub", "t", "x", "--best-effort", "--name", "p", "--store", "sqlite:p.db"],
            &["--best-effort cannot be used with --store"],
        ),
        (&["pub", "t", "x", "--wait", "5"], &["100ms"]),
        (&[], &["gateway", "device", "sub"]),
    ];
    for (args, words) in table {
        assert_refused(&run(folder.path(), args), 2, words);
    }
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing was made beside the folder that was there"
    );
}

#[test]
fn an_address_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let args = ["gateway", "--store", "ram:", "--device-listen", "127.0.0.1:0", "--listen", &address];
    assert_refused(&run(folder.path(), &args), 3, &[&address, "in use"]);
    assert_refused(&run(folder.path(), &["sub", "t", "--listen", &address]), 3, &[&address]);
}

#[test]
fn listening_for_other_machines_is_a_choice() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--store", "ram:", "--insecure", "--listen", "0.0.0.0:0", "--device-listen", "127.0.0.1:0"];
    let lines = start_and_stop(folder.path(), &[&["gateway", "--json"], &args[..]].concat());
    assert!(lines.is_empty(), "{lines:?}");
}

#[test]
fn a_name_in_use_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, _) = gateway(folder.path(), &[]);
    let args = ["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"];
    assert_refused(&run(folder.path(), &args), 3, &["\"gateway\"", "another name"]);
    // Another node may share the file.
    let store = "sqlite:liner-gateway.db";
    let sub = Liner::start(folder.path(), &["sub", "t", "--name", "w", "--store", store, "--peer", &peers]);
    sub.error_with("gateway is connected");
    sub.signal(Signal::TERM);
    assert_eq!(sub.end().code, Some(0));
}

#[test]
fn a_second_program_of_one_name_is_told_and_the_first_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, peers, devices) = gateway(folder.path(), &[]);
    let sub =
        |store| ["sub", "t", "--name", "w", "--store", store, "--count", "1", "--json", "--peer", &peers];
    let first_sub = Liner::start(folder.path(), &sub("sqlite:a.db"));
    first_sub.error_with("gateway is connected");
    assert_refused(&run(folder.path(), &sub("sqlite:b.db")), 3, &["connected as w", "--name"]);
    gateway.error_with("another program wants to connect as w");

    let device = ["device", "--topic", "t", "--connect", &devices];
    let once = [&device[..], &["--payload-from", "-"]].concat();
    let mut first = Liner::start(folder.path(), &once);
    first.error_with("connected");
    let second = run(folder.path(), &device);
    assert_refused(&Ended { lines: Vec::new(), ..second }, 3, &["connected as", "--name"]);
    first.stdin().write_all(b"still here\n").unwrap();
    assert_eq!(first.end().code, Some(0));
    assert_eq!(first_sub.json()["payload"], "still here");
    assert_eq!(first_sub.end().code, Some(0));
}

#[test]
fn files_that_are_no_store_of_ours_are_refused_or_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let args = |store: &'static str| {
        ["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0", "--store", store]
    };

    assert_refused(
        &run(folder.path(), &args("sqlite:no/such/folder.db")),
        1,
        &["no/such/folder.db", "folder"],
    );
    // Nobody may make a file there.
    assert_refused(&run(folder.path(), &args("sqlite:/proc/liner.db")), 1, &["/proc/liner.db"]);

    let foreign = rusqlite::Connection::open(path("foreign.db")).unwrap();
    foreign.execute_batch("PRAGMA application_id = 7; CREATE TABLE t (v)").unwrap();
    drop(foreign);
    assert_refused(&run(folder.path(), &args("sqlite:foreign.db")), 1, &["another program"]);

    start_and_stop(folder.path(), &args("sqlite:newer.db"));
    let newer = rusqlite::Connection::open(path("newer.db")).unwrap();
    newer.execute_batch("PRAGMA user_version = 9999").unwrap();
    drop(newer);
    assert_refused(&run(folder.path(), &args("sqlite:newer.db")), 1, &["schema 9999", "release"]);

    fs::write(path("diary.txt"), "my diary").unwrap();
    assert_refused(&run(folder.path(), &args("sqlite:diary.txt")), 1, &["diary.txt is no database"]);
    assert_eq!(fs::read(path("diary.txt")).unwrap(), b"my diary");
    start_and_stop(folder.path(), &args("sqlite:noise.db"));
    fs::write(path("noise.db"), [0x5a; 9000]).unwrap();
    let errors = start_and_stop(folder.path(), &args("sqlite:noise.db"));
    assert!(errors.iter().any(|line| line.contains("noise.db was damaged")), "{errors:?}");
    assert!(path("noise.db.corrupt-1").is_file());
}

#[test]
fn damaged_rows_are_counted_and_what_follows_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (running, _, devices) = gateway(folder.path(), &[]);
    let device = ["device", "--topic", "t", "--connect", &devices, "--count", "1"];
    assert_eq!(run(folder.path(), &device).code, Some(0));
    running.signal(Signal::INT);
    assert_eq!(running.end().code, Some(0));
    let store = rusqlite::Connection::open(folder.path().join("liner-gateway.db")).unwrap();
    assert_eq!(store.execute("UPDATE inbound_cursor SET crc = crc + 1", []).unwrap(), 1);
    drop(store);
    let args = ["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"];
    let errors = start_and_stop(folder.path(), &args).join("\n");
    assert!(errors.contains("1 damaged rows") && errors.contains("may come twice"), "{errors}");
}

#[test]
fn the_longest_name_has_a_default_store() {
    let folder = tempfile::tempdir().unwrap();
    let sub =
        Liner::start(folder.path(), &["sub", "t", "--name", &"n".repeat(255), "--listen", "127.0.0.1:0"]);
    sub.error_with("listening on ");
    sub.signal(Signal::TERM);
    assert_eq!(sub.end().code, Some(0));
}

/// Waits until the gateway works, and ends it. Returns its standard error.
fn start_and_stop(folder: &Path, args: &[&str]) -> Vec<String> {
    let gateway = Liner::start(folder, args);
    assert!(gateway.line().is_some());
    gateway.signal(Signal::INT);
    let ended = gateway.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    ended.errors
}

#[test]
fn an_end_before_all_is_done_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", crate::process::free_port());
    let device =
        Liner::start(folder.path(), &["device", "--topic", "t", "--count", "3", "--connect", &nobody]);
    assert!(device.line().is_some());
    device.signal(Signal::INT);
    assert_eq!(device.end().code, Some(4));
    let sub = Liner::start(
        folder.path(),
        &["sub", "t", "--count", "3", "--peer", &nobody, "--listen", "127.0.0.1:0"],
    );
    sub.error_with("listening on 127.0.0.1:");
    sub.signal(Signal::INT);
    let ended = sub.end();
    assert_eq!(ended.code, Some(4));
    assert!(ended.errors.iter().any(|line| line.contains("0 of 3")), "{:?}", ended.errors);
}

#[test]
fn a_line_that_is_too_long_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", crate::process::free_port());
    let args = ["device", "--topic", "t", "--payload-from", "-", "--connect", &nobody];
    let ended = run_with(folder.path(), &args, &[b'x'; 4097]);
    assert_refused(&Ended { lines: Vec::new(), ..ended }, 1, &["4096 bytes"]);
}

#[test]
fn help_names_every_option_with_its_default_and_the_exit_codes() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["gateway", "device", "sub", "pub", "bench"] {
        let help = run(folder.path(), &[command, "--help"]);
        assert_eq!(help.code, Some(0));
        let text = help.lines.join("\n");
        for code in ["0", "1", "2", "3", "4", "130, 143"] {
            assert!(text.contains(&format!("\n  {code}  ")), "exit code {code} of {command}: {text}");
        }
        assert!(text.contains("Examples:") && text.contains(&format!("  liner {command}")), "{text}");
        let options =
            text.split("Options:").nth(1).and_then(|rest| rest.split("\n\n").next().map(|_| rest)).unwrap();
        let mut named = 0;
        for option in options.split("\n      --").skip(1).chain(options.split("\n  -").skip(1)) {
            let name = option.split([' ', '\n', ',']).next().unwrap();
            let own = option.split("\n      --").next().unwrap_or(option);
            if !matches!(name, "h" | "help" | "V" | "topic") {
                assert!(own.contains("[default: "), "--{name} of {command} does not name its default: {own}");
                named += 1;
            }
        }
        assert!(named >= 6, "{command}: {text}");
    }
    let general = run(folder.path(), &["--help"]).lines.join("\n");
    assert!(general.contains("liner gateway --demo"), "{general}");
}
