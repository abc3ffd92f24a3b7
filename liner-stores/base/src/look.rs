//! A look at a store from outside, beside the nodes that use it: what waits, who has subscribed, what was put aside.

use liner_proto::effect::{DeadReason, Delivery, Queue};
use liner_proto::id::{Class, Epoch};
use liner_proto::wire::record::Mode;

use crate::byhand::PAYLOAD_MAX;

/// A store that is looked at. It takes no node's name, and changes nothing but what it is told to.
///
/// A payload that an operator has inserted by hand and that its node has not taken yet counts as queued.
pub trait Look {
    /// Whether a node of this name uses the store now, as far as the store can tell: what cannot be asked is not known to run.
    fn is_running(&mut self, name: &str) -> bool;

    /// Whether the node `name` could be started without a loss: it has used the store before, and nothing there is damaged.
    ///
    /// # Errors
    /// What speaks against it.
    fn vouch_for(&mut self, name: &str) -> Result<(), LookError>;

    /// The nodes that have used the store, sorted.
    ///
    /// # Errors
    /// What the store says.
    fn nodes(&mut self) -> Result<Vec<String>, LookError>;

    /// The queues that hold something, of one node or of all, by their nodes.
    ///
    /// # Errors
    /// What the store says.
    fn pending(&mut self, owner: Option<&str>) -> Result<Vec<Pending>, LookError>;

    /// Who takes what, by topics. A row that is no text is passed over, as nodes do.
    ///
    /// # Errors
    /// What the store says.
    fn subscriptions(&mut self) -> Result<Vec<Subscription>, LookError>;

    /// Messages that were put aside, from the oldest on: up to `limit` with an id above `after`, of one topic or of all. They are
    /// fewer where they are long; there is at least one as long as there are any.
    ///
    /// # Errors
    /// What the store says.
    fn dead_letters(
        &mut self,
        topic: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, LookError>;

    /// One of them.
    ///
    /// # Errors
    /// If there is none, or what the store says.
    fn dead_letter(&mut self, id: i64) -> Result<DeadLetter, LookError>;

    /// The same as they are stored, of one node: what another store needs to have them, too.
    ///
    /// # Errors
    /// What the store says.
    fn stored_letters(&mut self, owner: &str, after: i64, limit: u32)
    -> Result<Vec<StoredLetter>, LookError>;

    /// What the inbox of a node holds, from the oldest on, in the same way.
    ///
    /// # Errors
    /// What the store says.
    fn deliveries(&mut self, owner: &str, after: i64, limit: u32) -> Result<Vec<StoredDelivery>, LookError>;

    /// What is put aside and what waits in the inbox of a node.
    ///
    /// # Errors
    /// What the store says.
    fn held(&mut self, owner: &str) -> Result<Held, LookError> {
        let mut held = Held::default();
        let mut after = i64::MIN;
        loop {
            let page = self.stored_letters(owner, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            held.dead_letters += page.len() as u64;
        }
        let mut after = i64::MIN;
        loop {
            let page = self.deliveries(owner, after, PAGE)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            held.deliveries += page.len() as u64;
        }
        Ok(held)
    }

    /// What kind of store it is, how its commits fare, and what to do about it.
    ///
    /// # Errors
    /// What the store says, or that it is damaged.
    fn about(&mut self) -> Result<About, LookError> {
        Ok(About::default())
    }

    /// Deletes those with these ids, all or none. Returns how many they were.
    ///
    /// # Errors
    /// If one of them is not there, or what the store says.
    fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<u64, LookError>;

    /// Deletes all of a topic, or all there are. Returns how many they were.
    ///
    /// # Errors
    /// What the store says.
    fn drop_all_dead_letters(&mut self, topic: Option<&str>) -> Result<u64, LookError>;

    /// Queues those with these ids again, behind what waits for the node that each was for, all or none of them: they are sent
    /// from the next start of the node on that has put them aside. What the node's own application had failed at comes to that
    /// again. Returns how many they were.
    ///
    /// # Errors
    /// If one of them is not there, or cannot be queued, or what the store says.
    fn redrive(&mut self, ids: &[i64]) -> Result<u64, LookError>;
}

/// Rows that are read at a time where they are counted one by one.
const PAGE: u32 = 1000;

/// What a node has besides its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Messages that it has put aside.
    pub dead_letters: u64,
    /// Messages that its application has not taken.
    pub deliveries: u64,
}

/// What a store is, and how it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// What it is and of which release, as `SQLite 3.53.0`; empty if it does not say.
    pub product: String,
    /// The version of its tables or keys, if they have one.
    pub schema: Option<i64>,
    /// What commits survive, as far as that is known.
    pub class: Option<Class>,
    /// Sentences, each of which says what is not as it should be, and what to do.
    pub advice: Vec<String>,
}

