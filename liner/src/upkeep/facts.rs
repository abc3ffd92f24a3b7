//! What a store tells of a node when it is opened: everything but its messages.

use liner_mio::Store;
use liner_proto::effect::{Queue, Recovered, StoreFault};
use liner_proto::id::Epoch;
use liner_proto::store::head::Head;
use liner_store::look::Target;

/// A queue as it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) target: Target,
    pub(crate) head: Head,
    messages: u64,
    pub(crate) topics: Vec<(u32, String)>,
}

impl Told {
    pub(crate) fn queue(&self) -> Queue<'_> {
        match &self.target {
            Target::Node(name) => Queue::Node(name),
            Target::Topic(topic) => Queue::Topic(topic),
            Target::Address(address) => Queue::Address(address),
        }
    }
}

/// Everything of a node but its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) inbox: Option<Epoch>,
    /// Commits may be missing, which only the node itself can deal with.
    pub(crate) is_regressed: bool,
    pub(crate) queues: Vec<Told>,
    pub(crate) cursors: Vec<(String, Epoch, u64)>,
    pub(crate) subscriptions: Vec<[String; 3]>,
}

impl Facts {
    /// What the store tells of the node that it was opened for.
    pub(crate) fn of(store: &mut dyn Store) -> Result<Self, StoreFault> {
        let mut facts = Self::default();
        store.recover(&mut |fact| facts.take(fact))?;
        facts.queues.sort_by(|one, other| one.target.cmp(&other.target));
        facts.queues.iter_mut().for_each(|queue| queue.topics.sort());
        facts.cursors.sort_by(|one, other| one.0.cmp(&other.0));
        facts.subscriptions.sort();
        Ok(facts)
    }

    fn take(&mut self, fact: Recovered<'_>) {
        match fact {
            Recovered::Node { inbox, regressed, .. } => {
                (self.inbox, self.is_regressed) = (Some(inbox), regressed);
            }
            Recovered::Queue(queue) => {
                let head = Head {
                    epoch: queue.epoch,
                    predecessor: queue.predecessor,
                    trimmed: queue.trimmed,
                    dropped: queue.dropped,
                    last: queue.last,
                    reserved: queue.reserved,
                };
                let (target, messages) = (Target::of(queue.queue), queue.messages);
                self.queues.push(Told { target, head, messages, topics: Vec::new() });
            }
            Recovered::Topic { queue, number, text } => {
                let target = Target::of(queue);
                let told = self.queues.iter_mut().rev().find(|told| told.target == target);
                if let Some(told) = told {
                    told.topics.push((number, text.to_owned()));
                }
            }
            Recovered::Cursor { peer, epoch, through } => {
                self.cursors.push((peer.to_owned(), epoch, through));
            }
            Recovered::Subscription { topic, address, name } => {
                self.subscriptions.push([topic, address, name].map(str::to_owned));
            }
            // What a later contract tells, this release does not know how to copy.
            _ => {}
        }
    }

    /// Messages that are queued.
    pub(crate) fn messages(&self) -> u64 {
        self.queues.iter().map(|queue| queue.messages).sum()
    }

    /// Whether there is nothing of the node, whoever else uses the store.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_none() && self.queues.is_empty() && self.cursors.is_empty()
    }

    /// Whether the other store has the same of the node. The directory is that of all nodes.
    pub(crate) fn is_same(&self, there: &Self) -> bool {
        let numbers = |facts: &Self| (facts.inbox, facts.queues.clone(), facts.cursors.clone());
        numbers(self) == numbers(there)
    }

    /// Whether a node has used the store: it names its inbox epoch before it does anything else, and a copy does last.
    pub(crate) const fn is_whole(&self) -> bool {
        self.inbox.is_some()
    }
}
