//! `liner forget`: gives up a node that never comes back, and says what becomes of its queue.

use std::collections::BTreeSet;
use std::time::Duration;

use liner::store::{self, Target};
use liner_mio::{Event, ForgetError, Message, Node};
use serde::Serialize;

use crate::args::ForgetArgs;
use crate::clock::Clock;
use crate::event::{self, messages};
use crate::failure::Failure;
use crate::look;
use crate::node::{build, drive_failure, keep, stop_failure};
use crate::out::{self, Out, field};
use crate::watch::{Stop, Watch};

/// How long the store may take for a part of a queue, and for the end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Names that are listed where one is not known.
const LISTED_MAX: usize = 20;

pub(crate) fn run(args: &ForgetArgs) -> Result<(), Failure> {
    look::check(&args.store, "ram: is in the memory of its node alone: name a file, as sqlite:PATH")?;
    if args.forgotten == args.name {
        return Err(Failure::Usage(format!(
            "{} is the node that forgets: name another one, or with --name who has the queue",
            args.name
        )));
    }
    store::vouch_for(&args.store, &args.name).map_err(|error| look::failure(&error))?;
    look::check_unused(&args.store, &args.name)?;
    // Its row would be gone while it is there.
    if store::look(&args.store).is_ok_and(|mut look| look.is_running(&args.forgotten)) {
        return Err(Failure::InUse(format!("{} runs on {}: stop it first", args.forgotten, args.store)));
    }
    let mut watch = Watch::new(Stop::on_signals()?)?;
    // Whoever met it would think that it takes no topics any more, and put aside what is queued for it.
    let builder = keep(Node::builder(&args.name), &args.store, &args.name)?.configure(|config| {
        config.catalog = None;
        config.dials = false;
    });
    let mut node = build(builder)?;
    watch.register(&mut [&mut node])?;
    let kept_before = kept(args);
    node.forget(&args.forgotten, args.reroute).map_err(|error| refused(args, error))?;
    let outcome = wait(args, &mut node, &mut watch);
    let stopped = node.stop(PATIENCE, &mut ignore).map_err(|error| stop_failure(&error));
    let (rerouted, dropped) = outcome.and_then(|counts| stopped.map(|()| counts))?;
    let kept = kept(args).saturating_sub(kept_before).min(rerouted);
    let line = Line { name: &args.forgotten, rerouted, kept, dropped };
    let plain = format!(
        "{} is forgotten: {rerouted} rerouted, {kept} of them kept for the next subscriber, {dropped} dropped",
        field(&args.forgotten)
    );
    let mut out = Out::new(args.json);
    out.line(plain, &line).and_then(|()| out.flush()).map_err(|error| out::failed(&error))
}

#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    rerouted: u64,
    kept: u64,
    dropped: u64,
}

/// It subscribes to nothing.
const fn ignore(_: &Message<'_>) {}

/// Waits until the store has forgotten it. Says how many messages went back to their topics, and how many were dropped.
fn wait(args: &ForgetArgs, node: &mut Node, watch: &mut Watch) -> Result<(u64, u64), Failure> {
    let name = &args.forgotten;
    let (clock, mut last, mut until) = (Clock::start(), node.queued_for(name), PATIENCE);
    loop {
        node.drive(Some(Duration::ZERO), &mut ignore).map_err(|error| drive_failure(&error))?;
        while let Some(event) = node.poll_event() {
            if let Event::Forgotten { name: of, rerouted, dropped } = &event
                && **of == **name
            {
                return Ok((*rerouted, *dropped));
            }
            event::tell(&event, node);
        }
        let (now, left) = (clock.elapsed(), node.queued_for(name));
        if left < last {
            (last, until) = (left, now + PATIENCE);
        }
        let rest = || format!("{} for {name} left: run this again for the rest", messages(left));
        if watch.is_stopped() {
            return Err(Failure::Unfinished(format!("stopped: {}", rest())));
        }
        if now >= until {
            let said = node.store_error().map(|said| format!(" ({said})")).unwrap_or_default();
            return Err(Failure::Work(format!("the store takes no more{said}: {}", rest())));
        }
        watch.wait_for(&mut [node], Some(until.saturating_sub(now)))?;
    }
}

/// Messages that wait for the next subscriber of their topics.
fn kept(args: &ForgetArgs) -> u64 {
    let Ok(mut look) = store::look(&args.store) else { return 0 };
    let queues = look.pending(Some(&args.name)).unwrap_or_default();
    let kept = queues.iter().filter(|queue| matches!(queue.target, Target::Topic(_)));
    kept.map(|queue| queue.messages).sum()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever comes later is a failure of the work")]
fn refused(args: &ForgetArgs, error: ForgetError) -> Failure {
    let (name, forgotten) = (&args.name, &args.forgotten);
    match error {
        ForgetError::Unknown => {
            Failure::Work(format!("{name} knows no node named {forgotten}: {}", known(args)))
        }
        ForgetError::Up => Failure::InUse(format!("{forgotten} is connected: stop it first")),
        _ => Failure::Work(format!("{forgotten} is not forgotten: {error}")),
    }
}

/// Whom a node could forget, in words.
fn known(args: &ForgetArgs) -> String {
    let Ok(mut look) = store::look(&args.store) else {
        return "its store cannot be asked for those that it knows".to_owned();
    };
    let mut known: BTreeSet<String> = BTreeSet::new();
    for queue in look.pending(Some(&args.name)).unwrap_or_default() {
        if let Target::Node(target) = queue.target {
            known.insert(target);
        }
    }
    known.extend(look.subscriptions().unwrap_or_default().into_iter().map(|row| row.name));
    known.remove(&args.name);
    if known.is_empty() {
        return "it knows nobody".to_owned();
    }
    let listed: Vec<&str> = known.iter().take(LISTED_MAX).map(String::as_str).collect();
    let more = match known.len().saturating_sub(LISTED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("it knows {}{more}", listed.join(", "))
}
