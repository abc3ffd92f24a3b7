//! Turns: each one is a transaction. Groups are tried out when they are applied, and written all at once when the turn ends.

use liner_proto::effect::{StoreFault, StoreOp};
use liner_store::numbers::Trial;
use tokio_postgres::types::Type;

use crate::PostgresStore;
use crate::buffer::Buffer;
use crate::columns::of;
use crate::error::Failure;
use crate::flush::{Fallen, Frame, Mark, flush};
use crate::link::Link;
use crate::open::SUSPECT;

/// How far the turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The database knows nothing of it.
    Idle,
    /// Its transaction is open.
    Open,
    /// Nothing of it is left, for this reason; `commit` has yet to say so.
    Lost(StoreFault),
    /// Whether it was committed is not known.
    Doubt,
}

/// How the node's row stands to what this process knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is ours, and has had this turn last.
    Ours(i64),
    /// So far it is ours, with a newer token: an earlier question about it was carried out when nobody waited for the answer any more.
    Advanced,
    Superseded,
    Regressed,
}

const STANDING: &str = "SELECT instance, turn, token FROM liner_node WHERE name = $1";

/// It waits for the transaction of an older connection; from then on none can commit any more.
const NEXT_TOKEN: &str =
    "UPDATE liner_node SET token = token + 1 WHERE name = $1 AND instance = $2 RETURNING token, turn";

impl PostgresStore {
    pub(crate) fn apply_group(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        match self.turn {
            Turn::Lost(fault) => return Err(fault),
            Turn::Doubt => return Err(StoreFault::Unavailable),
            Turn::Idle | Turn::Open => {}
        }
        let mut trial = Trial::default();
        for op in group {
            trial.step(op, |queue| Ok::<_, StoreFault>(self.rows.find(queue).map(|(_, row)| row.numbers)))?;
        }
        if trial.demand.grows && self.fullness.refuses(trial.demand) {
            return Err(StoreFault::Full);
        }
        self.fullness.note(trial.demand);
        for op in group {
            if let Err(fault) = self.buffer.take(&self.owner, &mut self.rows, &mut self.cursors, op) {
                self.lose(fault);
                return Err(fault);
            }
        }
        Ok(())
    }

    pub(crate) fn commit_turn(&mut self) -> Result<(), StoreFault> {
        match self.turn {
            Turn::Lost(fault) => {
                self.turn = Turn::Idle;
                return Err(fault);
            }
            Turn::Doubt => return Err(StoreFault::Unavailable),
            Turn::Idle if !self.buffer.is_used => return Ok(()),
            Turn::Idle | Turn::Open => {}
        }
        let Err(fallen) = self.write(true) else {
            self.finish_turn();
            return Ok(());
        };
        self.fail(fallen);
        if self.turn == Turn::Doubt {
            return Err(StoreFault::Unknown);
        }
        let Turn::Lost(fault) = core::mem::replace(&mut self.turn, Turn::Idle) else { return Ok(()) };
        Err(fault)
    }

    /// Writes what was applied into the turn's transaction, so that it can be seen.
    pub(crate) fn flush_turn(&mut self) -> Result<(), StoreFault> {
        match self.turn {
            Turn::Lost(fault) => return Err(fault),
            Turn::Doubt => return Err(StoreFault::Unavailable),
            Turn::Idle | Turn::Open => {}
        }
        if !self.buffer.is_used {
            return Ok(());
        }
        match self.write(false) {
            Ok(()) => {
                self.turn = Turn::Open;
                self.written.push(core::mem::take(&mut self.buffer));
                Ok(())
            }
            Err(fallen) => {
                self.fail(fallen);
                Err(if let Turn::Lost(fault) = self.turn { fault } else { StoreFault::Unavailable })
            }
        }
    }

