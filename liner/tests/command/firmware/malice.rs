//! The gateway is malicious: it sends storms of bytes, frames that are sealed and wrong, and frames that are right at the worst moment.
//! The microcontroller does not start anew, its main loop keeps its time, its stack its size, and a good gateway is served afterwards.

use liner::proto::id::SessionId;
use liner::proto::wire::control::{Close, CloseReason, Probe, TopicFull};
use liner::proto::wire::record::{GapReason, encode_gap};
use liner::proto::wire::{self, Body, tag};
use readings::{Command, MESSAGE_MAX, Report, TOPICS, decode, encode};

use super::breakdowns::STACK_MAX;
use super::machine::Machine;
use super::overflow::LONGEST_TURN;
use super::villain::{LONGEST, Marks, Villain};
use crate::line::{asked, seed};

/// Attacks after which a good gateway comes.
const BETWEEN: u64 = 50;

/// How often a good gateway sends what may have been lost.
const TRIES: u32 = 100;

/// Kinds of attacks.
const KINDS: u64 = 13;

#[test]
fn a_polled_microcontroller_survives_a_malicious_gateway() {
    be_attacked("polled");
}

#[test]
fn a_microcontroller_with_interrupts_and_flash_survives_a_malicious_gateway() {
    be_attacked("interrupt-flash");
}

fn be_attacked(program: &str) {
    let (attacks, folder) = (asked("LINER_E2E_FIRMWARE_ATTACKS", KINDS + 10), tempfile::tempdir().unwrap());
    let mut villain = Villain::new(seed());
    let mut machine = Machine::start(program, folder.path(), &format!("tcp:{},nodelay", villain.address()));
    for attack in 0..attacks {
        let drawn = villain.below(KINDS);
        // Each of them once, in a session.
        let kind = if attack < KINDS { attack } else { drawn };
        if villain.session.is_none() && (attack < KINDS || villain.below(4) > 0) {
            villain.listen_until("another hello", |villain| villain.session.is_some());
            villain.listen(20);
        }
        villain.attack(kind);
        let millis = villain.pick(&[1, 3, 3, 3, 10, 100]);
        villain.listen(millis);
        if machine.resets() > 0 {
            panic!("attack {attack}, of kind {kind}: {:?}", villain.first_report());
        }
        if attack % BETWEEN == BETWEEN - 1 || attack + 1 == attacks {
            let health = villain.be_good();
            assert_eq!(machine.resets(), 0, "a good gateway, after attack {attack}");
            println!("{program}: {} attacks, {} sessions, {health:?}", attack + 1, villain.sessions);
            let Report::Health { stack, longest_turn, .. } = health else { unreachable!() };
            assert!(stack <= STACK_MAX && longest_turn <= LONGEST_TURN, "{health:?}");
        }
    }
}

impl Villain {
    fn attack(&mut self, kind: u64) {
        let Marks { received, highest, next, .. } = self.marks;
        match kind {
            // What has come is committed, and no frame has arrived: all of them come again.
            0 => {
                self.listen_until("a few messages", |villain| {
                    villain.marks.next > 4 || villain.session.is_none()
                });
                self.acknowledge(0, 0, self.marks.next.wrapping_sub(1), 32);
                self.listen(350);
            }
            1 => self.storm(),
            2 => self.nonsense(),
            3 => self.acknowledge(received, 0, next.wrapping_sub(1), 32),
            4 => {
                let (frame, acked) = (
                    self.pick(&[received.into(), highest.into(), 0, 65_535]),
                    self.pick(&[next, next / 2, 0, 1 << 31, u64::from(u32::MAX)]),
                );
                let (bitmap, window) = (self.rng.next32() & self.rng.next32(), self.rng.next() as u8);
                self.acknowledge(frame as u16, bitmap, acked, window);
            }
            5 => (0..self.below(20)).for_each(|_| self.topic_full()),
            6 => self
                .body(&Body::Close(Close { reason: CloseReason::Other(self.marks.frame as u8), text: "x" })),
            7 => self.commands(),
            8 => self.gaps(),
            9 => (0..self.below(200)).for_each(|_| {
                let number = self.pick(&[1, 2, 1 << 32, u64::MAX - 1]);
                self.body(&Body::Probe(Probe { number }));
            }),
            10 => (0..self.below(100)).for_each(|_| self.frame(SessionId::HANDSHAKE, &[tag::GREET])),
            11 => {
                let left = self.pick(&[1, 10, 1 << 20]) as u8;
                self.numbered(&[tag::FRAGMENT, left, 1, 2, 3]);
            }
            // It is silent, and takes nothing.
            _ => self.listen(150),
        }
    }

