//! A gateway that completes the handshake, and may send whatever it likes from then on. The microcontroller's UART leads to it
//! directly.
#![expect(clippy::disallowed_methods, reason = "it waits for a device, by the clock")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a device sends a few kinds of frames only")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use liner::proto::frame::cobs::{self, CobsSplit};
use liner::proto::id::{Epoch, SessionId};
use liner::proto::rng::Rng;
use liner::proto::seal;
use liner::proto::wire::control::{Ack, Begin, Content, Echo, Numbered};
use liner::proto::wire::data::DataHead;
use liner::proto::wire::handshake::{About, Acks, Answer, Assigned, Hello, Known, StreamFields};
use liner::proto::wire::record::{Header, Mode, Record, Topic, encode_message};
use liner::proto::wire::{self, Body};
use readings::{Report, TOPICS, decode};

/// Longer than any frame that is sent here, or by the device.
pub(super) const LONGEST: usize = 600;

/// How long it waits for the device.
const PATIENCE: Duration = Duration::from_secs(60);

/// What one side says of the numbers of frames and records.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Marks {
    /// The last frame of the device below which none is missing, and the last that has come.
    pub(super) received: u16,
    pub(super) highest: u16,
    /// The number of the device's next record.
    pub(super) next: u64,
    /// The frame that is sent to it next.
    pub(super) frame: u16,
}

/// The gateway, at the far end of a UART.
pub(super) struct Villain {
    pub(super) rng: Rng,
    listener: TcpListener,
    stream: Option<TcpStream>,
    heard: Vec<u8>,
    /// It answers hellos, and acknowledges what comes, as a gateway should.
    pub(super) is_good: bool,
    /// It commits what it has; otherwise it says only that it has it.
    pub(super) commits: bool,
    /// The session, if it is up as far as is known here.
    pub(super) session: Option<SessionId>,
    pub(super) marks: Marks,
    /// The hello that was answered last, and the answer.
    answered: (u64, Vec<u8>),
    /// The epoch of the device's stream, as it has said it last.
    epoch: Epoch,
    pub(super) reports: Vec<Report>,
    pub(super) sessions: u64,
}

