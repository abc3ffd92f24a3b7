//! What a node's events mean to whoever runs the command.

use liner_mio::{Event, Node, SerialError};
use liner_proto::effect::{DeadReason, GapReason};
use liner_proto::wire::control::CloseReason;

use crate::failure::Failure;
use crate::out;

/// Tells of an event, as gravely as it is.
pub(crate) fn tell(event: &Event, node: &Node) {
    if let Some(words) = words(event, node.store_error().as_deref()) {
        if is_grave(event) { out::warn(words) } else { out::tell(words) }
    }
}

/// Whether something is lost or held up.
pub(crate) const fn is_grave(event: &Event) -> bool {
    !matches!(
        event,
        Event::PeerUp { .. }
            | Event::PeerDown { .. }
            | Event::HandshakeFailed { .. }
            | Event::DialFailed { .. }
            | Event::StoreRecovered
            | Event::Missed { .. }
    )
}

/// An event in words, if there are any for it. What the store said of its latest fault comes with those of the store.
pub(crate) fn words(event: &Event, said: Option<&str>) -> Option<String> {
    Some(match event {
        Event::PeerUp { name, .. } => format!("{name} is connected"),
        Event::PeerDown { name, reason, .. } => format!("{name} is away: {}", reason_words(*reason)),
        Event::HandshakeFailed { name: Some(name), reason: CloseReason::NameInUse, .. } => {
            format!("another program wants to connect as {name}, which is connected: it is refused")
        }
        Event::HandshakeFailed { reason, .. } => {
            format!("a connection ended before it was one of ours: {}", reason_words(*reason))
        }
        Event::HandshakesFailed { count } => format!("{count} more connections ended before they were ours"),
        Event::ConnectionsFull { max } => format!("{max} nodes are connected: one more was refused"),
        Event::DialFailed { address } => nobody_answers(address),
        Event::WrongName { address, expected, found } => wrong_name(address, expected, found),
        Event::Gap { from, count, reason } => {
            format!("{} of {from} will not come: {}", messages(*count), gap_words(*reason))
        }
        Event::WeakAcks { name, class, .. } => {
            format!(
                "{name} acknowledges what it may lose; messages for it wait until it keeps them at class {class}"
            )
        }
        Event::InDoubt { name, count } => in_doubt(name, *count),
        Event::Regressed { queue } => {
            format!("the queue of {queue} had gone back in time: it begins anew, and repeats are marked")
        }
        Event::Damaged { queue, count } => {
            format!("{} in the queue of {queue} damaged or missing in the store", messages(*count))
        }
        Event::StoreFailed(fault) => {
            let said = said.map(|said| format!(" ({said})")).unwrap_or_default();
            format!("{fault}: what it cannot take is not acknowledged, and is tried again{said}")
        }
        Event::StoreRecovered => "the store works again".to_owned(),
        Event::TopicFull { topic } => {
            format!(
                "{topic} has no subscriber and its quota is used up: subscribe with a name to take what is kept"
            )
        }
        Event::SubscriberGone { name, queued } => {
            format!(
                "{name} stayed away: the {queued} messages queued for it are no longer its own; one with --name keeps them"
            )
        }
        Event::NamesFull { max } => {
            format!(
                "{max} names are known, and no new one is taken: let senders keep their names, and durable subscribers theirs"
            )
        }
        Event::DeadLetter { name, topic, reason, count } => {
            format!("{name}: {} of {topic} put aside: {}", messages(*count), dead_words(*reason))
        }
        Event::Dropped { name, topic, reason, count } => {
            format!("{name}: {} of {topic} dropped: {}", messages(*count), dead_words(*reason))
        }
        Event::DeadLettersFull { name } => {
            format!(
                "messages for {name} wait: the next one is to be put aside, and too many are already; start anew when you have seen to them"
            )
        }
        Event::Missed { count } => format!("{count} more events"),
        // Whoever wants to know that asks for the topics, and whoever has a node forgotten says what became of its queue.
        Event::Subscribed { .. } | Event::Unsubscribed { .. } | Event::Forgotten { .. } => return None,
        // On a line of its own, so that clippy names the events that have no words here.
        _ => return None,
    })
}

fn in_doubt(name: &str, count: u64) -> String {
    format!(
        "{name} has forgotten what it had: {} for it, which it may have had, and all behind wait; \
         start anew with --in-doubt {name}=redeliver to send them again, or {name}=dead-letter to put them aside",
        messages(count)
    )
}

fn wrong_name(address: &str, expected: &str, found: &str) -> String {
    format!(
        "{found} answers at {address}, where {expected} was said to be: messages for {expected} wait until that one is found"
    )
}

pub(crate) fn nobody_answers(address: &str) -> String {
    format!("nobody answers at {address} yet: it is tried again until somebody does")
}

/// Why a port is not open, and that this is not the end.
pub(crate) fn not_open(error: &SerialError) -> String {
    // One that is not there says itself that it is waited for.
    if error.is_away() { error.to_string() } else { format!("{error}; it is tried again until it opens") }
}

