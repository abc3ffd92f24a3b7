//! Pieces of a body that is longer than a frame, put together again.

/// Where a piece goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The body was given up: what is there of it, and what comes of it yet, is dropped.
    GivenUp,
    /// Nowhere: an earlier piece of its body was given up, and more of them follow.
    Skipped,
    /// Nowhere, likewise, and it is the last piece: the body will never come.
    LastSkipped,
    /// At this place in the body, which is not whole yet.
    More(usize),
    /// At this place, and the body is whole: so many bytes.
    Last(usize, usize),
}

/// How much of a body is there. It holds no bytes; whoever does is told where they go.
#[derive(Clone, Copy, Debug, Default)]
pub struct Assembly {
    len: u32,
    left: u32,
    /// A piece was given up; those that were sent behind it may still come.
    skips: bool,
}

impl Assembly {
    /// Nothing has begun.
    pub const EMPTY: Self = Self { len: 0, left: 0, skips: false };

    /// Whether a body has begun and is not whole.
    pub const fn is_begun(&self) -> bool {
        self.left > 0
    }

    /// A piece of `bytes` bytes has arrived, with which, and all after it, `left` bytes come. A body of more than `max` bytes
    /// is refused with its first piece; no piece of another body is taken for one of this. Behind a piece that was given up the rest of
    /// its body is skipped, up to its last piece, or until [`drop_begun`](Self::drop_begun) says that something else has come.
    ///
    /// Nothing if the peer may not send that.
    pub const fn handle(&mut self, left: u32, bytes: usize, max: usize) -> Option<Piece> {
        if left == 0 {
            *self = Self { skips: true, ..Self::EMPTY };
            return Some(Piece::GivenUp);
        }
        if self.skips {
            // Without the piece that was given up the others would look like another body.
            if left as usize > bytes {
                return Some(Piece::Skipped);
            }
            *self = Self::EMPTY;
            return Some(Piece::LastSkipped);
        }
        if self.left == 0 {
            if left as usize > max {
                return None;
            }
            *self = Self { left, ..Self::EMPTY };
        }
        if self.left != left || bytes == 0 || bytes > left as usize {
            return None;
        }
        let at = self.len as usize;
        self.len += bytes as u32;
        self.left -= bytes as u32;
        if self.left > 0 {
            return Some(Piece::More(at));
        }
        *self = Self::EMPTY;
        Some(Piece::Last(at, at + bytes))
    }

    /// What has begun does not come.
    pub const fn drop_begun(&mut self) {
        *self = Self::EMPTY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_a_body() {
        let mut assembly = Assembly::EMPTY;
        assert_eq!(assembly.handle(10, 4, 10), Some(Piece::More(0)));
        assert!(assembly.is_begun());
        assert_eq!(assembly.handle(6, 4, 10), Some(Piece::More(4)));
        assert_eq!(assembly.handle(2, 2, 10), Some(Piece::Last(8, 10)));
        assert!(!assembly.is_begun());
        assert_eq!(assembly.handle(3, 3, 10), Some(Piece::Last(0, 3)));
    }

    #[test]
    fn forged_totals_are_refused_before_a_byte_is_kept() {
        let mut assembly = Assembly::EMPTY;
        assert_eq!(assembly.handle(u32::MAX, 4, 10), None);
        assert_eq!(assembly.handle(11, 4, 10), None);
        assert!(!assembly.is_begun());
        // A total that shrinks or grows is not the total that was checked.
        assert_eq!(assembly.handle(10, 4, 10), Some(Piece::More(0)));
        for forged in [u32::MAX, 7, 5, 10] {
            assert_eq!(assembly.handle(forged, 1, 10), None);
        }
        assert_eq!(assembly.handle(6, 0, 10), None);
        assert_eq!(assembly.handle(6, 7, 10), None);
    }

    #[test]
    fn what_was_begun_can_be_given_up() {
        let mut assembly = Assembly::EMPTY;
        assert_eq!(assembly.handle(10, 4, 10), Some(Piece::More(0)));
        assert_eq!(assembly.handle(0, 0, 10), Some(Piece::GivenUp));
        assert!(!assembly.is_begun());
        assembly.drop_begun();
        assert_eq!(assembly.handle(9, 4, 10), Some(Piece::More(0)));
    }

    #[test]
    fn pieces_behind_one_that_was_given_up_make_no_body() {
        let mut assembly = Assembly::EMPTY;
        for begun in [true, false] {
            if begun {
                assert_eq!(assembly.handle(10, 4, 10), Some(Piece::More(0)));
            }
            assert_eq!(assembly.handle(0, 0, 10), Some(Piece::GivenUp));
            assert_eq!(assembly.handle(5, 2, 10), Some(Piece::Skipped));
            assert_eq!(assembly.handle(3, 3, 10), Some(Piece::LastSkipped));
            assert_eq!(assembly.handle(8, 8, 10), Some(Piece::Last(0, 8)));
        }
    }
}