impl Villain {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new([seed, 7]),
            listener: TcpListener::bind(("127.0.0.1", 0)).unwrap(),
            stream: None,
            heard: Vec::new(),
            is_good: false,
            commits: true,
            session: None,
            marks: Marks::default(),
            answered: (0, Vec::new()),
            epoch: Epoch(1),
            reports: Vec::new(),
            sessions: 0,
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap()
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.stream.get_or_insert_with(|| {
            let (stream, _) = self.listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            stream
        })
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.rng.below(bound)
    }

    // ---------------------------------------------------------------------------- sending

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).unwrap();
    }

    /// Sends a frame, whole and sealed.
    pub(super) fn frame(&mut self, session: SessionId, body: &[u8]) {
        let (seal, mut line) =
            (seal::seal(session, &[body]), vec![0; cobs::encoded_len_max(LONGEST + seal::LEN)]);
        let len = cobs::encode(&[&seal, body], &mut line).unwrap();
        self.put(&line[..len]);
    }

    pub(super) fn body(&mut self, body: &Body<'_>) {
        let mut bytes = [0; LONGEST];
        let len = wire::encode(body, &mut bytes).unwrap();
        self.frame(self.session.unwrap_or(SessionId::HANDSHAKE), &bytes[..len]);
    }

    /// Sends something in the frame that is next.
    pub(super) fn numbered(&mut self, body: &[u8]) {
        let frame = self.marks.frame;
        self.marks.frame = frame.wrapping_add(1);
        self.body(&Body::Numbered(Numbered { frame, body }));
    }

    pub(super) fn begin(&mut self, number: u64) {
        let mut bytes = [0; LONGEST];
        let len = wire::encode(&Body::Begin(Begin { number }), &mut bytes).unwrap();
        self.numbered(&bytes[..len]);
    }

    /// Sends a record in the frame that is next.
    pub(super) fn record(&mut self, record: &[u8]) {
        let frame = self.marks.frame;
        self.marks.frame = frame.wrapping_add(1);
        let head = DataHead { sent_before: frame.is_multiple_of(5), frame, added_age_ms: 0 };
        let body = head.encode(record).unwrap().slices().concat();
        self.frame(self.session.unwrap_or(SessionId::HANDSHAKE), &body);
    }

    pub(super) fn message(&mut self, topic: &str, payload: &[u8]) {
        let mut record = [0; LONGEST];
        let len = encode_message(&Header::new(Mode::One, Topic::Text(topic)), payload, &mut record).unwrap();
        self.record(&record[..len]);
    }

    pub(super) fn acknowledge(&mut self, received: u16, bitmap: u32, acked: u64, window: u8) {
        self.body(&Body::Ack(Ack { received, bitmap, acked_low: acked as u32, window, next_low: 1 }));
    }

    // -------------------------------------------------------------------------- listening

    /// Hears what has come by the end of so many milliseconds.
    pub(super) fn listen(&mut self, millis: u64) {
        let until = Instant::now() + Duration::from_millis(millis);
        while Instant::now() < until {
            self.hear();
        }
    }

    pub(super) fn listen_until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < until, "the device does not come to this: {what}");
            self.hear();
        }
    }

    fn hear(&mut self) {
        let mut bytes = [0; 4096];
        match self.stream().read(&mut bytes) {
            Ok(0) => panic!("QEMU has ended"),
            Ok(len) => self.heard.extend_from_slice(&bytes[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return,
            Err(error) => panic!("{error}"),
        }
        let mut heard = std::mem::take(&mut self.heard);
        loop {
            let consumed = match cobs::split(&mut heard, LONGEST) {
                CobsSplit::Incomplete => break,
                CobsSplit::Frame { frame, consumed } => {
                    self.take(&heard[frame]);
                    consumed
                }
                CobsSplit::Empty { consumed } => consumed,
                // Nothing damages what the device sends.
                bad => panic!("{bad:?}: {heard:?}"),
            };
            heard.drain(..consumed);
        }
        self.heard = heard;
    }

    fn take(&mut self, frame: &[u8]) {
        let in_session = self.session.and_then(|session| seal::open(session, frame).ok());
        let body = in_session.or_else(|| seal::open(SessionId::HANDSHAKE, frame).ok());
        // One of an earlier session, or of none that was accepted.
        let Some(body) = body.map(|body| wire::decode(body).unwrap()) else { return };
        match body {
            Body::Hello(hello) => self.answer(&hello),
            Body::Confirm(confirm) => self.epoch = confirm.stream.epoch,
            Body::Close(_) => self.session = None,
            Body::Probe(probe) if self.is_good => self.body(&Body::Echo(Echo { number: probe.number })),
            Body::Numbered(numbered) if self.is_next(numbered.frame) => {
                if let Content::Begin(begin) = numbered.content().unwrap() {
                    self.marks.next = begin.number;
                }
                self.is_good.then(|| self.acknowledge_all());
            }
            Body::Data(data) if self.is_next(data.frame) => {
                match data.record.decode().unwrap() {
                    Record::Gap { count, .. } => self.marks.next += count,
                    Record::Message { header, payload } => {
                        self.marks.next += 1;
                        self.take_message(header.topic, payload);
                    }
                }
                self.is_good.then(|| self.acknowledge_all());
            }
            _ => {}
        }
    }

    fn take_message(&mut self, topic: Topic<'_>, payload: &[u8]) {
        let of_reports = TOPICS[usize::from(Report::TOPIC)];
        if topic == Topic::Number(u32::from(Report::TOPIC) + 1) || topic == Topic::Text(of_reports) {
            self.reports.push(decode(payload).unwrap_or_else(|| panic!("{payload:?} is no report")));
        }
    }

    fn is_next(&mut self, frame: u16) -> bool {
        let above = frame.wrapping_sub(self.marks.received) as i16;
        if above > frame.wrapping_sub(self.marks.highest) as i16 {
            self.marks.highest = self.marks.highest.max(frame);
        }
        let is_next = above == 1;
        if is_next {
            self.marks.received = frame;
        }
        is_next
    }

    fn acknowledge_all(&mut self) {
        let Marks { received, next, .. } = self.marks;
        let acked = if self.commits { next.saturating_sub(1) } else { 0 };
        self.acknowledge(received, 0, acked, 32);
    }

    // -------------------------------------------------------------------------- handshake

    fn answer(&mut self, hello: &Hello<'_>) {
        // The device may have had the answer to this one, and have begun the session.
        if hello.nonce == self.answered.0 {
            let answer = self.answered.1.clone();
            return self.frame(SessionId::HANDSHAKE, &answer);
        }
        let (echo, nonce) = (hello.nonce, self.rng.next_nonzero());
        let is_without = hello.about.roles & About::ROLE_WITHOUT_EPOCHS != 0;
        let assigned = is_without.then(|| Assigned {
            outbox: Epoch(self.rng.next_nonzero()),
            inbox: Epoch(self.rng.next_nonzero()),
        });
        let name = "g".repeat(if self.is_good { 7 } else { self.below(80) as usize + 1 });
        let (about, stream) = if self.is_good {
            (good_about(), good_stream(Epoch(nonce)))
        } else {
            (self.about(), self.stream_fields())
        };
        let stream = StreamFields { assigned, ..stream };
        let answer = Answer { version: 1, echo, name: &name, instance: nonce, nonce, about, stream };
        let mut bytes = vec![0; LONGEST];
        let len = wire::encode(&Body::Answer(answer), &mut bytes).unwrap();
        bytes.truncate(len);
        self.frame(SessionId::HANDSHAKE, &bytes);
        self.answered = (echo, bytes);
        let begun = seal::checksum(SessionId::HANDSHAKE, &[&echo.to_le_bytes()]);
        let session = seal::checksum(SessionId(begun), &[&nonce.to_le_bytes()]);
        self.session = Some(SessionId(session.max(1)));
        self.marks = Marks { frame: 1, ..Marks::default() };
        self.sessions += 1;
    }

    /// The next hello gets another answer, also if it is the one before.
    pub(super) fn forget_answer(&mut self) {
        self.answered.0 = 0;
    }

    /// One of these, or a number around them.
    pub(super) fn pick(&mut self, numbers: &[u64]) -> u64 {
        let number = numbers[self.below(numbers.len() as u64) as usize];
        number.wrapping_add(self.below(3)).wrapping_sub(1)
    }

    fn about(&mut self) -> About {
        let most = u64::from(u32::MAX) - 1;
        let limit = |villain: &mut Self| villain.pick(&[1, 4, 16, 200, 5000, most]) as u32;
        About {
            inbox: Epoch(self.rng.next_nonzero()),
            acks: if self.below(10) == 0 { Acks::Ram } else { Acks::Power },
            frame_max: self.pick(&[193, 193, 256, most]) as u32,
            message_max: limit(self),
            window_messages: limit(self),
            window_bytes: limit(self),
            bindings_max: limit(self),
            seals: About::SEAL_CRC32C,
            roles: About::ROLE_CUSTODY,
        }
    }

    fn stream_fields(&mut self) -> StreamFields {
        let oldest = self.pick(&[2, 2, 2, 100, u64::from(u32::MAX), wire::NUMBER_MAX / 2]).max(1);
        let next = oldest + self.pick(&[1, 5, 1 << 32]);
        // In most of them the device may go on.
        let known = match self.below(4) {
            0 => Some(Known { epoch: self.epoch, cursor: self.pick(&[1, 3, 1 << 32, wire::NUMBER_MAX - 1]) }),
            1 => Some(Known { epoch: Epoch(self.rng.next_nonzero()), cursor: 7 }),
            _ => None,
        };
        let epoch = Epoch(1 + self.below(3));
        StreamFields { epoch, predecessor: None, oldest, next, known, assigned: None }
    }
}

fn good_about() -> About {
    About {
        inbox: Epoch(9),
        acks: Acks::Power,
        frame_max: 2048,
        message_max: 2048,
        window_messages: 64,
        window_bytes: 1 << 16,
        bindings_max: 16,
        seals: About::SEAL_CRC32C,
        roles: About::ROLE_CUSTODY,
    }
}

fn good_stream(epoch: Epoch) -> StreamFields {
    StreamFields { epoch, predecessor: None, oldest: 1, next: 1, known: None, assigned: None }
}
