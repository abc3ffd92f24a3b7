//! Messages that people write into the tables by hand.

use liner_proto::memory::SEGMENT_BYTES;
use liner_proto::wire::TEXT_MAX;
use liner_proto::wire::record::{Header, Mode, Topic, encode_message, message_len};
use liner_proto::wire::varint::put_varint;

/// Bytes of the longest payload.
pub const PAYLOAD_MAX: usize = 1 << 20;

/// The record of a message: it is for the node whose queue it stands in, and nobody else has a copy.
pub fn record(topic: &str, payload: &[u8]) -> Vec<u8> {
    with(topic, payload, false)
}

/// The same of a message that another program may have delivered already.
pub fn repeated(topic: &str, payload: &[u8]) -> Vec<u8> {
    with(topic, payload, true)
}

fn with(topic: &str, payload: &[u8], repeat: bool) -> Vec<u8> {
    let topic = if topic.len() <= TEXT_MAX { topic } else { "" };
    let header = Header { repeat, ..Header::new(Mode::One, Topic::Text(topic)) };
    let mut record = vec![0; message_len(&header, payload.len())];
    encode_message(&header, payload, &mut record);
    record
}

/// Adds a record to a run, unless that would be more than a segment holds. A run without records takes any.
pub fn put(run: &mut Vec<u8>, record: &[u8]) -> bool {
    let mut prefix = [0; 10];
    let len = put_varint(&mut prefix, record.len() as u64).unwrap_or(0);
    if !run.is_empty() && run.len() + len + record.len() > SEGMENT_BYTES {
        return false;
    }
    run.extend_from_slice(prefix.get(..len).unwrap_or_default());
    run.extend_from_slice(record);
    true
}
