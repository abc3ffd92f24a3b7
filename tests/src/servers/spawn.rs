//! Starting children, and what they say.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, PipeReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How many lines of what a server says stay in memory: the file has them all.
const KEPT: usize = 1_000;

type Job = (Command, Sender<io::Result<Child>>);

static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();

/// Starts a child from a thread that lives as long as the process.
///
/// The kernel kills the child when that thread is gone ([`super::programs::command`]). A test's own thread ends with the test, and
/// would take servers with it that several tests share.
fn spawn(command: Command) -> io::Result<Child> {
    let gone = || io::Error::other("the thread that starts servers is gone");
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, receiver) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in receiver {
                let child = command.spawn();
                // It holds the child's ends of the pipe: they have to be closed before anybody waits for the pipe's end.
                drop(command);
                let _ = answer.send(child);
            }
        });
        jobs
    });
    let (answer, answered) = mpsc::channel();
    spawner.send((command, answer)).map_err(|_| gone())?;
    answered.recv().map_err(|_| gone())?
}

/// Starts a child whose output goes to a file, behind what is there, and line by line to the returned [`Log`].
pub(super) fn spawn_logged(mut command: Command, file: &Path) -> io::Result<(Child, Log)> {
    let file = File::options().append(true).create(true).open(file)?;
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = spawn(command)?;
    let log = Log::default();
    let writer = log.clone();
    std::thread::spawn(move || writer.follow(reader, file));
    Ok((child, log))
}

/// What a child and its own children have said since the child was started.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<(Mutex<Lines>, Condvar)>);

#[derive(Debug, Default)]
struct Lines {
    /// At most [`KEPT`].
    lines: VecDeque<String>,
    /// None of them can say any more.
    ended: bool,
}

/// What waiting for a line came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It was said.
    Said,
    /// It will not be said: all who could are gone.
    Ended,
    /// Patience is over.
    Late,
}

impl Log {
    fn follow(&self, reader: PipeReader, mut file: File) {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
            // What waits for a line must not fail because a disk is full.
            let _ = file.write_all(&line);
            let mut log = self.lock();
            if log.lines.len() == KEPT {
                log.lines.pop_front();
            }
            log.lines.push_back(String::from_utf8_lossy(&line).into_owned());
            drop(log);
            self.0.1.notify_all();
            line.clear();
        }
        self.lock().ended = true;
        self.0.1.notify_all();
    }

    pub(super) fn wait_for(&self, words: &str, patience: Duration) -> Waited {
        let missing = |log: &mut Lines| !log.ended && !log.has(words);
        let log = self.lock();
        let (log, _) =
            self.0.1.wait_timeout_while(log, patience, missing).unwrap_or_else(PoisonError::into_inner);
        match (log.has(words), log.ended) {
            (true, _) => Waited::Said,
            (false, true) => Waited::Ended,
            (false, false) => Waited::Late,
        }
    }

    /// Waits until all are gone who could say something.
    pub(super) fn wait_for_end(&self, patience: Duration) -> Waited {
        let log = self.lock();
        let (log, _) = self
            .0
            .1
            .wait_timeout_while(log, patience, |log| !log.ended)
            .unwrap_or_else(PoisonError::into_inner);
        if log.ended { Waited::Ended } else { Waited::Late }
    }

    /// The lines that are kept, as one text.
    pub(super) fn text(&self) -> String {
        self.lock().lines.iter().map(String::as_str).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn has(&self, words: &str) -> bool {
        self.lines.iter().any(|line| line.contains(words))
    }
}
