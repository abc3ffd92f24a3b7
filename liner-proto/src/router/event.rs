//! What a router tells its application besides messages.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use super::receipts::{Receipt, Settle};
use crate::effect::{DeadReason, GapReason, StoreFault};
use crate::id::{Class, ConnId};
use crate::logging::{debug, info, warn};
use crate::wire::control::CloseReason;
use crate::wire::handshake::Acks;
use crate::wire::record::Mode;
use crate::wire::text::Text;

/// Something that an application or an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A peer's session is up.
    PeerUp {
        /// Its name.
        name: Box<str>,
        /// Whether it remembered this node's stream.
        resumed: bool,
    },
    /// A peer's session has ended.
    PeerDown {
        /// Its name.
        name: Box<str>,
        /// Why.
        reason: CloseReason,
        /// Whether this node had dialled the connection.
        dialed: bool,
    },
    /// Somebody takes a topic now, as he says himself, or somebody who knows him.
    Subscribed {
        /// His name.
        name: Box<str>,
        /// The topic.
        topic: Box<str>,
    },
    /// Somebody takes a topic no more.
    Unsubscribed {
        /// His name.
        name: Box<str>,
        /// The topic.
        topic: Box<str>,
    },
    /// A connection ended before its handshake did.
    HandshakeFailed {
        /// The connection.
        conn: ConnId,
        /// Whom it was to be with, if the other side has dialled and said so.
        name: Option<Box<str>>,
        /// Why.
        reason: CloseReason,
        /// Whether this node had dialled it.
        dialed: bool,
    },
    /// So many more connections that others had made have ended before their handshakes did: of more than a few in a second only
    /// their number is told.
    HandshakesFailed {
        /// How many.
        count: u64,
    },
    /// A peer's session was refused, as there are `max` already. Told once until there was room again.
    ConnectionsFull {
        /// How many there may be, [`connections_max`](super::NodeConfig::connections_max) less the places for strangers.
        max: usize,
    },
    /// Nobody answers at an address that is dialled. Told at the first attempt; it is dialled again and again.
    DialFailed {
        /// The address.
        address: Box<str>,
    },
    /// Another node answers where one was said to be. Told once until the right one answers there; a message for the one that was
    /// said to be there waits.
    WrongName {
        /// The address.
        address: Box<str>,
        /// Who was said to be there.
        expected: Box<str>,
        /// Who is.
        found: Box<str>,
    },
    /// Numbers of a peer's stream will never carry a message.
    Gap {
        /// The sender.
        from: Box<str>,
        /// How many.
        count: u64,
        /// Why.
        reason: GapReason,
    },
    /// The peer's acknowledgements stand for less than this node's messages need: its queue is held.
    WeakAcks {
        /// Its name.
        name: Box<str>,
        /// What they stand for.
        acks: Acks,
        /// What is needed.
        class: Class,
    },
    /// A peer has forgotten this node's stream, and may have had messages of it that it has not acknowledged. They wait, and what
    /// is behind them, as [`InDoubt::Ask`](super::InDoubt::Ask) says, until
    /// [`resolve_doubt`](super::Router::resolve_doubt). Told in each of its sessions until then.
    InDoubt {
        /// Its name.
        name: Box<str>,
        /// How many it may have had.
        count: u64,
    },
    /// Evidence that a queue of this node had gone backwards: it got a new epoch.
    Regressed {
        /// The node, topic or address of the queue.
        queue: Box<str>,
    },
    /// Stored messages of a queue of this node are damaged or missing. Whoever they were for is told of a gap in their place,
    /// unless they were on their way back to their topics.
    Damaged {
        /// The node, topic or address of the queue.
        queue: Box<str>,
        /// How many.
        count: u64,
    },
    /// The store failed. What was asked of it is asked again.
    StoreFailed(StoreFault),
    /// The store works again.
    StoreRecovered,
    /// A topic that nobody has subscribed to has used up its quota; its messages become dead letters.
    TopicFull {
        /// The topic.
        topic: Box<str>,
    },
    /// An ephemeral subscriber stayed away for too long: what was queued for it alone goes back to its topic, its copies of
    /// what went to all are dropped.
    SubscriberGone {
        /// Its name.
        name: Box<str>,
        /// Messages that were queued for it.
        queued: u64,
    },
    /// A node was forgotten, as [`Router::forget`](super::Router::forget) was asked to, and the store knows it.
    Forgotten {
        /// Its name.
        name: Box<str>,
        /// Messages that went back to their topics.
        rerouted: u64,
        /// Messages that were dropped; the node is told of a gap if it should come back.
        dropped: u64,
    },
    /// A peer with a new name was refused, as `max` names are known already. Told once until a name is forgotten. Names of those
    /// that subscribe durably or have sent something stay for ever: whoever sends should keep the name it has.
    NamesFull {
        /// How many are known.
        max: usize,
    },
    /// Messages are among the dead letters: they will not be sent, or not be handed over.
    DeadLetter {
        /// The node they were for; if they are on a topic that this node does not take, the one they came from.
        name: Box<str>,
        /// The topic they were sent to.
        topic: Box<str>,
        /// Why.
        reason: DeadReason,
        /// How many.
        count: u64,
    },
    /// The same, but there is no room for more dead letters, or their subscriber has no name of its own: they are gone. A node
    /// that they were queued for is told of a gap.
    Dropped {
        /// As with dead letters.
        name: Box<str>,
        /// The topic they were sent to; if they made way in a queue that is full, that of the newer ones.
        topic: Box<str>,
        /// Why.
        reason: DeadReason,
        /// How many.
        count: u64,
    },
    /// The next message for a node, or from it, has to be put aside, and there is no room for more dead letters: it waits, and
    /// what is behind it, until some of those were deleted and this node is started anew, or until it need not be put aside.
    DeadLettersFull {
        /// The node.
        name: Box<str>,
    },
    /// Events before this one were dropped because nobody took them.
    Missed {
        /// How many.
        count: u64,
    },
}

