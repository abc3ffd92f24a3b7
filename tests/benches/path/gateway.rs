//! What a gateway costs while nothing happens.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Builds the command as a user would, and measures it.
pub(crate) fn print() {
    let built =
        Command::new(env!("CARGO")).args(["build", "--release", "--quiet", "--package", "liner"]).status();
    assert!(built.is_ok_and(|status| status.success()), "the command builds");
    let binary = binary();
    let size = std::fs::metadata(&binary).expect("it was built").len();
    let folder = tempfile::tempdir().expect("a folder");
    let mut gateway = Command::new(&binary)
        .current_dir(&folder)
        .args(["gateway", "--listen", "127.0.0.1:0", "--device-listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(gateway.stdout.take().expect("piped")).lines();
    let _ = lines.next();
    // Idle for a second: whatever the start needs has been given back.
    let until = Instant::now() + Duration::from_secs(1);
    let mut resident = 0;
    while Instant::now() < until {
        resident = resident_kib(gateway.id());
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let _ = gateway.kill();
    let _ = gateway.wait();
    println!("gateway, idle: {resident} KiB resident; stripped binary: {} KiB", size / 1024);
}

fn binary() -> PathBuf {
    // This program stands in `release/deps`, the command in `release`.
    let mut path = std::env::current_exe().expect("this program");
    path.pop();
    path.pop();
    path.join("liner")
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0)
}
