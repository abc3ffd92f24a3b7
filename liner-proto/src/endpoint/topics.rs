//! Sets of topics by their places in the configuration, in one word.

use super::TopicIndex;

/// A set of topics. Those from the 32nd on share one bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicSet(u32);

impl TopicSet {
    pub(super) const EMPTY: Self = Self(0);
    /// Topics with a bit of their own.
    pub(super) const TOLD_APART: usize = 31;

    /// The first `count` topics.
    pub(super) const fn first(count: usize) -> Self {
        if count > Self::TOLD_APART { Self(u32::MAX) } else { Self((1 << count) - 1) }
    }

    const fn bit(place: usize) -> u32 {
        1 << if place < Self::TOLD_APART { place } else { Self::TOLD_APART }
    }

    pub(super) const fn contains(self, place: usize) -> bool {
        self.0 & Self::bit(place) != 0
    }

    pub(super) const fn insert(&mut self, place: usize) {
        self.0 |= Self::bit(place);
    }

    /// Puts a topic in, or takes it out.
    pub(super) const fn set(&mut self, place: usize, is_in: bool) {
        self.insert(place);
        if !is_in {
            self.0 ^= Self::bit(place);
        }
    }

    /// Whether all of it is in `other`, too.
    pub(super) const fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Takes one step towards `other`: the topic that was put in or taken out, and whether it is in now.
    pub(super) const fn approach(&mut self, other: Self) -> Option<(TopicIndex, bool)> {
        let changed = self.0 ^ other.0;
        if changed == 0 {
            return None;
        }
        let place = changed.trailing_zeros() as u16;
        self.0 ^= 1 << place;
        Some((TopicIndex(place), self.contains(place as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_beyond_the_word_share_a_bit() {
        let mut set = TopicSet::EMPTY;
        set.insert(30);
        assert!(set.contains(30) && !set.contains(31));
        set.insert(1000);
        assert!(set.contains(31) && set.contains(32) && !set.contains(29));
        assert!(set.is_within(TopicSet::first(32)) && !set.is_within(TopicSet::first(31)));
        set.set(30, false);
        assert!(!set.contains(30) && !set.is_within(TopicSet::first(31)));
    }

    #[test]
    fn changes_are_told_one_by_one() {
        let (mut told, mut full) = (TopicSet::first(2), TopicSet::EMPTY);
        full.insert(1);
        full.insert(5);
        assert_eq!(told.approach(full), Some((TopicIndex(0), false)));
        assert_eq!(told.approach(full), Some((TopicIndex(5), true)));
        assert_eq!(told.approach(full), None);
    }
}
