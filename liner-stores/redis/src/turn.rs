//! Turns: what was applied is kept until the commit, which is one call of a script.

use liner_proto::effect::{DeadReason, Delivery, InboxHeld, Queue, StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_store::checksums::{self, mode_number};
use liner_store::numbers::Trial;

use crate::RedisStore;
use crate::client::{Client, Failure};
use crate::examine::recheck;
use crate::keys;
use crate::letters;
use crate::open::stride;
use crate::push::Body;
use crate::resp::Reply;
use crate::row::QueueRow;
use crate::script;
use crate::words::Words;

/// Bytes that a full server takes for what is given up in the same group.
const MOVE_MAX: u64 = 2 << 20;

/// How often a list may turn out to be other than it was thought to be.
const TRIES: usize = 3;

/// How far the turn is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Turn {
    /// Nothing was applied since the last commit, or something that can be taken back.
    #[default]
    Open,
    /// It was sent, and no answer came. This is what it does, and the token under which it is asked for.
    InDoubt { body: Body, is_move: bool, next: u64 },
    /// For this reason there will be none any more.
    Over(StoreFault),
}

/// What the turn has beside its queues.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Anything at all.
    pub(crate) any: bool,
    /// It takes more than it gives.
    pub(crate) grows: bool,
    /// What else has to be true before the turn, and how many things that are.
    pub(crate) checks: (u64, Words),
    /// Commands that have nothing to do with queues.
    pub(crate) words: Words,
    /// What the inbox gains.
    pub(crate) inbox: InboxHeld,
    /// Cursors as they were.
    cursors: Vec<(String, Option<(Epoch, u64)>)>,
}

impl RedisStore {
    pub(crate) fn apply_group(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.is_usable()?;
        if group.is_empty() {
            return Ok(());
        }
        let mut trial = Trial::default();
        for op in group {
            trial.step(op, |queue| Ok::<_, StoreFault>(self.rows.find(queue).map(|row| row.numbers)))?;
        }
        if trial.demand.grows && !trial.demand.is_move(MOVE_MAX) {
            // What gives up something and came before it in this turn gets through.
            if core::mem::take(&mut self.refuses_growth) {
                return Err(StoreFault::Full);
            }
            self.applied.grows = true;
        }
        group.iter().try_for_each(|op| self.step(op))?;
        self.applied.any = true;
        Ok(())
    }

    /// Whether anything may be asked of the store.
    pub(crate) const fn is_usable(&self) -> Result<(), StoreFault> {
        match self.turn {
            Turn::Open => Ok(()),
            Turn::InDoubt { .. } => Err(StoreFault::Unavailable),
            Turn::Over(fault) => Err(fault),
        }
    }

    pub(crate) fn commit_turn(&mut self) -> Result<(), StoreFault> {
        self.is_usable()?;
        if !self.applied.any {
            return Ok(());
        }
        if self.rows.changed().any(|row| row.has_strays)
            && let Err(failure) = self.look_again()
        {
            return self.give_up(failure);
        }
        for _ in 0..TRIES {
            let body = match self.compose() {
                Ok(body) => body,
                Err(failure) => return self.give_up(failure),
            };
            let is_move = !self.applied.grows;
            match self.send(&body, is_move) {
                Ok(true) => {
                    self.settle();
                    return Ok(());
                }
                Ok(false) => match self.look_again() {
                    Ok(()) => {}
                    Err(failure) => return self.give_up(failure),
                },
                Err(failure @ Failure::Io { sent: true, .. }) => {
                    self.note(failure);
                    self.turn = Turn::InDoubt { body, is_move, next: self.token + stride() };
                    return Err(StoreFault::Unknown);
                }
                Err(failure) => return self.give_up(failure),
            }
        }
        self.last_error = Some("somebody else keeps changing the lists of this node's queues".to_owned());
        self.restore();
        Err(StoreFault::Unavailable)
    }

