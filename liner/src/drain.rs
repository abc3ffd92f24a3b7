//! `liner drain`: delivers what a store holds, and ends when nothing is left.

use std::time::Duration;

use liner::store::{self, Target};
use liner_mio::{Framing, Message, Node};
use serde::Serialize;

use crate::args::{DrainArgs, address};
use crate::clock::Clock;
use crate::event;
use crate::failure::Failure;
use crate::look;
use crate::node::{build, drive_failure, keep, stop_failure};
use crate::out::{Out, Report, tell};
use crate::watch::{Stop, Watch};

/// How long the end may take: what was acknowledged is in the store by then.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How often it says how far it is.
const EVERY: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &DrainArgs) -> Result<(), Failure> {
    look::check(&args.store, "ram: holds nothing after its node has ended: name a file, as sqlite:PATH")?;
    // A damaged file would be renamed, and a node with a mistaken name would have nothing to deliver: neither is a success.
    store::vouch_for(&args.store, &args.name).map_err(|error| look::failure(&error))?;
    look::check_unused(&args.store, &args.name)?;
    let known = known_addresses(args);
    let mut watch = Watch::new(Stop::on_signals()?)?;
    // Peers keep what they have for a node of this name, and what they know of its topics.
    let builder = keep(Node::builder(&args.name), &args.store, &args.name)?.insecure(args.insecure);
    let mut builder = builder.configure(|config| config.takes = false);
    for peer in args.peer.iter().chain(&known) {
        builder = builder.peer(peer);
    }
    if let Some(listen) = &args.listen {
        builder = builder.listen(listen, Framing::Length);
    }
    let mut node = build(builder)?;
    watch.register(&mut [&mut node])?;
    let mut drain = Drain { args, left: node.queued(), node, report: Report::new(Out::new(args.json)) };
    let outcome = drain.work(&mut watch);
    let stopped = drain.node.stop(STOP_PATIENCE, &mut ignore).map_err(|error| stop_failure(&error));
    outcome.and(stopped)
}

/// Where those listen for whom something waits, as far as the store can be asked. A node dials by itself only what it was told to.
fn known_addresses(args: &DrainArgs) -> Vec<String> {
    let Ok(mut look) = store::look(&args.store) else { return Vec::new() };
    let queues = look.pending(Some(&args.name)).unwrap_or_default();
    let mut known: Vec<String> = Vec::new();
    for row in look.subscriptions().unwrap_or_default() {
        let waits =
            queues.iter().any(|queue| matches!(&queue.target, Target::Node(name) if *name == row.name));
        // It is forgotten there when it is away; here it may come back.
        let listens = row.address.trim_start_matches('~');
        let is_elsewhere = listens.starts_with('@') || listens.starts_with("device:");
        if waits && !is_elsewhere && address(listens).is_ok() && !args.peer.iter().any(|peer| peer == listens)
        {
            known.push(listens.to_owned());
        }
    }
    known.sort();
    known.dedup();
    known
}

/// It subscribes to nothing.
const fn ignore(_: &Message<'_>) {}

struct Drain<'a> {
    args: &'a DrainArgs,
    node: Node,
    /// What waited when it was said last.
    left: u64,
    report: Report,
}

#[derive(Serialize)]
struct Progress {
    delivered: u64,
    waiting: u64,
}

impl Drain<'_> {
    /// Works until nothing waits.
    fn work(&mut self, watch: &mut Watch) -> Result<(), Failure> {
        let (clock, first) = (Clock::start(), self.left);
        let mut said = Duration::ZERO;
        if first == 0 {
            tell(format_args!("{} has nothing to deliver", self.args.name));
            return Ok(());
        }
        self.say(first);
        loop {
            self.node.drive(Some(Duration::ZERO), &mut ignore).map_err(|error| drive_failure(&error))?;
            self.take_events()?;
            let (now, waiting) = (clock.elapsed(), self.node.queued());
            if self.node.is_idle() {
                self.say(first);
                return Ok(());
            }
            if now >= said + EVERY && waiting != self.left {
                self.left = waiting;
                said = now;
                self.say(first);
            }
            let left = self.args.wait.map(|wait| wait.saturating_sub(now));
            if watch.is_stopped() {
                return Err(Failure::Unfinished(format!("stopped: {}", self.rest())));
            }
            if left == Some(Duration::ZERO) {
                return Err(Failure::Unreached(self.rest()));
            }
            watch.wait_for(&mut [&mut self.node], Some(left.unwrap_or(EVERY).min(EVERY)))?;
        }
    }

    fn take_events(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.node.poll_event() {
            if let Some(failure) = event::fatal(&event, &self.args.name) {
                return Err(failure);
            }
            event::tell(&event, &self.node);
        }
        Ok(())
    }

    fn say(&mut self, first: u64) {
        let waiting = self.node.queued();
        let delivered = first.saturating_sub(waiting);
        self.report.write(|out| {
            out.line(
                format_args!("delivered {delivered}  waiting {waiting}"),
                &Progress { delivered, waiting },
            )
        });
    }

    fn rest(&self) -> String {
        let (count, store) = (event::messages(self.node.queued()), &self.args.store);
        format!(
            "{count} of {} not delivered: they stay in {store}, and `liner pending --store {store}` says for whom",
            self.args.name
        )
    }
}
