//! The gateway's configuration file.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::cli::assert_refused;
use crate::process::{Liner, run, run_in};

const CHECK: [&str; 4] = ["gateway", "--config", "gateway.toml", "--check-config"];

/// A file that can be used: each of its options differs from the default.
const GOOD: &str = "\
name = 'boiler-room' # where it stands
store = \"sqlite:data/x.db\"
durability = 'process'
listen = '127.0.0.1:1420'
device-listen = '127.0.0.1:1421'
device = [
  'serial:///dev/ttyUSB0?baud=9600',
  'tcp://h:4001',
]
peer = ['a:1', 'b:2']
in-doubt = ['ask', 'pump, old=dead-letter']
insecure = true
json = true
log = 'warn,liner_proto=debug'
";

fn check(folder: &Path, text: &str, args: &[&str], variables: &[(&str, &str)]) -> Value {
    fs::write(folder.join("gateway.toml"), text).unwrap();
    let ended = run_in(folder, &[&CHECK, args].concat(), variables);
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(ended.lines.len(), 1, "{:?}", ended.lines);
    serde_json::from_str(&ended.lines[0]).unwrap()
}

#[test]
fn what_makes_no_sense_in_a_file_is_one_sentence_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("there")).unwrap();
    let table: &[(&str, u32, &[&str])] = &[
        ("nmae = 'x'", 1, &["no option `nmae`", "name, store"]),
        ("\n\ndevice_listen = '127.0.0.1:1'", 3, &["`device_listen`", "write `device-listen`"]),
        ("--name = 'x'", 1, &["write `name`"]),
        ("config = 'x'", 1, &["command line only"]),
        ("check-config = true", 1, &["command line only"]),
        ("# first\n[gateway]\nname = 'x'", 2, &["`gateway`", "KEY = VALUE"]),
        ("name = 7", 1, &["`name`", "integer", "in quotes"]),
        ("name = ['x']", 1, &["`name`", "array", "in quotes"]),
        ("\nname = ''", 2, &["name: ", "empty"]),
        ("store = \"sqlite:a\\u0000b\"", 1, &["NUL"]),
        ("insecure = 'true'", 1, &["`insecure`", "true or false"]),
        ("json = 1", 1, &["`json`", "true or false"]),
        ("peer = 'a:1'", 1, &["`peer`", "[\"…\", \"…\"]"]),
        ("peer = [1]", 1, &["`peer`", "integer"]),
        ("peer = [\n  'a:1',\n  'nonsense',\n]", 3, &["peer: ", "HOST:PORT"]),
        ("peer = ['a:1,b:2']", 1, &["peer: ", "HOST:PORT"]),
        ("log = 'loud'", 1, &["log: ", "error, warn, info"]),
        ("durability = 'disk'", 1, &["durability: ", "power or process"]),
        ("store = 'mysql://h'", 1, &["store: ", "`mysql`", "sqlite:PATH"]),
        ("\nstore = 'sqlite:there'", 2, &["`there` is a directory"]),
        ("in-doubt = ['drop']", 1, &["in-doubt: ", "redeliver"]),
        ("device = ['serial:///dev/x?baud=y']", 1, &["device: ", "baud=115200"]),
        ("\ndevice = ['serial:///dev/x', 'serial:///dev/x?baud=9600']", 2, &["once"]),
        ("listen = '0.0.0.0:1'", 1, &["0.0.0.0:1", "--insecure"]),
        ("\ndevice-listen = 'nonsense'", 2, &["nonsense", "host:port"]),
        ("listen = '127.0.0.1:1'\ndevice-listen = '127.0.0.1:1'", 1, &["another port"]),
        ("demo = true\nstore = 'ram:'", 1, &["demo (gateway.toml:1)", "store (gateway.toml:2)"]),
        ("name = 'a'\nname = 'b'", 2, &["duplicate key"]),
        ("name", 1, &["KEY = VALUE"]),
        ("name = 'x'\npeer = ['a:1',", 2, &["KEY = VALUE", "]"]),
        ("name = 'x'\nstore = \"sqlite:/va", 2, &["KEY = VALUE"]),
        ("{ \"name\": \"x\" }", 1, &["KEY = VALUE"]),
    ];
    for (text, line, words) in table {
        fs::write(folder.path().join("gateway.toml"), text).unwrap();
        for args in [&CHECK[..], &CHECK[..3]] {
            let ended = run(folder.path(), args);
            assert_refused(&ended, 2, words);
            let place = format!("gateway.toml:{line}");
            assert!(
                ended.errors.len() == 1 && ended.errors[0].contains(&place),
                "{text}: {:?}",
                ended.errors
            );
        }
    }
    let left = fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "it leaves something behind");
}