    /// What became of the turn in doubt. If nothing of it was committed, it is written again: nobody has been told of it.
    pub(crate) fn resolve_turn(&mut self) -> Result<(), StoreFault> {
        if self.turn != Turn::Doubt {
            return Ok(());
        }
        let standing = self.take_next_token().map_err(|failure| {
            self.note(&failure);
            StoreFault::Unavailable
        })?;
        match standing {
            Standing::Ours(turn) if turn == self.last_turn + 1 => {
                self.finish_turn();
                return Ok(());
            }
            Standing::Ours(turn) if turn == self.last_turn => {}
            Standing::Ours(_) | Standing::Regressed => {
                self.remember_regression();
                return Err(self.give_up(StoreFault::Regressed));
            }
            // Others have taken nothing: it is asked again.
            Standing::Advanced => return Err(StoreFault::Unavailable),
            Standing::Superseded => return Err(self.give_up(StoreFault::Superseded)),
        }
        let Err(fallen) = self.write_again() else {
            self.finish_turn();
            return Ok(());
        };
        self.note(&fallen.failure);
        let fault = self.diagnose(&fallen.failure);
        if fallen.failure.breaks() {
            self.link = None;
        }
        if fault == StoreFault::Unavailable {
            return Err(fault);
        }
        Err(self.give_up(fault))
    }

    fn give_up(&mut self, fault: StoreFault) -> StoreFault {
        self.lose(fault);
        self.turn = Turn::Idle;
        fault
    }

    fn finish_turn(&mut self) {
        self.last_turn += 1;
        self.rows.settle();
        self.cursors.settle();
        self.forget_buffers();
        self.turn = Turn::Idle;
        self.fullness.committed();
    }

    fn forget_buffers(&mut self) {
        self.buffer = Buffer::default();
        self.written.clear();
    }

    /// Takes back all that was applied since the last commit.
    pub(crate) fn lose(&mut self, fault: StoreFault) {
        if self.turn == Turn::Open
            && let Some(link) = &self.link
            && link.batch("ROLLBACK").is_err()
        {
            self.link = None;
        }
        self.rows.undo();
        self.cursors.undo();
        self.forget_buffers();
        self.turn = Turn::Lost(fault);
    }

    /// The turn was not written, or may have been.
    fn fail(&mut self, fallen: Fallen) {
        self.note(&fallen.failure);
        if fallen.is_at_commit {
            self.link = None;
            self.turn = Turn::Doubt;
            return;
        }
        let fault = self.diagnose(&fallen.failure);
        if fallen.failure.breaks() {
            self.link = None;
        }
        if fault == StoreFault::Full {
            self.fullness.hit();
        }
        self.lose(fault);
    }

    /// What a failure means for whoever applied something.
    fn diagnose(&mut self, failure: &Failure) -> StoreFault {
        if !failure.is_fence() {
            return failure.fault();
        }
        if let Some(link) = &self.link {
            // The transaction is over, or is over now.
            let _ = link.batch("ROLLBACK");
        }
        match self.standing() {
            Ok(Standing::Superseded) => StoreFault::Superseded,
            Ok(Standing::Advanced) => StoreFault::Unavailable,
            // The row is as it should be: it was a queue's row that is gone.
            Ok(Standing::Ours(turn)) if turn == self.last_turn => StoreFault::Regressed,
            Ok(Standing::Ours(_) | Standing::Regressed) => {
                self.remember_regression();
                StoreFault::Regressed
            }
            Err(failure) => failure.fault(),
        }
    }

    /// Whoever opens the store next begins new epochs: peers may have had numbers that the database knows nothing of.
    fn remember_regression(&mut self) {
        let name = self.name.clone();
        // If that fails the database is away again, and the next turn finds out the same.
        let _ = self.linked().and_then(|link| link.query(SUSPECT, &[of(&name, Type::TEXT)]));
    }

    fn standing(&mut self) -> Result<Standing, Failure> {
        let name = self.name.clone();
        let rows = self.linked()?.query(STANDING, &[of(&name, Type::TEXT)])?;
        let Some(row) = rows.first() else { return Ok(Standing::Regressed) };
        let (instance, turn, token): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        Ok(match instance == self.instance {
            true if turn == self.last_turn && token > self.token => {
                self.token = token;
                Standing::Advanced
            }
            true => Standing::Ours(turn),
            // Tokens only grow: this is a copy from before the node was opened.
            false if token < self.token => Standing::Regressed,
            false => Standing::Superseded,
        })
    }

    /// Takes the next token, unless somebody else has taken one.
    fn take_next_token(&mut self) -> Result<Standing, Failure> {
        let (name, instance) = (self.name.clone(), self.instance);
        let rows = self.linked()?.query(NEXT_TOKEN, &[of(&name, Type::TEXT), of(&instance, Type::INT8)])?;
        let Some(row) = rows.first() else { return self.standing() };
        let turn = row.try_get(1)?;
        self.token = row.try_get(0)?;
        Ok(Standing::Ours(turn))
    }

