//! What a line does to the bytes of one direction: a function of the seed and of a byte's place in the stream, and of no clock.
//!
//! Whole frames come first: they are lost, come twice or are delayed by their numbers. What is left of the stream then meets the
//! faults of its bytes; places are counted there. Each kind of fault has a generator of its own, so that a change of one rate
//! leaves the places of the others as they were.

use std::collections::VecDeque;
use std::time::Duration;

use liner_proto::rng::Rng;

use super::frames::FrameFaults;
pub use super::frames::{DELAY_MAX, FRAME_MAX};

/// Bytes that one read of a serial port takes on average, from one to twice as many. Drawn and not measured: how the bytes
/// really come together is a matter of timing.
pub const READ_MEAN: u64 = 64;
/// The most bytes that a read loses or gains.
pub const READ_FAULT_MAX: u64 = 8;
/// The most bytes that a cut takes with it on a line that stays open.
pub const CUT_LOSES_MAX: u64 = 256;

/// How often each fault comes, in one direction. The default is a line without any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Share of bits that are turned, from 0 to 1.
    pub bit_errors: f64,
    /// Share of reads that lose or gain bytes, either as often as the other, from 0 to 1.
    pub read_faults: f64,
    /// Bytes from one cut to the next on average, from half to three halves of it; 0 for none.
    pub cut_every: u64,
    /// Bytes from one stall to the next, likewise.
    pub stall_every: u64,
    /// The longest stall.
    pub stall_max: Duration,
    /// Share of frames that are lost, come twice, or are delayed, each as often as the others, from 0 to 1. A frame is what ends
    /// with a zero; one of more than [`FRAME_MAX`] bytes is not hit. A delayed one comes behind 1 to [`DELAY_MAX`] others, or never,
    /// if none come.
    pub frame_faults: f64,
}

impl Rates {
    /// A line that does nothing to its bytes.
    pub const NONE: Self = Self {
        bit_errors: 0.0,
        read_faults: 0.0,
        cut_every: 0,
        stall_every: 0,
        stall_max: Duration::from_millis(200),
        frame_faults: 0.0,
    };
}

impl Default for Rates {
    fn default() -> Self {
        Self::NONE
    }
}

/// What was done to the bytes up to now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Bytes that came, those that were lost afterwards included; but without frames that were lost whole, and with both of those
    /// that came twice.
    pub bytes: u64,
    /// Bits that were turned.
    pub flipped: u64,
    /// Bytes that were taken away.
    pub lost: u64,
    /// Bytes that were put in.
    pub inserted: u64,
    /// Cuts.
    pub cuts: u64,
    /// Stalls.
    pub stalls: u64,
    /// Frames that were lost whole.
    pub frames_lost: u64,
    /// Frames that came twice.
    pub frames_doubled: u64,
    /// Frames that were delayed behind others.
    pub frames_delayed: u64,
}

/// A fault that concerns more than a byte: whoever owns the line carries it out before the bytes behind it pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// The line is cut. One that stays open loses so many bytes: see [`Faults::lose`].
    Cut {
        /// Bytes, 1 to [`CUT_LOSES_MAX`].
        loses: u64,
    },
    /// Nothing passes for this long.
    Stall(Duration),
}

/// What a read does to its bytes, at one place in it.
#[derive(Clone, Copy, Debug)]
enum ReadFault {
    Loses(u64),
    Gains(u64),
}

/// The fault process of one direction.
#[derive(Clone, Debug)]
pub struct Faults {
    rates: Rates,
    frames: FrameFaults,
    /// Bytes of frames that have come through, and have not met the other faults yet: none once `pass` has nothing to tell.
    through: VecDeque<u8>,
    bits: Rng,
    reads: Rng,
    cuts: Rng,
    stalls: Rng,
    damage: Damage,
    /// Place of the next bit to turn, counted from the first bit of the stream.
    next_flip: u64,
    next_cut: u64,
    next_stall: u64,
    /// Place of the first byte behind the present read.
    read_end: u64,
    /// Where the present read does what, if it does.
    read_fault: Option<(u64, ReadFault)>,
    /// Bytes still to be taken away.
    losing: u64,
}

