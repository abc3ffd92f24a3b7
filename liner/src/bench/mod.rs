//! `liner bench`: what passes between two nodes on this machine.

mod echo;
mod report;

use std::time::Duration;

use liner_mio::{Class, Message, Mode, Node, SendError};

use crate::args::{BenchArgs, Durability};
use crate::clock::Clock;
use crate::event;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::live::Live;
use crate::node::{build, drive_failure, open, stop_failure};
use crate::out::{self, Out};
use crate::store_url::StoreUrl;
use crate::watch::{Stop, Watch};
use echo::Echo;
use report::{Rate, Trips};

const SENDER: &str = "bench-sender";
const RECEIVER: &str = "bench-receiver";
/// Messages that are taken, those that are answered, and the answers.
const ONE_WAY: &str = "one-way";
const THERE: &str = "there";
const BACK: &str = "back";

/// Messages that are queued between two turns of the loop.
const SENDS_PER_TURN: u64 = 4096;

/// What is queued at most, so that the receiver is measured too, and not only how fast a file grows.
const QUEUED_BYTES_MAX: u64 = 16 * 1024 * 1024;
const QUEUED_MAX: u64 = 65_536;

/// How long the two may take to find each other, and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long nothing may be shown.
const LIVE_EVERY: Duration = Duration::from_millis(200);

pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    let class = class(args)?;
    let mut watch = Watch::new(Stop::on_signals()?)?;
    let folder = match &args.store {
        Some(StoreUrl::Ram) => None,
        Some(StoreUrl::Sqlite(path)) => Some(Folder::make(path.clone())?),
        Some(StoreUrl::Server(_)) => {
            return Err(Failure::Usage(
                "what it measures is deleted at the end, which is not done on a server: give --store a new folder, as sqlite:PATH".to_owned(),
            ));
        }
        None => Some(Folder::temporary("bench")?),
    };
    let store = |file: &str| folder.as_ref().map_or(StoreUrl::Ram, |folder| folder.store(file));
    let echo = Echo::start(store("receiver.db"), class)?;
    let sender = Node::builder(SENDER).durable(true).peer(echo.address()).subscribe(BACK);
    let mut node = build(sender.store_on_worker(open(&store("sender.db"), SENDER, Some(class))?))?;
    watch.register(&mut [&mut node])?;
    let mut out = Out::new(args.json);
    report::say_store(&mut out, folder.as_ref(), node.store_class(), args.size)
        .map_err(|error| out::failed(&error))?;
    let mut bench = Bench { args, node, watch, live: Live::new() };
    let outcome = bench.measure(&mut out);
    let stopped = bench.node.stop(PATIENCE, &mut ignore).map_err(|error| stop_failure(&error));
    outcome.and(stopped).and(echo.end())
}

/// What is asked of files.
fn class(args: &BenchArgs) -> Result<Class, Failure> {
    match (&args.store, args.durability) {
        (Some(StoreUrl::Ram), Some(_)) => Err(Failure::Usage(
            "ram: survives nothing: leave --durability away, or give --store a new folder, as sqlite:PATH"
                .to_owned(),
        )),
        (_, asked) => Ok(asked.map_or(Class::Process, Durability::class)),
    }
}

const fn ignore(_: &Message<'_>) {}

struct Bench<'a> {
    args: &'a BenchArgs,
    node: Node,
    watch: Watch,
    live: Live,
}

