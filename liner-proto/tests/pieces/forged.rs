//! Pieces that nobody should send. Whatever is claimed, memory is taken for what has arrived, and for one message at most.

use liner_proto::frame::{cobs, length};
use liner_proto::id::{ConnId, SessionId};
use liner_proto::router::{Event, Framing};
use liner_proto::seal;
use liner_proto::wire::control::{CloseReason, Fragment, Numbered};
use liner_proto::wire::{self, Body};

use crate::nodes::{Node, link_with};
use crate::subscriber;

/// The longest message that the victim takes, and a bit.
const BUDGET: usize = 100_000 + 64;

/// Somebody in a session with a node, who says what he likes.
struct Stranger {
    framing: Framing,
    victim: Node,
    conn: ConnId,
    session: SessionId,
    /// The next frame on a line.
    frame: u16,
}

impl Stranger {
    fn new(framing: Framing) -> Self {
        let mut victim = subscriber(|config| {
            config.limits.message_max = 100_000;
            config.limits.window_bytes = 150_000;
        });
        let mut guise = Node::start("guise", |_| {});
        let (here, conn) = link_with(&mut guise, &mut victim, framing);
        let (mut nonces, mut session, mut frame) = ([0; 2], SessionId::HANDSHAKE, 1);
        for _ in 0..4 {
            for ahead in [true, false] {
                let (from, to, on, at) = if ahead {
                    (&mut guise, &mut victim, here, conn)
                } else {
                    (&mut victim, &mut guise, conn, here)
                };
                from.serve();
                let bytes = from.give(on);
                for body in bodies(framing, &bytes) {
                    match wire::decode(&body) {
                        Ok(Body::Hello(hello)) => nonces[0] = hello.nonce,
                        Ok(Body::Answer(answer)) => nonces[1] = answer.nonce,
                        Ok(Body::Numbered(numbered)) if ahead => frame = numbered.frame + 1,
                        _ => {}
                    }
                }
                to.take(at, bytes);
            }
        }
        let [dialler, listener] = nonces.map(u64::to_le_bytes);
        session.0 = seal::checksum(session, &[&dialler, &listener]).max(1);
        assert_eq!(victim.router.peers_up().count(), 1);
        Self { framing, victim, conn, session, frame }
    }

    fn say(&mut self, body: &[u8]) {
        let crc = seal::seal(self.session, &[body]);
        let bytes = match self.framing {
            Framing::Length => [&length::head(body.len() + 4).expect("short")[..], &crc, body].concat(),
            Framing::Cobs => {
                let mut out = vec![0; cobs::encoded_len_max(body.len() + 4)];
                let len = cobs::encode(&[&crc, body], &mut out).expect("room");
                out.truncate(len);
                out
            }
        };
        self.victim.take(self.conn, bytes);
    }

    fn piece(&mut self, left: u32, len: usize) {
        let (head, head_len) = Fragment::head(left);
        let piece = [&head[..head_len], &vec![7; len]].concat();
        match self.framing {
            Framing::Length => self.say(&piece),
            Framing::Cobs => {
                let frame = [&Numbered::head(self.frame)[..], &piece].concat();
                self.frame += 1;
                self.say(&frame);
            }
        }
    }

    /// Pieces of a body of `total` bytes, until `through` of them were sent.
    fn pieces(&mut self, total: u32, through: u32) {
        for at in (0..through).step_by(1000) {
            self.piece(total - at, 1000);
            let (held, there) = (self.victim.router.assembling(), at as usize + 1000);
            assert!((there..=2 * there).contains(&held) && held <= BUDGET, "{held} for {there}");
        }
    }

    /// Whether the victim is still in the session; if it is not, nothing is left of it.
    fn is_up(&mut self) -> bool {
        let _ = self.victim.give(self.conn);
        self.victim.reap();
        let ended = self
            .victim
            .events()
            .into_iter()
            .any(|event| matches!(event, Event::PeerDown { reason: CloseReason::Violation, .. }));
        let up = self.victim.router.peers_up().count() == 1;
        assert_eq!(ended, !up);
        assert!(up || self.victim.router.assembling() == 0, "it is given back with the session");
        up
    }
}

fn bodies(framing: Framing, bytes: &[u8]) -> Vec<Vec<u8>> {
    let (mut rest, mut bodies) = (bytes.to_vec(), Vec::new());
    loop {
        let (frame, consumed) = match framing {
            Framing::Length => match length::split(&rest, 1 << 20) {
                Ok(Some(split)) => (split.frame, split.consumed),
                Ok(None) | Err(_) => return bodies,
            },
            Framing::Cobs => match cobs::split(&mut rest, 1 << 16) {
                cobs::CobsSplit::Frame { frame, consumed } => (frame, consumed),
                cobs::CobsSplit::Empty { consumed } => (0..0, consumed),
                cobs::CobsSplit::Incomplete
                | cobs::CobsSplit::Bad { .. }
                | cobs::CobsSplit::TooLong { .. } => return bodies,
            },
        };
        bodies.extend(rest.get(frame.start + seal::LEN..frame.end).map(<[u8]>::to_vec));
        rest.drain(..consumed);
    }
}