#[test]
fn files_that_are_no_configuration_are_one_sentence_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("empty"), "").unwrap();
    fs::write(path("blank"), " \n\n").unwrap();
    fs::write(path("binary"), [0x7f, b'E', b'L', b'F', b'\n', 0xff, 0xfe]).unwrap();
    fs::write(path("zeros"), [0; 4096]).unwrap();
    fs::write(path("escapes"), "name = 'x'\n\x1b[2J = 1").unwrap();
    fs::write(path("deep"), format!("name = {}", "[".repeat(100_000))).unwrap();
    fs::create_dir(path("folder")).unwrap();
    symlink("loop", path("loop")).unwrap();
    // It takes no room on the disk.
    File::create(path("enormous")).unwrap().set_len(1 << 40).unwrap();
    let table = [
        ("empty", "empty is empty"),
        ("blank", "blank is empty"),
        ("binary", "binary:2: this is no text"),
        ("zeros", "zeros:1: this is no TOML"),
        ("escapes", "escapes:2: this is no TOML"),
        ("deep", "deep:1: this is no TOML"),
        ("folder", "folder is a directory: name a file in it, for instance folder/gateway.toml"),
        ("loop", "loop cannot be read"),
        ("absent", "absent cannot be read"),
        ("empty/x", "empty/x cannot be read"),
        // What root may open, too.
        ("/proc/self/mem", "/proc/self/mem cannot be read"),
        ("enormous", "enormous is larger than 1 MiB"),
        ("/dev/zero", "/dev/zero is larger than 1 MiB"),
    ];
    for (name, words) in table {
        let ended = run(folder.path(), &["gateway", "--config", name]);
        assert_refused(&ended, 2, &[words]);
        assert_eq!(ended.errors.len(), 1, "{name}: {:?}", ended.errors);
        assert!(!ended.errors[0].contains('\x1b'), "{:?}", ended.errors);
    }
}

/// Wherever a good file is cut: it is taken as far as it goes, or refused, and nothing else.
#[test]
fn a_file_that_was_cut_is_taken_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    for end in (0..GOOD.len()).step_by(7) {
        fs::write(folder.path().join("gateway.toml"), &GOOD[..end]).unwrap();
        let ended = run(folder.path(), &CHECK);
        if ended.code == Some(0) {
            assert!(ended.errors.is_empty(), "{:?}", ended.errors);
        } else {
            assert_refused(&ended, 2, &["gateway.toml"]);
            assert_eq!(ended.errors.len(), 1, "{end}: {:?}", ended.errors);
        }
    }
}