/// What a queue holds that is not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The node whose queue it is.
    pub owner: String,
    /// Whom or what it is for.
    pub target: Target,
    /// Messages.
    pub messages: u64,
    /// Bytes of their records.
    pub bytes: u64,
}

/// What a queue is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A node.
    Node(String),
    /// Whoever subscribes to this topic first.
    Topic(String),
    /// Whoever answers at this address.
    Address(String),
}

impl Target {
    /// What this queue is for.
    pub fn of(queue: Queue<'_>) -> Self {
        match queue {
            Queue::Node(name) => Self::Node(name.to_owned()),
            Queue::Topic(topic) => Self::Topic(topic.to_owned()),
            Queue::Address(address) => Self::Address(address.to_owned()),
        }
    }
}

/// That a node takes a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subscription {
    /// The topic.
    pub topic: String,
    /// The node.
    pub name: String,
    /// Where it listens, as the table has it: `@name` for a node that only connects to others.
    pub address: String,
}

/// A message that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Names it in this store.
    pub id: i64,
    /// The node that has put it aside.
    pub owner: String,
    /// The node that it was for; if it was on a topic that `owner` does not take, or `owner` has failed at it, the one that it came from.
    pub peer: String,
    /// The topic it was sent to.
    pub topic: String,
    /// Why; nothing if a newer release knows.
    pub reason: Option<DeadReason>,
    /// What was sent; nothing if the record is damaged.
    pub payload: Option<Vec<u8>>,
}

/// A dead letter as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLetter {
    /// Names it in this store.
    pub id: i64,
    /// As [`DeadLetter::peer`].
    pub peer: String,
    /// The topic it was sent to.
    pub topic: String,
    /// Why, and the record; nothing if it is damaged.
    pub content: Option<(DeadReason, Vec<u8>)>,
}

/// A message in an inbox as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDelivery {
    /// Names it in this store.
    pub id: i64,
    /// What was delivered; nothing if it is damaged.
    pub content: Option<Delivered>,
}

/// A message that owns its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The node that first sent it.
    pub from: String,
    /// The epoch of the stream of its first hop.
    pub epoch: Epoch,
    /// Its number in that stream.
    pub number: u64,
    /// The topic it was sent to.
    pub topic: String,
    /// Whether it was sent to one node or to all.
    pub mode: Mode,
    /// Whether it may have been delivered before.
    pub maybe_redelivered: bool,
    /// What was sent.
    pub payload: Vec<u8>,
}

impl Delivered {
    /// The same for a store.
    pub fn lend(&self) -> Delivery<'_> {
        Delivery {
            from: &self.from,
            epoch: self.epoch,
            number: self.number,
            topic: &self.topic,
            mode: self.mode,
            maybe_redelivered: self.maybe_redelivered,
            payload: &self.payload,
        }
    }
}

/// Of the directory: rows of a node, and how many of them are of the topic that is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// All its rows.
    pub all: u64,
    /// Those of the topic.
    pub of_topic: u64,
}

impl DeadLetter {
    /// Whether it is what its owner's own application has failed at: that comes to the owner again.
    pub fn has_failed(&self) -> bool {
        self.payload.is_some() && self.reason == Some(DeadReason::Failed)
    }

    /// Whose queue it goes to when it is queued again.
    pub fn next(&self) -> &str {
        if self.has_failed() { &self.owner } else { &self.peer }
    }