impl Event {
    fn log(&self) {
        match self {
            Self::PeerUp { name, resumed } => {
                info!("{:?} is connected, resumed: {}", Text::of(name), resumed);
            }
            Self::PeerDown { name, reason, .. } => {
                info!("{:?} is disconnected: {:?}", Text::of(name), reason);
            }
            Self::Subscribed { name, topic } => debug!("{:?} takes {:?}", Text::of(name), Text::of(topic)),
            Self::Unsubscribed { name, topic } => {
                debug!("{:?} takes {:?} no more", Text::of(name), Text::of(topic));
            }
            Self::HandshakeFailed { conn, name, reason, .. } => {
                let name = Text::of(name.as_deref().unwrap_or_default());
                debug!("the handshake of connection {} with {:?} has failed: {:?}", conn.0, name, reason);
            }
            Self::HandshakesFailed { count } => debug!("{} more handshakes have failed", count),
            Self::ConnectionsFull { max } => warn!("a session was refused: there are {}", max),
            Self::DialFailed { address } => debug!("nobody answers at {:?}", Text::of(address)),
            Self::WrongName { address, expected, found } => {
                let (address, expected, found) = (Text::of(address), Text::of(expected), Text::of(found));
                warn!("{:?} answers at {:?}, where {:?} was said to be", found, address, expected);
            }
            Self::Gap { from, count, reason } => {
                warn!("a gap: {} messages of {:?} will never come: {:?}", count, Text::of(from), reason);
            }
            Self::WeakAcks { name, acks, class } => {
                let name = Text::of(name);
                warn!("{:?} is sent nothing: it acknowledges at {:?}, needed is {:?}", name, acks, class);
            }
            Self::InDoubt { name, count } => warn!("{} messages to {:?} are in doubt", count, Text::of(name)),
            Self::Regressed { queue } => warn!("the queue {:?} had gone backwards", Text::of(queue)),
            Self::Damaged { queue, count } => {
                warn!("{} messages of the queue {:?} are damaged or missing", count, Text::of(queue));
            }
            Self::StoreFailed(fault) => warn!("the store failed: {:?}", fault),
            Self::StoreRecovered => info!("the store works again"),
            Self::TopicFull { topic } => {
                warn!("the topic {:?} is full: nobody has subscribed", Text::of(topic));
            }
            Self::SubscriberGone { name, queued } => {
                debug!("{:?} was away for too long: {} messages leave its queue", Text::of(name), queued);
            }
            Self::Forgotten { name, rerouted, dropped } => {
                let name = Text::of(name);
                info!(
                    "{:?} is forgotten: {} messages went elsewhere, {} were dropped",
                    name, rerouted, dropped
                );
            }
            Self::NamesFull { max } => warn!("a new name was refused: {} are known", max),
            Self::DeadLetter { name, topic, reason, count } => {
                let (name, topic) = (Text::of(name), Text::of(topic));
                warn!("{} messages on {:?} became dead letters of {:?}: {:?}", count, topic, name, reason);
            }
            Self::Dropped { name, topic, reason, count } => {
                let (name, topic) = (Text::of(name), Text::of(topic));
                warn!("{} messages on {:?} were dropped, of {:?}: {:?}", count, topic, name, reason);
            }
            Self::DeadLettersFull { name } => {
                warn!("{:?} has to wait: there is no room for more dead letters", Text::of(name));
            }
            Self::Missed { .. } => {}
        }
    }
}

