//! `liner pending`, `topics` and `dlq`: what is in a store, beside the node that uses it.

use std::io::{self, Write as _};

use liner::store::{self, DeadLetter, Look, LookError, Target};
use liner_proto::store::LEASE;
use serde::Serialize;

use crate::args::{DlqAction, DlqArgs, LookArgs, PendingArgs};
use crate::event::{dead_name, messages};
use crate::failure::Failure;
use crate::line::Line;
use crate::out::{self, Out, field, tell};
use crate::store_url::StoreUrl;

/// Dead letters that are read at a time.
const PAGE: u32 = 1000;

/// Bytes of a payload that a person is shown in a list.
const SHOWN_BYTES: usize = 100;

fn open(args: &LookArgs) -> Result<Box<dyn Look>, Failure> {
    check(
        &args.store,
        "ram: is in the memory of its node alone: name the file of one that keeps its messages, as sqlite:PATH",
    )?;
    store::look(&args.store).map_err(|error| failure(&error))
}

/// Refuses what cannot be looked at, with these words if it is in memory.
pub(crate) fn check(url: &StoreUrl, ram: &str) -> Result<(), Failure> {
    if url.is_ram() {
        return Err(Failure::Usage(ram.to_owned()));
    }
    url.check().map_err(|error| Failure::Usage(error.to_string()))
}

/// Refuses a name that a node on a server uses now: whoever opens the store takes the name from it. A file has locks for that.
pub(crate) fn check_unused(url: &StoreUrl, name: &str) -> Result<(), Failure> {
    if url.is_server() && store::look(url).map_err(|error| failure(&error))?.is_running(name) {
        return Err(runs(url, name));
    }
    Ok(())
}

/// That a node has to be stopped first.
pub(crate) fn runs(url: &StoreUrl, name: &str) -> Failure {
    if !url.is_server() {
        return Failure::InUse(format!("{name} runs on {url}: stop it first"));
    }
    let seconds = LEASE.as_secs();
    Failure::InUse(format!(
        "{name} runs on {url}, or was killed there within the last {seconds} seconds: stop it, or wait for so long"
    ))
}

pub(crate) fn failure(error: &LookError) -> Failure {
    if matches!(error, LookError::InUse(_)) {
        return Failure::InUse(error.to_string());
    }
    Failure::Work(error.to_string())
}

fn print(out: &mut Out, write: impl FnOnce(&mut Out) -> io::Result<()>) -> Result<(), Failure> {
    write(out).map_err(|error| out::failed(&error))
}

/// What a queue is for, in words.
fn target(target: &Target) -> (&'static str, &str) {
    match target {
        Target::Node(name) => ("node", name),
        Target::Topic(topic) => ("topic", topic),
        Target::Address(address) => ("address", address),
    }
}

#[derive(Serialize)]
struct PendingLine<'a> {
    owner: &'a str,
    kind: &'static str,
    #[serde(rename = "for")]
    target: &'a str,
    messages: u64,
    bytes: u64,
}

/// `liner pending`.
pub(crate) fn pending(args: &PendingArgs) -> Result<(), Failure> {
    let queues = open(&args.look)?.pending(args.name.as_deref()).map_err(|error| failure(&error))?;
    let mut out = Out::new(args.look.json);
    for queue in &queues {
        let (kind, of) = target(&queue.target);
        let (messages, bytes) = (queue.messages, queue.bytes);
        let line = PendingLine { owner: &queue.owner, kind, target: of, messages, bytes };
        let whose = match queue.target {
            Target::Node(_) => field(of).into_owned(),
            Target::Topic(_) | Target::Address(_) => format!("{kind}:{}", field(of)),
        };
        let plain = format!("{} {whose} {messages} {bytes}", field(&queue.owner));
        print(&mut out, |out| out.line(plain, &line))?;
    }
    print(&mut out, Out::flush)?;
    let total: u64 = queues.iter().map(|queue| queue.messages).sum();
    tell(format_args!(
        "{}",
        match total {
            0 => "nothing waits".to_owned(),
            1 => "a message waits".to_owned(),
            _ => format!("{} wait", messages(total)),
        }
    ));
    Ok(())
}

#[derive(Serialize)]
struct TopicLine<'a> {
    topic: &'a str,
    name: &'a str,
    address: &'a str,
}

/// `liner topics`.
pub(crate) fn topics(args: &LookArgs) -> Result<(), Failure> {
    let rows = open(args)?.subscriptions().map_err(|error| failure(&error))?;
    let mut out = Out::new(args.json);
    for row in &rows {
        let line = TopicLine { topic: &row.topic, name: &row.name, address: &row.address };
        let plain = format!("{} {} {}", field(&row.topic), field(&row.name), field(&row.address));
        print(&mut out, |out| out.line(plain, &line))?;
    }
    print(&mut out, Out::flush)?;
    if rows.is_empty() {
        tell("nobody has subscribed to anything");
    }
    Ok(())
}

#[derive(Serialize)]
struct LetterLine<'a> {
    id: i64,
    owner: &'a str,
    peer: &'a str,
    reason: &'static str,
    #[serde(flatten)]
    message: Option<Line<'a>>,
    /// Without a payload the record is damaged.
    #[serde(skip_serializing_if = "Option::is_none")]
    topic: Option<&'a str>,
}

