//! What can be done to a server, whichever it is.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::processes::{Family, descendants};
use super::programs::{self, Account};
use super::spawn::{Log, Waited, spawn_logged};

/// How long a server may take to start or to end, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a server is started, and what it says then.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) account: Option<Account>,
    /// Said when clients are served; not before it has its port.
    pub(super) ready: &'static str,
    /// Ends it in its own time.
    pub(super) end: Signal,
    /// Where what it says goes.
    pub(super) log: PathBuf,
}

impl Launch {
    fn command(&self) -> Command {
        let mut command = programs::command(&self.program, self.account);
        command.args(&self.arguments);
        command
    }
}

/// A server at work, or down between two runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Server {
    launch: Launch,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    id: Pid,
    log: Log,
}

impl Server {
    /// Starts it, and returns when it serves clients.
    ///
    /// # Errors
    /// [`io::ErrorKind::AddrInUse`] if somebody has its port; else with what the server said.
    pub(super) fn start(launch: Launch) -> io::Result<Self> {
        let server = Self { launch, running: Mutex::new(None) };
        server.run(&mut server.lock())?;
        Ok(server)
    }

    /// Kills the whole server with SIGKILL, its children too, and waits until none is left. One that is down stays down.
    ///
    /// # Errors
    /// If a process does not end.
    pub fn kill(&self) -> io::Result<()> {
        kill(&mut self.lock())
    }

    /// Ends the server in its own time: it writes what it has to, and leaves nothing to recover. One that is down stays down.
    ///
    /// # Errors
    /// If it does not end. Then it has been killed.
    pub fn stop(&self) -> io::Result<()> {
        let mut running = self.lock();
        let Some(process) = running.as_ref() else { return Ok(()) };
        kill_process(process.id, self.launch.end)?;
        // The end of its output is the end of it and all its children.
        let waited = process.log.wait_for_end(PATIENCE);
        kill(&mut running)?;
        match waited {
            Waited::Ended => Ok(()),
            Waited::Said | Waited::Late => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the server did not end by itself"))
            }
        }
    }

    /// Starts it again on the port and the data that it had, and returns when it serves clients. One that is up is killed first.
    ///
    /// # Errors
    /// As when it was started first.
    pub fn restart(&self) -> io::Result<()> {
        let mut running = self.lock();
        kill(&mut running)?;
        self.run(&mut running)
    }

    /// Stops all its processes where they are, as a machine does that hangs: connections stay, nothing is answered.
    ///
    /// # Errors
    /// If it is down.
    pub fn freeze(&self) -> io::Result<()> {
        Family::stop(up(&self.lock())?).map(drop)
    }

    /// Lets it go on after [`freeze`](Self::freeze).
    ///
    /// # Errors
    /// If it is down.
    pub fn thaw(&self) -> io::Result<()> {
        let id = up(&self.lock())?;
        // None of them can have gone meanwhile.
        for member in descendants(id).into_iter().chain([id]) {
            kill_process(member, Signal::CONT)?;
        }
        Ok(())
    }

    /// The numbers of its processes; none while it is down.
    pub fn processes(&self) -> Vec<u32> {
        let id = self.lock().as_ref().map(|process| process.id);
        let all = id.into_iter().flat_map(|id| [id].into_iter().chain(descendants(id)));
        all.filter_map(|id| id.as_raw_pid().try_into().ok()).collect()
    }

    /// What it has said since its last start: the newest thousand lines.
    pub fn log(&self) -> String {
        self.lock().as_ref().map(|process| process.log.text()).unwrap_or_default()
    }

    /// Waits until it says these words, or has said them since its last start.
    ///
    /// # Errors
    /// If it does not before `patience` is over or it has ended, with what it said instead.
    pub fn wait_for_log(&self, words: &str, patience: Duration) -> io::Result<()> {
        let log = self.lock().as_ref().map(|process| process.log.clone());
        let log = log.ok_or_else(down)?;
        match log.wait_for(words, patience) {
            Waited::Said => Ok(()),
            Waited::Ended | Waited::Late => Err(self.launch.told(&format!("it did not say `{words}`"), &log)),
        }
    }

    fn run(&self, running: &mut Option<Running>) -> io::Result<()> {
        let (child, log) = spawn_logged(self.launch.command(), &self.launch.log)?;
        let process = Running { id: Pid::from_child(&child), child, log };
        let log = running.insert(process).log.clone();
        let waited = log.wait_for(self.launch.ready, PATIENCE);
        if waited == Waited::Said {
            return Ok(());
        }
        kill(running)?;
        Err(self.launch.told("it did not start", &log))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launch {
    fn told(&self, what: &str, log: &Log) -> io::Error {
        let text = log.text();
        let kind = if text.contains("Address already in use") {
            io::ErrorKind::AddrInUse
        } else {
            io::ErrorKind::Other
        };
        io::Error::new(kind, format!("{}: {what}. It said:\n{text}", self.program.display()))
    }
}

fn up(running: &Option<Running>) -> io::Result<Pid> {
    running.as_ref().map(|process| process.id).ok_or_else(down)
}

fn down() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the server is down")
}

fn kill(running: &mut Option<Running>) -> io::Result<()> {
    let Some(mut process) = running.take() else { return Ok(()) };
    // One that has ended by itself is still there to be waited for.
    let family = Family::stop(process.id)?;
    process.child.kill()?;
    family.kill();
    process.child.wait()?;
    family.wait(PATIENCE)
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that has failed already is told about that; the kernel kills what is left when the process ends.
        let _ = self.kill();
    }
}

/// Starts a server on a port, and on another one as long as somebody else is faster.
pub(super) fn on_a_free_port<T>(mut start: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    const TRIES: usize = 5;
    for _ in 1..TRIES {
        match start() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            other => return other,
        }
    }
    start()
}