/// A message as it is handed to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// The topic it was sent to.
    pub topic: &'a str,
    /// The node that first sent it.
    pub from: &'a str,
    /// Its number in the stream of its first hop.
    pub seq: u64,
    /// Whether it was sent to one node or to all.
    pub mode: Mode,
    /// What was sent.
    pub payload: &'a [u8],
    /// Whether it may have been handed over before.
    pub maybe_redelivered: bool,
    /// What settles it later, if it is to be.
    pub receipt: Receipt,
}

/// Takes messages as they arrive.
///
/// A message counts as processed when [`message`](Self::message) returns: it is acknowledged after the next commit. Who wants to
/// settle messages later implements [`take`](Self::take).
pub trait Application {
    /// Takes a message.
    fn message(&mut self, message: &Message<'_>);

    /// Takes a message, and says when it counts as processed: now, or when its [`receipt`](Message::receipt) is settled. One that
    /// has no number ([`Mode::BestEffort`]) need not be settled, and is not waited for.
    fn take(&mut self, message: &Message<'_>) -> Settle {
        self.message(message);
        Settle::Now
    }

    /// Whether it has had as much as it wants to see again after a crash: no further frame is looked at before the next call.
    fn is_full(&self) -> bool {
        false
    }
}

impl<F: FnMut(&Message<'_>)> Application for F {
    fn message(&mut self, message: &Message<'_>) {
        self(message);
    }
}

/// Events kept for an application that does not take them: beyond these the oldest are dropped and counted.
const EVENTS_MAX: usize = 1024;

/// A bounded queue of events.
#[derive(Debug, Default)]
pub(super) struct Events {
    queue: VecDeque<Event>,
    missed: u64,
}

impl Extend<Event> for Events {
    fn extend<T: IntoIterator<Item = Event>>(&mut self, events: T) {
        events.into_iter().for_each(|event| self.push(event));
    }
}

impl Events {
    pub(super) fn push(&mut self, event: Event) {
        event.log();
        let is_minor = matches!(event, Event::Subscribed { .. } | Event::Unsubscribed { .. });
        if is_minor && self.queue.len() >= EVENTS_MAX / 2 {
            // A peer may take thousands of topics at once: that must not push out anything else.
            self.missed += 1;
            return;
        }
        if self.queue.len() == EVENTS_MAX {
            self.queue.pop_front();
            self.missed += 1;
        }
        self.queue.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<Event> {
        if self.missed > 0 {
            let count = core::mem::take(&mut self.missed);
            return Some(Event::Missed { count });
        }
        self.queue.pop_front()
    }
}
