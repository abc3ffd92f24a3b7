//! Somebody who connects to a node and does not keep to the protocol.

use liner_proto::frame::length;
use liner_proto::id::{Epoch, SessionId};
use liner_proto::router::{Framing, Message, Router};
use liner_proto::seal;
use liner_proto::wire::batch::BatchHead;
use liner_proto::wire::handshake::{About, Acks, Hello};
use liner_proto::wire::record::{self, Header, Mode, Topic};
use liner_proto::wire::{self, Body, VERSION};

use super::World;
use super::checker::{Checker, Rule};

/// Connections that a stranger opens at once.
const FLOOD: usize = 80;

/// Those of them that a node has to keep at most.
const UNFINISHED_MAX: usize = 64;

/// What a stranger says its nonce is.
const NONCE: u64 = 0x5747_4e47;

impl World {
    /// Somebody comes to the node, and does something.
    pub(super) fn stranger(&mut self, index: usize) {
        let Some(mut router) = self.nodes[index].router.take() else { return };
        let topic = self.dice.index(self.plan.topics.len());
        let topic = self.plan.topics[topic].clone();
        match self.dice.below(5) {
            0 => {
                let len = self.dice.magnitude(1, 4000) as usize;
                let bytes: Vec<u8> = (0..len).map(|_| self.dice.bits() as u8).collect();
                let framing = self.dice.pick(&[Framing::Length, Framing::Cobs]);
                self.say(index, &mut router, framing, &bytes);
            }
            1 => self.say(index, &mut router, Framing::Length, &[0xff, 0xff, 0xff, 0x7f, 1, 2, 3]),
            2 => {
                let mut bytes = frame(SessionId::HANDSHAKE, &hello());
                bytes.extend(frame(SessionId::HANDSHAKE, &batch(&topic)));
                self.say(index, &mut router, Framing::Length, &bytes);
            }
            3 => self.skip_the_echo(index, &mut router, &topic),
            _ => self.flood(&mut router),
        }
        self.nodes[index].router = Some(router);
        self.mix(0x574a);
        self.drive(index);
    }

    fn say(&mut self, index: usize, router: &mut Router, framing: Framing, bytes: &[u8]) {
        let now = self.instant();
        let conn = router.handle_accepted(now, framing);
        let checker = &mut self.checker;
        router.handle_bytes(now, conn, &mut bytes.to_vec(), &mut |message: &Message<'_>| {
            checker.on_message(index, message);
        });
        if self.dice.chance(500) {
            router.handle_closed(now, conn);
        }
    }

    /// The stranger says hello, hears the answer, and sends messages without the third step.
    fn skip_the_echo(&mut self, index: usize, router: &mut Router, topic: &str) {
        let now = self.instant();
        let conn = router.handle_accepted(now, Framing::Length);
        let checker = &mut self.checker;
        let mut application = |message: &Message<'_>| checker.on_message(index, message);
        router.handle_bytes(now, conn, &mut frame(SessionId::HANDSHAKE, &hello()), &mut application);
        let transmit = router.poll_transmit(now, conn);
        let answer = [transmit.head, transmit.body].concat();
        router.handle_written(now, conn, answer.len());
        if self.nodes[index].stopping {
            // Whoever comes now is turned away.
            return router.handle_closed(now, conn);
        }
        let Some(session) = session_of(&answer) else {
            return self.checker.fail(Rule::Liveness, || "a hello gets no answer".into());
        };
        router.handle_bytes(now, conn, &mut frame(session, &batch(topic)), &mut application);
        router.handle_closed(now, conn);
    }

    /// More connections than a node has to keep.
    fn flood(&mut self, router: &mut Router) {
        let now = self.instant();
        let mut conns = Vec::new();
        let mut closed = 0;
        for _ in 0..FLOOD {
            conns.push(router.handle_accepted(now, Framing::Length));
            while let Some(conn) = router.poll_close() {
                closed += usize::from(conns.contains(&conn));
                self.close_conn(router, conn);
            }
        }
        for conn in conns {
            router.handle_closed(now, conn);
        }
        self.checker.on_flood(FLOOD - closed, UNFINISHED_MAX);
    }
}

impl Checker {
    /// A node keeps so many connections of strangers.
    fn on_flood(&mut self, kept: usize, most: usize) {
        if kept > most {
            self.fail(Rule::BoundedMemory, || format!("{kept} connections of a stranger are kept"));
        }
    }
}

fn hello() -> Vec<u8> {
    let about = About {
        inbox: Epoch(1),
        acks: Acks::Processed,
        frame_max: 65_536,
        message_max: 65_536,
        window_messages: 100,
        window_bytes: 65_536,
        bindings_max: 100,
        seals: About::SEAL_CRC32C,
        roles: 0,
    };
    let (version_min, version_max, name) = (VERSION, VERSION, "stranger");
    encoded(&Body::Hello(Hello { version_min, version_max, name, instance: 1, nonce: NONCE, about }))
}

/// One message with a payload that no application has sent.
fn batch(topic: &str) -> Vec<u8> {
    let payload = [0xff; 16];
    let header = Header::new(Mode::All, Topic::Text(topic));
    let mut message = vec![0; record::message_len(&header, payload.len())];
    record::encode_message(&header, &payload, &mut message);
    let mut bytes = vec![0; BatchHead::LEN_MAX];
    let head = BatchHead { sent_before: false, first: 1, last: 1, added_age_ms: None };
    let len = head.encode(&mut bytes).unwrap_or(0);
    bytes.truncate(len);
    bytes.push(message.len() as u8);
    bytes.extend(message);
    bytes
}

fn encoded(body: &Body<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 2048];
    let len = wire::encode(body, &mut bytes).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

fn frame(session: SessionId, body: &[u8]) -> Vec<u8> {
    let mut bytes = ((body.len() + seal::LEN) as u32).to_le_bytes().to_vec();
    bytes.extend(seal::seal(session, &[body]));
    bytes.extend(body);
    bytes
}

/// The session that the answer makes: both nonces, as `docs/PROTOCOL.md` mixes them.
fn session_of(answer: &[u8]) -> Option<SessionId> {
    let split = length::split(answer, usize::MAX >> 1).ok()??;
    let body = seal::open(SessionId::HANDSHAKE, &answer[split.frame]).ok()?;
    let Body::Answer(answer) = wire::decode(body).ok()? else { return None };
    let nonces = [&NONCE.to_le_bytes()[..], &answer.nonce.to_le_bytes()[..]];
    let mixed = seal::checksum(SessionId::HANDSHAKE, &nonces);
    Some(SessionId(mixed.max(1)))
}