    /// Bytes as fast as they go.
    fn storm(&mut self) {
        let (len, kind) = (1 + self.below(8_000) as usize, self.below(4));
        let bytes: Vec<u8> = match kind {
            0 => vec![0; len],
            1 => vec![0xff; len],
            2 => [1, 0].repeat(len / 2),
            _ => std::iter::repeat_with(|| self.rng.next() as u8).take(len).collect(),
        };
        self.put(&bytes);
    }

    /// Frames of any bytes, of which some are sealed. None of them is a command by chance: those do not end in this byte.
    fn nonsense(&mut self) {
        for _ in 0..self.below(100) {
            let len = self.pick(&[2, 10, 60, 180, 188, 500]) as usize;
            let mut body: Vec<u8> = std::iter::repeat_with(|| self.rng.next() as u8).take(len).collect();
            body[0] = [
                tag::ANSWER,
                tag::ACK,
                tag::NUMBERED,
                tag::DATA_FIRST,
                0x44,
                0x4c,
                0x46,
                tag::CLOSE,
                tag::ECHO,
                body[0],
            ][self.rng.below(10) as usize];
            if self.below(2) == 0 && body.len() > 5 {
                let [low, high] = self.marks.frame.to_le_bytes();
                (body[1], body[2]) = (low, high);
            }
            body.push(0xff);
            let session = self.session.filter(|_| self.rng.below(4) > 0).unwrap_or(SessionId::HANDSHAKE);
            self.frame(session, &body);
        }
    }

    fn topic_full(&mut self) {
        let topic = TOPICS[self.below(4) as usize];
        let mut bytes = [0; LONGEST];
        let full = TopicFull { topic, after: self.below(2) };
        let len = wire::encode(&Body::TopicFull(full), &mut bytes).unwrap();
        self.numbered(&bytes[..len]);
    }

    /// Far more of them than the window allows.
    fn commands(&mut self) {
        let number = self.pick(&[1, 1, 1 << 32, wire::NUMBER_MAX - 1000]).max(1);
        self.begin(number);
        for _ in 0..self.below(300) {
            match self.below(8) {
                0 => {
                    let len = self.below(161) as usize;
                    self.message("press-1", &[0xff; 160][..len]);
                }
                1 => self.message(&"x".repeat(170), &[]),
                2 => {
                    let millis = self.pick(&[1, 20, 1000, u64::from(u32::MAX) - 1]) as u32;
                    self.message("press-1", encode(&Command::SetPeriod(millis), &mut [0; MESSAGE_MAX]));
                }
                3 => {
                    let payload = [self.rng.next() as u8];
                    if matches!(decode(&payload), None | Some(Command::ReadNow)) {
                        self.message("press-1", &payload);
                    }
                }
                _ => self.message("press-1", &[1]),
            }
            // The numbers of some frames are those of others.
            if self.below(20) == 0 {
                self.marks.frame = self.marks.frame.wrapping_add(self.rng.below(3) as u16).wrapping_sub(1);
            }
        }
    }

    fn gaps(&mut self) {
        self.begin(1);
        for _ in 0..self.below(20) {
            let (mut record, count) = ([0; 16], self.pick(&[1, 5, 1 << 32, 1 << 62]).max(1));
            let len = encode_gap(GapReason::Expired, count, &mut record).unwrap();
            self.record(&record[..len]);
        }
    }

    /// Behaves as a gateway should from now on, in a new session.
    fn turn_good(&mut self) {
        self.is_good = true;
        self.forget_answer();
        self.reports.clear();
        self.put(&[0]);
        self.body(&Body::Close(Close { reason: CloseReason::Shutdown, text: "" }));
        let sessions = self.sessions;
        // It says hello when it has heard the close, or nothing for long; one without epochs says it twice.
        self.listen_until("a hello", |villain| villain.sessions > sessions);
        self.listen_until("its messages", |villain| villain.marks.received > 4);
    }

    /// What a device says that has started anew.
    fn first_report(&mut self) -> Report {
        self.turn_good();
        self.listen_until("a report", |villain| !villain.reports.is_empty());
        self.reports[0]
    }

    /// Behaves as a gateway should for a while. Says how the device is.
    fn be_good(&mut self) -> Report {
        self.turn_good();
        self.reports.clear();
        let is_health = |report: &&Report| matches!(report, Report::Health { .. });
        for _ in 0..TRIES {
            // The same frames: what has come already is dropped.
            self.marks.frame = 1;
            self.begin(1);
            self.message("press-1", &[0, 20]);
            self.message("press-1", &[1]);
            self.listen(300);
            if self.reports.iter().any(|report| is_health(&report)) {
                break;
            }
        }
        self.is_good = false;
        *self.reports.iter().find(is_health).expect("the device says how it is")
    }
}
