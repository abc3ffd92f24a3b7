//! `liner pub`: a message, until somebody has taken it over, or until it is in a file.

use std::io::Read as _;
use std::time::Duration;

use liner_mio::{Class, Event, Message, Mode, Node, SendError, SendId, SendMode, SendOptions};
use liner_proto::wire::handshake::Acks;
use serde::Serialize;

use crate::args::PubArgs;
use crate::clock::Clock;
use crate::event;
use crate::failure::Failure;
use crate::name::random_name;
use crate::node::{build, drive_failure, keep, stop_failure};
use crate::out::{self, Out, tell};
use crate::store_url::StoreUrl;
use crate::watch::{Stop, Watch};

/// How long the acknowledgement is waited for if nothing else was said.
const WAIT: Duration = Duration::from_secs(10);

/// Messages that are queued between two turns of the loop.
const SENDS_PER_TURN: u64 = 4096;

/// Bytes of best-effort messages between two turns: what is more than a link takes is dropped.
const LOOSE_BYTES_PER_TURN: u64 = 32 * 1024;

/// How long the end may take: everything is acknowledged by then.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// What is read of standard input at most. How long a message may be, the node knows.
const INPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The gateway remembers every name that has sent something: so there are no more than 1,024 of those made up here.
const NAME_BITS: u32 = 10;

/// Names made up that are tried, if others use them at the same time.
const NAMES_TRIED: u32 = 8;

pub(crate) fn run(args: &PubArgs) -> Result<(), Failure> {
    if args.name.is_none() && !args.store.is_ram() {
        return Err(Failure::Usage(
            "what --store keeps is found again under a name: add --name NAME".to_owned(),
        ));
    }
    let mut payload = Payload::new(args)?;
    let mut watch = Watch::new(Stop::on_signals()?)?;
    let mut tried = 0;
    loop {
        tried += 1;
        let name = args.name.clone().unwrap_or_else(|| random_name("pub", NAME_BITS));
        match publish(args, &name, &mut payload, &mut watch) {
            Err(Failure::InUse(_)) if args.name.is_none() && tried < NAMES_TRIED => {}
            outcome => return outcome,
        }
    }
}

/// What is sent.
struct Payload {
    bytes: Vec<u8>,
    /// It is the message's number.
    is_number: bool,
}

impl Payload {
    fn new(args: &PubArgs) -> Result<Self, Failure> {
        let given = |bytes| Ok(Self { bytes, is_number: false });
        match (args.payload.as_deref(), args.size) {
            (Some("-"), _) => given(standard_input()?),
            (Some(text), _) => given(text.into()),
            (None, size) => {
                Ok(Self { bytes: vec![b'0'; size.unwrap_or_default() as usize], is_number: true })
            }
        }
    }

    /// That of the message with this number: a receiver can tell which one it has, and whether all of it is right.
    fn of(&mut self, number: u64) -> &[u8] {
        if self.is_number {
            let mut rest = number;
            // The zeros before it stay what they are: numbers grow.
            for digit in self.bytes.iter_mut().rev() {
                if rest == 0 {
                    break;
                }
                *digit = b"0123456789".get((rest % 10) as usize).copied().unwrap_or(b'0');
                rest /= 10;
            }
        }
        &self.bytes
    }
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let stdin = std::io::stdin().lock();
    let read = stdin.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| Failure::io("cannot read standard input", &error))?;
    if bytes.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure::Work("standard input is too long for one message".to_owned()));
    }
    Ok(bytes)
}

fn publish(args: &PubArgs, name: &str, payload: &mut Payload, watch: &mut Watch) -> Result<(), Failure> {
    // Peers keep what they have for a node of this name, and what they know of its topics.
    let node = keep(Node::builder(name), &args.store, name)?.configure(|config| config.takes = false);
    let builder = args.peer.iter().fold(node, |builder, peer| builder.peer(peer));
    let mode = if args.asynchronous { SendMode::Asynchronous } else { SendMode::Stored };
    let mut node = build(builder.send_mode(mode))?;
    watch.register(&mut [&mut node])?;
    if node.queued() > 0 {
        tell(format_args!("{} of earlier runs are sent first", event::messages(node.queued())));
    }
    let mut run = Run { args, node, sent: 0, last: SendId(0), is_full: false };
    let outcome = if run.is_stored_only() {
        run.store(name, payload, watch).and_then(|()| run.report_stored())
    } else {
        run.work(name, payload, watch).and_then(|taker| run.report(name, &taker))
    };
    if outcome.is_err() && run.unstored() > 0 {
        // The store does not work: that was told, and to wait for it once more would make what was said of it wrong.
        return outcome;
    }
    let stopped = run.node.stop(STOP_PATIENCE, &mut ignore).map_err(|error| stop_failure(&error));
    outcome.and(stopped)
}

