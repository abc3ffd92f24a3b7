//! Elements that an operator, or another program, has put into a queue's list.
//!
//! * `lnr:TOPIC:PAYLOAD` is a message on a topic, in which `:` and `\` are escaped by a backslash, as in keys.
//! * What liner_broker 1.3 and 1.4 leave there has a head of numbers: the length of what follows, the message's number, the connection
//!   key, the number of the topic (`lnr_topic:{topic}:key`), flags, and the payload's length, each with the highest byte first.
//! * Everything else is a payload, on the only topic that the queue has had.

use crate::keys;

/// What an element with a topic begins with.
const NAMED: &[u8] = b"lnr:";
/// Bytes of the head of what liner_broker leaves.
const HEAD: usize = 25;
/// Its flag for a payload that is compressed.
const COMPRESSED: u8 = 1;

/// What an element says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ByHand<'a> {
    /// A payload.
    Plain(&'a [u8]),
    /// A topic and a payload.
    Named(String, &'a [u8]),
    /// The number of a topic, and a payload.
    Numbered(u64, &'a [u8]),
    /// What this release cannot queue.
    Unusable(&'a [u8]),
}

/// Reads an element of the list with this connection key.
pub(crate) fn read(key: u64, element: &[u8]) -> ByHand<'_> {
    if let Some(rest) = element.strip_prefix(NAMED) {
        return match keys::split_part(rest) {
            Some((topic, payload)) => ByHand::Named(topic, payload),
            None => ByHand::Unusable(element),
        };
    }
    let older = || {
        let (head, payload) = element.split_first_chunk::<HEAD>()?;
        let u32_at = |at: usize| Some(u32::from_be_bytes(*head.get(at..)?.first_chunk()?));
        let len = u32::try_from(payload.len()).ok()?;
        let is_older = u32_at(0)? == len.checked_add(21)? && u64::from(u32_at(12)?) == key;
        let payload = (is_older && u32_at(21)? == len).then_some(payload)?;
        let is_compressed = head.get(20)? & COMPRESSED != 0;
        Some(if is_compressed {
            ByHand::Unusable(payload)
        } else {
            ByHand::Numbered(u32_at(16)?.into(), payload)
        })
    };
    older().unwrap_or(ByHand::Plain(element))
}

/// An element with a topic.
pub(crate) fn named(topic: &str, payload: &[u8]) -> Vec<u8> {
    [NAMED, keys::escape(topic).as_bytes(), b":", payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_read_as_it_was_written() {
        for topic in ["t", "a:b", "a\\", ":", "ü"] {
            for payload in [&b""[..], b"x", b":", b"\0\xff:lnr:"] {
                let element = named(topic, payload);
                assert_eq!(read(7, &element), ByHand::Named(topic.to_owned(), payload));
            }
        }
        for element in [&b"lnr:"[..], b"lnr:topic", b"lnr:t\\:x", b"lnr:\xff:x"] {
            assert_eq!(read(7, element), ByHand::Unusable(element));
        }
        assert_eq!(read(7, b"21.5"), ByHand::Plain(b"21.5"));
    }

    #[test]
    fn what_liner_broker_leaves_is_told_by_its_numbers() {
        let frame = |key: u32, flags: u8| {
            let mut frame = 24_u32.to_be_bytes().to_vec();
            frame.extend(9_u64.to_be_bytes());
            frame.extend(key.to_be_bytes());
            frame.extend(3_u32.to_be_bytes());
            frame.push(flags);
            frame.extend(3_u32.to_be_bytes());
            frame.extend(b"abc");
            frame
        };
        assert_eq!(read(7, &frame(7, 2)), ByHand::Numbered(3, b"abc"));
        assert_eq!(read(7, &frame(7, 3)), ByHand::Unusable(b"abc"));
        let other = frame(8, 2);
        assert_eq!(read(7, &other), ByHand::Plain(&other), "it is of another queue");
        let short = &frame(7, 2)[..27];
        assert_eq!(read(7, short), ByHand::Plain(short));
    }
}
