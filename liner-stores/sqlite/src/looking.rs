//! The file as a store that is looked at, whatever its kind.

use liner_store::look::{
    self, About, DeadLetter, Delivered, Held, Pending, StoredDelivery, StoredLetter, Subscription,
};
use rusqlite::Row;

use crate::deliveries;
use crate::error::{OpenError, is_damage};
use crate::look::{Look, LookError, stored_letter};

impl look::Look for Look {
    fn is_running(&mut self, name: &str) -> bool {
        Self::is_running(self, name)
    }

    fn vouch_for(&mut self, name: &str) -> Result<(), look::LookError> {
        Ok(Self::vouch_for(self.path(), name)?)
    }

    fn nodes(&mut self) -> Result<Vec<String>, look::LookError> {
        Ok(Self::nodes(self)?)
    }

    fn pending(&mut self, owner: Option<&str>) -> Result<Vec<Pending>, look::LookError> {
        Ok(Self::pending(self, owner)?)
    }

    fn subscriptions(&mut self) -> Result<Vec<Subscription>, look::LookError> {
        Ok(Self::subscriptions(self)?)
    }

    fn dead_letters(
        &mut self,
        topic: Option<&str>,
        after: i64,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, look::LookError> {
        Ok(Self::dead_letters(self, topic, after, limit)?)
    }

    fn dead_letter(&mut self, id: i64) -> Result<DeadLetter, look::LookError> {
        Ok(Self::dead_letter(self, id)?)
    }

    fn stored_letters(
        &mut self,
        owner: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredLetter>, look::LookError> {
        let sql = "SELECT id, owner, peer, topic, reason, record, crc FROM dead_letters
             WHERE owner = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        Ok(self.page(sql, (owner, after, limit), stored_letter, |letter| {
            letter.content.as_ref().map_or(0, |(_, record)| record.len())
        })?)
    }

    fn deliveries(
        &mut self,
        owner: &str,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredDelivery>, look::LookError> {
        let sql = "SELECT id, sender, epoch, number, topic, mode, maybe_redelivered, failures, payload, crc
             FROM inbox WHERE owner = ?1 AND id > ?2 ORDER BY id LIMIT ?3";
        let read = |row: &Row<'_>| {
            let (id, message) = deliveries::read(owner, row)?;
            Ok(StoredDelivery { id, content: message.map(Delivered::from) })
        };
        Ok(self.page(sql, (owner, after, limit), read, |delivery| {
            delivery.content.as_ref().map_or(0, |it| it.payload.len())
        })?)
    }

    fn held(&mut self, owner: &str) -> Result<Held, look::LookError> {
        Ok(Self::held(self, owner)?)
    }

    fn about(&mut self) -> Result<About, look::LookError> {
        Ok(Self::about(self)?)
    }

    fn drop_dead_letters(&mut self, ids: &[i64]) -> Result<u64, look::LookError> {
        Ok(Self::drop_dead_letters(self, ids)?)
    }

    fn drop_all_dead_letters(&mut self, topic: Option<&str>) -> Result<u64, look::LookError> {
        Ok(Self::drop_all_dead_letters(self, topic)?)
    }

    fn redrive(&mut self, ids: &[i64]) -> Result<u64, look::LookError> {
        Ok(Self::redrive(self, ids)?)
    }
}

impl From<LookError> for look::LookError {
    fn from(error: LookError) -> Self {
        let words = error.to_string();
        match error {
            LookError::Open(OpenError::Locked { .. }) => Self::InUse(words),
            LookError::Open(OpenError::Sqlite { source, .. }) if is_damage(&source) => Self::Damaged(words),
            LookError::Open(OpenError::Sqlite { .. }) => Self::Failed(words),
            LookError::Open(_) | LookError::Missing { .. } => Self::Unreadable(words),
            LookError::OlderSchema { .. } | LookError::Broker { .. } => Self::NodeKnows(words),
            LookError::Damaged { .. } => Self::Damaged(words),
            LookError::NoSuchNode { name, path } => {
                Self::NoSuchNode { name, place: path.display().to_string() }
            }
            LookError::NoSuchLetter { id } => Self::NoSuchLetter { id },
            LookError::NotQueued { id, peer, why } => Self::NotQueued { id, peer, why },
        }
    }
}