/// It subscribes to nothing.
const fn ignore(_: &Message<'_>) {}

struct Run<'a> {
    args: &'a PubArgs,
    node: Node,
    /// Messages that were queued, and the last of them.
    sent: u64,
    last: SendId,
    /// The next hop keeps no more of the topic.
    is_full: bool,
}

impl Run<'_> {
    /// Whether a file is as far as it is to come.
    const fn is_stored_only(&self) -> bool {
        self.args.wait.is_none() && !self.args.asynchronous && !self.args.store.is_ram()
    }

    fn patience(&self) -> Duration {
        self.args.wait.unwrap_or(WAIT)
    }

    /// Works until all of it is acknowledged. Says by whom.
    fn work(&mut self, name: &str, payload: &mut Payload, watch: &mut Watch) -> Result<String, Failure> {
        let clock = Clock::start();
        let mut taker = None;
        let (mut handed_on, mut since) = (self.node.handed_on(), Duration::ZERO);
        loop {
            self.turn(name)?;
            if taker.is_none() {
                taker = self.find_taker();
            }
            let mut is_sending = false;
            if let Some(taker) = &taker {
                if self.is_full {
                    return Err(self.full());
                }
                is_sending = self.sent < self.args.count && self.send(payload)?;
                if !is_sending && self.node.is_idle() {
                    return Ok(taker.clone());
                }
            }
            // The patience is for the next acknowledgement: many messages may take longer than one.
            if self.node.handed_on() > handed_on {
                (handed_on, since) = (self.node.handed_on(), clock.elapsed());
            }
            let left = since.saturating_add(self.patience()).saturating_sub(clock.elapsed());
            if watch.is_stopped() {
                return Err(Failure::Unfinished(format!("stopped: {}", self.unacknowledged())));
            }
            if left.is_zero() && !is_sending {
                return Err(self.too_late());
            }
            watch.wait_for(&mut [&mut self.node], Some(if is_sending { Duration::ZERO } else { left }))?;
        }
    }

    /// Works until all of it is in the file.
    fn store(&mut self, name: &str, payload: &mut Payload, watch: &mut Watch) -> Result<(), Failure> {
        loop {
            let is_sending = self.sent < self.args.count && self.send(payload)?;
            self.turn(name)?;
            if self.is_full {
                return Err(self.full());
            }
            if self.sent == self.args.count && self.node.stored_through() >= self.last {
                return Ok(());
            }
            if watch.is_stopped() {
                return Err(Failure::Unfinished(format!("stopped: {}", self.unacknowledged())));
            }
            // A signal is looked for meanwhile, too.
            let most = is_sending.then_some(Duration::ZERO);
            watch.wait_for(&mut [&mut self.node], most)?;
        }
    }

    fn turn(&mut self, name: &str) -> Result<(), Failure> {
        self.node.drive(Some(Duration::ZERO), &mut ignore).map_err(|error| drive_failure(&error))?;
        self.take_events(name)
    }

    fn take_events(&mut self, name: &str) -> Result<(), Failure> {
        while let Some(event) = self.node.poll_event() {
            if let Some(failure) = event::fatal(&event, name) {
                return Err(failure);
            }
            if let Event::TopicFull { topic } = &event
                && **topic == *self.args.topic
            {
                self.is_full = true;
                continue;
            }
            if matches!(event, Event::PeerUp { .. }) {
                continue;
            }
            if let Event::StoreFailed(fault) = &event
                && self.is_stored_only()
            {
                // There is nothing else to wait for, and nobody knows for how long.
                let said = self.node.store_error().map(|said| format!(" ({said})")).unwrap_or_default();
                return Err(Failure::Work(format!("{fault}{said}: {}", self.unacknowledged())));
            }
            event::tell(&event, &self.node);
            if matches!(event, Event::DeadLetter { .. } | Event::Dropped { .. }) {
                let (topic, which) = (&self.args.topic, if self.args.count == 1 { "the" } else { "a" });
                return Err(Failure::Work(format!(
                    "{which} message to {topic} was not sent: send another one"
                )));
            }
            if matches!(event, Event::WeakAcks { .. }) {
                return Err(Failure::Work(format!(
                    "{}: give the gateway a store as good as --store, or leave --store away",
                    self.unacknowledged()
                )));
            }
        }
        Ok(())
    }

    /// Who is connected and takes the message.
    fn find_taker(&self) -> Option<String> {
        self.node.peers_up().into_iter().find(|peer| self.node.is_taken_by(&self.args.topic, peer))
    }

    /// Queues as many as there is room for. Says whether there was some.
    fn send(&mut self, payload: &mut Payload) -> Result<bool, Failure> {
        let (mode, most) = match self.args {
            PubArgs { best_effort: true, .. } => {
                (Mode::BestEffort, (LOOSE_BYTES_PER_TURN / (payload.bytes.len() as u64 + 1)).max(1))
            }
            PubArgs { all: true, .. } => (Mode::All, SENDS_PER_TURN),
            _ => (Mode::One, SENDS_PER_TURN),
        };
        let mut options = SendOptions::new(mode);
        options.ttl = self.args.ttl;
        let before = self.sent;
        let turn = (self.args.count - before).min(most);
        for _ in 0..turn {
            match self.node.send_with(&self.args.topic, payload.of(self.sent + 1), &options) {
                Ok(id) => (self.sent, self.last) = (self.sent + 1, id),
                Err(SendError::Busy | SendError::Unavailable | SendError::StoreFull) => break,
                Err(SendError::TopicFull) => return Err(self.full()),
                Err(error) => return Err(Failure::Work(error.to_string())),
            }
        }
        Ok(self.sent > before)
    }

    fn report_stored(&self) -> Result<(), Failure> {
        let (topic, waiting) = (self.args.topic.as_str(), self.node.queued());
        let class = stored_word(self.node.store_class());
        let store = self.args.store.to_string();
        let plain = format!("{} stored in {store} ({class}): {waiting}", out::field(topic));
        let json = Stored { event: "stored", topic, store: &store, class, waiting };
        let mut out = Out::new(self.args.json);
        out.line(plain, &json).and_then(|()| out.flush()).map_err(|error| out::failed(&error))
    }

    fn report(&self, name: &str, taker: &str) -> Result<(), Failure> {
        let topic = self.args.topic.as_str();
        let mut out = Out::new(self.args.json);
        if self.args.best_effort {
            let plain = format!(
                "{} {} sent to {} (best effort)",
                out::field(topic),
                out::field(name),
                out::field(taker)
            );
            let json = Sent { event: "sent", topic, from: name, to: taker };
            return out.line(plain, &json).and_then(|()| out.flush()).map_err(|error| out::failed(&error));
        }
        let class = self.node.acks_of(taker).map_or("unknown", class_word);
        let number = self.node.acked_by(taker);
        let plain = format!(
            "{} {}#{number} acknowledged by {} ({class})",
            out::field(topic),
            out::field(name),
            out::field(taker)
        );
        let json = Acknowledged { event: "acknowledged", topic, from: name, seq: number, by: taker, class };
        out.line(plain, &json).and_then(|()| out.flush()).map_err(|error| out::failed(&error))
    }

    // ------------------------------------------------------------------ what is told when it does not arrive

    fn full(&self) -> Failure {
        let next = "send it again once somebody takes what is kept: a device by connecting, others with `liner sub --name`";
        let topic = &self.args.topic;
        let became =
            if self.sent > 0 { ", and has put the message aside among its dead letters" } else { "" };
        Failure::Work(format!("nobody takes {topic} and the gateway keeps no more of it{became}: {next}"))
    }

    fn too_late(&self) -> Failure {
        let PubArgs { peer, topic, .. } = self.args;
        let (peer, wait) = (peer.join(" or "), self.patience());
        if self.sent > 0 {
            return Failure::Unreached(self.unacknowledged());
        }
        match self.node.peers_up().first() {
            None => Failure::Unreached(format!(
                "nobody answered at {peer} within {wait:?}: start the gateway, or give its address with --peer; {}",
                self.unacknowledged()
            )),
            Some(name) => Failure::Unreached(format!(
                "{name} at {peer} hands nothing on and has not subscribed to {topic}: give a gateway's address with --peer"
            )),
        }
    }

    /// What was not acknowledged, and what becomes of it.
    fn unacknowledged(&self) -> String {
        let topic = &self.args.topic;
        let (sent, count) = (self.sent, self.args.count);
        match &self.args.store {
            _ if self.args.best_effort && sent > 0 => {
                format!("{sent} of {count} messages to {topic} were sent")
            }
            store @ (StoreUrl::Sqlite(_) | StoreUrl::Server(_)) if self.node.queued() > 0 => {
                let (stored, unstored) = (self.node.queued_stored(), self.unstored());
                let waits = format!(
                    "{} to {topic} or other topics not acknowledged: the next run with --store {store} and this --name sends what is there",
                    event::messages(stored)
                );
                if unstored == 0 && sent == count {
                    return waits;
                }
                let kept = sent.saturating_sub(unstored);
                if store.is_server() && unstored > 0 {
                    // It may have had them before it went away.
                    return format!(
                        "{waits}; of the {count} of this run {kept} are stored, and {unstored} more may be: see `liner pending --store {store}` when it is back, before you send the others again"
                    );
                }
                format!("{waits}; of the {count} of this run {kept} are stored: send the others again")
            }
            StoreUrl::Ram | StoreUrl::Sqlite(_) | StoreUrl::Server(_) => {
                Kept { count, sent, open: self.open() }.told(topic)
            }
        }
    }

    /// Messages of this run that not everybody has acknowledged whom they were sent to.
    fn open(&self) -> u64 {
        if self.args.all {
            // Each has a copy of all of them, and acknowledges from the first one on.
            return self.node.queued_by_peer().iter().map(|queue| queue.messages).max().unwrap_or_default();
        }
        self.node.queued()
    }

    /// Messages that are in memory alone, after a turn: nothing, unless the store does not take them.
    fn unstored(&self) -> u64 {
        self.node.queued().saturating_sub(self.node.queued_stored())
    }
}

