//! What a store tells when it is opened, in a form that can be kept and compared.

use std::collections::BTreeMap;

use liner_proto::effect::{GapReason, Queue, Recovered};
use liner_proto::id::{Epoch, Predecessor};
use liner_proto::store::Store;

/// Everything that a store told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The node's own row.
    pub inbox: Option<Epoch>,
    /// Messages that were put aside.
    pub dead_letters: u64,
    /// The queues, by kind and name.
    pub queues: BTreeMap<(u8, String), ViewedQueue>,
    /// Cursors by peer.
    pub cursors: BTreeMap<String, (Epoch, u64)>,
    /// Names by topic and address.
    pub directory: BTreeMap<(String, String), String>,
}

/// What was told of one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ViewedQueue {
    /// Its epoch.
    pub epoch: Epoch,
    /// The epoch before.
    pub predecessor: Option<Predecessor>,
    /// The last number trimmed.
    pub trimmed: u64,
    /// The range dropped.
    pub dropped: Option<(u64, GapReason)>,
    /// The last number stored.
    pub last: u64,
    /// The last number reserved.
    pub reserved: u64,
    /// Messages queued.
    pub messages: u64,
    /// Bytes queued.
    pub bytes: u64,
    /// Topics by number.
    pub topics: BTreeMap<u32, String>,
}

/// A queue's kind as a number, and its name.
pub(super) fn key(queue: Queue<'_>) -> (u8, String) {
    let kind = match queue {
        Queue::Node(_) => 0,
        Queue::Topic(_) => 1,
        Queue::Address(_) => 2,
    };
    (kind, queue.name().to_owned())
}

impl View {
    /// What the store tells. Fails if it tells something twice, or in the wrong order.
    #[expect(clippy::panic, reason = "a test may fail")]
    pub fn of(store: &mut dyn Store) -> Self {
        let mut view = Self::default();
        let mut told = 0;
        let outcome = store.recover(&mut |fact| {
            view.take(fact, told);
            told += 1;
        });
        if let Err(fault) = outcome {
            panic!("recover: {fault} ({})", store.last_error().unwrap_or_default());
        }
        view
    }

    /// The queue, which was told.
    #[expect(clippy::panic, reason = "a test may fail")]
    pub fn queue(&self, queue: Queue<'_>) -> &ViewedQueue {
        self.queues.get(&key(queue)).unwrap_or_else(|| panic!("{queue:?} was not told"))
    }

    #[expect(clippy::panic, reason = "a test may fail")]
    fn take(&mut self, fact: Recovered<'_>, told: usize) {
        let twice = match fact {
            Recovered::Node { inbox, regressed, dead_letters } => {
                self.dead_letters = dead_letters;
                assert_eq!(told, 0, "the node's row comes first");
                assert!(!regressed, "nothing was lost");
                self.inbox.replace(inbox).is_some()
            }
            Recovered::Queue(queue) => {
                let viewed = ViewedQueue {
                    epoch: queue.epoch,
                    predecessor: queue.predecessor,
                    trimmed: queue.trimmed,
                    dropped: queue.dropped,
                    last: queue.last,
                    reserved: queue.reserved,
                    messages: queue.messages,
                    bytes: queue.bytes,
                    topics: BTreeMap::new(),
                };
                self.queues.insert(key(queue.queue), viewed).is_some()
            }
            Recovered::Topic { queue, number, text } => match self.queues.get_mut(&key(queue)) {
                Some(viewed) => viewed.topics.insert(number, text.to_owned()).is_some(),
                None => panic!("a topic of {queue:?} was told before the queue"),
            },
            Recovered::Cursor { peer, epoch, through } => {
                self.cursors.insert(peer.to_owned(), (epoch, through)).is_some()
            }
            Recovered::Subscription { topic, address, name } => {
                let row = (topic.to_owned(), address.to_owned());
                self.directory.insert(row, name.to_owned()).is_some()
            }
            other => panic!("{other:?} is not known to this suite"),
        };
        assert!(!twice, "{fact:?} was told twice");
    }
}
