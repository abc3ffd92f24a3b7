//! What a node is told when it opens the store.

use std::collections::HashMap;

use liner_proto::effect::{InboxHeld, Recovered, StoreFault};
use liner_proto::id::Epoch;
use liner_store::names;
use tokio_postgres::types::Type;

use crate::PostgresStore;
use crate::columns::of;
use crate::error::Failure;
use crate::text::{from_column, to_column};

const NODE: &str = "SELECT inbox, (SELECT count(*) FROM dead_letters WHERE owner = $1),
  EXISTS(SELECT 1 FROM conn_key_map WHERE owner = $1 AND suspect) FROM liner_node WHERE name = $1";

const TOPICS: &str = "SELECT t.composite, t.number, t.topic, t.crc FROM stream_topic t
  JOIN conn_key_map q USING(composite) WHERE q.owner = $1";

pub(crate) const INBOX: &str = "SELECT count(*), coalesce(sum(bytes), 0)::bigint FROM inbox WHERE owner = $1";

impl PostgresStore {
    /// Tells everything, in the order of the contract.
    pub(crate) fn tell(&mut self, visit: &mut dyn FnMut(Recovered<'_>)) -> Result<(), Failure> {
        let name = self.name.clone();
        let of_node = [of(&name, Type::TEXT)];
        let nodes = self.linked()?.query(NODE, &of_node)?;
        let node = nodes.first().ok_or(StoreFault::Regressed)?;
        if let Some(inbox) = node.try_get::<_, Option<i64>>(0)? {
            let (dead_letters, suspect): (i64, bool) = (node.try_get(1)?, node.try_get(2)?);
            let (inbox, dead_letters) = (Epoch(inbox.cast_unsigned()), dead_letters.unsigned_abs());
            visit(Recovered::Node { inbox, regressed: self.regressed || suspect, dead_letters });
        }
        let counts = self.count(0)?.into_iter().map(|(key, messages, bytes)| (key, (messages, bytes)));
        let counts: HashMap<_, _> = counts.collect();
        let mut topics: HashMap<String, Vec<(u32, String)>> = HashMap::new();
        for row in self.linked()?.query(TOPICS, &of_node)? {
            let number = u32::try_from(row.try_get::<_, i64>(1)?).map_err(|_| StoreFault::Corrupt)?;
            let text = from_column(row.try_get(2)?).into_owned();
            topics.entry(row.try_get(0)?).or_default().push((number, text));
        }
        for row in self.rows.iter() {
            let queue = names::queue(row.kind, &row.name).ok_or(StoreFault::Corrupt)?;
            let (messages, bytes) = counts.get(&row.key).copied().unwrap_or_default();
            visit(Recovered::Queue(row.numbers.head.recovered(queue, messages, bytes)));
            for (number, text) in topics.get(&*to_column(&row.composite)).into_iter().flatten() {
                visit(Recovered::Topic { queue, number: *number, text });
            }
        }
        for (peer, epoch, through) in self.cursors.iter() {
            visit(Recovered::Cursor { peer, epoch, through });
        }
        for row in self.linked()?.query("SELECT topic, addr, client_name FROM topic_addr", &[])? {
            let (topic, address) = (from_column(row.try_get(0)?), from_column(row.try_get(1)?));
            let name = from_column(row.try_get(2)?);
            visit(Recovered::Subscription { topic: &topic, address: &address, name: &name });
        }
        Ok(())
    }

    /// What waits in the inbox. The application takes from it as it likes.
    pub(crate) fn count_inbox(&mut self) -> Result<InboxHeld, Failure> {
        let name = self.name.clone();
        let rows = self.linked()?.query(INBOX, &[of(&name, Type::TEXT)])?;
        let row = rows.first().ok_or(StoreFault::Corrupt)?;
        let number = |index| row.try_get::<_, i64>(index).map(i64::unsigned_abs);
        Ok(InboxHeld { messages: number(0)?, bytes: number(1)? })
    }
}
