//! Best-effort messages: for whoever is there, and for nobody else. They have no numbers, and are not stored.

use alloc::vec::Vec;

use super::conn::Conn;
use super::expiry::Reading;
use super::limits::encoded;
use super::output::Writer;
use super::pieces::FRAME_BYTES_MAX;
use super::{PeerId, RECORD_HEAD_MAX, Router, TopicId};
use crate::id::ConnId;
use crate::seal;
use crate::wire::data;
use crate::wire::record::{self, Header, Record, Topic};
use crate::wire::varint;

/// Bytes of best-effort records that wait for a link; beyond them new ones are dropped.
const BYTES_MAX: usize = 128 * 1024;

/// Best-effort records that wait for a link.
#[derive(Debug, Default)]
pub(super) struct Loose {
    /// Each with its length before it.
    bytes: Vec<u8>,
    /// What is before this has left.
    left: usize,
}

impl Loose {
    /// Adds a record, if the link is not behind already. Says whether it did.
    fn push(&mut self, record: &[u8]) -> bool {
        if self.bytes.len() - self.left + record.len() > BYTES_MAX {
            return false;
        }
        if self.left > self.bytes.len() / 2 {
            self.bytes.drain(..self.left);
            self.left = 0;
        }
        let mut len = [0; varint::LEN_MAX];
        let taken = varint::put_varint(&mut len, record.len() as u64).unwrap_or(0);
        self.bytes.extend_from_slice(len.get(..taken).unwrap_or_default());
        self.bytes.extend_from_slice(record);
        true
    }

    /// Gives the oldest record, which leaves. Says whether there was one.
    pub(super) fn pop(&mut self, each: impl FnOnce(&[u8])) -> bool {
        let waits = self.bytes.get(self.left..).and_then(record::split_first);
        let Some((record, rest)) = waits else { return false };
        each(record);
        self.left = self.bytes.len() - rest.len();
        if rest.is_empty() {
            *self = Self::default();
        }
        true
    }
}

impl Router {
    /// The largest payload of a best-effort message. It is in one frame, so that a node with shorter ones does not get it.
    pub fn loose_max(&self) -> usize {
        let in_frame = FRAME_BYTES_MAX - seal::LEN - data::HEAD_LEN_MAX - RECORD_HEAD_MAX;
        self.payload_max().min(in_frame)
    }

    /// Hands a best-effort message to whoever is there, and to nobody else. Returns how many took it.
    pub(super) fn send_loose(
        &mut self,
        topic: TopicId,
        header: &Header<'_>,
        payload: &[u8],
        except: Option<PeerId>,
        to_one: bool,
    ) -> usize {
        let text = self.topics.text(topic);
        let mut header = Header { topic: Topic::Text(text), ..*header };
        if header.ttl_ms.is_some() {
            // It may wait for its link.
            header = self.reading().queued(&header);
        }
        let len = record::message_len(&header, payload.len());
        let mut record = alloc::vec![0; len];
        if record::encode_message(&header, payload, &mut record).is_none() {
            return 0;
        }
        let rows = self.topics.rows(topic).iter().map(|row| row.peer);
        // Whoever is dialled by its address may know somebody.
        let dialled =
            self.dials.named().filter_map(|dial| self.dials.peer(dial)).filter(|_| except.is_none());
        let mut peers: Vec<PeerId> = rows.chain(dialled).filter(|peer| Some(*peer) != except).collect();
        peers.sort_unstable();
        peers.dedup();
        if to_one {
            peers.retain(|peer| {
                self.peers.get(peer.0).is_some_and(|peer| peer.conn.is_some() && len <= peer.loose_max)
            });
            let turn = self.topics.next_turn(topic);
            let chosen = turn.checked_rem(peers.len()).and_then(|at| peers.get(at)).copied();
            peers = chosen.into_iter().collect();
        }
        let mut taken = 0;
        for peer in peers {
            let Some(peer) = self.peers.get(peer.0).filter(|peer| len <= peer.loose_max) else { continue };
            let Some((id, conn)) = peer.conn.and_then(|id| Some((id, self.conns.get_mut(id)?))) else {
                continue;
            };
            if conn.loose.push(&record) {
                taken += 1;
                self.conns.list(id);
            }
        }
        taken
    }

    /// All that wait, on a reliable link: a frame each.
    pub(super) fn build_loose(&mut self, id: ConnId, writer: &mut Writer) {
        let now = self.reading();
        let Some(conn) = self.conns.get_mut(id) else { return };
        while conn.loose.pop(|record| write(record, now, writer)) {}
    }

    /// One of those that wait, on a line. Says whether there was one.
    pub(super) fn build_one_loose(&mut self, id: ConnId, writer: &mut Writer) -> bool {
        let (now, reading) = (self.now, self.reading());
        let Some(Conn { line: Some(line), loose, .. }) = self.conns.get_mut(id) else { return false };
        if !line.has_turn() {
            return false;
        }
        let before = writer.len();
        while writer.len() == before {
            if !loose.pop(|record| write(record, reading, writer)) {
                return false;
            }
        }
        line.occupy(now, writer.len() - before);
        true
    }
}

/// Writes a record that has waited, if it is still of use.
fn write(record: &[u8], now: Reading, writer: &mut Writer) {
    if !record::is_born(record) {
        return writer.data(record);
    }
    let Ok(Record::Message { header, payload }) = record::decode(record) else { return };
    if !now.is_too_old(&header, false) {
        writer.data(&encoded(&now.unqueued(&header, false), payload));
    }
}