/// `liner dlq`.
pub(crate) fn dlq(args: &DlqArgs) -> Result<(), Failure> {
    match &args.action {
        DlqAction::List { look, topic } => list(look, topic.as_deref()),
        DlqAction::Read { look, id } => read(look, *id),
        DlqAction::Redrive { look, ids } => {
            let count = open(look)?.redrive(ids).map_err(|error| failure(&error))?;
            tell(format_args!("{} queued again: sent when their node starts the next time", messages(count)));
            Ok(())
        }
        DlqAction::Drop { look, ids, topic, all } => {
            let mut store = open(look)?;
            let dropped = match (topic, all) {
                (None, false) => store.drop_dead_letters(ids),
                (topic, _) => store.drop_all_dead_letters(topic.as_deref()),
            };
            let count = dropped.map_err(|error| failure(&error))?;
            tell(format_args!("{} dropped", if count == 0 { "nothing".to_owned() } else { messages(count) }));
            Ok(())
        }
    }
}

fn list(look: &LookArgs, topic: Option<&str>) -> Result<(), Failure> {
    let (mut store, mut out) = (open(look)?, Out::new(look.json));
    let mut after = i64::MIN;
    loop {
        let page = store.dead_letters(topic, after, PAGE).map_err(|error| failure(&error))?;
        let Some(last) = page.last() else { break };
        after = last.id;
        for letter in &page {
            print(&mut out, |out| write_letter(out, letter))?;
        }
    }
    print(&mut out, Out::flush)?;
    if after == i64::MIN {
        tell("there are no dead letters");
    }
    Ok(())
}

fn write_letter(out: &mut Out, letter: &DeadLetter) -> io::Result<()> {
    let reason = letter.reason.map_or("unknown", dead_name);
    if out.is_json() {
        let message = letter.payload.as_ref().map(|payload| Line::new(&letter.topic, None, payload, false));
        let topic = message.is_none().then_some(letter.topic.as_str());
        let DeadLetter { id, owner, peer, .. } = letter;
        return out.object(&LetterLine { id: *id, owner, peer, reason, message, topic });
    }
    out.raw(&[&plain(letter, reason)])
}

/// What a person is shown of it.
fn plain(letter: &DeadLetter, reason: &str) -> Vec<u8> {
    let head = format!("{} {} {} {reason} ", letter.id, field(&letter.owner), field(&letter.peer));
    let mut line = head.into_bytes();
    let Some(payload) = &letter.payload else {
        line.extend_from_slice(format!("{} (damaged)", field(&letter.topic)).as_bytes());
        return line;
    };
    let shown = beginning(payload);
    Line::new(&letter.topic, None, shown, false).write(&mut line);
    if shown.len() < payload.len() {
        line.extend_from_slice(format!("… ({} bytes)", payload.len()).as_bytes());
    }
    line
}

/// As much of a payload as there is room for in a list, up to the end of a character if it is text.
fn beginning(payload: &[u8]) -> &[u8] {
    let Some(cut) = payload.get(..SHOWN_BYTES).filter(|cut| cut.len() < payload.len()) else {
        return payload;
    };
    match std::str::from_utf8(cut) {
        Err(error) if error.error_len().is_none() => cut.get(..error.valid_up_to()).unwrap_or(cut),
        Ok(_) | Err(_) => cut,
    }
}

/// The payload alone, as it was sent.
fn read(look: &LookArgs, id: i64) -> Result<(), Failure> {
    let letter = open(look)?.dead_letter(id).map_err(|error| failure(&error))?;
    let Some(payload) = &letter.payload else {
        return Err(Failure::Work(format!("the record of dead letter {id} is damaged: drop it")));
    };
    if look.json {
        let mut out = Out::new(true);
        return print(&mut out, |out| write_letter(out, &letter).and_then(|()| out.flush()));
    }
    let mut stdout = io::stdout().lock();
    stdout.write_all(payload).and_then(|()| stdout.flush()).map_err(|error| out::failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_payload_the_beginning_and_the_length_are_shown() {
        let shown = |payload: &[u8]| {
            let letter = DeadLetter {
                id: 7,
                owner: "o".to_owned(),
                peer: "p".to_owned(),
                topic: "t".to_owned(),
                reason: None,
                payload: Some(payload.to_vec()),
            };
            String::from_utf8(plain(&letter, "quota")).unwrap()
        };
        assert_eq!(shown(&[b'a'; 100]), format!("7 o p quota t - {}", "a".repeat(100)));
        assert_eq!(shown(&[b'a'; 101]), format!("7 o p quota t - {}… (101 bytes)", "a".repeat(100)));
        let bytes = shown(&[0xff; 1 << 20]);
        assert!(bytes.starts_with("7 o p quota t - base64:////") && bytes.ends_with("… (1048576 bytes)"));
        assert!(bytes.len() < 200, "{}", bytes.len());
        // A character of two bytes is not cut.
        assert_eq!(
            shown(format!("a{}", "é".repeat(100)).as_bytes()),
            format!("7 o p quota t - a{}… (201 bytes)", "é".repeat(49))
        );
    }
}
