//! What a node is told when it opens the store.

use liner_proto::effect::{Recovered, StoreFault};
use liner_proto::id::Epoch;

use crate::RedisStore;
use crate::client::Failure;
use crate::keys;
use crate::letters::Topics;
use crate::resp::{Reply, Request};
use crate::row::{QueueRow, Tail};
use crate::scan::Scan;

impl RedisStore {
    /// Tells everything, in the order of the contract.
    pub(crate) fn tell(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        let dead = keys::of_node(&self.owner, "dead");
        let mut request = Request::default();
        request.command(&[b"HGET", self.node.as_bytes(), b"inbox"]).command(&[b"XLEN", dead.as_bytes()]);
        let replies = self.connected()?.all(&request)?;
        let suspect = self.rows.all().iter().any(|(_, row)| row.suspect);
        if let Some(inbox) = replies.first().and_then(Reply::number) {
            let dead_letters = replies.get(1).and_then(Reply::number).unwrap_or(0);
            let regressed = self.opened.regressed || suspect;
            visit(Recovered::Node { inbox: Epoch(inbox), regressed, dead_letters });
        }
        self.tell_queues(visit)?;
        for (peer, &(epoch, through)) in &self.cursors {
            visit(Recovered::Cursor { peer, epoch, through });
        }
        for (topic, address, name) in self.rows_of_all_topics()? {
            visit(Recovered::Subscription { topic: &topic, address: &address, name: &name });
        }
        Ok(())
    }

    fn tell_queues(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        self.connected()?;
        let Some(client) = &mut self.client else { return Err(StoreFault::Unavailable.into()) };
        for (queue, row) in self.rows.all() {
            let Some(key) = row.key else { continue };
            let committed = QueueRow { tail: Tail::default(), ..row.clone() };
            let scan = Scan::of(client, &committed)?;
            visit(Recovered::Queue(row.numbers.head.recovered(queue, scan.messages, scan.bytes)));
            let topics = client.command(&[b"HGETALL", keys::of_queue(key, "topics").as_bytes()])?;
            let topics = Topics::of(&row.composite, &topics);
            if !topics.are_sound {
                return Err(StoreFault::Corrupt.into());
            }
            for (number, text) in &topics.by_number {
                visit(Recovered::Topic { queue, number: *number, text });
            }
        }
        Ok(())
    }
}