/// How far a run has come whose messages are kept nowhere else.
struct Kept {
    /// Messages that are to be sent, that were queued, and those of them that are not acknowledged.
    count: u64,
    sent: u64,
    open: u64,
}

impl Kept {
    fn told(&self, topic: &str) -> String {
        let Self { count, sent, open } = *self;
        let acknowledged = sent.saturating_sub(open);
        match (count, sent) {
            (1, 0) => format!("the message to {topic} was not sent: send it again"),
            (_, 0) => format!("none of {count} messages to {topic} was sent: send them again"),
            _ if acknowledged >= count => format!("{} to {topic} acknowledged", event::messages(count)),
            (1, _) => {
                format!("the message to {topic} is not acknowledged and may have arrived: send it again")
            }
            _ => {
                let open = if open > 0 { format!(", {open} may have arrived") } else { String::new() };
                format!(
                    "{acknowledged} of {count} messages to {topic} acknowledged{open}: send the others again"
                )
            }
        }
    }
}

#[derive(Serialize)]
struct Acknowledged<'a> {
    event: &'static str,
    topic: &'a str,
    from: &'a str,
    seq: u64,
    by: &'a str,
    class: &'static str,
}

#[derive(Serialize)]
struct Sent<'a> {
    event: &'static str,
    topic: &'a str,
    from: &'a str,
    to: &'a str,
}

