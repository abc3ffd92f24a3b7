//! Names of queues as operators read them.

use liner_proto::effect::Queue;
use liner_proto::router::NAME_BYTES_MAX;

/// The kind of a queue, as a number in the database.
pub const fn kind(queue: Queue<'_>) -> u8 {
    match queue {
        Queue::Node(_) => 0,
        Queue::Topic(_) => 1,
        Queue::Address(_) => 2,
    }
}

/// The queue of this kind and name.
pub const fn queue(kind: u8, name: &str) -> Option<Queue<'_>> {
    Some(match kind {
        0 => Queue::Node(name),
        1 => Queue::Topic(name),
        2 => Queue::Address(name),
        _ => return None,
    })
}

/// A queue's name in the whole file: `{sender}:{sender_topic}:{listener}`, where `:` and `\` of the parts are escaped by a
/// backslash. The sender's own topic is empty so far. What waits for a subscriber or at an address has `\t` or `\a` and
/// then the topic or the address in the place of the listener, which no escaped name begins with.
pub fn composite(owner: &str, queue: Queue<'_>) -> String {
    let mut text = prefix(owner);
    text.push_str(match queue {
        Queue::Node(_) => ":",
        Queue::Topic(_) => ":\\t",
        Queue::Address(_) => ":\\a",
    });
    escape_into(&mut text, queue.name());
    text
}

/// What the composites of all queues of a node begin with.
pub fn prefix(owner: &str) -> String {
    let mut text = String::with_capacity(owner.len() + 32);
    escape_into(&mut text, owner);
    text.push(':');
    text
}

/// The kind and the name of the queue that a composite of this owner names, if it names one. Whoever writes one by hand may
/// have escaped too little, or too much.
pub fn parse(owner: &str, composite: &str) -> Option<(u8, String)> {
    let name = listener(composite);
    let names_it = |kind: &u8| {
        let named = queue(*kind, &name).map(|queue| self::composite(owner, queue));
        named.is_some_and(|named| named == composite)
    };
    let kind = [0, 1, 2].into_iter().find(names_it)?;
    (1..=NAME_BYTES_MAX).contains(&name.len()).then_some((kind, name))
}

/// The first part of a composite, as it was before it was escaped: the name of the node whose queue it is.
pub fn owner(composite: &str) -> String {
    let mut part = String::new();
    let mut chars = composite.chars();
    while let Some(char) = chars.next().filter(|char| *char != ':') {
        part.extend(if char == '\\' { chars.next() } else { Some(char) });
    }
    part
}

/// The last part of a composite, as it was before it was escaped.
pub fn listener(composite: &str) -> String {
    let mut part = String::new();
    let mut chars = composite.chars();
    while let Some(char) = chars.next() {
        match char {
            ':' => part.clear(),
            // `\t` and `\a` stand at the beginning only, where they mean nothing.
            '\\' => part.extend(chars.next().filter(|next| matches!(next, ':' | '\\'))),
            other => part.push(other),
        }
    }
    part
}

fn escape_into(text: &mut String, part: &str) {
    for char in part.chars() {
        if matches!(char, ':' | '\\') {
            text.push('\\');
        }
        text.push(char);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composites_of_different_queues_differ() {
        let names = ["", "a", ":", "\\", "a:b", "a\\", "\\ta", "t", "ta", "\\t", "\\a", "::"];
        let mut seen = std::collections::HashSet::new();
        for owner in names {
            for name in names {
                for queue in [Queue::Node(name), Queue::Topic(name), Queue::Address(name)] {
                    let composite = composite(owner, queue);
                    assert!(composite.starts_with(&prefix(owner)));
                    assert_eq!(listener(&composite), name);
                    let parsed = (!name.is_empty()).then(|| (kind(queue), name.to_owned()));
                    assert_eq!(parse(owner, &composite), parsed);
                    assert!(seen.insert(composite), "{owner:?} {queue:?}");
                }
            }
        }
        assert_eq!(composite("a:b", Queue::Node("c\\d")), "a\\:b::c\\\\d");
    }

    #[test]
    fn what_names_no_queue_of_the_owner_is_not_parsed() {
        let long = format!("a::{}", "b".repeat(256));
        for composite in
            ["", "a", "a:", "a::", "a::\\t", "a:b", "a:b:c", "a::b:c", "b::c", "a::\\x", "a::b\\", &long]
        {
            assert_eq!(parse("a", composite), None, "{composite}");
        }
        assert_eq!(parse("a", "a::b\\:c"), Some((0, "b:c".to_owned())));
    }

    #[test]
    fn no_composite_begins_with_the_prefix_of_another_owner() {
        for (owner, other) in [("a", "a:"), ("a", "a\\"), ("a", "a\\:"), ("", ":"), ("a", "aa")] {
            let of = |owner| composite(owner, Queue::Node("x"));
            assert!(!of(other).starts_with(&prefix(owner)), "{owner:?} {other:?}");
            assert!(!of(owner).starts_with(&prefix(other)), "{owner:?} {other:?}");
        }
    }
}