impl Faults {
    /// The faults that this seed draws for the direction of this number.
    pub fn new(rates: Rates, seed: u64, direction: u64) -> Self {
        let generator = |kind: u64| {
            let mut rng = Rng::new([seed, direction << 8 | kind]);
            // Seeds that are alike begin alike.
            for _ in 0..32 {
                rng.next();
            }
            rng
        };
        let mut faults = Self {
            rates,
            frames: FrameFaults::new(generator(5), rates.frame_faults),
            through: VecDeque::new(),
            bits: generator(1),
            reads: generator(2),
            cuts: generator(3),
            stalls: generator(4),
            damage: Damage::default(),
            next_flip: 0,
            next_cut: 0,
            next_stall: 0,
            read_end: 0,
            read_fault: None,
            losing: 0,
        };
        faults.next_flip = geometric(&mut faults.bits, rates.bit_errors);
        faults.next_cut = distance(&mut faults.cuts, rates.cut_every);
        faults.next_stall = distance(&mut faults.stalls, rates.stall_every);
        faults
    }

    /// Changes the rates from here on.
    pub fn set_rates(&mut self, rates: Rates) {
        let place = self.damage.bytes;
        self.rates = rates;
        self.frames.set_share(rates.frame_faults);
        self.next_flip = place.saturating_mul(8).saturating_add(geometric(&mut self.bits, rates.bit_errors));
        self.next_cut = place.saturating_add(distance(&mut self.cuts, rates.cut_every));
        self.next_stall = place.saturating_add(distance(&mut self.stalls, rates.stall_every));
        self.read_fault = None;
        self.read_end = place;
    }

    /// What was done up to now.
    pub const fn damage(&self) -> Damage {
        let hit = self.frames.hit();
        Damage {
            frames_lost: hit.lost,
            frames_doubled: hit.doubled,
            frames_delayed: hit.delayed,
            ..self.damage
        }
    }

    /// Takes so many of the bytes that come next away.
    pub const fn lose(&mut self, bytes: u64) {
        self.losing = self.losing.saturating_add(bytes);
    }

    /// Bytes that were on the line and did not arrive, for a reason outside this process.
    pub const fn count_lost(&mut self, bytes: u64) {
        self.damage.lost += bytes;
    }

    /// Loses the frames that have not come through yet, and says how many bytes that is: the line was cut, or whoever began one is
    /// gone. The next byte begins a frame.
    pub fn forget_frames(&mut self) -> u64 {
        let bytes = (self.frames.forget() + self.through.len()) as u64;
        self.through.clear();
        bytes
    }

    /// Passes bytes on to `out`. Returns how many it has taken, and what happened if it was to be told then: it goes on, with the
    /// rest or with nothing, at the next call. How the stream is cut into calls makes no difference to what comes out.
    pub fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) -> (usize, Option<Incident>) {
        let mut taken = 0;
        loop {
            while let Some(&byte) = self.through.front() {
                if let Some(incident) = self.incident() {
                    return (taken, Some(incident));
                }
                self.through.pop_front();
                self.begin_read();
                self.pass_byte(byte, out);
            }
            let Some(&byte) = input.get(taken) else { return (taken, None) };
            taken += 1;
            self.frames.pass(byte, &mut self.through);
        }
    }

    fn incident(&mut self) -> Option<Incident> {
        let place = self.damage.bytes;
        if place >= self.next_cut {
            self.next_cut = place.saturating_add(distance(&mut self.cuts, self.rates.cut_every));
            self.damage.cuts += 1;
            return Some(Incident::Cut { loses: 1 + self.cuts.below(CUT_LOSES_MAX) });
        }
        if place >= self.next_stall {
            self.next_stall = place.saturating_add(distance(&mut self.stalls, self.rates.stall_every));
            self.damage.stalls += 1;
            let longest = u64::try_from(self.rates.stall_max.as_micros()).unwrap_or(u64::MAX);
            return Some(Incident::Stall(Duration::from_micros(self.stalls.below(longest))));
        }
        None
    }

    fn begin_read(&mut self) {
        let place = self.damage.bytes;
        if place < self.read_end {
            return;
        }
        let len = 1 + self.reads.below(2 * READ_MEAN - 1);
        self.read_end = place + len;
        self.read_fault = None;
        if unit(&mut self.reads) < self.rates.read_faults {
            let at = self.reads.below(len);
            let amount = 1 + self.reads.below(READ_FAULT_MAX);
            let fault = match self.reads.below(2) {
                // No more than the read has.
                0 => ReadFault::Loses(amount.min(len - at)),
                _ => ReadFault::Gains(amount),
            };
            self.read_fault = Some((place + at, fault));
        }
    }

    fn pass_byte(&mut self, mut byte: u8, out: &mut Vec<u8>) {
        let place = self.damage.bytes;
        self.damage.bytes += 1;
        match self.read_fault {
            Some((at, ReadFault::Loses(amount))) if at == place => self.lose(amount),
            Some((at, ReadFault::Gains(amount))) if at == place => {
                for _ in 0..amount {
                    out.push(self.reads.next().to_le_bytes()[0]);
                }
                self.damage.inserted += amount;
            }
            _ => {}
        }
        let is_lost = self.losing > 0;
        while self.next_flip < self.damage.bytes.saturating_mul(8) {
            if !is_lost {
                byte ^= 1 << (self.next_flip % 8);
                self.damage.flipped += 1;
            }
            let gap = geometric(&mut self.bits, self.rates.bit_errors);
            self.next_flip = self.next_flip.saturating_add(1).saturating_add(gap);
        }
        if is_lost {
            self.losing -= 1;
            self.damage.lost += 1;
        } else {
            out.push(byte);
        }
    }
}