#[derive(Serialize)]
struct Stored<'a> {
    event: &'static str,
    topic: &'a str,
    store: &'a str,
    class: &'static str,
    waiting: u64,
}

const fn stored_word(class: Class) -> &'static str {
    match class {
        Class::Ram => "ram",
        Class::Process => "process",
        Class::Power => "power",
    }
}

const fn class_word(acks: Acks) -> &'static str {
    match acks {
        Acks::Ram => "ram",
        Acks::Process => "process",
        Acks::Power => "power",
        Acks::Processed => "processed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_of_a_length_is_the_number_of_its_message() {
        let payloads = |size: usize, numbers: &[u64]| {
            let mut payload = Payload { bytes: vec![b'0'; size], is_number: true };
            let texts = numbers.iter().map(|&number| String::from_utf8(payload.of(number).to_vec()).unwrap());
            texts.collect::<Vec<_>>()
        };
        assert_eq!(payloads(5, &[1, 9, 10, 123, 99_999]), ["00001", "00009", "00010", "00123", "99999"]);
        assert_eq!(payloads(2, &[99, 100, 101]), ["99", "00", "01"], "the last digits");
        assert_eq!(payloads(0, &[1, 2]), ["", ""]);
    }

    #[test]
    fn what_was_not_acknowledged_is_counted() {
        let told = |count, sent, open| Kept { count, sent, open }.told("t");
        assert_eq!(told(1, 0, 0), "the message to t was not sent: send it again");
        assert!(told(1, 1, 1).starts_with("the message to t is not acknowledged and may have arrived"));
        assert_eq!(told(1, 1, 0), "a message to t acknowledged");
        assert_eq!(told(1000, 0, 0), "none of 1000 messages to t was sent: send them again");
        assert_eq!(told(1000, 500, 0), "500 of 1000 messages to t acknowledged: send the others again");
        assert_eq!(
            told(1000, 1000, 1),
            "999 of 1000 messages to t acknowledged, 1 may have arrived: send the others again"
        );
        assert_eq!(told(1000, 1000, 0), "1000 messages to t acknowledged");
    }
}
