//! Between a client and a server by TCP: every byte passes, until a connection is cut behind a certain one.
//!
//! The relay of lines ([`crate::relay`]) cuts by chance; this cuts where it is told to, so that a test can try every place in a reply.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::port::Port;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From clients to the server.
    Request,
    /// From the server to clients.
    Reply,
}

/// Where all connections are to be cut, once.
///
/// Bytes are counted over all connections. Those behind the place do not pass; what has come before does, and then both sides see the
/// connection's end. With `after: 0` the cut falls when the next byte comes: the server has had the request that it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Which bytes are counted.
    pub way: Way,
    /// How many pass.
    pub after: u64,
    /// Counting begins when these bytes of a request have passed; else at once.
    pub marker: Vec<u8>,
    /// Nobody listens any more from the cut on, until [`Cutter::refuse`] says otherwise.
    pub refuse: bool,
}

/// A port that stands for a server's.
#[derive(Debug)]
pub struct Cutter {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    port: Port,
    to: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    plan: Option<Plan>,
    requested: u64,
    replied: u64,
    cuts: u64,
    /// The thread that listens ends when this is dropped.
    listener: Option<UnixStream>,
    /// Whether there is such a thread.
    listening: bool,
    /// Both sides of every connection.
    connections: HashMap<u64, [TcpStream; 2]>,
    accepted: u64,
}

#[derive(Debug)]
struct Plan {
    cut: Cut,
    /// Whether the marker has passed, and bytes count.
    counting: bool,
    counted: u64,
    /// The newest bytes of requests that may be the marker's beginning, by connection.
    tails: HashMap<u64, Vec<u8>>,
}

impl Cutter {
    /// Listens on a port of its own, and passes everything to the server's.
    ///
    /// # Errors
    /// If there is no port for it.
    pub fn start(to: SocketAddr) -> io::Result<Self> {
        let shared = Shared { port: Port::claim()?, to, state: Mutex::default(), changed: Condvar::new() };
        let cutter = Self { shared: Arc::new(shared) };
        cutter.refuse(false)?;
        Ok(cutter)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.port.address()
    }

    /// Cuts once so many further bytes of replies have passed.
    pub fn cut_reply_after(&self, bytes: u64) {
        self.plan(Cut { way: Way::Reply, after: bytes, marker: Vec::new(), refuse: false });
    }

    /// Cuts once so many further bytes of requests have passed.
    pub fn cut_request_after(&self, bytes: u64) {
        self.plan(Cut { way: Way::Request, after: bytes, marker: Vec::new(), refuse: false });
    }

    /// Cuts there, in place of any earlier plan that has not come to pass.
    pub fn plan(&self, cut: Cut) {
        let counting = cut.marker.is_empty();
        self.shared.lock().plan = Some(Plan { cut, counting, counted: 0, tails: HashMap::new() });
    }

    /// Takes the plan back. Says whether there still was one.
    pub fn spare(&self) -> bool {
        self.shared.lock().plan.take().is_some()
    }

    /// Cuts all connections at once. It is counted as a cut.
    pub fn cut_now(&self) {
        self.shared.cut(&mut self.shared.lock());
    }

    /// Listens no more, so that clients are refused; or listens again. Connections stay.
    ///
    /// # Errors
    /// If its port is not to be had again.
    pub fn refuse(&self, refuse: bool) -> io::Result<()> {
        if refuse {
            self.shared.close();
            return Ok(());
        }
        let state = self.shared.lock();
        // A cut may be about to end it.
        let ending = |state: &mut State| state.listener.is_none() && state.listening;
        let mut state = self.shared.changed.wait_while(state, ending).unwrap_or_else(PoisonError::into_inner);
        if state.listener.is_some() {
            return Ok(());
        }
        let listener = TcpListener::bind(self.address())?;
        listener.set_nonblocking(true)?;
        let (held, dropped) = UnixStream::pair()?;
        state.listener = Some(held);
        state.listening = true;
        let shared = Arc::clone(&self.shared);
        std::thread::spawn(move || {
            // It fails only if the kernel has no memory left: then nobody listens, as clients will see.
            let _ = shared.accept(&listener, &dropped);
            drop(listener);
            shared.lock().listening = false;
            shared.changed.notify_all();
        });
        Ok(())
    }

    /// How many bytes have passed this way.
    pub fn passed(&self, way: Way) -> u64 {
        let state = self.shared.lock();
        match way {
            Way::Request => state.requested,
            Way::Reply => state.replied,
        }
    }

    /// How often it has cut.
    pub fn cuts(&self) -> u64 {
        self.shared.lock().cuts
    }

