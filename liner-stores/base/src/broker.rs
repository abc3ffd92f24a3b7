//! What liner_broker 1.3 and 1.4 leave in a store: messages in a frame of their own, queues by names of which nothing is escaped.

use liner_proto::router::NAME_BYTES_MAX;

use crate::names;

/// What its nodes tell each other of themselves goes under this topic. Nobody sends it by hand, and nobody else reads it.
pub const OWN_TOPIC: &str = "__#internal_channel";

/// Bytes of a frame in front of its payload.
const HEAD: usize = 25;
/// Of these, the ones that the length in front of the frame does not count.
const PREFIX: u32 = 4;
/// The flag of a payload that Zstandard has compressed.
const COMPRESSED: u8 = 1;

/// A message as it stands in `conn_messages`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its number in the stream.
    pub number: u64,
    /// Its topic, by the number in `topic_key`.
    pub topic: i64,
    /// The payload is compressed.
    pub compressed: bool,
    /// The payload.
    pub payload: &'a [u8],
}

/// Reads a frame of the queue with this connection key: the length of what follows, the message's number, the connection key, the
/// number of the topic, flags, the payload's length, each with the highest byte first, and the payload.
///
/// Other bytes are hardly ever taken for one: the key and both lengths have to be right.
pub fn read(key: i64, bytes: &[u8]) -> Option<Frame<'_>> {
    let (head, payload) = bytes.split_first_chunk::<HEAD>()?;
    let four = |at: usize| head.get(at..)?.first_chunk().copied();
    let len = u32::try_from(payload.len()).ok()?;
    let is_whole = u32::from_be_bytes(four(0)?) == len.checked_add(HEAD as u32 - PREFIX)?
        && u32::from_be_bytes(four(21)?) == len;
    if !is_whole || i64::from(i32::from_be_bytes(four(12)?)) != key {
        return None;
    }
    Some(Frame {
        number: u64::from_be_bytes(*head.get(4..)?.first_chunk()?),
        topic: i32::from_be_bytes(four(16)?).into(),
        compressed: head.get(20)? & COMPRESSED != 0,
        payload,
    })
}

/// The sender and the queue that a composite `{sender}:{sender_topic}:{listener}` names, of which nothing is escaped; or one as
/// [`names::composite`] writes it, by hand. `own_topic` is the sender's own topic if that is known: it tells where one part ends
/// and the next begins if a name has a `:`. Nothing if that cannot be told.
pub fn queue_of(composite: &str, own_topic: Option<&str>) -> Option<(String, u8, String)> {
    let owner = names::owner(composite);
    if let Some((kind, name)) = names::parse(&owner, composite).filter(|_| is_name(&owner)) {
        return Some((owner, kind, name));
    }
    let with_topic = own_topic.and_then(|topic| only(splits(composite).filter(|parts| parts[1] == topic)));
    let [sender, _, listener] = with_topic.or_else(|| only(splits(composite)))?;
    (is_name(sender) && is_name(listener)).then(|| (sender.to_owned(), 0, listener.to_owned()))
}

/// All ways to take it for the name of a sender, a topic, and the name of a listener. There are few, whatever its length is.
fn splits(composite: &str) -> impl Iterator<Item = [&str; 3]> {
    let senders = composite.match_indices(':').take_while(|(at, _)| *at <= NAME_BYTES_MAX);
    senders.flat_map(move |(at, _)| {
        let (sender, rest) = (composite.get(..at), composite.get(at + 1..).unwrap_or_default());
        let listeners = rest.rmatch_indices(':').take_while(|(at, _)| rest.len() - at - 1 <= NAME_BYTES_MAX);
        listeners.filter_map(move |(at, _)| {
            let parts = [sender?, rest.get(..at)?, rest.get(at + 1..)?];
            parts.iter().all(|part| !part.is_empty()).then_some(parts)
        })
    })
}

fn only<T>(mut of: impl Iterator<Item = T>) -> Option<T> {
    of.next().filter(|_| of.next().is_none())
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As that program writes it.
    fn frame(number: u64, key: i32, topic: i32, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = payload.len() as u32;
        let mut frame = (len + 21).to_be_bytes().to_vec();
        frame.extend(number.to_be_bytes());
        frame.extend(key.to_be_bytes());
        frame.extend(topic.to_be_bytes());
        frame.push(flags);
        frame.extend(len.to_be_bytes());
        frame.extend(payload);
        frame
    }

    #[test]
    fn a_frame_is_told_by_its_numbers() {
        let of = |compressed, payload| Some(Frame { number: 9, topic: 3, compressed, payload });
        assert_eq!(read(7, &frame(9, 7, 3, 2, b"abc")), of(false, b"abc"));
        assert_eq!(read(7, &frame(9, 7, 3, 0, b"")), of(false, b""));
        assert_eq!(read(7, &frame(9, 7, 3, 3, b"abc")), of(true, b"abc"));
        assert_eq!(read(-7, &frame(9, -7, -3, 2, b"x")).map(|frame| frame.topic), Some(-3));
        assert_eq!(read(8, &frame(9, 7, 3, 2, b"abc")), None, "it is of another queue");
        let whole = frame(9, 7, 3, 2, b"abc");
        for len in 0..whole.len() {
            assert_eq!(read(7, &whole[..len]), None, "{len} bytes of it");
        }
        assert_eq!(read(7, &[&whole[..], b"d"].concat()), None);
        for at in [0, 3, 12, 15, 21, 24] {
            let mut other = whole.clone();
            other[at] ^= 1;
            assert_eq!(read(7, &other), None, "with another byte {at}");
        }
    }

    #[test]
    fn a_composite_is_taken_apart_where_it_can_be() {
        let node = |owner: &str, name: &str| Some((owner.to_owned(), 0, name.to_owned()));
        assert_eq!(queue_of("s:t:l", None), node("s", "l"));
        assert_eq!(queue_of("s:t:l", Some("t")), node("s", "l"));
        assert_eq!(queue_of("s:t:l", Some("peer")), node("s", "l"), "a topic of another kind stands there");
        assert_eq!(queue_of("s:a:b:l", Some("a:b")), node("s", "l"));
        assert_eq!(queue_of("s:a:t:l", Some("t")), node("s:a", "l"));
        assert_eq!(queue_of("s:t:t:l", Some("t")), None, "it may be either");
        assert_eq!(queue_of("s\\:t:l", None), node("s\\", "l"), "nothing is escaped");
        for composite in
            ["", "s", "s:l", ":t:l", "s:t:", "s:a:b:l", ":::", &format!("{}:t:l", "s".repeat(256))]
        {
            assert_eq!(queue_of(composite, None), None, "{composite}");
        }
        // It is looked at in as many ways as names may be long, and not in a billion.
        assert_eq!(queue_of(&":".repeat(1 << 20), Some("t")), None);
        // By hand.
        assert_eq!(queue_of("s::l", None), node("s", "l"));
        assert_eq!(queue_of("s::\\tnews", None), Some(("s".to_owned(), 1, "news".to_owned())));
        assert_eq!(queue_of("a\\:b::l", None), node("a:b", "l"));
    }
}
