//! What a test does to the frames of a direction by intent, before chance does its part: it keeps them, loses the long ones,
//! holds them back, and puts old ones in again.

use std::collections::VecDeque;

/// The byte behind each frame.
pub(super) const DELIMITER: u8 = 0;
/// What is kept of what passed, and what is held back at most.
pub const KEPT: usize = 64 * 1024;

/// What was seen of the frames, on the sender's side of all faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Frames that ended.
    pub count: u64,
    /// Bytes of the longest, its delimiter included.
    pub longest: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Frames that were longer than those that might pass.
    pub swallowed: u64,
}

/// One direction, where its bytes come in.
#[derive(Debug, Default)]
pub(super) struct Tap {
    frames: Frames,
    /// Bytes of the frame that has not ended yet.
    length: usize,
    /// What passed last.
    recent: VecDeque<u8>,
    /// Since it was said, what came instead of passing.
    held: Option<Vec<u8>>,
    /// Frames of more bytes than this are lost; what of the present one may still turn out to be short.
    short: Option<(usize, Vec<u8>)>,
    /// To be put in before the next frame.
    inject: Vec<u8>,
    /// The last byte that was passed on ended a frame, or there was none.
    between: bool,
}

impl Tap {
    pub(super) fn new() -> Self {
        Self { between: true, ..Self::default() }
    }

    pub(super) const fn frames(&self) -> Frames {
        self.frames
    }

    /// What passed last, at most [`KEPT`] bytes.
    pub(super) fn recent(&self) -> Vec<u8> {
        self.recent.iter().copied().collect()
    }

    /// Lets nothing pass until it is released.
    pub(super) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Ends holding back, and gives what came meanwhile, the first [`KEPT`] bytes of it.
    pub(super) fn release(&mut self) -> Vec<u8> {
        self.held.take().unwrap_or_default()
    }

    /// Loses frames of more bytes than this from now on, delimiter included, or none any more.
    pub(super) fn swallow_above(&mut self, limit: Option<usize>) {
        self.short = limit.map(|limit| (limit, Vec::new()));
    }

    /// Puts these bytes in where the next frame would begin, with a delimiter on either side. Together at most [`KEPT`].
    pub(super) fn inject(&mut self, bytes: &[u8]) {
        let room = KEPT.saturating_sub(self.inject.len() + 2);
        self.inject.push(DELIMITER);
        self.inject.extend(bytes.iter().take(room));
        self.inject.push(DELIMITER);
    }

    /// The connection has ended: what began on it will not go on.
    pub(super) fn reset(&mut self) {
        self.length = 0;
        self.between = true;
        if let Some((_, begun)) = &mut self.short {
            begun.clear();
        }
    }

    /// Bytes that came in; what passes is put behind `out`.
    pub(super) fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.pass_injected(out);
        for &byte in input {
            self.length += 1;
            let length = self.length;
            if byte == DELIMITER {
                self.count_frame();
            }
            if let Some(held) = &mut self.held {
                if held.len() < KEPT {
                    held.push(byte);
                }
                continue;
            }
            match &mut self.short {
                None => self.pass_on(&[byte], out),
                Some((limit, begun)) => {
                    if length <= *limit {
                        begun.push(byte);
                    }
                    if byte == DELIMITER {
                        let frame = std::mem::take(begun);
                        if length <= *limit {
                            self.pass_on(&frame, out);
                        } else {
                            self.frames.swallowed += 1;
                        }
                    }
                }
            }
        }
    }

    /// What is to be put in, if a frame may begin here. To be asked for also when nothing comes in.
    pub(super) fn pass_injected(&mut self, out: &mut Vec<u8>) {
        if self.between {
            out.append(&mut self.inject);
        }
    }

    fn count_frame(&mut self) {
        // A delimiter alone is no frame.
        if self.length > 1 {
            self.frames.count += 1;
            self.frames.bytes += self.length as u64;
            self.frames.longest = self.frames.longest.max(self.length);
        }
        self.length = 0;
    }

    fn pass_on(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            self.pass_injected(out);
            if self.recent.len() == KEPT {
                self.recent.pop_front();
            }
            self.recent.push_back(byte);
            out.push(byte);
            self.between = byte == DELIMITER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(tap: &mut Tap, input: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        tap.pass(input, &mut out);
        out
    }

    #[test]
    fn frames_are_counted() {
        let mut tap = Tap::new();
        assert_eq!(pass(&mut tap, &[0, 1, 2, 0, 0, 5]), [0, 1, 2, 0, 0, 5]);
        assert_eq!(pass(&mut tap, &[6, 7, 0, 1]), [6, 7, 0, 1]);
        assert_eq!(tap.frames(), Frames { count: 2, longest: 4, bytes: 7, swallowed: 0 });
        assert_eq!(tap.recent(), [0, 1, 2, 0, 0, 5, 6, 7, 0, 1]);
    }

    #[test]
    fn old_frames_come_in_between_frames() {
        let mut tap = Tap::new();
        assert_eq!(pass(&mut tap, &[1, 2]), [1, 2]);
        tap.inject(&[9, 9]);
        assert_eq!(pass(&mut tap, &[3, 0, 4, 0]), [3, 0, 0, 9, 9, 0, 4, 0]);
        tap.inject(&[8]);
        let mut out = Vec::new();
        tap.pass_injected(&mut out);
        assert_eq!(out, [0, 8, 0], "the line is between frames");
    }

    #[test]
    fn what_is_held_back_does_not_pass() {
        let mut tap = Tap::new();
        tap.hold();
        assert!(pass(&mut tap, &[1, 2, 0, 3]).is_empty());
        assert_eq!(tap.release(), [1, 2, 0, 3]);
        assert_eq!(pass(&mut tap, &[4, 0]), [4, 0]);
        assert!(tap.release().is_empty());
        tap.hold();
        for _ in 0..3 {
            pass(&mut tap, &[1; KEPT / 2]);
        }
        assert_eq!(tap.release().len(), KEPT);
    }

    #[test]
    fn long_frames_are_lost_and_short_ones_are_not() {
        let mut tap = Tap::new();
        tap.swallow_above(Some(4));
        assert_eq!(pass(&mut tap, &[1, 2, 3, 0, 1, 2, 3, 4, 0, 7]), [1, 2, 3, 0]);
        assert_eq!(pass(&mut tap, &[0, 0, 1, 2, 3, 4, 5, 6]), [7, 0, 0]);
        assert_eq!(tap.frames().swallowed, 1);
        tap.reset();
        assert_eq!(pass(&mut tap, &[1, 0]), [1, 0]);
        tap.swallow_above(None);
        assert_eq!(pass(&mut tap, &[1, 2, 3, 4, 5, 0]), [1, 2, 3, 4, 5, 0]);
        assert_eq!(tap.frames().swallowed, 1);
    }
}
