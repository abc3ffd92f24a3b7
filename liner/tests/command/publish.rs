//! One message at a time: to a device, to a topic, and to nobody.

use std::collections::VecDeque;
use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, TryRecvError, channel};
use std::time::Duration;

use liner::proto::router::NodeConfig;
use liner::{Framing, Handler, Message, Node, Receipt, Settle};
use rustix::process::Signal;
use serde_json::Value;

use crate::path::gateway;
use crate::process::{Liner, free_port, run, run_in, run_with};

/// A device that sends nothing and stays until its standard input ends.
fn listener(folder: &std::path::Path, devices: &str, more: &[&str]) -> Liner {
    let args =
        ["device", "--topic", "readings", "--name", "boiler", "--connect", devices, "--payload-from", "-"];
    Liner::start(folder, &[&args[..], more].concat())
}

/// The next line of a device that is a message.
fn command(device: &Liner) -> Value {
    loop {
        let line = device.json();
        if line["event"] == "message" {
            return line;
        }
    }
}

#[test]
fn a_device_prints_what_it_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &[]);
    let device = listener(folder.path(), &devices, &["--json"]);
    device.error_with("connected");
    let ended = run(folder.path(), &["pub", "boiler", "set 60", "--name", "panel", "--peer", &peers]);
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(ended.lines, ["boiler panel#1 acknowledged by gateway (power)"]);
    let line = command(&device);
    assert_eq!((&line["topic"], &line["from"]), (&Value::from("boiler"), &Value::from("panel")));
    assert_eq!((&line["seq"], &line["payload"]), (&Value::from(1), &Value::from("set 60")));
    assert_eq!(line["maybe_redelivered"], false);

    // Without a name, and from standard input.
    let ended = run_with(folder.path(), &["pub", "boiler", "-", "--peer", &peers, "--json"], b"a\nb");
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    let told: Value = serde_json::from_str(&ended.lines[0]).unwrap();
    assert_eq!((&told["event"], &told["class"]), (&Value::from("acknowledged"), &Value::from("power")));
    let line = command(&device);
    assert_eq!((&line["from"], &line["payload"]), (&told["from"], &Value::from("a\nb")));
    assert_eq!(device.end().code, Some(0));
}

#[test]
fn a_device_that_was_never_seen_finds_what_was_sent_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, devices) = gateway(folder.path(), &["--store", "ram:"]);
    for payload in ["one", "two"] {
        let ended = run(folder.path(), &["pub", "boiler", payload, "--name", "panel", "--peer", &peers]);
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        assert_eq!(ended.lines, ["boiler panel#1 acknowledged by gateway (ram)"], "each run is a new stream");
    }
    let device = listener(folder.path(), &devices, &[]);
    for payload in ["one", "two"] {
        let line = loop {
            let line = device.line().unwrap();
            if line.starts_with("boiler ") {
                break line;
            }
        };
        assert_eq!(line, format!("boiler panel#1 {payload}"));
    }
    assert_eq!(device.end().code, Some(0));
}

#[test]
fn a_command_that_is_too_old_is_not_handed_over() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, peers, devices) = gateway(folder.path(), &[]);
    let command = |payload, ttl: &[&str]| {
        let args = ["pub", "boiler", payload, "--name", "panel", "--peer", &peers];
        let ended = run(folder.path(), &[&args[..], ttl].concat());
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    };
    command("open", &["--ttl", "2s"]);
    command("close", &["--ttl", "1000m"]);
    gateway.signal(Signal::INT);
    assert_eq!(gateway.end().code, Some(0));
    // It gets too old while the gateway is not running.
    let (_sender, nothing) = channel::<()>();
    assert_eq!(nothing.recv_timeout(Duration::from_secs(2)), Err(RecvTimeoutError::Timeout));
    let args = ["gateway", "--listen", &peers, "--device-listen", &devices];
    let gateway = Liner::start(folder.path(), &args);
    let device = listener(folder.path(), &devices, &["--json"]);
    device.error_with("a message to this device will not come: too old by then");
    gateway.error_with("boiler: a message of boiler put aside: too old");
    let line = loop {
        let line = device.json();
        if line["event"] == "message" {
            break line;
        }
    };
    assert_eq!(line["payload"], "close");
    assert_eq!(device.end().code, Some(0));
}

