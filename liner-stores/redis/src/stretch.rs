//! Which numbers stand where in a queue's list.
//!
//! Messages stand one behind the other, a number each. Gaps take several numbers, and what an operator took out of a list leaves numbers
//! without an element; both begin another stretch.

use std::collections::VecDeque;

/// Elements in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    /// How many; 1 if they are a gap.
    elements: u64,
    /// The number of the first one.
    first: u64,
    /// The last number of the last one.
    last: u64,
}

impl Stretch {
    /// Whether each element has one number.
    const fn is_regular(&self) -> bool {
        self.last - self.first + 1 == self.elements
    }
}

/// The elements of a list, from its head on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stretches {
    all: VecDeque<Stretch>,
    elements: u64,
}

/// An element and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) index: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Stretches {
    /// How many elements there are.
    pub(crate) const fn len(&self) -> u64 {
        self.elements
    }

    /// Adds an element with the numbers `first..=last` behind the others.
    pub(crate) fn push(&mut self, first: u64, last: u64) {
        self.elements += 1;
        if let Some(back) = self.all.back_mut()
            && first == last
            && back.last.checked_add(1) == Some(first)
            && back.is_regular()
        {
            back.elements += 1;
            back.last = last;
            return;
        }
        self.all.push_back(Stretch { elements: 1, first, last });
    }

    /// Takes the last one back.
    pub(crate) fn pop_back(&mut self) {
        let Some(back) = self.all.back_mut() else { return };
        self.elements -= 1;
        back.elements -= 1;
        if back.elements == 0 {
            self.all.pop_back();
        } else {
            back.last -= 1;
        }
    }

    /// How many elements have no number above `number`.
    pub(crate) fn count_through(&self, number: u64) -> u64 {
        let mut count = 0;
        for stretch in &self.all {
            if stretch.last > number {
                let is_begun = stretch.is_regular() && stretch.first <= number;
                return count + if is_begun { number - stretch.first + 1 } else { 0 };
            }
            count += stretch.elements;
        }
        count
    }

    /// The element at an index.
    pub(crate) fn at(&self, index: u64) -> Option<Found> {
        let mut begin = 0;
        for stretch in &self.all {
            if index < begin + stretch.elements {
                let inside = index - begin;
                let first = stretch.first + inside;
                let last = if stretch.is_regular() { first } else { stretch.last };
                return Some(Found { index, first, last });
            }
            begin += stretch.elements;
        }
        None
    }

    /// Forgets elements at the head.
    pub(crate) fn remove_front(&mut self, mut count: u64) {
        while let Some(front) = self.all.front_mut().filter(|_| count > 0) {
            if front.elements > count {
                front.elements -= count;
                front.first += count;
                self.elements -= count;
                return;
            }
            count -= front.elements;
            self.elements -= front.elements;
            self.all.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_found_where_it_was_put() {
        // Messages 1 to 3, a gap of 4 to 9, one of 10 alone, a hole, messages 20 and 21.
        let elements = [(1, 1), (2, 2), (3, 3), (4, 9), (10, 10), (20, 20), (21, 21)];
        let mut stretches = Stretches::default();
        elements.iter().for_each(|&(first, last)| stretches.push(first, last));
        for removed in 0..=elements.len() {
            let left = &elements[removed..];
            assert_eq!(stretches.len(), left.len() as u64);
            for (index, &(first, last)) in (0..).zip(left) {
                assert_eq!(stretches.at(index), Some(Found { index, first, last }), "{removed}");
            }
            assert_eq!(stretches.at(left.len() as u64), None);
            for number in 0..25 {
                let expected = left.iter().filter(|&&(_, last)| last <= number).count() as u64;
                assert_eq!(stretches.count_through(number), expected, "{removed}, {number}");
            }
            stretches.remove_front(1);
        }
        stretches.push(7, 7);
        assert_eq!((stretches.len(), stretches.at(0)), (1, Some(Found { index: 0, first: 7, last: 7 })));
    }
}
