//! Children that run the built command: their lines are read as they come, and none of them outlives its test.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::Value;

/// How long any single step may take on a machine that is busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running `liner`.
pub(crate) struct Liner {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Receiver<String>,
    what: String,
}

/// How a `liner` ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<String>,
    pub(crate) errors: Vec<String>,
}

impl Liner {
    /// Starts the command in a folder.
    pub(crate) fn start(folder: &Path, args: &[&str]) -> Self {
        Self::start_with(folder, args, &[], Stdio::piped())
    }

    /// The same with variables of the environment.
    pub(crate) fn start_in(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_with(folder, args, variables, Stdio::piped())
    }

    /// The same with a standard output that nobody reads.
    pub(crate) fn start_unread(folder: &Path, args: &[&str]) -> Self {
        let (_, write) = std::io::pipe().unwrap();
        Self::start_with(folder, args, &[], write.into())
    }

    fn start_with(folder: &Path, args: &[&str], variables: &[(&str, &str)], stdout: Stdio) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_liner"));
        // Whoever runs the tests may have set some for a gateway of their own.
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(b"LINER_") {
                command.env_remove(variable);
            }
        }
        command.envs(variables.iter().copied());
        command.args(args).current_dir(folder).env("TMPDIR", folder);
        command.stdin(Stdio::piped()).stdout(stdout).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = child.stdout.take().map_or_else(|| channel().1, follow);
        let errors = follow(child.stderr.take().unwrap());
        Self { stdin: child.stdin.take(), child, lines, errors, what: args.join(" ") }
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.stdin.take().unwrap()
    }

    /// The next line of standard output; none at its end.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let errors: Vec<String> = self.errors.try_iter().collect();
                panic!("`liner {}` says nothing; on standard error: {errors:?}", self.what)
            }
        }
    }

    /// A line that comes within this time.
    pub(crate) fn line_within(&self, time: Duration) -> Option<String> {
        self.lines.recv_timeout(time).ok()
    }

    /// A line that is there already.
    pub(crate) fn line_now(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }

    /// The next line as JSON.
    pub(crate) fn json(&self) -> Value {
        let line =
            self.line().unwrap_or_else(|| panic!("`liner {}` has ended: {:?}", self.what, self.errors()));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Lines of standard error up to now.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.try_iter().collect()
    }

    /// The next line of standard error that holds these words.
    pub(crate) fn error_with(&self, words: &str) -> String {
        loop {
            match self.errors.recv_timeout(PATIENCE) {
                Ok(line) if line.contains(words) => return line,
                Ok(_) => {}
                Err(_) => panic!("`liner {}` does not say {words:?}", self.what),
            }
        }
    }

    /// Whether it has this file open.
    pub(crate) fn has_open(&self, file: &Path) -> bool {
        let file = file.canonicalize();
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        open.flatten()
            .any(|fd| file.as_ref().is_ok_and(|file| fd.path().read_link().is_ok_and(|to| to == *file)))
    }

    /// What the kernel says of it in this file, as long as it runs.
    pub(crate) fn proc_file(&self, name: &str) -> Option<String> {
        proc_file(self.child.id(), name)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Stops all its threads where they are.
    pub(crate) fn freeze(&self) {
        self.signal(Signal::STOP);
        let (_, status) = waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap().unwrap();
        assert!(status.stopped(), "`liner {}` has ended", self.what);
    }

    pub(crate) fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGKILL. Returns what it had written by then, a last line without an end left out.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.line()).collect()
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ended {
        drop(self.stdin.take());
        let lines = std::iter::from_fn(|| self.line()).collect();
        let mut errors = Vec::new();
        loop {
            match self.errors.recv_timeout(PATIENCE) {
                Ok(line) => errors.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("`liner {}` does not end: {errors:?}", self.what),
            }
        }
        Ended { code: self.child.wait().unwrap().code(), lines, errors }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Liner {
    fn drop(&mut self) {
        // It may have ended, and been waited for, already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the command to its end.
pub(crate) fn run(folder: &Path, args: &[&str]) -> Ended {
    Liner::start(folder, args).end()
}

/// Runs the command to its end, with variables of the environment.
pub(crate) fn run_in(folder: &Path, args: &[&str], variables: &[(&str, &str)]) -> Ended {
    Liner::start_in(folder, args, variables).end()
}

/// Runs the command to its end, with something on standard input.
pub(crate) fn run_with(folder: &Path, args: &[&str], input: &[u8]) -> Ended {
    let mut liner = Liner::start(folder, args);
    let mut stdin = liner.stdin();
    stdin.write_all(input).unwrap();
    drop(stdin);
    liner.end()
}

/// What the kernel says of a process in this file.
pub(crate) fn proc_file(id: u32, name: &str) -> Option<String> {
    std::fs::read_to_string(format!("/proc/{id}/{name}")).ok()
}

/// A port that nothing listens on, outside the range from which outgoing connections get theirs: a program that dials it while
/// nobody is there must not meet itself.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(131);
    loop {
        let next = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        let port = 18_000 + next as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A thread that reads whole lines, until the end or until nobody wants them.
pub(crate) fn follow(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while reader.read_line(&mut line).is_ok() && line.ends_with('\n') {
            line.pop();
            if sender.send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    receiver
}
