//! Options from the environment.

use rustix::process::Signal;

use crate::cli::assert_refused;
use crate::process::{Liner, run, run_in};

#[test]
fn help_names_the_variable_of_each_option_that_has_one() {
    let folder = tempfile::tempdir().unwrap();
    let table: &[(&str, &[&str])] = &[
        (
            "gateway",
            &[
                "CONFIG",
                "NAME",
                "STORE",
                "DURABILITY",
                "LISTEN",
                "DEVICE_LISTEN",
                "DEVICE",
                "PEER",
                "IN_DOUBT",
                "INSECURE",
                "JSON",
                "LOG",
            ],
        ),
        ("device", &["CONNECT", "SERIAL", "TOPIC", "NAME", "EVERY", "JSON", "LOG"]),
        ("sub", &["NAME", "STORE", "PEER", "LISTEN", "INSECURE", "JSON", "LOG"]),
        ("pub", &["PEER", "WAIT", "NAME", "STORE", "JSON", "LOG"]),
        ("drain", &["NAME", "STORE", "PEER", "LISTEN", "INSECURE", "WAIT", "JSON", "LOG"]),
        ("forget", &["NAME", "STORE", "JSON", "LOG"]),
        ("bench", &["JSON", "LOG"]),
    ];
    for (command, variables) in table {
        let help = run(folder.path(), &[command, "--help"]).lines.join("\n");
        for variable in *variables {
            let option = format!("      --{}", variable.to_lowercase().replace('_', "-"));
            let own = help.split(&option).skip(1).find(|rest| !rest.starts_with('-')).unwrap_or_default();
            let own = own.split("\n      --").next().unwrap();
            // What is in it is shown, unless there may be a password in it.
            let end = if *variable == "STORE" { ']' } else { '=' };
            assert!(own.contains(&format!("[env: LINER_{variable}{end}")), "{command}, {variable}: {own}");
        }
        assert_eq!(help.matches("[env: ").count(), variables.len(), "{command}");
    }
}

#[test]
fn what_makes_no_sense_is_named_by_its_variable() {
    let folder = tempfile::tempdir().unwrap();
    let gateway: &[&str] = &["gateway", "--check-config"];
    let device: &[&str] = &["device", "--topic", "t"];
    let table: &[(&[&str], &str, &str, &str)] = &[
        (gateway, "LINER_STORE", "mysql://h", "sqlite:PATH"),
        (gateway, "LINER_NAME", "a\nb", "control characters"),
        (gateway, "LINER_PEER", "127.0.0.1:1,nonsense", "HOST:PORT"),
        (gateway, "LINER_DEVICE", "serial:", "serial:///dev/ttyUSB0"),
        (gateway, "LINER_DURABILITY", "disk", "write power or process"),
        (gateway, "LINER_IN_DOUBT", "drop", "redeliver"),
        (gateway, "LINER_INSECURE", "perhaps", "write true or false"),
        (gateway, "LINER_LISTEN", "0.0.0.0:1", "--insecure"),
        (gateway, "LINER_CONFIG", "no.toml", ""),
        (gateway, "LINER_LOG", "loud", "write error, warn, info, debug or trace"),
        (device, "LINER_EVERY", "5", "100ms"),
        (device, "LINER_NAME", "a-name-that-no-device-would-ever-have", "32 bytes"),
        (device, "LINER_SERIAL", "tcp://h:1", "--connect"),
        (&["sub", "t"], "LINER_PEER", "nonsense", "HOST:PORT"),
        (&["pub", "t", "x"], "LINER_PEER", "a:1,b", "HOST:PORT"),
        (&["pub", "t", "x"], "LINER_WAIT", "5", "100ms"),
    ];
    for (args, variable, value, words) in table {
        let place = if *variable == "LINER_CONFIG" { "no.toml" } else { variable };
        let ended = run_in(folder.path(), args, &[(variable, value)]);
        assert_refused(&ended, 2, &[place, words]);
        assert_eq!(ended.errors.len(), 1, "{:?}", ended.errors);
    }
    // What the command line replaces does not matter.
    let ended = run_in(folder.path(), &["gateway", "--check-config", "--peer=a:1"], &[("LINER_PEER", "no")]);
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
}

#[test]
fn the_nearer_of_two_that_exclude_each_other_holds() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run_in(
        folder.path(),
        &["device", "--topic", "t"],
        &[("LINER_SERIAL", "/dev/null/x"), ("LINER_CONNECT", "127.0.0.1:1")],
    );
    assert_refused(&refused, 2, &["LINER_SERIAL", "LINER_CONNECT"]);
    let started = |args: &[&str], variable| {
        let device =
            Liner::start_in(folder.path(), &[&["device"], args].concat(), &[variable, ("LINER_TOPIC", "t")]);
        let told = device.error_with("sends to t at ");
        device.signal(Signal::TERM);
        assert_eq!(device.end().code, Some(0));
        told
    };
    assert!(started(&["--connect", "127.0.0.1:1"], ("LINER_SERIAL", "/no/port")).contains("127.0.0.1:1"));
    assert!(started(&["--serial", "/no/port"], ("LINER_CONNECT", "127.0.0.1:1")).contains("/no/port"));

    let demo =
        run_in(folder.path(), &["gateway", "--demo", "--check-config"], &[("LINER_STORE", "sqlite:a.db")]);
    assert_eq!(demo.code, Some(0), "{:?}", demo.errors);
    assert!(demo.lines.join("\n").contains("temporary store"), "{:?}", demo.lines);
}

#[test]
fn a_message_goes_its_way_by_the_environment_alone() {
    let folder = tempfile::tempdir().unwrap();
    let any = "127.0.0.1:0";
    let variables = [
        ("LINER_NAME", "hub"),
        ("LINER_STORE", "sqlite:hub.db"),
        ("LINER_LISTEN", any),
        ("LINER_DEVICE_LISTEN", any),
        ("LINER_JSON", "yes"),
        ("LINER_PEER", ""),
    ];
    let gateway = Liner::start_in(folder.path(), &["gateway"], &variables);
    assert_eq!(gateway.json()["name"], "hub");
    let listening = gateway.json();
    let (peers, devices) = (listening["peers"].as_str().unwrap(), listening["devices"].as_str().unwrap());
    assert!(folder.path().join("hub.db").is_file());

    let here = [("LINER_PEER", peers), ("LINER_NAME", "teller"), ("LINER_STORE", "ram:")];
    let told = run_in(folder.path(), &["pub", "t", "by pub"], &here);
    assert_eq!(told.code, Some(0), "{:?}", told.errors);
    let here = [("LINER_CONNECT", devices), ("LINER_TOPIC", "t"), ("LINER_EVERY", "1ms")];
    let sent = run_in(folder.path(), &["device", "--count", "1"], &here);
    assert_eq!(sent.code, Some(0), "{:?}", sent.errors);
    let here = [("LINER_PEER", peers), ("LINER_NAME", "w"), ("LINER_JSON", "1")];
    let sub = run_in(folder.path(), &["sub", "t", "--count", "2", "--json=false"], &here);
    assert_eq!(sub.code, Some(0), "{:?}", sub.errors);
    assert!(sub.lines.iter().any(|line| line == "t teller#1 by pub"), "{:?}", sub.lines);
    assert!(sub.lines.iter().any(|line| line.starts_with("t device#1 ")), "{:?}", sub.lines);
}