impl Bench<'_> {
    /// Both measurements. What there is of one when a signal comes is shown.
    fn measure(&mut self, out: &mut Out) -> Result<(), Failure> {
        self.connect()?;
        let rate = self.rate()?;
        self.live.clear();
        rate.say(out).map_err(|error| out::failed(&error))?;
        let trips = self.trips()?;
        self.live.clear();
        trips.say(out).map_err(|error| out::failed(&error))?;
        if self.watch.is_stopped() {
            return Err(Failure::Unfinished("stopped: the figures are of what was done by then".to_owned()));
        }
        Ok(())
    }

    /// Until each knows what the other takes.
    fn connect(&mut self) -> Result<(), Failure> {
        let clock = Clock::start();
        while !(self.node.is_taken_by(ONE_WAY, RECEIVER) && self.node.is_taken_by(THERE, RECEIVER)) {
            if self.watch.is_stopped() {
                return Err(Failure::Unfinished("stopped before anything was measured".to_owned()));
            }
            if clock.elapsed() > PATIENCE {
                return Err(Failure::Work(format!(
                    "the two nodes have not found each other on 127.0.0.1 within {PATIENCE:?}: look at it with --log debug"
                )));
            }
            self.turn(&mut |_| {}, LIVE_EVERY)?;
        }
        Ok(())
    }

    /// As many as go, until all are acknowledged.
    fn rate(&mut self) -> Result<Rate, Failure> {
        let size = u64::from(self.args.size);
        let payload = vec![b'.'; self.args.size as usize];
        let most = (QUEUED_BYTES_MAX / size).clamp(16, QUEUED_MAX);
        let count = self.args.count.unwrap_or(u64::MAX);
        let (clock, mut sent, mut passes) = (Clock::start(), 0, false);
        loop {
            let is_over = sent == count || clock.elapsed() >= self.args.time;
            let room = most.saturating_sub(self.node.queued()).min(count - sent).min(SENDS_PER_TURN);
            let before = sent;
            if !is_over {
                for _ in 0..room {
                    match self.node.send(ONE_WAY, &payload, Mode::One) {
                        Ok(_) => sent += 1,
                        Err(SendError::Busy | SendError::Unavailable | SendError::StoreFull) => break,
                        Err(error) => return Err(Failure::Work(error.to_string())),
                    }
                }
            }
            self.turn(&mut |_| {}, if sent > before { Duration::ZERO } else { LIVE_EVERY })?;
            let rate = Rate { messages: sent - self.node.queued().min(sent), time: clock.elapsed(), size };
            if !passes && rate.messages > 0 {
                passes = true;
                tracing::debug!("the first message is acknowledged");
            }
            if self.watch.is_stopped() || is_over && self.node.is_idle() {
                return Ok(rate);
            }
            self.live.show(|| rate.to_string());
        }
    }

    /// One at a time, there and back.
    fn trips(&mut self) -> Result<Trips, Failure> {
        let mut payload = vec![b'.'; self.args.size as usize];
        let count = self.args.count.unwrap_or(u64::MAX);
        let clock = Clock::start();
        let mut trips = Trips::default();
        while trips.count() < count && clock.elapsed() < self.args.time && !self.watch.is_stopped() {
            let number = trips.count().to_be_bytes();
            if let Some(head) = payload.first_chunk_mut() {
                *head = number;
            }
            let start = clock.elapsed();
            let sent = self.node.send(THERE, &payload, Mode::One);
            sent.map_err(|error| Failure::Work(error.to_string()))?;
            let mut is_back = false;
            while !is_back && !self.watch.is_stopped() {
                // An answer to what was sent before a kill of the link would be one of another number.
                let mut take = |message: &Message<'_>| is_back |= message.payload.starts_with(&number);
                self.turn(&mut take, LIVE_EVERY)?;
            }
            if is_back {
                trips.take(clock.elapsed() - start);
            }
            self.live.show(|| trips.so_far());
        }
        Ok(trips)
    }

    /// A turn of the loop, which then waits this long at most.
    fn turn(&mut self, take: &mut dyn FnMut(&Message<'_>), most: Duration) -> Result<(), Failure> {
        let mut handler = |message: &Message<'_>| take(message);
        self.node.drive(Some(Duration::ZERO), &mut handler).map_err(|error| drive_failure(&error))?;
        while let Some(event) = self.node.poll_event() {
            if event::is_grave(&event) {
                event::tell(&event, &self.node);
            }
        }
        self.watch.wait_for(&mut [&mut self.node], Some(most))
    }
}