    /// What speaks against queueing it again, if anything does. `is_known` says whether there is a queue for [`next`](Self::next), or one
    /// can be begun; `rows` are those of `peer`.
    pub fn refusal(&self, is_known: bool, rows: Rows) -> Option<String> {
        let Some(payload) = &self.payload else { return Some("its record is damaged".to_owned()) };
        if payload.len() > PAYLOAD_MAX {
            return Some(format!("it has more than {PAYLOAD_MAX} bytes"));
        }
        if self.has_failed() {
            return None;
        }
        if self.owner == self.peer {
            return Some("it is for the node itself".to_owned());
        }
        if !is_known {
            return Some(format!("nothing was ever sent to it by {}", self.owner));
        }
        (!self.may_take(rows)).then(|| format!("it has not subscribed to {}", self.topic))
    }

    /// Whether the message may have been for `peer`. One that nobody takes, or that finds no room, may have come from it: it must not
    /// go back there. A node that hands on what it takes has no rows for that.
    fn may_take(&self, rows: Rows) -> bool {
        let is_clear = !matches!(self.reason, Some(DeadReason::Unsubscribed | DeadReason::Quota));
        is_clear
            || self.peer == self.topic
            || rows.of_topic > 0
            || rows.all == 0 && self.reason == Some(DeadReason::Quota)
    }
}

/// Why something could not be looked at, or done. Each text says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LookError {
    /// Another program holds the store; it is there again when that has done its work.
    #[error("{0}")]
    InUse(String),
    /// There is no store of a node there, or none that this release can read.
    #[error("{0}")]
    Unreadable(String),
    /// What only the start of its node can mend or say, as an older schema or a full disk.
    #[error("{0}")]
    NodeKnows(String),
    /// It holds what does not pass its check.
    #[error("{0}")]
    Damaged(String),
    /// It cannot be reached, or failed.
    #[error("{0}")]
    Failed(String),
    /// No node of this name has used it.
    #[error(
        "no node named {name:?} has used {place}: name one of those that `liner pending` shows, or another store"
    )]
    NoSuchNode {
        /// The name.
        name: String,
        /// The store.
        place: String,
    },
    /// There is no dead letter with this id.
    #[error("there is no dead letter {id}: list them again, it may have been dropped")]
    NoSuchLetter {
        /// The id.
        id: i64,
    },
    /// The dead letter cannot be queued again.
    #[error("dead letter {id} cannot be queued again for {peer}: {why}")]
    NotQueued {
        /// The id.
        id: i64,
        /// Whom it was for.
        peer: String,
        /// Why not.
        why: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(reason: DeadReason) -> DeadLetter {
        let [owner, peer, topic] = ["gateway", "w", "readings"].map(str::to_owned);
        DeadLetter { id: 1, owner, peer, topic, reason: Some(reason), payload: Some(vec![7]) }
    }

    #[test]
    fn what_may_have_come_from_a_node_does_not_go_back_to_it() {
        let none = Rows::default();
        let others = Rows { all: 2, of_topic: 0 };
        let both = Rows { all: 2, of_topic: 1 };
        for (reason, rows, may) in [
            (DeadReason::Expired, none, true),
            (DeadReason::Unsubscribed, none, false),
            (DeadReason::Unsubscribed, others, false),
            (DeadReason::Unsubscribed, both, true),
            (DeadReason::Quota, none, true),
            (DeadReason::Quota, others, false),
            (DeadReason::Quota, both, true),
            // It was its own application's.
            (DeadReason::Failed, none, true),
        ] {
            assert_eq!(letter(reason).refusal(true, rows).is_none(), may, "{reason:?} {rows:?}");
        }
        assert_eq!(letter(DeadReason::Failed).next(), "gateway");
        assert_eq!(letter(DeadReason::Expired).next(), "w");
        let unknown = letter(DeadReason::Expired).refusal(false, none);
        assert_eq!(unknown.as_deref(), Some("nothing was ever sent to it by gateway"));
        let damaged = DeadLetter { payload: None, ..letter(DeadReason::Failed) };
        assert_eq!(damaged.refusal(true, both).as_deref(), Some("its record is damaged"));
    }
}
