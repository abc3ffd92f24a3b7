//! A disk that is full. Acknowledgements go on: what grows is refused when it is applied, so that it takes no acknowledgement with it.

use liner_store::numbers::Demand;

/// So many turns are committed before something that grows is tried again.
const TURNS: u32 = 16;

/// Whether the server has said lately that it has no room.
#[derive(Debug, Default)]
pub(crate) struct Fullness {
    /// Turns, or refusals, until the next attempt; nothing if there is room.
    wait: Option<u32>,
    /// Something that grows is in the turn.
    grows: bool,
}

impl Fullness {
    /// Whether a group is refused that needs room.
    pub(crate) const fn refuses(&mut self, demand: Demand) -> bool {
        let Some(wait) = self.wait else { return false };
        // What gives up as much as it takes is always tried.
        if wait == 0 || demand.is_move(u64::MAX) {
            return false;
        }
        self.wait = Some(wait - 1);
        true
    }

    /// Takes note of a group that was applied.
    pub(crate) const fn note(&mut self, demand: Demand) {
        self.grows |= demand.grows;
    }

    /// The server has no room.
    pub(crate) const fn hit(&mut self) {
        self.wait = Some(TURNS);
        self.grows = false;
    }

    /// A turn was committed.
    pub(crate) const fn committed(&mut self) {
        if self.grows {
            self.wait = None;
        } else if let Some(wait) = self.wait {
            self.wait = Some(wait.saturating_sub(1));
        }
        self.grows = false;
    }
}
