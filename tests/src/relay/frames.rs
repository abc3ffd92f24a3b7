//! What a line does to whole frames: a function of the seed and of a frame's number, whatever is in it and however it comes in.
//!
//! A delayed frame comes behind one of the next few. If there are none, it stays where it is, and is as good as lost: only a
//! clock could bring it out, and there is none here. A protocol that sends again what is missing sends frames, and those do.

use std::collections::VecDeque;

use liner_proto::rng::Rng;

use super::faults::unit;
use super::tap::DELIMITER;

/// A frame of more bytes, its delimiter included, passes as if there were no faults: noise can be of any length, and is not kept.
pub const FRAME_MAX: usize = 4096;
/// A delayed frame comes behind at most so many others.
pub const DELAY_MAX: u64 = 4;

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Passes,
    IsLost,
    ComesTwice,
    /// It comes behind so many others.
    IsDelayed(u64),
}

/// Frames to which something was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) delayed: u64,
}

/// The frames of one direction.
#[derive(Clone, Debug)]
pub(super) struct FrameFaults {
    rng: Rng,
    /// Share of frames that are hit, from 0 to 1.
    share: f64,
    /// Which frame it is, counted from the first.
    number: u64,
    fate: Fate,
    /// Bytes of it that have come.
    length: usize,
    /// Those that may have to come later; at most [`FRAME_MAX`].
    kept: Vec<u8>,
    /// Frames that are delayed, each with the number of the one behind which it comes; at most [`DELAY_MAX`].
    delayed: VecDeque<(u64, Vec<u8>)>,
    hit: Hit,
}

impl FrameFaults {
    pub(super) fn new(rng: Rng, share: f64) -> Self {
        Self {
            rng,
            share,
            number: 0,
            fate: Fate::Passes,
            length: 0,
            kept: Vec::new(),
            delayed: VecDeque::new(),
            hit: Hit::default(),
        }
    }

    /// Changes the share from the next frame on.
    pub(super) const fn set_share(&mut self, share: f64) {
        self.share = share;
    }

    pub(super) const fn hit(&self) -> Hit {
        self.hit
    }

    /// The next byte; what comes through is put behind `out`.
    pub(super) fn pass(&mut self, byte: u8, out: &mut VecDeque<u8>) {
        if self.length == 0 {
            // A delimiter alone is no frame.
            if byte == DELIMITER {
                out.push_back(byte);
                return;
            }
            self.fate = self.draw();
        }
        self.length += 1;
        if matches!(self.fate, Fate::Passes | Fate::ComesTwice) {
            out.push_back(byte);
        }
        if self.fate != Fate::Passes {
            self.keep(byte, out);
        }
        if byte == DELIMITER {
            self.end_frame(out);
        }
    }

    /// Loses what has not come out yet, and says how many bytes that is. The next byte begins a frame.
    pub(super) fn forget(&mut self) -> usize {
        let begun = if self.fate == Fate::ComesTwice { 0 } else { self.kept.len() };
        let bytes = begun + self.delayed.iter().map(|(_, frame)| frame.len()).sum::<usize>();
        self.kept.clear();
        self.delayed.clear();
        if self.length > 0 {
            self.next_frame();
        }
        bytes
    }

    fn draw(&mut self) -> Fate {
        if unit(&mut self.rng) >= self.share {
            return Fate::Passes;
        }
        match self.rng.below(3) {
            0 => Fate::IsLost,
            1 => Fate::ComesTwice,
            _ => Fate::IsDelayed(1 + self.rng.below(DELAY_MAX)),
        }
    }

    fn keep(&mut self, byte: u8, out: &mut VecDeque<u8>) {
        self.kept.push(byte);
        if self.kept.len() > FRAME_MAX {
            if self.fate != Fate::ComesTwice {
                out.extend(&self.kept);
            }
            self.kept.clear();
            self.fate = Fate::Passes;
        }
    }

    fn end_frame(&mut self, out: &mut VecDeque<u8>) {
        let frame = std::mem::take(&mut self.kept);
        match self.fate {
            Fate::Passes => {}
            Fate::IsLost => self.hit.lost += 1,
            Fate::ComesTwice => {
                self.hit.doubled += 1;
                out.extend(frame);
            }
            Fate::IsDelayed(frames) => {
                self.hit.delayed += 1;
                self.delayed.push_back((self.number + frames, frame));
            }
        }
        let number = self.number;
        self.delayed.retain(|(behind, frame)| {
            if *behind <= number {
                out.extend(frame);
            }
            *behind > number
        });
        self.next_frame();
    }