pub(crate) fn messages(count: u64) -> String {
    if count == 1 { "a message".to_owned() } else { format!("{count} messages") }
}

pub(crate) const fn gap_words(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Dropped => "its queue was full, and the oldest gave way",
        GapReason::Crashed => "it died before it had stored what it may have sent under these numbers",
        GapReason::Corrupt => "damaged in its store",
        GapReason::Expired => "too old by then",
        GapReason::Cleared => {
            "taken out, by an operator or because this node does not take the topic any more"
        }
        GapReason::Missing => "missing in its store",
        GapReason::InDoubt => "perhaps delivered before this node forgot what it had",
        GapReason::TooLarge => "longer than this node takes",
        GapReason::Restarted => "only in its memory when it started anew",
        _ => "for a reason that this version does not know",
    }
}

/// The word of a reason, as programs read it.
pub(crate) const fn gap_name(reason: GapReason) -> &'static str {
    match reason {
        GapReason::Dropped => "dropped",
        GapReason::Crashed => "crashed",
        GapReason::Corrupt => "corrupt",
        GapReason::Expired => "expired",
        GapReason::Cleared => "cleared",
        GapReason::Missing => "missing",
        GapReason::TooLarge => "too_large",
        GapReason::Restarted => "restarted",
        GapReason::InDoubt => "in_doubt",
        _ => "unknown",
    }
}

const fn dead_words(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Quota => "its quota is used up",
        DeadReason::Expired => "too old",
        DeadReason::Failed => "not handled",
        DeadReason::Orphaned => "its stream is no more",
        DeadReason::TooLarge => "longer than the other side takes",
        DeadReason::InDoubt => "perhaps delivered before the other side forgot what it had",
        DeadReason::Unsubscribed => "nobody has subscribed to it",
        _ => "for a reason that this version does not know",
    }
}

/// The word of a reason, as programs read it.
pub(crate) const fn dead_name(reason: DeadReason) -> &'static str {
    match reason {
        DeadReason::Quota => "quota",
        DeadReason::Expired => "expired",
        DeadReason::Failed => "failed",
        DeadReason::Orphaned => "orphaned",
        DeadReason::TooLarge => "too_large",
        DeadReason::Unsubscribed => "unsubscribed",
        DeadReason::InDoubt => "in_doubt",
        _ => "unknown",
    }
}

/// Whether a node has to give up. Only whom it has dialled may say so: anybody can connect and close with any reason.
pub(crate) fn fatal(event: &Event, name: &str) -> Option<Failure> {
    let in_use = matches!(
        event,
        Event::HandshakeFailed { reason: CloseReason::NameInUse, dialed: true, .. }
            | Event::PeerDown { reason: CloseReason::NameInUse, dialed: true, .. }
    );
    in_use.then(|| name_in_use(name))
}

pub(crate) fn name_in_use(name: &str) -> Failure {
    Failure::InUse(format!("another program is connected as {name}: stop it, or choose another --name"))
}

pub(crate) const fn reason_words(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Normal | CloseReason::Shutdown => "it has stopped",
        CloseReason::Replaced => "a newer connection takes its place",
        CloseReason::NameInUse => "its name is in use",
        CloseReason::Unsupported => "it speaks another version",
        CloseReason::Violation => "it did what the protocol forbids",
        CloseReason::Timeout => "nothing was heard for too long",
        CloseReason::Unauthorised => "it may not connect",
        CloseReason::Overloaded => "there is no room for more of its names, topics or dead letters",
        CloseReason::SealBroken => "a frame failed its check",
        CloseReason::OutOfSequence => "messages are missing on the link",
        CloseReason::Regressed => "its queue had gone back in time",
        CloseReason::LinkLost => "the link broke",
        CloseReason::Other(_) => "for a reason that this version does not know",
    }
}

#[cfg(test)]
mod tests {
    use liner_proto::effect::StoreFault;
    use liner_proto::id::ConnId;

    use super::*;

    #[test]
    fn a_store_that_fails_is_told_in_its_own_words() {
        let failed = Event::StoreFailed(StoreFault::Unavailable);
        let told = words(&failed, Some("the file was deleted")).unwrap();
        assert!(told.ends_with("tried again (the file was deleted)"), "{told}");
    }

    #[test]
    fn another_node_than_the_expected_one_is_told_gravely() {
        let found = Event::WrongName { address: "h:1".into(), expected: "w".into(), found: "x".into() };
        let told = words(&found, None).unwrap();
        assert!(told.starts_with("x answers at h:1, where w was said to be"), "{told}");
        assert!(is_grave(&found));
    }

    #[test]
    fn only_whom_a_node_has_dialled_may_end_it() {
        for dialed in [true, false] {
            for reason in [CloseReason::NameInUse, CloseReason::Shutdown] {
                let down = Event::PeerDown { name: "gateway".into(), reason, dialed };
                let failed = Event::HandshakeFailed { conn: ConnId(1), name: None, reason, dialed };
                let ends = dialed && reason == CloseReason::NameInUse;
                assert_eq!((fatal(&down, "w").is_some(), fatal(&failed, "w").is_some()), (ends, ends));
            }
        }
    }
}
