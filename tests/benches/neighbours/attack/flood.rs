//! A peer that keeps to the protocol until its session is up, and then floods, reads nothing and acknowledges nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use liner_mio::{Class, Framing, HeapStore, Message, NodeConfig};
use liner_proto::frame::length;
use liner_proto::id::{ConnId, SessionId};
use liner_proto::router::{Router, StoreRequest};
use liner_proto::seal;
use liner_proto::store::execute;
use liner_proto::time::Instant as At;
use liner_proto::wire::batch::BatchHead;
use liner_proto::wire::record::{self, Header, Mode, Topic};
use liner_proto::wire::{self, Body};
use mio::net::TcpStream;

/// What it writes in one step of the attack, at most: with a thousand steps a second 8 MiB/s.
const STEP_BYTES: usize = 8 * 1024;

/// Messages of a frame.
const FRAME_MESSAGES: u64 = 400;

/// Turns that its last words of good faith are given.
const LEAVE: u32 = 200;

pub(crate) struct Flood {
    name: String,
    address: SocketAddr,
    peer: Option<Peer>,
    rest: Option<Instant>,
    /// MiB of flood that were taken, and sessions.
    pub(crate) sent: u64,
    pub(crate) sessions: u64,
    bytes: u64,
}

struct Peer {
    stream: TcpStream,
    router: Router,
    conn: ConnId,
    store: HeapStore,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    nonce: u64,
    session: Option<SessionId>,
    turns: u32,
    next: u64,
}

impl Flood {
    pub(crate) fn new(index: usize, address: SocketAddr) -> Self {
        let name = format!("flood-{index}");
        Self { name, address, peer: None, rest: None, sent: 0, sessions: 0, bytes: 0 }
    }

    pub(crate) fn turn(&mut self) {
        if self.peer.is_none() {
            if self.rest.is_some_and(|until| Instant::now() < until) {
                return;
            }
            self.rest = Some(Instant::now() + Duration::from_secs(1));
            self.peer = Peer::connect(&self.name, self.address);
        }
        let Some(peer) = &mut self.peer else { return };
        let was_up = peer.session.is_some();
        match peer.turn() {
            Ok(len) => {
                self.bytes += len as u64;
                self.sent = self.bytes >> 20;
                self.sessions += u64::from(!was_up && peer.session.is_some());
            }
            Err(()) => self.peer = None,
        }
    }
}

impl Peer {
    fn connect(name: &str, address: SocketAddr) -> Option<Self> {
        let now = At::from_micros(1);
        // Another life each time: the victim's cursor is of an older one.
        let life = std::time::SystemTime::UNIX_EPOCH.elapsed().ok()?.as_nanos() as u64;
        let mut router = Router::new(NodeConfig::new(name, [life, 3], Class::Ram), now);
        router.start(now);
        router.subscribe(now, "news");
        let dial = router.add_peer(now, "victim");
        let conn = router.handle_dialed(now, dial, Framing::Length);
        let (store, stream) = (HeapStore::new(1 << 20), TcpStream::connect(address).ok()?);
        let (unread, unsent) = (Vec::new(), Vec::new());
        Some(Self { stream, router, conn, store, unread, unsent, nonce: 0, session: None, turns: 0, next: 1 })
    }

    /// Bytes of flood that were taken.
    fn turn(&mut self) -> Result<usize, ()> {
        if self.session.is_none() || self.turns < LEAVE {
            self.greet()?;
        } else if self.unsent.len() < STEP_BYTES {
            let session = self.session.ok_or(())?;
            while self.unsent.len() < STEP_BYTES {
                let body = batch_of(self.next, FRAME_MESSAGES, "flood", &[0x66; 64]);
                self.next += FRAME_MESSAGES;
                self.unsent.extend(frame(session, &body));
            }
        }
        let step = self.unsent.len().min(STEP_BYTES);
        match self.stream.write(&self.unsent[..step]) {
            Ok(len) => {
                self.unsent.drain(..len);
                Ok(if self.turns < LEAVE { 0 } else { len })
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(0),
            Err(_) => Err(()),
        }
    }

    /// Says what an honest peer says.
    fn greet(&mut self) -> Result<(), ()> {
        let now = At::from_micros(1 + u64::from(self.turns));
        self.turns += u32::from(self.session.is_some());
        let mut buffer = [0; 65_536];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err(()),
            Ok(len) => self.unread.extend_from_slice(&buffer[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {}
            Err(_) => return Err(()),
        }
        if self.session.is_none()
            && let Some(Body::Answer(answer)) = body_of(&self.unread)
        {
            let nonces = [&self.nonce.to_le_bytes()[..], &answer.nonce.to_le_bytes()[..]];
            self.session = Some(SessionId(seal::checksum(SessionId::HANDSHAKE, &nonces).max(1)));
        }
        let taken = self.router.handle_bytes(now, self.conn, &mut self.unread, &mut |_: &Message<'_>| {});
        self.unread.drain(..taken);
        while let Some(request) = self.router.poll_store(now) {
            let StoreRequest::Commit(batch) = request else { return Err(()) };
            let outcome = execute(&mut self.store, &batch);
            self.router.handle_committed(now, batch.id(), outcome);
        }
        loop {
            let transmit = self.router.poll_transmit(now, self.conn);
            let bytes = [transmit.head, transmit.body].concat();
            if bytes.is_empty() {
                return Ok(());
            }
            if let Some(Body::Hello(hello)) = body_of(&bytes) {
                self.nonce = hello.nonce;
            }
            self.router.handle_written(now, self.conn, bytes.len());
            self.unsent.extend(bytes);
        }
    }
}

/// The first frame of the handshake, if it is whole.
fn body_of(bytes: &[u8]) -> Option<Body<'_>> {
    let split = length::split(bytes, 1 << 20).ok()??;
    wire::decode(seal::open(SessionId::HANDSHAKE, bytes.get(split.frame)?).ok()?).ok()
}

pub(crate) fn frame(session: SessionId, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((body.len() + seal::LEN) as u32).to_le_bytes().to_vec();
    bytes.extend(seal::seal(session, &[body]));
    bytes.extend(body);
    bytes
}

/// So many messages from the number `first`.
pub(crate) fn batch_of(first: u64, count: u64, topic: &str, payload: &[u8]) -> Vec<u8> {
    let header = Header::new(Mode::One, Topic::Text(topic));
    let mut message = vec![0; record::message_len(&header, payload.len())];
    record::encode_message(&header, payload, &mut message);
    let mut bytes = vec![0; BatchHead::LEN_MAX];
    let head = BatchHead { sent_before: false, first, last: first + count - 1, added_age_ms: None };
    let len = head.encode(&mut bytes).expect("room");
    bytes.truncate(len);
    for _ in 0..count {
        bytes.push(u8::try_from(message.len()).expect("a short message"));
        bytes.extend(&message);
    }
    bytes
}