    /// Lets other nodes have the connection, unless a transaction is open on it.
    pub(crate) fn let_go(&mut self) {
        if self.turn != Turn::Open
            && let Some(link) = self.link.take()
        {
            self.pool.put(link);
        }
    }

    /// The connection; one of the pool's if the turn has none yet.
    pub(crate) fn linked(&mut self) -> Result<&Link, Failure> {
        if self.link.is_none() {
            let link = self.pool.take(&self.owner).map_err(|error| Failure::Away(error.to_string()))?;
            self.link = Some(link);
        }
        self.link.as_ref().ok_or_else(|| Failure::Away(String::new()))
    }

    fn write(&mut self, commits: bool) -> Result<(), Fallen> {
        let opens = self.turn != Turn::Open;
        let fallen = |failure| Fallen { failure, is_at_commit: false };
        self.linked().map_err(fallen)?;
        let buffer = core::mem::take(&mut self.buffer);
        let mut outcome = self.send(&buffer, opens, commits);
        if opens
            && let Err(Fallen { failure, is_at_commit: false }) = &outcome
            && failure.is_contention()
        {
            // Another transaction was in the way, and is not any more.
            self.reset(&buffer);
            outcome = self.send(&buffer, opens, commits);
        }
        self.buffer = buffer;
        outcome
    }

    /// Writes the whole turn in doubt once more.
    fn write_again(&mut self) -> Result<(), Fallen> {
        let mut buffers = core::mem::take(&mut self.written);
        buffers.push(core::mem::take(&mut self.buffer));
        let last = buffers.len() - 1;
        let mut outcome = Ok(());
        // Queues that the turn made and closed have left nothing, and their keys may be somebody else's.
        let created: Vec<_> = buffers.iter().flat_map(|buffer| buffer.created.iter().copied()).collect();
        for buffer in &mut buffers {
            buffer.closed.retain(|(life, ..)| !created.contains(life));
            self.reset(buffer);
        }
        for (index, buffer) in buffers.iter().enumerate() {
            outcome = self.send(buffer, index == 0, index == last);
            if outcome.is_err() {
                break;
            }
        }
        self.buffer = buffers.pop().unwrap_or_default();
        self.written = buffers;
        outcome
    }

    /// What the database has taken back has no key any more.
    fn reset(&mut self, buffer: &Buffer) {
        if let Some(link) = &self.link {
            let _ = link.batch("ROLLBACK");
        }
        for life in &buffer.created {
            if let Some(row) = self.rows.get_mut(*life) {
                row.key = 0;
            }
        }
    }

    fn send(&mut self, buffer: &Buffer, opens: bool, commits: bool) -> Result<(), Fallen> {
        let Some(link) = &self.link else {
            return Err(Fallen { failure: Failure::Away("not connected".to_owned()), is_at_commit: false });
        };
        let Self { owner, name, token, instance, last_turn: turn, .. } = self;
        let mark = Mark { owner, name, token: *token, instance: *instance, turn: *turn };
        let frame = Frame { begin: opens.then_some(&*self.begin), commits };
        let outcome = flush(link, mark, frame, buffer, &mut self.rows, &self.cursors);
        if outcome.is_err() && !link.is_closed() {
            // After a failure behind the first message the transaction may be open.
            let _ = link.batch("ROLLBACK");
        }
        outcome
    }

    /// Runs something that only reads, and sorts its failure.
    pub(crate) fn guarded<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, StoreFault> {
        self.flush_turn()?;
        let outcome = read(self).map_err(|failure| {
            self.note(&failure);
            let fault = failure.fault();
            let breaks = failure.breaks();
            if breaks {
                self.link = None;
            }
            if self.turn == Turn::Open {
                // After an error PostgreSQL takes nothing but the end of the transaction.
                self.lose(fault);
            }
            fault
        });
        self.let_go();
        outcome
    }

    /// Keeps the backend's words.
    pub(crate) fn note(&mut self, failure: &Failure) {
        if let Some(words) = failure.words() {
            self.last_error = Some(words);
        }
    }
}