const BOTH: [Framing; 2] = [Framing::Length, Framing::Cobs];

#[test]
fn totals_that_are_too_long_cost_nothing() {
    for framing in BOTH {
        for total in [u32::MAX, 1 << 31, 100_000 + 64] {
            let mut stranger = Stranger::new(framing);
            stranger.piece(total, 1000);
            assert_eq!(stranger.victim.router.assembling(), 0);
            assert!(!stranger.is_up(), "{framing:?} {total}");
        }
    }
}

#[test]
fn totals_that_change_end_the_session() {
    for framing in BOTH {
        for forged in [u32::MAX, 100_000, 41_000, 39_999, 1000] {
            let mut stranger = Stranger::new(framing);
            stranger.pieces(90_000, 50_000);
            assert!(stranger.is_up());
            stranger.piece(forged, 1000);
            assert!(!stranger.is_up(), "{framing:?} {forged} in place of 40000");
        }
    }
}

#[test]
fn bodies_without_end_take_no_more_than_one() {
    for framing in BOTH {
        let mut stranger = Stranger::new(framing);
        for _ in 0..50 {
            stranger.pieces(90_000, 60_000);
            stranger.piece(0, 0);
            assert_eq!(stranger.victim.router.assembling(), 0, "given up");
            if framing == Framing::Cobs {
                // Behind it the rest of the body may follow on a line, up to something else.
                let begin = [&Numbered::head(stranger.frame)[..], &[0x0d, 1]].concat();
                stranger.frame += 1;
                stranger.say(&begin);
            }
        }
        assert!(stranger.is_up());
    }
}

#[test]
fn what_is_no_record_when_it_is_whole_ends_the_session() {
    for framing in BOTH {
        let mut stranger = Stranger::new(framing);
        stranger.pieces(3000, 2000);
        stranger.piece(1000, 1000);
        assert!(!stranger.is_up(), "{framing:?}");
    }
}

/// A batch of a message, `len` bytes long.
fn batch(first: u8, last: u8, len: usize) -> Vec<u8> {
    let mut body = vec![0x06, 0, first, last];
    for _ in first..=last {
        // One for the flags, two for the topic.
        let record = len + 3;
        body.extend([0x80 | (record & 0x7f) as u8, 0x80 | (record >> 7 & 0x7f) as u8, (record >> 14) as u8]);
        body.extend([0x44, 1, b't']);
        body.extend(vec![first; len]);
    }
    body
}

impl Stranger {
    fn in_pieces(&mut self, body: &[u8], through: usize) {
        for at in (0..through).step_by(1000) {
            let (head, len) = Fragment::head((body.len() - at) as u32);
            let end = body.len().min(at + 1000);
            self.say(&[&head[..len], &body[at..end]].concat());
        }
    }
}

#[test]
fn a_batch_between_two_pieces_takes_their_place() {
    let mut stranger = Stranger::new(Framing::Length);
    stranger.pieces(90_000, 50_000);
    stranger.say(&batch(1, 1, 10));
    assert_eq!((stranger.victim.got.len(), stranger.victim.router.assembling()), (1, 0));
    let long = batch(2, 2, 50_000);
    stranger.in_pieces(&long, long.len());
    assert_eq!(stranger.victim.got.pop(), Some((vec![2; 50_000], false)));
    assert!(stranger.is_up());
    // The rest of the first body is the beginning of one that ends too early.
    stranger.piece(40_000, 1000);
    stranger.piece(30_000, 1000);
    assert!(!stranger.is_up());
}

#[test]
fn pieces_hold_one_record() {
    let mut stranger = Stranger::new(Framing::Length);
    let two = batch(1, 2, 5000);
    stranger.in_pieces(&two, two.len());
    assert!(!stranger.is_up());
    assert_eq!(stranger.victim.got.len(), 0);
}

/// What is begun counts against the window: a store that takes its time lets no second budget begin.
#[test]
fn pieces_count_against_the_window() {
    let mut stranger = Stranger::new(Framing::Length);
    // Nothing is committed meanwhile.
    stranger.say(&batch(1, 1, 60_000));
    let long = batch(2, 2, 80_000);
    stranger.in_pieces(&long, 40_000);
    assert!(stranger.is_up_unserved());
    let mut stranger = Stranger::new(Framing::Length);
    stranger.say(&batch(1, 1, 60_000));
    let long = batch(2, 2, 95_000);
    stranger.in_pieces(&long, 1000);
    assert_eq!(stranger.victim.router.assembling(), 0);
    assert!(!stranger.is_up_unserved());
}

impl Stranger {
    fn is_up_unserved(&self) -> bool {
        // The session ends when the connection is closed; what is said before shows it.
        self.victim.router.assembling() > 0
    }
}
