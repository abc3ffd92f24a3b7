//! A serial line: it is always there, nobody dials it, and it tells neither end of anything.

use std::collections::VecDeque;

use liner_proto::config::LineConfig;

use super::dice::Dice;
use super::swarm::SECOND;

/// Bits on the line for a byte: one to start, eight, one to stop.
const BITS: u64 = 10;

/// The longest stretch that is repeated.
const DOUBLED_MAX: usize = 64;

/// Frames of a session that are kept for the time after it.
const KEPT: usize = 64;

/// The longest that a line passes nothing.
pub const STALL_MAX: u64 = 3 * SECOND;

/// What can go wrong with bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// One bit arrives as the other.
    Bit,
    /// A stretch arrives as other bytes.
    Burst,
    /// A few bytes are lost.
    Lost,
    /// There are bytes that nobody has sent, zeros among them.
    Inserted,
    /// A stretch comes twice.
    Doubled,
    /// Nothing passes for a while, then it goes on.
    Stall,
    /// A stretch is read at another rate: other bytes, and another number of them.
    Glitch,
    /// A long stretch is lost.
    Cut,
    /// Whole frames of an earlier session come in a later one.
    Late,
}

impl Harm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Bit,
        Self::Burst,
        Self::Lost,
        Self::Inserted,
        Self::Doubled,
        Self::Stall,
        Self::Glitch,
        Self::Cut,
        Self::Late,
    ];

    /// Those that are drawn by their weights; the others have a rate of their own.
    const WEIGHED: [Self; 7] =
        [Self::Burst, Self::Lost, Self::Inserted, Self::Doubled, Self::Stall, Self::Glitch, Self::Cut];
}

/// How often each thing went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; Harm::ALL.len()]);

impl Tally {
    /// Nothing went wrong yet.
    pub const NONE: Self = Self([0; Harm::ALL.len()]);

    const fn count(&mut self, harm: Harm) {
        self.0[harm as usize] += 1;
    }

    /// How often.
    pub const fn of(&self, harm: Harm) -> u64 {
        self.0[harm as usize]
    }

    /// All kinds together.
    pub fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Adds those of another world.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// A wire as the seed made it.
#[derive(Clone, Copy, Debug)]
pub struct WirePlan {
    /// Bits a second.
    pub baud: u64,
    /// What every byte takes besides, in microseconds.
    pub latency: u64,
    /// Bytes that may be under way in one direction.
    pub capacity: usize,
    /// The most bytes of a chunk.
    pub chunk: usize,
    /// Whether both ends know the rate.
    pub told: bool,
    /// Whether both ends take turns.
    pub half_duplex: bool,
    /// Whether a cut takes the port away, so that the gateway is told.
    pub usb: bool,
    /// One byte in so many has a bit changed; 0: none.
    pub bit_every: u64,
    /// Once in so many bytes something else goes wrong; 0: never.
    pub harm_every: u64,
    /// How likely each of that is.
    pub weights: [u64; Harm::WEIGHED.len()],
    /// Of 1,000 frames, so many are followed by frames of an earlier session.
    pub late: u64,
}

impl WirePlan {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let chunk = dice.pick(&[8, 64, 256]);
        // Kinds are left out: worlds with all of them hide what a single one brings about.
        let mut weights = [0; Harm::WEIGHED.len()];
        for weight in &mut weights {
            *weight = if dice.chance(500) { dice.range(1, 5) } else { 0 };
        }
        let any = weights.iter().any(|weight| *weight > 0);
        // Something goes wrong on every wire.
        let bits = !any || dice.chance(700);
        Self {
            baud: dice.pick(&[9_600, 19_200, 57_600, 115_200, 230_400, 921_600, 3_000_000]),
            latency: dice.magnitude(20, 4000),
            capacity: chunk * dice.range(1, 8) as usize,
            chunk,
            told: dice.chance(500),
            half_duplex: dice.chance(200),
            usb: dice.chance(300),
            bit_every: if bits { dice.magnitude(1_000, 1_000_000) } else { 0 },
            harm_every: if any { dice.magnitude(400, 20_000) } else { 0 },
            weights,
            late: dice.pick(&[0, 100, 400]),
        }
    }

    /// What both ends know of it.
    pub fn config(&self) -> LineConfig {
        LineConfig { baud: self.told.then_some(self.baud as u32), half_duplex: self.half_duplex }
    }

    /// Messages of a device that pass within this time, with room to spare.
    pub(super) const fn messages_in(&self, time: u64) -> u64 {
        let bytes = self.baud / BITS * (time / SECOND);
        let messages = bytes / 250;
        if messages < 8 { 8 } else { messages }
    }