    /// Asks what became of the turn in doubt, and sends it again if nothing did.
    pub(crate) fn resolve_turn(&mut self) -> Result<(), StoreFault> {
        let (body, is_move, next) = match &mut self.turn {
            Turn::Open => return Ok(()),
            Turn::Over(fault) => return Err(*fault),
            Turn::InDoubt { body, is_move, next } => (core::mem::take(body), *is_move, *next),
        };
        let turn = match self.retake(next) {
            Ok(turn) => turn,
            Err(Failure::Fault(fault @ (StoreFault::Superseded | StoreFault::Regressed))) => {
                self.turn = Turn::Open;
                return self.give_up(fault.into());
            }
            // Whatever a server says to whom it does not let in, it says nothing of the turn.
            Err(failure) => {
                self.note(failure);
                self.turn = Turn::InDoubt { body, is_move, next };
                return Err(StoreFault::Unavailable);
            }
        };
        let outcome = if turn == self.number {
            // The old token is worth nothing any more: what the old connection still holds comes to nothing.
            self.send(&body, is_move)
        } else {
            self.number = turn;
            Ok(true)
        };
        match outcome {
            Ok(true) => {
                self.turn = Turn::Open;
                self.settle();
                Ok(())
            }
            // Its lists were changed by somebody else meanwhile.
            Ok(false) => {
                self.turn = Turn::Open;
                self.restore();
                Err(StoreFault::Refused)
            }
            Err(failure) if failure.fault() == StoreFault::Unavailable => {
                let fault = self.note(failure);
                self.turn = Turn::InDoubt { body, is_move, next: self.token + stride() };
                Err(fault)
            }
            Err(failure) => {
                self.turn = Turn::Open;
                self.give_up(failure)
            }
        }
    }

    /// Takes another token, on a connection of its own. Gives the last turn that took place: the last one that is known, or the one in doubt.
    fn retake(&mut self, next: u64) -> Result<u64, Failure> {
        self.client = None;
        let mut client = Client::connect(&self.url)?;
        recheck(&mut client, self.class, &mut self.unlogged)?;
        let numbers = [self.token, next, self.number].map(|number| number.to_string());
        let numbers = numbers.each_ref().map(|number| number.as_bytes());
        let reply = client.eval(script::RETAKE, &self.node, &numbers)?;
        match reply.text() {
            Some(script::TAKEN) => return Err(StoreFault::Superseded.into()),
            Some(script::GONE) => return Err(StoreFault::Regressed.into()),
            _ => {}
        }
        let turn = reply.list().and_then(|turn| turn.first()?.number()).ok_or_else(Failure::nonsense)?;
        self.note_identity(&mut client)?;
        self.token = next;
        self.client = Some(client);
        Ok(turn)
    }

    /// Sends the turn. Says whether it took place; if not, a list is not as it was thought to be.
    pub(crate) fn send(&mut self, body: &Body, is_move: bool) -> Result<bool, Failure> {
        let (number, node) = (self.number, self.node.clone());
        let numbers = [self.token, number, number + 1];
        let client = self.connected()?;
        let reply = if body.goes_past(is_move) {
            client.transaction(|script| body.request(script, &node, numbers))?
        } else {
            client.turn(&node, is_move, &body.arguments(numbers))?
        };
        if let Reply::Error(words) = reply {
            self.rows.note_strays();
            return Err(Failure::Server(words));
        }
        match reply.text() {
            Some(script::DONE) => {
                self.number = number + 1;
                Ok(true)
            }
            Some(script::MOVED) => Ok(false),
            Some(script::TAKEN) => Err(StoreFault::Superseded.into()),
            Some(script::GONE) => Err(StoreFault::Regressed.into()),
            _ => Err(Failure::nonsense()),
        }
    }

    /// Writes down what the turn does: what has to be true before it, and its commands.
    fn compose(&mut self) -> Result<Body, Failure> {
        let unnamed = self.rows.changed().filter(|row| row.key.is_none()).count();
        if unnamed > 0 {
            let keys = self.new_keys(unnamed)?;
            self.rows.name(keys);
        }
        let queues = keys::of_node(&self.owner, "queues");
        let (mut body, mut words) = (Body::default(), Words::default());
        let cuts = self.rows.changed().filter(|row| row.cut > 0).count();
        words.number((cuts + self.rows.closed.len()) as u64 + self.applied.checks.0);
        self.rows.changed().for_each(|row| words.check(row));
        self.rows.closed.iter().for_each(|(_, row)| words.check_length(row));
        words.extend(&self.applied.checks.1);
        body.checks = core::mem::take(&mut words);
        self.rows.changed().for_each(|row| body.push(row));
        self.rows.closed.iter().for_each(|(_, row)| words.close(&queues, row));
        words.extend(&self.applied.words);
        self.rows.changed().for_each(|row| words.queue(&queues, row));
        let cursors = keys::of_node(&self.owner, "cursors");
        for (peer, _) in &self.applied.cursors {
            if let Some(&(epoch, through)) = self.cursors.get(peer) {
                let value = cursor_value(&self.owner, peer, epoch, through);
                words.command(&[b"HSET", cursors.as_bytes(), peer.as_bytes(), value.as_bytes()]);
            }
        }
        body.commands = words;
        Ok(body)
    }