/// A gateway that asks, with two commands for a device of which the first was sent to a life that never acknowledged it.
#[test]
fn what_a_device_may_have_had_waits_for_an_answer() {
    for (answer, comes) in [("boiler=redeliver", true), ("boiler=dead-letter", false)] {
        let folder = tempfile::tempdir().unwrap();
        let (gateway, peers, devices) = gateway(folder.path(), &["--in-doubt", "ask"]);
        let publish = |payload| {
            let ended = run(folder.path(), &["pub", "boiler", payload, "--name", "panel", "--peer", &peers]);
            assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        };
        let device = listener(folder.path(), &devices, &["--json"]);
        // The device says so before the gateway has heard the last of its handshake.
        gateway.error_with("boiler is connected");
        device.freeze();
        // Each turn writes all that may leave: when the second is acknowledged, the first has left.
        publish("open");
        publish("close");
        device.kill();
        let device = listener(folder.path(), &devices, &["--json"]);
        let asked = gateway.error_with("boiler has forgotten what it had");
        assert!(asked.contains("--in-doubt boiler=redeliver"), "{asked}");
        gateway.signal(Signal::INT);
        assert_eq!(gateway.end().code, Some(0));

        let args = ["gateway", "--listen", &peers, "--device-listen", &devices, "--in-doubt", answer];
        let _gateway = Liner::start(folder.path(), &args);
        publish("next");
        if comes {
            let line = command(&device);
            assert_eq!(
                (&line["payload"], &line["maybe_redelivered"]),
                (&Value::from("open"), &Value::from(true))
            );
            assert_eq!(command(&device)["payload"], "close");
        } else {
            device.error_with("perhaps delivered before this node forgot");
        }
        let line = loop {
            let line = command(&device);
            if line["payload"] != "close" {
                break line;
            }
        };
        assert_eq!(
            (&line["payload"], &line["maybe_redelivered"]),
            (&Value::from("next"), &Value::from(false))
        );
        assert_eq!(device.end().code, Some(0));
    }
}

#[test]
fn nobody_there_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = format!("127.0.0.1:{}", free_port());
    let args = ["pub", "boiler", "x", "--peer", &nobody];
    let ended = run(folder.path(), &[&args[..], &["--wait", "200ms"]].concat());
    let errors = ended.errors.join("\n");
    assert_eq!((ended.code, ended.lines.len()), (Some(5), 0), "{errors}");
    assert!(errors.contains(&nobody) && errors.contains("was not sent"), "{errors}");

    let waits = Liner::start(folder.path(), &args);
    waits.error_with("nobody answers");
    waits.signal(Signal::INT);
    let ended = waits.end();
    let errors = ended.errors.join("\n");
    assert_eq!(ended.code, Some(4), "{errors}");
    assert!(errors.contains("the message to boiler was not sent"), "{errors}");
}

#[test]
fn what_waits_in_a_store_is_sent_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, peers, devices) = gateway(folder.path(), &[]);
    gateway.freeze();
    let args = ["pub", "boiler", "first", "--name", "panel", "--store", "sqlite:panel.db", "--peer", &peers];
    let ended = run(folder.path(), &[&args[..], &["--wait", "300ms"]].concat());
    assert_eq!(ended.code, Some(5), "{:?}", ended.errors);
    gateway.thaw();
    // Nobody had answered: nothing was accepted, and nothing waits.
    let errors = ended.errors.join("\n");
    assert!(errors.contains("was not sent"), "{errors}");
    let args = [&args[..], &["--wait", "10s"]].concat();
    let ended = run(folder.path(), &args);
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(ended.lines, ["boiler panel#1 acknowledged by gateway (power)"]);
    let ended = run(folder.path(), &args);
    assert_eq!(ended.lines, ["boiler panel#2 acknowledged by gateway (power)"], "the stream goes on");
    let device = listener(folder.path(), &devices, &["--json"]);
    assert_eq!((command(&device)["seq"].as_u64(), command(&device)["seq"].as_u64()), (Some(1), Some(2)));
}

