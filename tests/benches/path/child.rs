//! The other process: spawned with its role as arguments, spoken to by lines.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::{Kind, node, raw};

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

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the child reads");
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

/// Waits for a line of the parent.
pub(crate) fn hear() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent writes");
}

pub(crate) fn run(words: &[&str]) {
    let number = |word: &str| word.parse::<usize>().expect("a number");
    let kind = |word: &str| Kind::of(word).expect("a kind");
    match words {
        ["raw-send", address, size, count] => raw::send(address, number(size), number(count) as u64),
        ["raw-echo", address] => raw::echo(address),
        ["send", name, address, size, count, store] => {
            node::send(kind(name), address, number(size), number(count) as u64, store);
        }
        ["echo", name, address, store] => node::echo(kind(name), address, store),
        ["receive", address, store] => node::receive(address, store),
        other => panic!("{other:?} is no role"),
    }
}