    fn new_keys(&mut self, count: usize) -> Result<Vec<u64>, Failure> {
        let arguments = count.to_string();
        let client = self.connected()?;
        let reply = client
            .eval(script::KEYS, keys::UNIQUE, &[arguments.as_bytes()])
            .map_err(Failure::before_the_turn)?;
        let keys: Option<Vec<_>> = reply.list().unwrap_or_default().iter().map(Reply::number).collect();
        keys.filter(|keys| keys.len() == count).ok_or_else(|| Failure::nonsense().before_the_turn())
    }

    fn settle(&mut self) {
        self.rows.settle();
        self.applied = Applied::default();
    }

    /// Takes back all that was applied since the last commit.
    fn restore(&mut self) {
        self.rows.restore();
        for (peer, before) in core::mem::take(&mut self.applied.cursors).into_iter().rev() {
            match before {
                Some(cursor) => drop(self.cursors.insert(peer, cursor)),
                None => drop(self.cursors.remove(&peer)),
            }
        }
        self.applied = Applied::default();
    }

    /// Nothing of the turn remains.
    fn give_up(&mut self, failure: Failure) -> Result<(), StoreFault> {
        let fault = self.note(failure);
        self.refuses_growth = fault == StoreFault::Full;
        self.restore();
        Err(fault)
    }

    /// Keeps the backend's words, sorts the failure, and gives up a connection that has failed.
    pub(crate) fn note(&mut self, failure: Failure) -> StoreFault {
        let fault = failure.fault();
        if let Some(words) = failure.words() {
            self.last_error = Some(words);
        }
        if matches!(failure, Failure::Io { .. } | Failure::Link(_)) || fault == StoreFault::Unavailable {
            self.client = None;
        }
        if matches!(fault, StoreFault::Superseded | StoreFault::Regressed) {
            self.turn = Turn::Over(fault);
        }
        fault
    }

    fn step(&mut self, op: &StoreOp<'_>) -> Result<(), StoreFault> {
        match *op {
            StoreOp::Inbox { epoch } => {
                let epoch = epoch.0.to_string();
                let words = [b"HSET", self.node.as_bytes(), b"inbox", epoch.as_bytes()];
                self.applied.words.command(&words);
            }
            StoreOp::Open { queue, epoch } => self.open_queue(queue, epoch)?,
            StoreOp::Rotate { queue, epoch, predecessor } => {
                let row = self.rows.change(queue)?;
                row.suspect &= row.numbers.head.epoch == epoch;
                let forgotten = row.numbers.rotate(epoch, predecessor)?;
                row.forget(forgotten);
            }
            StoreOp::Reserve { queue, through } => self.rows.change(queue)?.numbers.reserve(through)?,
            StoreOp::Append { queue, first, last, records } => {
                self.rows.change(queue)?.append(first, last, records)?;
            }
            StoreOp::Trim { queue, through } => {
                let row = self.rows.change(queue)?;
                if let Some(forgotten) = row.numbers.trim(through)? {
                    row.forget(forgotten);
                }
            }
            StoreOp::Drop { queue, through, reason } => {
                let row = self.rows.change(queue)?;
                if let Some(forgotten) = row.numbers.drop_through(through, reason)? {
                    row.forget(forgotten);
                }
            }
            StoreOp::Topic { queue, number, text } => {
                self.rows.change(queue)?.topics.push((number, text.to_owned()));
            }
            StoreOp::Cursor { peer, epoch, through } => self.advance(peer, epoch, through),
            StoreOp::Subscribe { topic, address, name } => self.subscribe(topic, address, name),
            StoreOp::Unsubscribe { topic, address, name } => self.unsubscribe(topic, address, name),
            StoreOp::DeadLetter { peer, topic, reason, record } => {
                self.put_aside(peer, topic, reason, record);
            }
            StoreOp::Close { queue } => self.rows.close(queue),
            StoreOp::Deliver(delivery) => self.deliver(&delivery),
            _ => return Err(StoreFault::Refused),
        }
        Ok(())
    }

    fn open_queue(&mut self, queue: Queue<'_>, epoch: Epoch) -> Result<(), StoreFault> {
        if self.rows.find(queue).is_none() {
            let composite = keys::composite(&self.owner, queue);
            self.rows.insert(queue, QueueRow { is_new: true, ..QueueRow::new(None, composite, epoch) });
        }
        let row = self.rows.change(queue)?;
        row.suspect &= row.numbers.head.epoch == epoch;
        row.numbers.head.reopen(epoch);
        Ok(())
    }