#[test]
fn a_topic_that_is_full_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (address, addresses) = channel();
    let (stop, stopped) = channel::<()>();
    let gateway = std::thread::spawn(move || {
        let keep_few = |config: &mut NodeConfig| config.kept.messages = 1;
        let gateway = Node::builder("gateway").takes_custody(true).configure(keep_few);
        let mut gateway = gateway.listen("127.0.0.1:0", Framing::Length).build().unwrap();
        address.send(gateway.listen_addrs()[0]).unwrap();
        while stopped.try_recv() == Err(TryRecvError::Empty) {
            gateway.drive(Some(Duration::from_millis(10)), &mut |_: &Message<'_>| {}).unwrap();
        }
    });
    let peers = addresses.recv().unwrap().to_string();
    let args = ["pub", "boiler", "x", "--peer", &peers];
    assert_eq!(run(folder.path(), &args).code, Some(0));
    let ended = run(folder.path(), &args);
    let errors = ended.errors.join("\n");
    assert_eq!((ended.code, ended.lines.len()), (Some(1), 0), "{errors}");
    assert!(errors.contains("keeps no more of it") && errors.contains("dead letters"), "{errors}");
    drop(stop);
    gateway.join().unwrap();
}

#[test]
fn whoever_hands_nothing_on_is_no_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let sub = Liner::start(folder.path(), &["sub", "t", "--listen", "127.0.0.1:0"]);
    let listening = sub.error_with("listening on");
    let peer = listening.rsplit(' ').next().unwrap();
    let ended = run(folder.path(), &["pub", "other", "x", "--peer", peer, "--wait", "300ms"]);
    let errors = ended.errors.join("\n");
    assert_eq!(ended.code, Some(5), "{errors}");
    assert!(errors.contains("hands nothing on"), "{errors}");
    let ended = run(folder.path(), &["pub", "t", "x", "--name", "panel", "--peer", peer]);
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(ended.lines[0].ends_with("(processed)"), "{:?}", ended.lines);
    assert_eq!(sub.line().unwrap(), "t panel#1 x");
}

/// Settles the messages that it is given one by one, the next one when it is told to.
struct Slow {
    receipts: VecDeque<Receipt>,
}

impl Handler for Slow {
    fn message(&mut self, _: &Message<'_>) {}

    fn take(&mut self, message: &Message<'_>) -> Settle {
        self.receipts.push_back(message.receipt);
        Settle::Later
    }
}

#[test]
fn the_patience_is_for_the_next_acknowledgement_and_the_rest_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::builder("r").listen("127.0.0.1:0", Framing::Length).subscribe("t").settles_later(true);
    let mut node = node.build().unwrap();
    let peer = node.listen_addrs()[0].to_string();
    let args = ["pub", "t", "x", "--count", "10", "--wait", "2s", "--peer", &peer];
    let publishing = Liner::start(folder.path(), &args);
    let mut slow = Slow { receipts: VecDeque::new() };
    while slow.receipts.len() < 10 {
        node.drive(Some(Duration::from_millis(10)), &mut slow).unwrap();
    }
    // All of them take longer than the patience, and none of them does.
    let (_sender, nothing) = channel::<()>();
    for _ in 0..6 {
        assert_eq!(nothing.recv_timeout(Duration::from_millis(500)), Err(RecvTimeoutError::Timeout));
        assert!(node.settle(slow.receipts.pop_front().unwrap()));
        // The commit, and then the acknowledgement.
        for _ in 0..3 {
            node.drive(Some(Duration::from_millis(10)), &mut slow).unwrap();
        }
    }
    let (end, ended) = channel();
    std::thread::spawn(move || end.send(publishing.end()));
    let ended = loop {
        node.drive(Some(Duration::from_millis(10)), &mut slow).unwrap();
        match ended.try_recv() {
            Ok(ended) => break ended,
            Err(error) => assert_eq!(error, TryRecvError::Empty),
        }
    };
    let errors = ended.errors.join("\n");
    assert_eq!(ended.code, Some(5), "{errors}");
    let told = "6 of 10 messages to t acknowledged, 4 may have arrived: send the others again";
    assert!(errors.contains(told), "{errors}");
}

