//! How much of what the application sends the store is given at a time.

/// Bytes of the application's messages that a batch takes; one more message may exceed them. A batch is executed whole before anything
/// else is: on a card that writes 5 MB a second, or in a database a network away, the node would wait for many seconds otherwise, and
/// take the store for one that is away.
const BATCH_BYTES: usize = 2 * 1024 * 1024;

/// What a store has to do for a message however short it is, as bytes: 30,000 empty ones are a batch.
const MESSAGE_BYTES: usize = 64;

/// Bytes of the application's messages that are in no batch yet.
#[derive(Debug, Default)]
pub(super) struct Fresh(usize);

impl Fresh {
    /// Whether the next batch has as many of the application's messages as it takes.
    #[inline]
    pub(super) const fn is_batch_full(&self) -> bool {
        self.0 >= BATCH_BYTES
    }

    /// The next batch takes a message of the application.
    #[inline]
    pub(super) const fn note(&mut self, payload: &[u8]) {
        self.0 = self.0.saturating_add(payload.len() + MESSAGE_BYTES);
    }
}
