//! Other processes: spawned with their roles as arguments, spoken to by lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, nice, setrlimit};

use crate::{attack, hole, victim};

/// A child of this process; killed when it is dropped.
pub(crate) struct Other {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Other {
    pub(crate) fn spawn(arguments: &[&str]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("child")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program runs again");
        let stdin = child.stdin.take().expect("piped");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, stdin, stdout }
    }

    /// Waits for the next line.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the child's output");
        assert!(!line.is_empty(), "the child ended");
        line.trim_end().to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        writeln!(self.stdin, "{line}").expect("the child reads");
        self.line()
    }

    /// It stands still until it is killed, or woken.
    pub(crate) fn freeze(&self, freeze: bool) {
        let signal = if freeze { Signal::STOP } else { Signal::CONT };
        kill_process(Pid::from_child(&self.child), signal).expect("it is there");
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a line to the parent.
pub(crate) fn say(line: &str) {
    println!("{line}");
    std::io::stdout().flush().expect("the parent reads");
}

/// Lines of the parent, until it is gone.
pub(crate) fn lines() -> std::sync::mpsc::Receiver<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Lets the others go first.
pub(crate) fn yield_to_others() {
    nice(19).expect("anybody may be nicer");
}

/// Raises the bound of descriptors as far as may be, which has to be `least`.
pub(crate) fn raise_files(least: u64) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    assert!(
        maximum.is_none_or(|maximum| maximum >= least),
        "{least} descriptors are needed, and {maximum:?} allowed: raise the hard limit (ulimit -Hn)"
    );
}

pub(crate) fn run(words: &[&str]) {
    match words {
        ["victim"] => victim::run(),
        ["attack", address, kinds @ ..] => attack::send(address, kinds),
        ["echo", count, address] => hole::echo(count.parse().expect("a number"), address),
        other => panic!("{other:?} is no role"),
    }
}
