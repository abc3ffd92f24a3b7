//! What was handed to a store and is not answered yet.

/// Batches of one node that may be with the store at a time: one that is executed and one that waits behind it.
pub(crate) const BATCHES_MAX: usize = 2;

/// Values by the batch that carries them, oldest first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending<T> {
    slots: [Option<(u64, T)>; BATCHES_MAX],
}

impl<T: Copy> Pending<T> {
    pub(crate) const fn new() -> Self {
        Self { slots: [None; BATCHES_MAX] }
    }

    /// Notes `value` for batch `id`. A batch has one value: a later one replaces it.
    pub(crate) fn put(&mut self, id: u64, value: T) {
        if let Some(slot) = self.slots.iter_mut().flatten().find(|slot| slot.0 == id) {
            slot.1 = value;
            return;
        }
        let free = self.slots.iter_mut().find(|slot| slot.is_none());
        debug_assert!(free.is_some(), "no more than BATCHES_MAX batches are out");
        if let Some(slot) = free {
            *slot = Some((id, value));
        }
    }

    /// Takes the value of batch `id` and of those before it, and returns the newest.
    pub(crate) fn take_through(&mut self, id: u64) -> Option<T> {
        let mut newest: Option<(u64, T)> = None;
        for slot in &mut self.slots {
            let Some((at, value)) = *slot else { continue };
            if at > id {
                continue;
            }
            *slot = None;
            if newest.is_none_or(|(newest, _)| newest < at) {
                newest = Some((at, value));
            }
        }
        newest.map(|(_, value)| value)
    }

    /// The newest value that is out.
    pub(crate) fn newest(&self) -> Option<T> {
        self.slots.iter().flatten().max_by_key(|slot| slot.0).map(|slot| slot.1)
    }

    /// Changes every value that is out.
    pub(crate) fn for_each(&mut self, change: impl Fn(&mut T)) {
        for slot in self.slots.iter_mut().flatten() {
            change(&mut slot.1);
        }
    }

    /// Whether nothing is out.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.iter().all(Option::is_none)
    }

    pub(crate) fn clear(&mut self) {
        self.slots = [None; BATCHES_MAX];
    }
}
