//! A store in memory that behaves as one on a server does: it can be away, lose replies, hang, and tell of what others change.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use liner_mio::{Class, HeapStore, Store};
use liner_proto::effect::{Loaded, Queue, Recovered, StoreFault, StoreOp};
use liner_proto::router::DirectoryRows;
use liner_proto::store::{Capabilities, Notices};

/// What becomes of the next commit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// Its outcome is not known, and for so many questions it cannot be said.
    Lost { was_made: bool, unavailable: u32 },
    /// Its outcome is not known, and that is the answer to the question.
    Ends(StoreFault),
}

#[derive(Debug, Default)]
struct State {
    reply: Option<Reply>,
    /// What is answered to the question, once it is.
    in_doubt: Option<(u32, Result<(), StoreFault>)>,
    is_down: bool,
    resolves: u32,
    rows: Vec<[String; 3]>,
    is_changed: bool,
    reads: u32,
    is_closed: bool,
    /// There is word of a change, and somebody waits for it.
    word: bool,
    interrupted: bool,
    listens: bool,
}

/// The server, as a test has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    state: Arc<Mutex<State>>,
    bell: Arc<Condvar>,
    /// While somebody holds it, nothing is answered.
    gate: Arc<Mutex<()>>,
}

impl Server {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn store(&self) -> Box<dyn Store + Send> {
        self.open(false)
    }

    /// One that several nodes share, and that tells of what others change.
    pub(crate) fn listening_store(&self) -> Box<dyn Store + Send> {
        self.open(true)
    }

    fn open(&self, notices: bool) -> Box<dyn Store + Send> {
        let committed = HeapStore::new(1 << 28);
        Box::new(Remote {
            inner: committed.clone(),
            committed,
            server: self.clone(),
            is_shared: notices,
            notices,
        })
    }

    pub(crate) fn reply(&self, reply: Reply) {
        self.lock().reply = Some(reply);
    }

    /// Whoever asks what became of a commit is told now.
    pub(crate) fn answer_again(&self) {
        self.lock().in_doubt.iter_mut().for_each(|(unavailable, _)| *unavailable = 0);
    }

    pub(crate) fn set_down(&self, is_down: bool) {
        self.lock().is_down = is_down;
    }

    pub(crate) fn hang(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap()
    }

    pub(crate) fn resolves(&self) -> u32 {
        self.lock().resolves
    }

    pub(crate) fn reads(&self) -> u32 {
        self.lock().reads
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    pub(crate) fn is_listened_to(&self) -> bool {
        self.lock().listens
    }

    pub(crate) fn write_row(&self, topic: &str, address: &str, name: &str) {
        self.change(|rows| rows.push([topic, address, name].map(str::to_owned)));
    }

    pub(crate) fn clear_rows(&self) {
        self.change(Vec::clear);
    }

    fn change(&self, change: impl FnOnce(&mut Vec<[String; 3]>)) {
        let mut state = self.lock();
        change(&mut state.rows);
        (state.is_changed, state.word) = (true, true);
        self.bell.notify_all();
    }
}

struct Remote {
    inner: HeapStore,
    /// What is there if nothing comes of the commit.
    committed: HeapStore,
    server: Server,
    is_shared: bool,
    notices: bool,
}

impl Remote {
    fn make(&mut self) {
        self.committed = self.inner.clone();
    }

    fn revert(&mut self) {
        self.inner = self.committed.clone();
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.server.lock().is_closed = true;
    }
}

impl Store for Remote {
    fn class(&self) -> Class {
        self.inner.class()
    }

    fn recover(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), StoreFault> {
        self.inner.recover(visit)
    }

    fn apply(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        assert!(self.server.lock().in_doubt.is_none(), "nothing is asked before the commit is resolved");
        self.inner.apply(group)
    }

    fn commit(&mut self) -> Result<(), StoreFault> {
        let server = self.server.clone();
        let _open = server.gate.lock().unwrap();
        let mut state = server.lock();
        if state.is_down {
            self.revert();
            return Err(StoreFault::Unavailable);
        }
        let (was_made, doubt) = match state.reply.take() {
            None => (true, None),
            Some(Reply::Ends(fault)) => (false, Some((0, Err(fault)))),
            Some(Reply::Lost { was_made: true, unavailable }) => (true, Some((unavailable, Ok(())))),
            Some(Reply::Lost { was_made: false, unavailable }) => {
                (false, Some((unavailable, Err(StoreFault::Refused))))
            }
        };
        if was_made {
            self.make();
        } else {
            self.revert();
        }
        state.in_doubt = doubt;
        if doubt.is_some() { Err(StoreFault::Unknown) } else { Ok(()) }
    }

    fn resolve(&mut self) -> Result<(), StoreFault> {
        let mut state = self.server.lock();
        state.resolves += 1;
        let (unavailable, known) = state.in_doubt.as_mut().unwrap();
        if *unavailable > 0 {
            *unavailable -= 1;
            return Err(StoreFault::Unavailable);
        }
        let known = *known;
        state.in_doubt = None;
        known
    }

    fn load(&mut self, queue: Queue<'_>, after: u64, into: &mut [u8]) -> Result<Loaded, StoreFault> {
        self.inner.load(queue, after, into)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { shared: self.is_shared, ..Capabilities::NONE }
    }

    fn directory(&mut self) -> Result<Option<DirectoryRows>, StoreFault> {
        let mut state = self.server.lock();
        state.reads += 1;
        if !core::mem::take(&mut state.is_changed) {
            return Ok(None);
        }
        let mut rows = DirectoryRows::default();
        state.rows.iter().for_each(|[topic, address, name]| rows.push(topic, address, name));
        Ok(Some(rows))
    }

    fn notices(&mut self) -> Option<Box<dyn Notices + Send>> {
        core::mem::take(&mut self.notices).then(|| Box::new(self.server.clone()) as Box<dyn Notices + Send>)
    }

    fn last_error(&self) -> Option<&str> {
        Some("nobody answers")
    }
}

impl Notices for Server {
    fn wait(&mut self, patience: Duration) -> bool {
        let mut state = self.lock();
        state.listens = true;
        let idle = |state: &mut State| !state.word && !state.interrupted;
        let (mut state, _) = self.bell.wait_timeout_while(state, patience, idle).unwrap();
        (state.listens, state.interrupted) = (false, false);
        core::mem::take(&mut state.word)
    }

    fn interrupter(&self) -> Box<dyn Fn() + Send + Sync> {
        let server = self.clone();
        Box::new(move || {
            server.lock().interrupted = true;
            server.bell.notify_all();
        })
    }
}