#[test]
fn a_message_that_is_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (_gateway, peers, _) = gateway(folder.path(), &["--store", "ram:"]);
    let mut liner = Liner::start(folder.path(), &["pub", "t", "-", "--peer", &peers]);
    liner.stdin().write_all(&vec![b'x'; 2_000_000]).unwrap();
    let ended = liner.end();
    assert_eq!(ended.code, Some(1), "{:?}", ended.errors);
    assert!(ended.errors.join("\n").contains("too large"), "{:?}", ended.errors);
    let ended = run(folder.path(), &["pub", "t", "x", "--store", "sqlite:a.db", "--peer", &peers]);
    assert_eq!(ended.code, Some(2), "{:?}", ended.errors);
}

#[test]
fn a_message_goes_to_one_node_or_to_all() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (gateway, peers, _) = gateway(folder, &["--store", "ram:"]);
    let subs = ["a", "b"].map(|name| {
        let sub = Liner::start(folder, &["sub", "t", "--name", name, "--store", "ram:", "--peer", &peers]);
        gateway.error_with(&format!("{name} is connected"));
        sub
    });
    let publish = |words: &[&str]| {
        let ended = run(folder, &[&["pub", "t", "--name", "p", "--peer", &peers], words].concat());
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    };
    publish(&["one", "--count", "20"]);
    publish(&["all", "--all"]);
    let payload = |line: String| line.rsplit_once(' ').unwrap().1.to_owned();
    let had = subs.map(|sub| {
        let payloads = std::iter::from_fn(|| sub.line().map(payload));
        payloads.take_while(|payload| payload != "all").inspect(|payload| assert_eq!(payload, "one")).count()
    });
    assert_eq!(had[0] + had[1], 20, "{had:?}");
}

#[test]
fn best_effort_is_for_whoever_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (gateway, peers, _) = gateway(folder, &["--store", "ram:"]);
    let sub = Liner::start(folder, &["sub", "t", "--name", "w", "--store", "ram:", "--peer", &peers]);
    gateway.error_with("w is connected");
    let args = ["pub", "t", "now", "--name", "p", "--best-effort", "--peer", &peers];
    // What is usual here is for messages that are kept.
    let ended = run_in(folder, &args, &[("LINER_STORE", "sqlite:p.db")]);
    assert_eq!(ended.lines, ["t p sent to gateway (best effort)"], "{:?}", ended.errors);
    assert_eq!(ended.code, Some(0));
    let line = sub.line().unwrap();
    assert!(line.starts_with("t p#") && line.ends_with(" now"), "{line}");
    assert!(!folder.join("p.db").exists());
    drop(sub);
    gateway.error_with("w is away");
    // The gateway takes it, and has nobody to give it to.
    assert_eq!(run(folder, &args).code, Some(0));
    let kept = ["pub", "t", "kept", "--name", "p", "--peer", &peers];
    assert_eq!(run(folder, &kept).code, Some(0));
    let sub = Liner::start(folder, &["sub", "t", "--name", "w", "--store", "ram:", "--peer", &peers]);
    assert!(sub.line().unwrap().ends_with(" kept"));

    let nobody = format!("127.0.0.1:{}", free_port());
    let mut late = args.to_vec();
    late[7] = &nobody;
    late.extend(["--wait", "200ms"]);
    let ended = run(folder, &late);
    assert_eq!(ended.code, Some(5), "{:?}", ended.errors);
}