/// At least 0, less than 1.
pub(super) fn unit(rng: &mut Rng) -> f64 {
    (rng.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// How many trials fail before the first that succeeds, each with this probability.
fn geometric(rng: &mut Rng, probability: f64) -> u64 {
    if probability <= 0.0 {
        return u64::MAX;
    }
    ((1.0 - unit(rng)).ln() / (-probability).ln_1p()) as u64
}

/// From half to three halves of the mean; never, for 0.
fn distance(rng: &mut Rng, mean: u64) -> u64 {
    if mean == 0 { u64::MAX } else { (mean / 2 + rng.below(mean)).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Rates = Rates {
        bit_errors: 1e-4 / 8.0,
        read_faults: 0.01,
        cut_every: 30_000,
        stall_every: 50_000,
        stall_max: Duration::from_millis(100),
        frame_faults: 0.03,
    };

    /// What comes out of so many bytes, given in pieces, with the incidents and how many bytes had come out before each.
    fn run(
        rates: Rates,
        seed: u64,
        total: usize,
        piece: impl Fn(usize) -> usize,
    ) -> (Vec<u8>, Vec<(usize, Incident)>, Damage) {
        let input: Vec<u8> = (0..total).map(|at| (at % 251) as u8).collect();
        let mut faults = Faults::new(rates, seed, 0);
        let (mut out, mut incidents) = (Vec::new(), Vec::new());
        let mut at = 0;
        loop {
            let end = (at + piece(at)).min(total);
            let (taken, incident) = faults.pass(&input[at..end], &mut out);
            at += taken;
            match incident {
                Some(incident) => incidents.push((out.len(), incident)),
                None if at == total => break,
                None => {}
            }
            if let Some(Incident::Cut { loses }) = incident {
                faults.lose(loses);
            }
        }
        (out, incidents, faults.damage())
    }

    /// Within four standard deviations of a Poisson count.
    #[track_caller]
    fn about(count: u64, expected: f64) {
        let far = (count as f64 - expected).abs();
        assert!(far <= 4.0 * expected.sqrt(), "{count} instead of {expected}");
    }

    #[test]
    fn a_line_without_faults_changes_nothing() {
        let (out, incidents, damage) = run(Rates::NONE, 1, 100_000, |_| 4096);
        assert!(out.iter().enumerate().all(|(at, &byte)| byte == (at % 251) as u8));
        assert_eq!((out.len(), incidents.len()), (100_000, 0));
        assert_eq!(damage, Damage { bytes: 100_000, ..Damage::default() });
    }

    #[test]
    fn faults_are_a_function_of_seed_and_place() {
        let whole = run(ALL, 7, 500_000, |_| usize::MAX / 2);
        assert_eq!(run(ALL, 7, 500_000, |_| 1), whole);
        assert_eq!(run(ALL, 7, 500_000, |at| 1 + at * 7919 % 300), whole);
        assert_ne!(run(ALL, 8, 500_000, |_| 4096).0, whole.0);
    }

    #[test]
    fn the_directions_of_a_line_differ() {
        let mut outs = [Vec::new(), Vec::new()];
        for (direction, out) in (0..).zip(&mut outs) {
            Faults::new(ALL, 1, direction).pass(&[0; 20_000], out);
        }
        assert_ne!(outs[0], outs[1]);
    }

    #[test]
    fn the_rates_are_those_asked_for() {
        const BYTES: usize = 20_000_000;
        let total = BYTES as f64;
        let only_bits = Rates { bit_errors: 1e-5, ..Rates::NONE };
        let (out, _, damage) = run(only_bits, 3, BYTES, |_| 65_536);
        about(damage.flipped, total * 8.0 * 1e-5);
        let turned: u64 =
            out.iter().enumerate().map(|(at, byte)| u64::from((byte ^ (at % 251) as u8).count_ones())).sum();
        assert_eq!(turned, damage.flipped);

        let only_reads = Rates { read_faults: 0.01, ..Rates::NONE };
        let (out, _, damage) = run(only_reads, 4, BYTES, |_| 65_536);
        let faults = total / READ_MEAN as f64 * 0.01;
        let amount = (1 + READ_FAULT_MAX) as f64 / 2.0;
        // A loss ends with its read, and is shorter by that: all amounts are within a quarter, the count of gains is sharp.
        about((damage.inserted as f64 / amount) as u64, faults / 2.0);
        let lost = damage.lost as f64 / (amount * faults / 2.0);
        assert!((0.75..=1.05).contains(&lost), "{damage:?}");
        assert_eq!(out.len() as u64 + damage.lost - damage.inserted, damage.bytes);

        let only_frames = Rates { frame_faults: 0.06, ..Rates::NONE };
        let (out, _, damage) = run(only_frames, 8, BYTES, |_| 65_536);
        // A frame ends with each zero, and there is one in 251 bytes.
        let each = total / 251.0 * 0.02;
        for kind in [damage.frames_lost, damage.frames_doubled, damage.frames_delayed] {
            about(kind, each);
        }
        assert_eq!(damage.bytes, out.len() as u64);
        let all = damage.bytes + 251 * damage.frames_lost - 251 * damage.frames_doubled;
        let missing = total as u64 - all;
        assert!(missing <= (1 + DELAY_MAX) * 251, "{missing} bytes are still to come");

        let (_, incidents, damage) = run(ALL, 5, BYTES, |_| 65_536);
        about(damage.cuts, total / 30_000.0);
        about(damage.stalls, total / 50_000.0);
        assert_eq!(incidents.len() as u64, damage.cuts + damage.stalls);
        about(damage.flipped, total * 1e-4);
    }

    #[test]
    fn what_is_cut_out_is_missing() {
        let rates = Rates { cut_every: 10_000, ..Rates::NONE };
        let (out, incidents, damage) = run(rates, 6, 100_000, |_| 100);
        let loses = |(_, incident): &(usize, Incident)| match incident {
            Incident::Cut { loses } => *loses,
            Incident::Stall(_) => 0,
        };
        let cut: u64 = incidents.iter().map(loses).sum();
        assert!(damage.cuts > 5);
        assert_eq!((damage.lost, out.len() as u64), (cut, 100_000 - cut));
    }

    #[test]
    fn rates_can_change_on_the_way() {
        let mut faults = Faults::new(ALL, 9, 0);
        let mut out = Vec::new();
        faults.pass(&[0; 10_000], &mut out);
        faults.set_rates(Rates::NONE);
        let before = faults.damage();
        out.clear();
        assert_eq!(faults.pass(&[1; 100_000], &mut out), (100_000, None));
        assert!(out == [1; 100_000]);
        assert_eq!(faults.damage(), Damage { bytes: before.bytes + 100_000, ..before });
        faults.set_rates(ALL);
        (0..200).for_each(|_| _ = faults.pass(&[[1; 250].as_slice(), &[0]].concat(), &mut out));
        let after = faults.damage();
        assert!(after.flipped > before.flipped || after.cuts > before.cuts);
        assert!(after.frames_lost + after.frames_doubled + after.frames_delayed > 0);
    }
}
