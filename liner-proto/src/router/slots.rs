//! Things that come and go, under ids that never come again.

use alloc::vec::Vec;

/// Values by ids that are given out once: the low half is the place, the high half says whose turn it is there.
///
/// Batches, loads, lists and links name peers and queues by these ids for as long as they please. When what they name is gone
/// they find nothing, and never what took its place: nobody has to prove that nothing refers to a place before it is used
/// again.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot<T> {
    turn: u32,
    value: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, value: T) -> u64 {
        let place = self.free.pop().unwrap_or(self.slots.len() as u32);
        if place as usize == self.slots.len() {
            self.slots.push(Slot { turn: 0, value: None });
        }
        let Some(slot) = self.slots.get_mut(place as usize) else { return u64::MAX };
        slot.value = Some(value);
        id(place as usize, slot.turn)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<T> {
        let value = self.slot_mut(id)?.value.take()?;
        if let Some(slot) = self.slots.get_mut(place(id))
            && let Some(next) = slot.turn.checked_add(1)
        {
            slot.turn = next;
            self.free.push(place(id) as u32);
        }
        Some(value)
    }

    #[inline]
    pub(super) fn get(&self, id: u64) -> Option<&T> {
        self.slots.get(place(id)).filter(|slot| u64::from(slot.turn) == id >> 32)?.value.as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        self.slot_mut(id)?.value.as_mut()
    }

    #[inline]
    fn slot_mut(&mut self, id: u64) -> Option<&mut Slot<T>> {
        self.slots.get_mut(place(id)).filter(|slot| u64::from(slot.turn) == id >> 32)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|slot| slot.value.as_ref())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots.iter_mut().filter_map(|slot| slot.value.as_mut())
    }

    /// The ids of all that is there now.
    pub(super) fn ids(&self) -> Vec<u64> {
        let slots = self.slots.iter().enumerate().filter(|(_, slot)| slot.value.is_some());
        slots.map(|(place, slot)| id(place, slot.turn)).collect()
    }
}

const fn id(place: usize, turn: u32) -> u64 {
    ((turn as u64) << 32) | place as u64
}

const fn place(id: u64) -> usize {
    (id & 0xffff_ffff) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_finds_nothing_once_its_place_is_another_ones() {
        let mut slots = Slots::default();
        let first = slots.insert('a');
        assert_eq!(slots.remove(first), Some('a'));
        let second = slots.insert('b');
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&'b')));
        assert_eq!((slots.remove(first), slots.get_mut(first)), (None, None));
        assert_eq!((slots.ids(), slots.slots.len()), (alloc::vec![second], 1));
    }
}
