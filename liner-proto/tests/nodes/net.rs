//! Several nodes that dial each other by their addresses, in virtual time.

use std::collections::BTreeSet;
use std::time::Duration;

use liner_proto::id::ConnId;
use liner_proto::router::{Event, Framing, NodeConfig};

use super::{NOW, Node};

/// A connection: the dialler's index and end, and the other one's.
type Link = [(usize, ConnId); 2];

/// In place of an end that is lost without that the other one has heard of it.
const LOST: usize = usize::MAX;

/// Nodes by their index. Each is found at the address that it says, but for `nowhere:1`.
#[derive(Default)]
pub(crate) struct Net {
    pub(crate) nodes: Vec<Node>,
    links: Vec<Link>,
    /// Nodes that are not there.
    pub(crate) down: BTreeSet<usize>,
    /// Addresses that were dialled.
    pub(crate) dialled: Vec<(usize, String)>,
    /// What each node was told.
    pub(crate) events: Vec<Vec<Event>>,
    /// Bytes that went over links.
    pub(crate) bytes: usize,
}

impl Net {
    /// Adds a node that listens at `NAME:1`.
    pub(crate) fn add(&mut self, name: &str, change: impl FnOnce(&mut NodeConfig)) -> usize {
        let mut node = Node::start(name, |config| {
            config.address = format!("{name}:1");
            change(config);
        });
        node.now = self.nodes.first().map_or(NOW, |node| node.now);
        self.nodes.push(node);
        self.events.push(Vec::new());
        self.nodes.len() - 1
    }

    /// The node at this index is told of an address.
    pub(crate) fn name(&mut self, index: usize, address: &str) {
        let node = &mut self.nodes[index];
        node.router.add_peer(node.now, address);
    }

    pub(crate) fn subscribe(&mut self, index: usize, topic: &str) {
        let node = &mut self.nodes[index];
        node.router.subscribe(node.now, topic);
    }

    /// Everybody says what there is to say, without that time passes.
    pub(crate) fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut more = false;
            for index in 0..self.nodes.len() {
                more |= self.turn(index);
            }
            if !more {
                return;
            }
        }
        panic!("they never come to rest");
    }

    /// A node does what there is to do.
    pub(crate) fn turn(&mut self, index: usize) -> bool {
        if self.down.contains(&index) {
            return false;
        }
        self.nodes[index].serve();
        let mut more = false;
        let now = self.nodes[index].now;
        while let Some(dial) = self.nodes[index].router.poll_dial(now) {
            let (id, address) = (dial.id, dial.address.to_owned());
            self.dialled.push((index, address.clone()));
            let is_there =
                |to: &usize| self.nodes[*to].config.address == address && !address.starts_with("nowhere");
            let to = (0..self.nodes.len()).filter(|to| !self.down.contains(to)).find(is_there);
            match to {
                Some(to) => {
                    let here = self.nodes[index].router.handle_dialed(now, id, Framing::Length);
                    let there = self.nodes[to].router.handle_accepted(now, Framing::Length);
                    self.links.push([(index, here), (to, there)]);
                }
                None => self.nodes[index].router.handle_dial_failed(now, id),
            }
            more = true;
        }
        for [one, other] in self.links.clone() {
            for (from, to) in [(one, other), (other, one)] {
                if from.0 == index && !self.down.contains(&to.0) {
                    let bytes = self.nodes[index].give(from.1);
                    self.bytes += bytes.len();
                    more |= !bytes.is_empty();
                    if to.0 != LOST {
                        self.nodes[to.0].take(to.1, bytes);
                    }
                }
            }
        }
        while self.nodes[index].router.poll_writable().is_some() {
            more = true;
        }
        while let Some(conn) = self.nodes[index].router.poll_close() {
            self.close((index, conn));
            more = true;
        }
        while let Some(event) = self.nodes[index].router.poll_event() {
            self.events[index].push(event);
        }
        more
    }

    fn close(&mut self, end: (usize, ConnId)) {
        let Some(at) = self.links.iter().position(|link| link.contains(&end)) else { return };
        for (index, conn) in self.links.remove(at).into_iter().filter(|end| end.0 != LOST) {
            let node = &mut self.nodes[index];
            node.router.handle_closed(node.now, conn);
        }
    }

    /// The connections of a node break.
    pub(crate) fn cut(&mut self, index: usize) {
        let ends: Vec<_> = self.links.iter().flatten().filter(|end| end.0 == index).copied().collect();
        for end in ends {
            self.close(end);
        }
        self.settle();
    }

    /// The process of a node ends, and its connections break.
    pub(crate) fn kill(&mut self, index: usize) {
        self.cut_all_but_hear(index);
        self.down.insert(index);
        self.settle();
    }

    /// The machine of a node loses its power: nobody hears that its connections are gone.
    pub(crate) fn silence(&mut self, index: usize) {
        for end in self.links.iter_mut().flatten().filter(|end| end.0 == index) {
            end.0 = LOST;
        }
        self.down.insert(index);
    }

    fn cut_all_but_hear(&mut self, index: usize) {
        let gone: Vec<Link> =
            self.links.iter().filter(|link| link.iter().any(|end| end.0 == index)).copied().collect();
        self.links.retain(|link| link.iter().all(|end| end.0 != index));
        for (other, conn) in gone.into_iter().flatten().filter(|end| end.0 != index && end.0 != LOST) {
            let node = &mut self.nodes[other];
            node.router.handle_closed(node.now, conn);
        }
    }

    /// It begins anew with its store.
    pub(crate) fn revive(&mut self, index: usize, topics: &[&str]) {
        self.down.remove(&index);
        self.nodes[index].now = self.nodes.iter().map(|node| node.now).max().unwrap_or(NOW);
        self.nodes[index].restart();
        for topic in topics {
            self.subscribe(index, topic);
        }
        self.settle();
    }

    /// Time passes, from one deadline to the next.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.settle();
        let end = self.nodes.iter().map(|node| node.now).max().unwrap_or(NOW) + time;
        loop {
            let up = || self.nodes.iter().enumerate().filter(|(index, _)| !self.down.contains(index));
            let now = up().map(|(_, node)| node.now).max().unwrap_or(end);
            let due = up().filter_map(|(_, node)| node.router.poll_timeout()).map(|(at, _)| at).min();
            // Never on the spot, whatever is due.
            let next = due.unwrap_or(end).max(now + Duration::from_millis(1)).min(end);
            for index in 0..self.nodes.len() {
                self.nodes[index].now = next;
                if !self.down.contains(&index) {
                    self.nodes[index].pass(Duration::ZERO);
                }
            }
            self.settle();
            if next >= end {
                return;
            }
        }
    }

    /// Who is connected to a node, in order.
    pub(crate) fn peers(&self, index: usize) -> Vec<String> {
        let mut names: Vec<String> = self.nodes[index].router.peers_up().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// How many connections there are.
    pub(crate) fn links(&self) -> usize {
        self.links.len()
    }

    /// How many messages a node was given.
    pub(crate) fn got(&self, index: usize) -> usize {
        self.nodes[index].got.len()
    }
}
