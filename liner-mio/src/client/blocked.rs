//! What was handed to the loop and waits for room.

use std::collections::{HashMap, VecDeque};

use liner_proto::time::Instant;

use super::command::{Job, JobEnd};

/// Messages that somebody sends, and how far they are.
pub(super) struct Begun {
    pub(super) job: Job,
    /// Those before this one are queued.
    pub(super) next: usize,
    /// How long room is waited for, or what is before it.
    pub(super) until: Instant,
    /// Whether the directory was looked at again for somebody who takes the topic.
    pub(super) has_looked: bool,
}

impl Begun {
    const fn is_posted(&self) -> bool {
        self.job.promise.is_none()
    }
}

/// What waits for room: posted messages in their order, as many as may be posted, and behind them a call of each thread.
#[derive(Default)]
pub(super) struct Blocked {
    posted: VecDeque<Begun>,
    /// How many of those each topic has.
    topics: HashMap<Box<str>, usize>,
    /// Posted ones that have left, of all that have ever come.
    left: u64,
    /// Calls, and how many posted messages have to leave before each.
    calls: VecDeque<(u64, Begun)>,
    /// Those who wait for what was posted before them, and for how many that is.
    waits: Vec<(u64, Begun)>,
}

impl Blocked {
    /// Whether it has to wait for something that came before it: a posted message for those that were posted, a call for what goes to its
    /// topic.
    pub(super) fn holds_up(&self, begun: &Begun) -> bool {
        if begun.is_posted() || begun.job.end != JobEnd::Sent {
            return !self.posted.is_empty();
        }
        let topic = &begun.job.topic;
        self.topics.contains_key(topic) || self.calls.iter().any(|(_, call)| call.job.topic == *topic)
    }

    pub(super) fn push(&mut self, begun: Begun) {
        if begun.is_posted() {
            *self.topics.entry(begun.job.topic.clone()).or_default() += 1;
            self.posted.push_back(begun);
            return;
        }
        let behind = self.left + self.posted.len() as u64;
        if begun.job.end == JobEnd::Sent {
            self.calls.push_back((behind, begun));
        } else {
            self.waits.push((behind, begun));
        }
    }

    /// Back to the front, in their order, as there is no room yet: nothing posted is before them any more.
    pub(super) fn put_back_calls(&mut self, calls: Vec<Begun>) {
        for call in calls.into_iter().rev() {
            self.calls.push_front((0, call));
        }
    }

    /// Back where it came from.
    pub(super) fn push_front_posted(&mut self, begun: Begun) {
        *self.topics.entry(begun.job.topic.clone()).or_default() += 1;
        self.left -= 1;
        self.posted.push_front(begun);
    }

    pub(super) fn pop_posted(&mut self) -> Option<Begun> {
        let begun = self.posted.pop_front()?;
        self.left += 1;
        if let Some(count) = self.topics.get_mut(&begun.job.topic) {
            *count -= 1;
            if *count == 0 {
                self.topics.remove(&begun.job.topic);
            }
        }
        Some(begun)
    }

    /// Calls that nothing posted to their topic is before any more, and those that have waited for long enough.
    pub(super) fn take_calls(&mut self, now: Instant) -> Vec<Begun> {
        let (left, topics) = (self.left, &self.topics);
        let is_due = |(behind, call): &(u64, Begun)| {
            *behind <= left || !topics.contains_key(&call.job.topic) || call.until <= now
        };
        let (due, held) = core::mem::take(&mut self.calls).into_iter().partition(is_due);
        self.calls = held;
        VecDeque::into_iter(due).map(|(_, call)| call).collect()
    }

    /// Those who wait for what was posted before them, and all of that has left.
    pub(super) fn take_waits(&mut self) -> Vec<Begun> {
        let left = self.left;
        self.waits.extract_if(.., |(behind, _)| *behind <= left).map(|(_, wait)| wait).collect()
    }

    /// Those who have waited for too long for what was posted before them.
    pub(super) fn take_late_waits(&mut self, now: Instant) -> Vec<Begun> {
        self.waits.extract_if(.., |(_, wait)| wait.until <= now).map(|(_, wait)| wait).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.posted.is_empty() && self.calls.is_empty() && self.waits.is_empty()
    }

    /// When the first of them has waited for long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let behind = self.calls.iter().chain(&self.waits).map(|(_, begun)| begun);
        self.posted.front().into_iter().chain(behind).map(|begun| begun.until).min()
    }

    /// Any of them: what was posted in its order, and whoever waits for it behind it.
    pub(super) fn pop(&mut self) -> Option<Begun> {
        let begun = self.pop_posted().or_else(|| self.calls.pop_front().map(|(_, call)| call));
        begun.or_else(|| self.waits.pop().map(|(_, wait)| wait))
    }
}

#[cfg(test)]
mod tests {
    use liner_proto::router::SendOptions;

    use super::super::command::Ticket;
    use super::*;

    const UNTIL: core::time::Duration = core::time::Duration::from_secs(1);

    fn begun(topic: &str, end: Option<JobEnd>) -> Begun {
        let promise = end.map(|_| Ticket::new(1).1);
        let job = Job::new(topic, vec![Box::from(*b"x")], SendOptions::default(), promise);
        let job = Job { end: end.unwrap_or(JobEnd::Sent), ..job };
        Begun { job, next: 0, until: Instant::ZERO + UNTIL, has_looked: false }
    }

    #[test]
    fn what_is_posted_keeps_its_order_and_calls_wait_for_their_topic() {
        let (early, until) = (Instant::ZERO, Instant::ZERO + UNTIL);
        let mut blocked = Blocked::default();
        assert!(!blocked.holds_up(&begun("a", None)));
        blocked.push(begun("a", None));
        assert!(blocked.holds_up(&begun("b", None)), "whatever the topic");
        assert!(blocked.holds_up(&begun("a", Some(JobEnd::Sent))));
        assert!(!blocked.holds_up(&begun("b", Some(JobEnd::Sent))));
        blocked.push(begun("b", Some(JobEnd::Sent)));
        assert!(blocked.holds_up(&begun("b", Some(JobEnd::Sent))), "calls keep their order, too");
        let wait = begun("", Some(JobEnd::Flushed));
        assert!(blocked.holds_up(&wait));
        blocked.push(wait);
        blocked.push(begun("c", None));
        let topics =
            |calls: Vec<Begun>| -> Vec<Box<str>> { calls.into_iter().map(|call| call.job.topic).collect() };
        blocked.push(begun("a", Some(JobEnd::Sent)));
        assert_eq!(topics(blocked.take_calls(early)), [Box::from("b")]);
        let first = blocked.pop_posted();
        first.into_iter().for_each(|first| blocked.push_front_posted(first));
        blocked.push(begun("a", None));
        assert_eq!(topics(blocked.take_calls(early)), [] as [Box<str>; 0], "it has not left");
        assert_eq!(topics(blocked.take_waits()), [] as [Box<str>; 0]);
        let _ = blocked.pop_posted();
        assert_eq!(topics(blocked.take_waits()), [Box::from("")], "what came later is not waited for");
        let _ = blocked.pop_posted();
        let due = blocked.take_calls(early);
        assert_eq!(due.len(), 1, "nor by a call");
        // It finds no room, and is before a call that came after it.
        blocked.push(begun("b", Some(JobEnd::Sent)));
        blocked.put_back_calls(due);
        assert_eq!(topics(blocked.take_calls(early)), ["a", "b"].map(Box::from));
        blocked.push(begun("a", Some(JobEnd::Sent)));
        assert_eq!(topics(blocked.take_calls(until)), [Box::from("a")], "and none is held for too long");
    }
}
