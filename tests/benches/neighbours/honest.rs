//! Honest traffic: messages at a steady pace, each of which is answered.

use std::time::{Duration, Instant};

use liner_mio::{HeapStore, Message, Mode, Node, SendError};

/// Time between two messages.
const PACE: Duration = Duration::from_millis(1);

/// What honest messages hold besides their numbers.
pub(crate) const FILLER: [u8; 56] = [0x5a; 56];

/// Round trips of a run, and joins of newcomers.
#[derive(Default)]
pub(crate) struct Figures {
    trips: Vec<Duration>,
    pub(crate) joins: Vec<Duration>,
}

impl Figures {
    pub(crate) fn trip(&self, percent: usize) -> f64 {
        at(&self.trips, percent)
    }

    pub(crate) fn join(&self, percent: usize) -> f64 {
        at(&self.joins, percent)
    }

    pub(crate) fn sort(&mut self) {
        self.trips.sort_unstable();
        self.joins.sort_unstable();
    }
}

fn at(times: &[Duration], percent: usize) -> f64 {
    times[(times.len() * percent / 100).min(times.len() - 1)].as_nanos() as f64 / 1e3
}

pub(crate) fn payload(number: u64) -> Vec<u8> {
    [&number.to_le_bytes()[..], &FILLER].concat()
}

pub(crate) fn number(payload: &[u8]) -> Option<u64> {
    let (number, filler) = payload.split_first_chunk()?;
    (*filler == FILLER).then(|| u64::from_le_bytes(*number))
}

pub(crate) fn store() -> Box<HeapStore> {
    Box::new(HeapStore::new(1 << 28))
}

/// A node that sends to `topics`, and is answered on "back".
pub(crate) struct Sender {
    node: Node,
    topics: Vec<String>,
    sent: Vec<Option<Instant>>,
    answered: u64,
}

impl Sender {
    pub(crate) fn new(node: Node, topics: Vec<String>) -> Self {
        Self { node, topics, sent: Vec::new(), answered: 0 }
    }

    pub(crate) fn node(&mut self) -> &mut Node {
        &mut self.node
    }

    pub(crate) fn accepted(&self) -> u64 {
        self.sent.len() as u64
    }

    fn turn(&mut self, patience: Duration, trips: &mut Vec<Duration>) {
        let (sent, answered) = (&mut self.sent, &mut self.answered);
        let mut handler = |message: &Message<'_>| {
            let Some(number) = number(message.payload) else { return };
            if let Some(at) = sent.get_mut(number as usize).and_then(Option::take) {
                trips.push(at.elapsed());
                *answered += 1;
            }
        };
        self.node.drive(Some(patience), &mut handler).expect("a turn");
    }

    /// Sends for so long, in turns to each topic, and waits for the answers of those topics that `answer`.
    pub(crate) fn run(&mut self, time: Duration, answer: impl Fn(&str) -> bool) -> Figures {
        let mut figures = Figures::default();
        let (began, mut due, mut turn) = (Instant::now(), Instant::now(), 0);
        let mut awaited = self.answered;
        while began.elapsed() < time {
            self.turn(due.saturating_duration_since(Instant::now()), &mut figures.trips);
            if Instant::now() < due {
                continue;
            }
            due = Instant::now() + PACE;
            let topic = &self.topics[turn % self.topics.len()];
            turn += 1;
            let answers = answer(topic);
            match self.node.send(topic, &payload(self.sent.len() as u64), Mode::One) {
                Ok(_) => {
                    self.sent.push(answers.then(Instant::now));
                    awaited += u64::from(answers);
                }
                Err(SendError::Busy) => {}
                Err(error) => panic!("{error}"),
            }
        }
        let end = Instant::now() + Duration::from_secs(20);
        while self.answered < awaited {
            assert!(Instant::now() < end, "{} answers of {awaited}", self.answered);
            self.turn(Duration::from_millis(10), &mut figures.trips);
        }
        figures.sort();
        figures
    }
}