#[test]
fn payloads_of_a_length_are_numbered() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_gateway, peers, _) = gateway(folder, &["--store", "ram:"]);
    let args = ["pub", "t", "--size", "100", "--count", "5000", "--name", "p", "--peer", &peers];
    let ended = run(folder, &args);
    assert_eq!(ended.lines, ["t p#5000 acknowledged by gateway (ram)"], "{:?}", ended.errors);
    let sub = ["sub", "t", "--name", "w", "--store", "ram:", "--peer", &peers, "--count", "5000"];
    let lines = Liner::start(folder, &sub).end().lines;
    let wanted: Vec<String> = (1..=5000).map(|number| format!("t p#{number} {number:0100}")).collect();
    assert_eq!(lines, wanted);
}

#[test]
fn what_is_sent_before_it_is_stored_arrives_or_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let peers = format!("127.0.0.1:{}", free_port());
    let args = ["pub", "t", "--size", "9", "--async", "--name", "p", "--store", "sqlite:p.db"];
    let args = [&args[..], &["--peer", &peers, "--count", "3000"]].concat();
    let ended = run(folder, &[&args[..], &["--wait", "200ms"]].concat());
    assert_eq!(ended.code, Some(5), "{:?}", ended.errors);
    let _gateway = Liner::start(folder, &["gateway", "--listen", &peers, "--device-listen", "127.0.0.1:0"]);
    for _ in 0..2 {
        let ended = run(folder, &args);
        assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
        assert!(ended.lines[0].ends_with(" acknowledged by gateway (power)"), "{:?}", ended.lines);
    }
    let sub = ["sub", "t", "--name", "w", "--store", "ram:", "--peer", &peers, "--count", "6000"];
    let lines = Liner::start(folder, &sub).end().lines;
    let arrived: Vec<&str> =
        lines.iter().filter_map(|line| line.rsplit_once(' ')).map(|(_, it)| it).collect();
    let sent: Vec<String> = (1..=3000).chain(1..=3000).map(|number| format!("{number:09}")).collect();
    assert!(arrived == sent, "{} arrived", arrived.len());
}

#[test]
fn what_goes_into_a_file_needs_nobody_who_answers() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let peers = format!("127.0.0.1:{}", free_port());
    let store = ["--name", "edge", "--store", "sqlite:edge.db", "--peer", &peers];
    let publish = |words: &[&str]| run(folder, &[&["pub", "numbers"], words, &store[..]].concat());
    let ended = publish(&["one"]);
    assert_eq!((ended.code, &ended.lines[0][..]), (Some(0), "numbers stored in sqlite:edge.db (power): 1"));
    let ended = publish(&["more", "--count", "20000", "--json"]);
    assert_eq!(
        ended.lines,
        [r#"{"event":"stored","topic":"numbers","store":"sqlite:edge.db","class":"power","waiting":20001}"#]
    );
    let ended = publish(&["last", "--wait", "100ms"]);
    assert_eq!(ended.code, Some(5), "{:?}", ended.errors);

    let _gateway = Liner::start(folder, &["gateway", "--listen", &peers, "--device-listen", "127.0.0.1:0"]);
    // With somebody there it is as without a file: all that waits goes first.
    let ended = publish(&["last", "--wait", "30s"]);
    assert_eq!(ended.lines, ["numbers edge#20002 acknowledged by gateway (power)"], "{:?}", ended.errors);
    let sub = ["sub", "numbers", "--name", "w", "--peer", &peers, "--count", "20002"];
    let lines = Liner::start(folder, &sub).end().lines;
    let words = |at: usize| lines[at].rsplit_once(' ').unwrap().1;
    assert_eq!(
        (lines.len(), words(0), words(1), words(20_000), words(20_001)),
        (20_002, "one", "more", "more", "last")
    );
}