    /// Waits until it has cut so often since it was started. Says whether it has.
    pub fn wait_for_cuts(&self, cuts: u64, patience: Duration) -> bool {
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_timeout_while(state, patience, |state| state.cuts < cuts);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.cuts >= cuts
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.close();
        self.shared.lock().disconnect();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, dropped: &UnixStream) -> io::Result<()> {
        loop {
            let mut events = [PollFd::new(listener, PollFlags::IN), PollFd::new(dropped, PollFlags::IN)];
            poll(&mut events, None)?;
            let over = !events[1].revents().is_empty();
            // Who has dialled before the end is served.
            while let Ok((client, _)) = listener.accept() {
                // A client of a server that is down sees its connection end.
                let _ = TcpStream::connect(self.to).and_then(|server| self.connect(client, server));
            }
            if over {
                return Ok(());
            }
        }
    }

    fn connect(self: &Arc<Self>, client: TcpStream, server: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let ends = [client.try_clone()?, server.try_clone()?];
        let streams =
            [(Way::Request, [client.try_clone()?, server.try_clone()?]), (Way::Reply, [server, client])];
        let mut state = self.lock();
        state.accepted += 1;
        let id = state.accepted;
        state.connections.insert(id, ends);
        drop(state);
        for (way, [from, to]) in streams {
            let shared = Arc::clone(self);
            std::thread::spawn(move || {
                // Whichever way ends first ends both.
                let _ = shared.pump(id, way, from, to);
                shared.lock().connections.remove(&id).iter().flatten().for_each(end);
            });
        }
        Ok(())
    }

    fn pump(&self, id: u64, way: Way, mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let len = from.read(&mut buffer)?;
            let bytes = buffer.get(..len).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(());
            }
            let (pass, cut) = self.lock().count(id, way, bytes);
            to.write_all(bytes.get(..pass).unwrap_or_default())?;
            if cut {
                self.carry_out();
                return Ok(());
            }
        }
    }

    /// Cuts as the plan says, which is done with.
    fn carry_out(&self) {
        let refuse = self.lock().plan.take().is_some_and(|plan| plan.cut.refuse);
        if refuse {
            // Before anybody sees the cut: who dials again at once is refused already.
            self.close();
        }
        self.cut(&mut self.lock());
    }

    fn cut(&self, state: &mut State) {
        state.disconnect();
        state.cuts += 1;
        self.changed.notify_all();
    }

    /// Waits until nobody listens.
    fn close(&self) {
        let mut state = self.lock();
        state.listener = None;
        drop(self.changed.wait_while(state, |state| state.listening));
    }
}

impl State {
    /// How many of these bytes pass, and whether the cut comes then.
    fn count(&mut self, id: u64, way: Way, bytes: &[u8]) -> (usize, bool) {
        let (pass, cut) = match &mut self.plan {
            Some(plan) => plan.count(id, way, bytes),
            None => (bytes.len(), false),
        };
        let passed = u64::try_from(pass).unwrap_or(u64::MAX);
        match way {
            Way::Request => self.requested += passed,
            Way::Reply => self.replied += passed,
        }
        (pass, cut)
    }

    fn disconnect(&mut self) {
        self.connections.drain().flat_map(|(_, ends)| ends).for_each(|stream| end(&stream));
    }
}

impl Plan {
    fn count(&mut self, id: u64, way: Way, bytes: &[u8]) -> (usize, bool) {
        let before = if self.counting {
            0
        } else if way == Way::Request {
            let Some(end) = self.find_marker(id, bytes) else { return (bytes.len(), false) };
            self.counting = true;
            end
        } else {
            return (bytes.len(), false);
        };
        let counted = bytes.len() - before;
        if way != self.cut.way || counted == 0 {
            return (bytes.len(), false);
        }
        let left = self.cut.after.saturating_sub(self.counted);
        match usize::try_from(left) {
            Ok(left) if left <= counted => {
                self.counted = self.cut.after;
                (before + left, true)
            }
            _ => {
                self.counted += u64::try_from(counted).unwrap_or(u64::MAX);
                (bytes.len(), false)
            }
        }
    }

    /// Where in these bytes the marker ends, whose beginning may have come before them.
    fn find_marker(&mut self, id: u64, bytes: &[u8]) -> Option<usize> {
        let marker = &self.cut.marker;
        let tail = self.tails.entry(id).or_default();
        let earlier = tail.len();
        tail.extend_from_slice(bytes);
        let found = tail.windows(marker.len()).position(|window| window == marker.as_slice());
        let end = found.map(|at| (at + marker.len()).saturating_sub(earlier));
        let kept = tail.len().saturating_sub(marker.len() - 1);
        tail.drain(..kept);
        end
    }
}

fn end(stream: &TcpStream) {
    // It may have ended by itself.
    let _ = stream.shutdown(Shutdown::Both);
}
