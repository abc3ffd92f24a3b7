//! Many messages to a subscriber that is away: what was stored when `pub` ended is delivered when it returns, in order, in little memory,
//! and the last of it at the same cost as the first.
#![expect(clippy::disallowed_methods, reason = "it says how long things take")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::process::{Liner, free_port, proc_file, run};

/// Resident memory that none of the programs may need.
const MEMORY_MAX_KIB: u64 = 64 * 1024;

/// More for whoever has the time.
fn messages() -> u64 {
    let asked = std::env::var("LINER_E2E_AWAY").ok();
    asked.map_or(20_000, |asked| asked.parse().expect("LINER_E2E_AWAY is a number"))
}

/// The most memory that a process has had so far.
fn peak_kib(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Time on a processor so far.
fn worked(liner: &Liner) -> Duration {
    let stat = liner.proc_file("schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default())
}

/// Stores the messages, and kills all of it at the moment it ends. Returns the most memory it has had, and how long it took.
fn publish(folder: &Path, args: &[&str]) -> (u64, Duration) {
    let start = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_liner"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    let mut child = command.spawn().unwrap();
    let (id, pid) = (child.id(), Pid::from_child(&child));
    let watched = std::thread::spawn(move || {
        let mut peak = 0;
        // It says nothing of memory any more when it has ended, and is there until it is waited for.
        while let Some(now) = proc_file(id, "status").as_deref().and_then(peak_kib) {
            peak = now.max(peak);
            std::thread::yield_now();
        }
        peak
    });
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
    kill_process_group(pid, Signal::KILL).unwrap();
    let took = start.elapsed();
    let peak = watched.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    (peak, took)
}

/// Its lines are read only as they are compared, so that what is measured is no queue of the test's own.
struct Subscriber(Child, BufReader<ChildStdout>);

impl Subscriber {
    fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_liner"));
        command
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self(child, lines)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.truncate(line.trim_end().len());
        line
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        // It may have ended, and been waited for, already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn m10_what_waits_for_a_subscriber_is_delivered_when_it_returns() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let count = messages();
    let address = format!("127.0.0.1:{}", free_port());
    let text = count.to_string();
    let edge = ["--name", "edge", "--store", "sqlite:edge.db"];
    // It was there once, so that what is sent later is for it.
    let sub = ["sub", "load", "--name", "w", "--listen", &address, "--count"];
    let first = Liner::start(folder, &[&sub[..], &["1"]].concat());
    let to = [&edge[..], &["--peer", &address]].concat();
    let ended = run(folder, &[&["pub", "load", "hello", "--wait", "60s"], &to[..]].concat());
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(first.end().lines, ["load edge#1 hello"]);

    let many = ["pub", "load", "--size", "100", "--count", &text, "--log", "error"];
    let (peak, took) = publish(folder, &[&many[..], &to[..]].concat());
    let rate = count as f64 / took.as_secs_f64();
    println!("pub: {count} messages in {took:?}, {rate:.0} messages/s, {peak} KiB at most");
    assert!(peak > 0 && peak < MEMORY_MAX_KIB, "{peak} KiB");

    // Nobody is there when the draining begins.
    let drain = Liner::start(folder, &[&["drain", "--json"], &edge[..]].concat());
    assert_eq!(drain.json()["waiting"], count);
    drain.error_with("nobody answers");
    let (returned, mut marks, mut marked) = (Instant::now(), Vec::new(), 0);
    let mut sub = Subscriber::start(folder, &[&sub[..], &[&text]].concat());
    let tenth = (count / 10).max(1);
    for number in 1..=count {
        let line = sub.line();
        // Who has put a message there may have sent it before it ended, for all that `drain` knows: then it is marked.
        marked += u64::from(line.contains('*'));
        assert_eq!(line.replace('*', ""), format!("load edge#{} {number:0100}", number + 1));
        if number == 1 || number.is_multiple_of(tenth) {
            marks.push((returned.elapsed(), worked(&drain)));
        }
    }
    let peaks = [drain.proc_file("status"), proc_file(sub.0.id(), "status")];
    let peaks = peaks.map(|status| status.as_deref().and_then(peak_kib));
    let ended = drain.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert_eq!(sub.0.wait().unwrap().code(), Some(0));
    println!("{marked} were marked as perhaps delivered before");
    println!("first delivery {:?} after the return; all after {:?}", marks[0].0, marks[marks.len() - 1].0);
    for (tenths, pair) in marks.windows(2).enumerate() {
        let each = |spent: Duration| spent.as_secs_f64() * 1e6 / tenth as f64;
        let (passed, worked) = (each(pair[1].0 - pair[0].0), each(pair[1].1 - pair[0].1));
        println!(
            "tenth {}: {passed:.2} µs a message, {worked:.2} µs of them drain's processor time",
            tenths + 1
        );
    }
    println!("drain and sub have had at most {peaks:?} KiB");
    for peak in peaks.into_iter().flatten() {
        assert!(peak < MEMORY_MAX_KIB, "{peak} KiB");
    }
}