    /// What this many bytes take on the line, in microseconds.
    pub const fn takes(&self, bytes: u64) -> u64 {
        bytes * BITS * SECOND / self.baud
    }
}

/// A wire between a device, end 0, and its gateway, end 1.
#[derive(Debug)]
pub struct Wire {
    /// What it is like.
    pub plan: WirePlan,
    /// Until then everything on it is lost, and nobody knows.
    pub cut_until: u64,
    /// Until then the gateway's port is gone.
    pub away_until: u64,
    lanes: [Lane; 2],
}

/// One direction.
#[derive(Debug)]
struct Lane {
    /// When the line is done with what was put on it, in nanoseconds.
    free: u64,
    /// When the newest chunk arrives.
    last: u64,
    until_bit: u64,
    until_harm: u64,
    /// What goes on for so many bytes more.
    ongoing: Option<(Harm, u64)>,
    /// The last bytes that passed.
    recent: VecDeque<u8>,
    records: Recorder,
}

/// Frames of the session that is, and of those that were.
#[derive(Debug, Default)]
struct Recorder {
    part: Vec<u8>,
    live: Vec<Vec<u8>>,
    dead: VecDeque<Vec<u8>>,
    /// Places in the session, that is handshakes and late frames apart: the number of the newest frame that has one.
    newest: u16,
}

impl Wire {
    pub(super) fn new(plan: WirePlan, dice: &mut Dice) -> Self {
        let lane = |dice: &mut Dice| Lane {
            free: 0,
            last: 0,
            until_bit: distance(dice, plan.bit_every),
            until_harm: distance(dice, plan.harm_every),
            ongoing: None,
            recent: VecDeque::new(),
            records: Recorder::default(),
        };
        Self { plan, cut_until: 0, away_until: 0, lanes: [lane(dice), lane(dice)] }
    }

    /// What arrives of a chunk, and when.
    pub(super) fn carry(
        &mut self,
        end: usize,
        now: u64,
        chunk: &[u8],
        dice: &mut Dice,
        mut tally: Option<&mut Tally>,
    ) -> (Vec<u8>, u64) {
        let (plan, lane) = (&self.plan, &mut self.lanes[end]);
        let mut arriving = Vec::with_capacity(chunk.len() + 16);
        for &byte in chunk {
            lane.records.note(byte);
            match &mut tally {
                Some(tally) => lane.pass(byte, plan, dice, tally, &mut arriving),
                None => arriving.push(byte),
            }
        }
        // Nothing waits on the line: whoever has written last finds it free.
        let begin = lane.free.max(now * 1000);
        lane.free = begin + chunk.len().max(arriving.len()) as u64 * BITS * SECOND * 1000 / plan.baud;
        lane.last = lane.last.max(lane.free / 1000 + plan.latency);
        (arriving, lane.last)
    }

    /// Nothing is wrong any more.
    pub(super) fn heal(&mut self) {
        self.cut_until = 0;
        self.away_until = 0;
        for lane in &mut self.lanes {
            lane.ongoing = None;
        }
    }
}

/// Bytes until something happens that happens once in `every`.
fn distance(dice: &mut Dice, every: u64) -> u64 {
    if every == 0 { u64::MAX } else { 1 + dice.below(2 * every) }
}

impl Lane {
    fn pass(&mut self, byte: u8, plan: &WirePlan, dice: &mut Dice, tally: &mut Tally, out: &mut Vec<u8>) {
        self.until_harm -= 1;
        if self.until_harm == 0 {
            self.until_harm = distance(dice, plan.harm_every);
            self.begin(pick(&plan.weights, dice), dice, tally, out);
        }
        self.until_bit -= 1;
        let mut byte = byte;
        if self.until_bit == 0 {
            self.until_bit = distance(dice, plan.bit_every);
            byte ^= 1 << dice.below(8);
            tally.count(Harm::Bit);
        }
        let Some((harm, left)) = &mut self.ongoing else {
            self.put(byte, out);
            if byte == 0 && dice.chance(plan.late) && self.records.late(dice, out) {
                tally.count(Harm::Late);
            }
            return;
        };
        let harm = *harm;
        *left -= 1;
        if *left == 0 {
            self.ongoing = None;
        }
        match harm {
            Harm::Burst => out.push(dice.bits() as u8),
            Harm::Glitch => out.extend((0..dice.below(3)).map(|_| noise(dice))),
            Harm::Lost | Harm::Cut => {}
            Harm::Bit | Harm::Inserted | Harm::Doubled | Harm::Stall | Harm::Late => out.push(byte),
        }
    }