#[test]
fn the_command_line_goes_before_the_environment_before_the_file_before_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let checked = check(folder.path(), GOOD, &[], &[]);
    let of_file = |value: Value, line: u32| json!({"value": value, "source": "file", "at": format!("gateway.toml:{line}")});
    assert_eq!(checked["config"], "gateway.toml");
    let wanted = json!({
        "name": of_file("boiler-room".into(), 1),
        "store": of_file("sqlite:data/x.db".into(), 2),
        "durability": of_file("process".into(), 3),
        "listen": of_file("127.0.0.1:1420".into(), 4),
        "device-listen": of_file("127.0.0.1:1421".into(), 5),
        "device": of_file(json!(["serial:///dev/ttyUSB0?baud=9600", "tcp://h:4001"]), 6),
        "peer": of_file(json!(["a:1", "b:2"]), 10),
        "in-doubt": of_file(json!(["ask", "pump, old=dead-letter"]), 11),
        "insecure": of_file(true.into(), 12),
        "json": of_file(true.into(), 13),
        "log": of_file("warn,liner_proto=debug".into(), 14),
        "demo": {"value": false, "source": "default"},
    });
    assert_eq!(checked["options"], wanted);

    let variables = [
        ("LINER_NAME", "of-environment"),
        ("LINER_STORE", "ram:"),
        ("LINER_PEER", "c:3,d:4"),
        ("LINER_INSECURE", "off"),
        ("LINER_DURABILITY", ""),
    ];
    let args = ["--name", "of-line", "--device", "tcp://i:1", "--in-doubt=redeliver"];
    let mixed = check(folder.path(), GOOD, &args, &variables)["options"].clone();
    let of_line = |value: Value| json!({"value": value, "source": "command line"});
    let of_environment =
        |value: Value, variable: &str| json!({"value": value, "source": "environment", "at": variable});
    assert_eq!(mixed["name"], of_line("of-line".into()));
    assert_eq!(mixed["device"], of_line(json!(["tcp://i:1"])));
    assert_eq!(mixed["in-doubt"], of_line(json!(["redeliver"])));
    assert_eq!(mixed["store"], of_environment("ram:".into(), "LINER_STORE"));
    assert_eq!(mixed["peer"], of_environment(json!(["c:3", "d:4"]), "LINER_PEER"));
    assert_eq!(mixed["insecure"], of_environment(false.into(), "LINER_INSECURE"));
    assert_eq!(mixed["durability"], wanted["durability"]);
    assert_eq!(mixed["listen"], wanted["listen"]);

    let off = check(folder.path(), GOOD, &["--insecure=false"], &[("LINER_INSECURE", "true")]);
    assert_eq!(off["options"]["insecure"], of_line(false.into()));
    let none = check(folder.path(), "peer = []", &["--json"], &[("LINER_CONFIG", "no-such-file")]);
    assert_eq!(none["options"]["peer"], of_file(json!([]), 1));

    // What the file says wrong is told even where something else goes before it.
    fs::write(folder.path().join("gateway.toml"), "peer = ['nonsense']").unwrap();
    assert_refused(&run(folder.path(), &[&CHECK[..], &["--peer", "a:1"]].concat()), 2, &["gateway.toml:1"]);
}

#[test]
fn a_check_says_in_words_what_would_be_done_and_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!("listen = '{}'\nstore = 'sqlite:x.db'\npeer = ['a:1']", taken.local_addr().unwrap());
    fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let ended = run(folder.path(), &CHECK);
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let said = ended.lines.join("\n") + "\n";
    for words in [
        "keep messages in sqlite:x.db, which survives the loss of power".to_owned(),
        format!("listen for peers on {}", taken.local_addr().unwrap()),
        "listen for devices on 127.0.0.1:7421\n".to_owned(),
        "connect to a:1\n".to_owned(),
        "sqlite:x.db  (gateway.toml:2)\n".to_owned(),
        "gateway  (default)\n".to_owned(),
    ] {
        assert!(said.contains(&words), "{words:?} is missing in: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "it leaves something behind");
}

#[test]
fn a_gateway_does_what_its_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let text = "name = 'hub'\nstore = 'sqlite:hub.db'\nlisten = '127.0.0.1:0'\ndevice-listen = '127.0.0.1:0'\n\
                durability = 'process'\ndevice = ['tcp://127.0.0.1:1']\njson = true\n";
    fs::write(folder.path().join("own.toml"), text).unwrap();
    let gateway = Liner::start(folder.path(), &["gateway", "--config", "own.toml"]);
    let started = gateway.json();
    assert_eq!(
        started,
        json!({"event": "started", "name": "hub", "store": "sqlite:hub.db", "class": "process"})
    );
    assert_eq!(gateway.json()["lines"], json!(["tcp://127.0.0.1:1"]));
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.end().code, Some(0));
    assert!(folder.path().join("hub.db").is_file());
}

/// The page shows every option there is, with a value that can be used.
#[test]
fn the_example_on_the_page_is_complete() {
    let page = include_str!("../../../docs/gateway.md");
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 1);
    let folder = tempfile::tempdir().unwrap();
    let checked = check(folder.path(), examples[0], &["--json"], &[]);
    let options = checked["options"].as_object().unwrap();
    assert!(options.len() > 10, "{options:?}");
    for (name, option) in options {
        assert!(name == "json" || option["source"] == "file", "{name} is missing in the example");
    }
    assert!(examples[0].contains("\njson = "), "json is missing in the example");
    for line in examples[0].lines() {
        let is_option = !line.starts_with(['#', ' ', ']']) && !line.is_empty();
        assert!(!is_option || line.contains(" = "), "{line}");
    }
}