    fn advance(&mut self, peer: &str, epoch: Epoch, through: u64) {
        let known = self.cursors.get(peer).copied();
        self.applied.cursors.push((peer.to_owned(), known));
        let through = known.filter(|&(of, _)| of == epoch).map_or(through, |(_, known)| through.max(known));
        self.cursors.insert(peer.to_owned(), (epoch, through));
    }

    fn subscribe(&mut self, topic: &str, address: &str, name: &str) {
        let (key, escaped) = (keys::rows_of(topic), keys::topic(topic));
        let words = &mut self.applied.words;
        words.command(&[
            b"subscribe",
            key.as_bytes(),
            address.as_bytes(),
            name.as_bytes(),
            escaped.as_bytes(),
        ]);
        if let Some(elsewhere) = keys::rows_elsewhere(topic) {
            words.command(&[b"HDEL", elsewhere.as_bytes(), address.as_bytes()]);
        }
        if name != self.owner {
            let (listeners, listener) = (keys::listeners(&self.owner), keys::listener(topic, name));
            words.command(&[b"HSET", listeners.as_bytes(), address.as_bytes(), listener.as_bytes()]);
        }
    }

    fn unsubscribe(&mut self, topic: &str, address: &str, name: &str) {
        let (listeners, listener) = (keys::listeners(&self.owner), keys::listener(topic, name));
        let words = &mut self.applied.words;
        for key in [Some(keys::rows_of(topic)), keys::rows_elsewhere(topic)].into_iter().flatten() {
            words.command(&[b"unsubscribe", key.as_bytes(), address.as_bytes(), name.as_bytes()]);
        }
        words.command(&[b"forget", listeners.as_bytes(), address.as_bytes(), listener.as_bytes()]);
    }

    fn put_aside(&mut self, peer: &str, topic: &str, reason: DeadReason, record: &[u8]) {
        letters::put(&mut self.applied.words, [&self.owner, peer, topic], reason, record);
    }

    fn deliver(&mut self, delivery: &Delivery<'_>) {
        delivery_words(&mut self.applied.words, &self.owner, delivery);
        self.applied.inbox.messages += 1;
        self.applied.inbox.bytes += delivery.bytes();
    }
}

/// Puts a message behind what the inbox of a node holds.
pub(crate) fn delivery_words(words: &mut Words, owner: &str, delivery: &Delivery<'_>) {
    let crc = checksums::delivery(owner, delivery).to_string();
    let (epoch, number) = (delivery.epoch.0.to_string(), delivery.number.to_string());
    let (mode, repeat) = (mode_number(delivery.mode).to_string(), u8::from(delivery.maybe_redelivered));
    let (inbox, repeat) = (keys::of_node(owner, "inbox"), repeat.to_string());
    words.number(19);
    for word in [&b"XADD"[..], inbox.as_bytes(), b"0-*"] {
        words.word(word);
    }
    for (field, value) in [
        ("from", delivery.from),
        ("epoch", &*epoch),
        ("number", &*number),
        ("topic", delivery.topic),
        ("mode", &*mode),
        ("maybe_redelivered", &*repeat),
        ("crc", &*crc),
    ] {
        words.word(field.as_bytes());
        words.word(value.as_bytes());
    }
    words.word(b"payload");
    words.word(delivery.payload);
    let bytes = delivery.bytes().to_string();
    words.command(&[b"HINCRBY", keys::node(owner).as_bytes(), b"inbox_bytes", bytes.as_bytes()]);
}

/// A cursor as it is kept: epoch, number, checksum.
pub(crate) fn cursor_value(owner: &str, peer: &str, epoch: Epoch, through: u64) -> String {
    let crc = checksums::cursor(owner, peer, epoch.0.cast_signed(), through.cast_signed());
    format!("{} {through} {crc}", epoch.0)
}

/// The cursor, if it passes its check.
pub(crate) fn cursor_of(owner: &str, peer: &str, value: &[u8]) -> Option<(Epoch, u64)> {
    let value = str::from_utf8(value).ok()?;
    let mut parts = value.split(' ');
    let (epoch, through) = (Epoch(parts.next()?.parse().ok()?), parts.next()?.parse().ok()?);
    (cursor_value(owner, peer, epoch, through) == value).then_some((epoch, through))
}