    const fn next_frame(&mut self) {
        self.number += 1;
        self.length = 0;
        self.fate = Fate::Passes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(seed: u64, share: f64) -> FrameFaults {
        FrameFaults::new(Rng::new([seed, 1]), share)
    }

    /// What comes out of frames that say their number.
    fn run(faults: &mut FrameFaults, numbers: std::ops::Range<u32>) -> Vec<u32> {
        let mut out = VecDeque::new();
        for number in numbers {
            format!("{number}\0").bytes().for_each(|byte| faults.pass(byte, &mut out));
        }
        let text = String::from_utf8(out.into()).unwrap();
        text.split_terminator('\0').map(|number| number.parse().unwrap()).collect()
    }

    #[test]
    fn every_frame_passes_whole_or_not_at_all_and_is_counted() {
        let mut faults = faults(1, 0.3);
        let came = run(&mut faults, 0..100_000);
        let hit = faults.hit();
        let waiting = faults.delayed.len() as u64;
        assert_eq!(came.len() as u64, 100_000 - hit.lost + hit.doubled - waiting);
        let late = came.windows(2).filter(|pair| pair[0] > pair[1]).count() as u64;
        let twice = came.windows(2).filter(|pair| pair[0] == pair[1]).count() as u64;
        assert_eq!(twice, hit.doubled);
        // Some are only behind others that are delayed or lost, too, and several may come behind the same one.
        assert!((hit.delayed * 6 / 10..=hit.delayed).contains(&late), "{late} of {hit:?}");
        for kind in [hit.lost, hit.doubled, hit.delayed] {
            let far = (kind as f64 - 10_000.0).abs();
            assert!(far <= 4.0 * 100.0, "{hit:?}");
        }
    }

    #[test]
    fn a_delayed_frame_comes_behind_one_of_the_next_few() {
        let mut faults = faults(2, 1.0);
        let mut last = 0;
        for number in run(&mut faults, 0..100_000) {
            assert!(u64::from(number) + DELAY_MAX >= last, "{number} behind {last}");
            last = last.max(u64::from(number));
        }
        assert!(faults.delayed.len() as u64 <= DELAY_MAX);
    }

    #[test]
    fn what_is_in_a_frame_makes_no_difference() {
        let shape = |leads: u32, fill: u8, len: fn(u32) -> usize| {
            let (mut faults, mut out) = (faults(3, 0.5), VecDeque::new());
            for number in 0..1_000 {
                let frame = [vec![fill; len(number)], vec![DELIMITER]].concat();
                // A delimiter alone is no frame.
                (0..number % (1 + leads)).for_each(|_| faults.pass(DELIMITER, &mut out));
                frame.into_iter().for_each(|byte| faults.pass(byte, &mut out));
            }
            faults.hit()
        };
        let hit = shape(0, 1, |_| 1);
        assert!(hit.lost > 100 && hit.doubled > 100 && hit.delayed > 100, "{hit:?}");
        assert_eq!(shape(2, 7, |number| 1 + number as usize % 90), hit);
    }

    #[test]
    fn noise_without_an_end_passes_and_is_not_kept() {
        let mut faults = faults(4, 1.0);
        for fate in 0..50 {
            let mut out = VecDeque::new();
            (0..20 * FRAME_MAX).for_each(|_| faults.pass(1, &mut out));
            assert_eq!(out.len(), 20 * FRAME_MAX, "{fate}");
            assert!(faults.kept.len() <= FRAME_MAX && faults.delayed.is_empty());
            faults.pass(DELIMITER, &mut out);
            assert_eq!((out.len(), faults.hit()), (20 * FRAME_MAX + 1, Hit::default()));
        }
        let mut out = VecDeque::new();
        (1..FRAME_MAX).for_each(|_| faults.pass(1, &mut out));
        faults.pass(DELIMITER, &mut out);
        assert_ne!(faults.hit(), Hit::default(), "the longest that is hit");
    }

    #[test]
    fn what_is_forgotten_does_not_come() {
        for seed in 0..100 {
            let (mut faults, mut out) = (faults(seed, 1.0), VecDeque::new());
            b"1\x002\x003\x004".iter().for_each(|byte| faults.pass(*byte, &mut out));
            let (came, hit) = (out.len(), faults.hit());
            let forgotten = faults.forget();
            let gone = usize::try_from(2 * hit.lost).unwrap();
            let more = usize::try_from(2 * hit.doubled).unwrap();
            assert_eq!(came + forgotten + gone, 7 + more, "{out:?} {hit:?}");
            faults.set_share(0.0);
            out.clear();
            b"\x005\x00".iter().for_each(|byte| faults.pass(*byte, &mut out));
            assert_eq!(out, b"\x005\x00");
        }
    }
}
