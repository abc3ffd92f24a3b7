//! Disks of the world: requests that take their time, and the words about them in a trace.

use liner_proto::router::StoreRequest;

use super::disk::Reply;
use super::time::Event;
use super::{Node, World};

impl World {
    pub(super) fn begin_request(&mut self, index: usize) {
        let node = &self.nodes[index];
        let (low, high) = node.plan.disk_latency;
        let at = self.now + self.dice.range(low, high) * node.slow;
        self.agenda.put(at, Event::Execute { node: index, life: node.life });
    }

    pub(super) fn execute(&mut self, index: usize, life: u64) {
        let Node { disk, replies, life: current, .. } = &mut self.nodes[index];
        if *current != life || !disk.is_busy() {
            return;
        }
        let checker = &mut self.checker;
        let reply = disk.execute(&mut self.dice, &mut |ops| checker.on_durable(index, ops));
        let text = self.options.trace.then(|| outcome(reply.as_ref()));
        replies.extend(reply);
        let (low, _) = self.nodes[index].plan.disk_latency;
        let at = self.now + self.dice.below(low + 1);
        self.agenda.put(at, Event::Reply { node: index, life });
        if self.nodes[index].disk.is_busy() {
            self.begin_request(index);
        }
        if let Some(text) = text {
            self.trace(|world| format!("disk of {}: {text}", world.name(index)));
        }
    }

    pub(super) fn reply(&mut self, index: usize, life: u64) {
        let now = self.instant();
        let node = &mut self.nodes[index];
        if node.life != life {
            return;
        }
        let Some(router) = &mut node.router else { return };
        match node.replies.pop_front() {
            Some(Reply::Committed { id, outcome }) => router.handle_committed(now, id, outcome),
            Some(Reply::Loaded { request, result, bytes }) => {
                router.handle_loaded(now, &request, result, &bytes);
            }
            None => return,
        }
        self.mix(0x4e91);
        self.drive(index);
    }
}

pub(super) fn describe(request: &StoreRequest) -> String {
    match request {
        StoreRequest::Load(load) => format!("{load:?}"),
        StoreRequest::Commit(batch) => {
            let mut words = format!("batch {} of generation {}:", batch.id().0, batch.generation());
            let _ = batch.try_each_group(|ops| {
                for op in ops {
                    words.push_str(&brief(op));
                }
                words.push_str(" |");
                Ok::<(), ()>(())
            });
            words
        }
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "all others are short")]
fn brief(op: &liner_proto::effect::StoreOp<'_>) -> String {
    use liner_proto::effect::StoreOp;
    match op {
        StoreOp::Append { queue, first, last, .. } => format!(" append {queue:?} {first}..={last}"),
        StoreOp::DeadLetter { peer, topic, reason, .. } => format!(" put aside {reason:?} {topic} of {peer}"),
        other => format!(" {other:?}"),
    }
}

fn outcome(reply: Option<&Reply>) -> String {
    match reply {
        Some(Reply::Committed { id, outcome }) => format!("batch {}: {outcome:?}", id.0),
        Some(Reply::Loaded { result, .. }) => format!("read: {result:?}"),
        None => "nothing".into(),
    }
}
