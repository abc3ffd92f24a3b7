//! Elements that an operator, or another program, has put into a queue's list.
//!
//! * `lnr:TOPIC:PAYLOAD` is a message on a topic, in which `:` and `\` are escaped by a backslash, as in keys.
//! * What liner_broker 1.3 and 1.4 leave there is a [frame](broker), with the number of its topic (`lnr_topic:{topic}:key`).
//! * Everything else is a payload, on the only topic that the queue has had.

use liner_store::broker::{self, Frame};

use crate::keys;

/// What an element with a topic begins with.
const NAMED: &[u8] = b"lnr:";

/// What an element says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ByHand<'a> {
    /// A payload.
    Plain(&'a [u8]),
    /// A topic and a payload.
    Named(String, &'a [u8]),
    /// A message of liner_broker's.
    Broker(Frame<'a>),
    /// What cannot be read.
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
    let frame = i64::try_from(key).ok().and_then(|key| broker::read(key, element));
    frame.map_or(ByHand::Plain(element), ByHand::Broker)
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
        let of = |compressed| ByHand::Broker(Frame { number: 9, topic: 3, compressed, payload: b"abc" });
        assert_eq!((read(7, &frame(7, 2)), read(7, &frame(7, 3))), (of(false), of(true)));
        let other = frame(8, 2);
        assert_eq!(read(7, &other), ByHand::Plain(&other), "it is of another queue");
        let short = &frame(7, 2)[..27];
        assert_eq!(read(7, short), ByHand::Plain(short));
    }
}