    fn put(&mut self, byte: u8, out: &mut Vec<u8>) {
        out.push(byte);
        if self.recent.len() == DOUBLED_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(byte);
    }

    fn begin(&mut self, harm: Harm, dice: &mut Dice, tally: &mut Tally, out: &mut Vec<u8>) {
        tally.count(harm);
        match harm {
            Harm::Burst => self.ongoing = Some((harm, dice.range(1, 64))),
            Harm::Glitch => self.ongoing = Some((harm, dice.range(8, 200))),
            Harm::Lost => self.ongoing = Some((harm, dice.range(1, 4))),
            Harm::Cut => self.ongoing = Some((harm, dice.magnitude(20, 1000))),
            Harm::Inserted => out.extend((0..dice.range(1, 8)).map(|_| noise(dice))),
            Harm::Doubled => {
                let len = dice.range(1, DOUBLED_MAX as u64) as usize;
                out.extend(self.recent.iter().skip(self.recent.len().saturating_sub(len)));
            }
            Harm::Stall => {
                let time = dice.magnitude(SECOND / 1000, STALL_MAX);
                self.free = self.free.max(self.last * 1000) + time * 1000;
            }
            Harm::Bit | Harm::Late => {}
        }
    }
}

/// A random byte; now and then the one that ends frames.
fn noise(dice: &mut Dice) -> u8 {
    if dice.chance(100) { 0 } else { dice.bits() as u8 }
}

/// One of the kinds that have weights, of which there is one.
fn pick(weights: &[u64; Harm::WEIGHED.len()], dice: &mut Dice) -> Harm {
    let mut throw = dice.below(weights.iter().sum());
    for (harm, weight) in Harm::WEIGHED.into_iter().zip(weights) {
        if throw < *weight {
            return harm;
        }
        throw -= weight;
    }
    Harm::Lost
}

impl Recorder {
    /// A byte as it was written.
    fn note(&mut self, byte: u8) {
        if byte != 0 {
            return self.part.push(byte);
        }
        let frame = core::mem::take(&mut self.part);
        let Some((tag, number)) = head(&frame) else { return };
        match tag {
            // The answer and the echo begin a session: what was before is of a dead one.
            2 | 3 => {
                self.dead.extend(self.live.drain(..));
                let excess = self.dead.len().saturating_sub(KEPT);
                self.dead.drain(..excess);
                self.newest = 0;
            }
            0x15 | 0x40..=0x7f => {
                self.newest = number;
                if self.live.len() < KEPT {
                    self.live.push(frame);
                }
            }
            // Acknowledgements and questions of an earlier session shall not be taken either.
            4 | 8 | 0x0b | 0x0c if self.live.len() < KEPT / 2 => self.live.push(frame),
            _ => {}
        }
    }

    /// Writes a few frames of earlier sessions, best those whose numbers come next in this one. Says whether there were any.
    fn late(&self, dice: &mut Dice, out: &mut Vec<u8>) -> bool {
        let next = |frame: &&Vec<u8>| {
            head(frame).is_some_and(|(tag, number)| {
                (tag == 0x15 || tag >= 0x40) && (1..4).contains(&number.wrapping_sub(self.newest))
            })
        };
        let fitting: Vec<&Vec<u8>> = self.dead.iter().filter(next).collect();
        let count = dice.range(1, 3) as usize;
        if fitting.is_empty() || dice.chance(200) {
            if self.dead.is_empty() {
                return false;
            }
            let from = dice.index(self.dead.len());
            for frame in self.dead.iter().skip(from).take(count) {
                out.extend_from_slice(frame);
                out.push(0);
            }
            return true;
        }
        for frame in fitting.into_iter().take(count) {
            out.extend_from_slice(frame);
            out.push(0);
        }
        true
    }
}

/// Tag and number of a frame in COBS, without its zero.
fn head(frame: &[u8]) -> Option<(u8, u16)> {
    let mut bytes = frame.iter().copied();
    let mut left = bytes.next()?.checked_sub(1)?;
    // A seal of four bytes, a tag, two bytes of a number.
    let mut head = [0; 7];
    for (at, place) in head.iter_mut().enumerate() {
        if left > 0 {
            left -= 1;
            *place = bytes.next()?;
            continue;
        }
        // The end of the frame stands for no zero.
        let Some(next) = bytes.next() else {
            return (at > 4).then_some((head[4], 0));
        };
        left = next.checked_sub(1)?;
    }
    Some((head[4], u16::from_le_bytes([head[5], head[6]])))
}
