//! `liner store copy`: all that nodes have in a store, in another one.

use liner::store::{self, Look};
use liner_mio::Store;
use serde::Serialize;

use super::counted;
use super::facts::Facts;
use super::transfer::{Copied, Transfer, TransferError, compare, from_failed, to_failed};
use crate::args::StoreCopyArgs;
use crate::event;
use crate::failure::Failure;
use crate::live::Live;
use crate::look;
use crate::node::open;
use crate::out::{self, Out, field, tell, warn};
use crate::store_url::StoreUrl;

const RAM: &str = "ram: is in the memory of its node alone: name a store that outlives it, as sqlite:PATH";

#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    name: &'a str,
    #[serde(flatten)]
    copied: Option<Copied>,
}

pub(super) fn run(args: &StoreCopyArgs) -> Result<(), Failure> {
    for url in [&args.from, &args.to] {
        look::check(url, RAM)?;
    }
    if is_one(&args.from, &args.to) {
        return Err(Failure::Usage(format!("{} is copied into itself: name another store", args.from)));
    }
    let mut from = store::look(&args.from).map_err(|error| look::failure(&error))?;
    let names = from.nodes().map_err(|error| look::failure(&error))?;
    for name in &names {
        check_node(args, &mut *from, name)?;
    }
    let mut out = Out::new(args.json);
    let mut copied = 0;
    for name in &names {
        let line = copy(args, &mut *from, name)?;
        let Some(line) = line else { continue };
        copied += 1;
        out.line(plain(&line), &line).and_then(|()| out.flush()).map_err(|error| out::failed(&error))?;
    }
    match copied {
        0 => tell(format_args!("there is nothing to copy in {}", args.from)),
        _ => tell(format_args!(
            "start {} on {} from now on, and never on {} again",
            if copied == 1 { "the node" } else { "the nodes" },
            args.to,
            args.from
        )),
    }
    Ok(())
}

fn plain(line: &Line<'_>) -> String {
    let name = field(line.name);
    let Some(Copied { queues, messages, bytes, cursors, dead_letters, deliveries, .. }) = line.copied else {
        return format!("{name} is there already");
    };
    let queues = counted(queues, "queue", "queues");
    let messages = counted(messages, "message", "messages");
    let letters = counted(dead_letters, "dead letter", "dead letters");
    let peers = counted(cursors, "peer", "peers");
    format!(
        "{name} copied: {queues} with {messages} ({bytes} bytes), {letters}, {deliveries} in its inbox, {peers}"
    )
}

/// Whether both name one place, as far as that can be seen. What cannot be seen is found out before anything is changed: all is there then.
fn is_one(from: &StoreUrl, to: &StoreUrl) -> bool {
    match (from.path(), to.path()) {
        (Some(from), Some(to)) => {
            let real = |path: &std::path::Path| std::fs::canonicalize(path).ok();
            from == to || real(from).is_some_and(|from| Some(from) == real(to))
        }
        _ => from == to,
    }
}

/// Looks, before anything is copied, whether this node can be.
fn check_node(args: &StoreCopyArgs, from: &mut dyn Look, name: &str) -> Result<(), Failure> {
    // A damaged file would be renamed when it is opened.
    store::vouch_for(&args.from, name).map_err(|error| look::failure(&error))?;
    if from.is_running(name) {
        return Err(look::runs(&args.from, name));
    }
    let Ok(mut there) = store::look(&args.to) else { return Ok(()) };
    if there.is_running(name) {
        return Err(look::runs(&args.to, name));
    }
    if there.nodes().is_ok_and(|names| names.iter().any(|known| known == name)) {
        let (_, facts, _, found) = open_both(args, name)?;
        check_place(args, name, &facts, &found)?;
    }
    Ok(())
}

type Both = (Box<dyn Store + Send>, Facts, Box<dyn Store + Send>, Facts);

/// Opens both for the node, with what each tells.
fn open_both(args: &StoreCopyArgs, name: &str) -> Result<Both, Failure> {
    let mut from = open(&args.from, name, None)?;
    let facts = Facts::of(&mut *from).map_err(|fault| failure(&from_failed(&*from, fault)))?;
    if facts.is_regressed {
        return Err(Failure::Work(format!(
            "commits of {name} may be missing in {}: start it there once, so that it deals with that, then copy it",
            args.from
        )));
    }
    let mut to = open(&args.to, name, None)?;
    let found = Facts::of(&mut *to).map_err(|fault| failure(&to_failed(&*to, fault)))?;
    Ok((from, facts, to, found))
}

/// Refuses to write over a node.
fn check_place(args: &StoreCopyArgs, name: &str, facts: &Facts, found: &Facts) -> Result<(), Failure> {
    if found.is_whole() && !facts.is_same(found) {
        return Err(Failure::Work(format!(
            "{} has a node named {name} with a past of its own: name another store",
            args.to
        )));
    }
    if !facts.is_whole() && !facts.is_empty() {
        return Err(Failure::Work(format!(
            "{} has half a copy of {name}: finish that first, from the store that it comes from",
            args.from
        )));
    }
    Ok(())
}

/// Copies a node. Nothing is to be said of one that has never done anything.
fn copy<'a>(
    args: &StoreCopyArgs,
    from_outside: &mut dyn Look,
    name: &'a str,
) -> Result<Option<Line<'a>>, Failure> {
    let (mut from, facts, mut to, found) = open_both(args, name)?;
    check_place(args, name, &facts, &found)?;
    if !facts.is_whole() {
        return Ok(None);
    }
    if found.is_whole() {
        return Ok(Some(Line { event: "there", name, copied: None }));
    }
    let mut there = store::look(&args.to).map_err(|error| look::failure(&error))?;
    let (mut live, all) = (Live::new(), facts.messages());
    let mut progress =
        |done| live.show(|| format!("{}: {done} of {} copied", field(name), event::messages(all)));
    let transfer = Transfer::new(&mut *from, &mut *to, &mut progress);
    let outcome = transfer.run([&facts, &found], [from_outside, &mut *there], name);
    live.clear();
    drop(there);
    let copied = outcome.map_err(|error| {
        if matches!(error, TransferError::Started) {
            let from = &args.from;
            return Failure::InUse(format!(
                "{name} was started on {from} meanwhile: stop it, then copy it again"
            ));
        }
        failure(&error)
    })?;
    // Opened again, it tells what it really has.
    drop(to);
    let mut to = open(&args.to, name, None)?;
    let there = Facts::of(&mut *to).map_err(|fault| failure(&to_failed(&*to, fault)))?;
    compare(&facts, &there, &copied).map_err(|error| failure(&error))?;
    if copied.damaged > 0 {
        warn(format_args!(
            "{} of {name} did not pass their check: they are not in the copy, and whom they were for is told of a gap",
            event::messages(copied.damaged)
        ));
    }
    Ok(Some(Line { event: "copied", name, copied: Some(copied) }))
}

fn failure(error: &TransferError) -> Failure {
    Failure::Work(error.to_string())
}
