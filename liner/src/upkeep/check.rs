//! `liner store check`: what a store is, what it holds, and what to do about it.

use std::io;

use liner::store::{self, About, Held, Look, LookError, survival};
use liner_mio::Class;
use serde::Serialize;

use super::counted;
use crate::args::StoreCheckArgs;
use crate::failure::Failure;
use crate::look;
use crate::out::{self, Out, field, shown};
use crate::store_url::StoreUrl;

#[derive(Serialize)]
struct Checked<'a> {
    event: &'static str,
    store: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    product: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    nodes: &'a [NodeLine],
    advice: &'a [String],
}

#[derive(Serialize)]
struct NodeLine {
    name: String,
    running: bool,
    queues: u64,
    messages: u64,
    bytes: u64,
    dead_letters: u64,
    inbox: u64,
}

pub(super) fn run(args: &StoreCheckArgs) -> Result<(), Failure> {
    let url = args.url.as_ref().unwrap_or(&args.look.store);
    look::check(url, "ram: is in the memory of its node alone, and ends with it: there is nothing to check")?;
    let checked = store::look(url).and_then(|mut look| Ok((look.about()?, nodes(&mut *look)?)));
    let (mut about, nodes) = checked.map_err(|error| look::failure(&error))?;
    about.advice.extend(advice(url, about.class, &nodes));
    let mut out = Out::new(args.look.json);
    say(&mut out, url, &about, &nodes).and_then(|()| out.flush()).map_err(|error| out::failed(&error))
}

fn nodes(look: &mut dyn Look) -> Result<Vec<NodeLine>, LookError> {
    let pending = look.pending(None)?;
    let mut nodes = Vec::new();
    for name in look.nodes()? {
        let Held { dead_letters, deliveries } = look.held(&name)?;
        let queues = pending.iter().filter(|queue| queue.owner == name);
        let sum = |count: fn(&store::Pending) -> u64| queues.clone().map(count).sum();
        nodes.push(NodeLine {
            running: look.is_running(&name),
            queues: sum(|_| 1),
            messages: sum(|queue| queue.messages),
            bytes: sum(|queue| queue.bytes),
            dead_letters,
            inbox: deliveries,
            name,
        });
    }
    Ok(nodes)
}

/// What can be said of a store of any kind.
fn advice(url: &StoreUrl, class: Option<Class>, nodes: &[NodeLine]) -> Vec<String> {
    let mut advice = Vec::new();
    if let (StoreUrl::Server(server), Some(found @ (Class::Ram | Class::Process))) = (url, class) {
        advice.push(format!(
            "what is stored survives {}: {} if it is to survive {}",
            survival(found),
            server.kind().advice(),
            survival(Class::Power)
        ));
    }
    let letters: u64 = nodes.iter().map(|node| node.dead_letters).sum();
    if letters > 0 {
        let were = if letters == 1 { "message was" } else { "messages were" };
        advice.push(format!("{letters} {were} put aside: `liner dlq list --store {url}` shows what and why"));
    }
    advice
}

fn say(out: &mut Out, url: &StoreUrl, about: &About, nodes: &[NodeLine]) -> io::Result<()> {
    let About { product, schema, class, advice } = about;
    let class = class.map(|class| class.to_string());
    if out.is_json() {
        let (event, store, schema) = ("checked", url.to_string(), *schema);
        return out.object(&Checked { event, store, product, schema, class, nodes, advice });
    }
    let schema = schema.map(|schema| format!(", schema {schema}")).unwrap_or_default();
    let mut line =
        |label: &str, text: &str| out.raw(&[format!("{label:<14}").as_bytes(), shown(text).as_bytes()]);
    line("store", &url.to_string())?;
    if !product.is_empty() {
        line("kind", &format!("{product}{schema}"))?;
    }
    if let (Some(word), Some(class)) = (class, about.class) {
        line("class", &format!("{word}: what is stored survives {}", survival(class)))?;
    }
    let all = |count: fn(&NodeLine) -> u64| nodes.iter().map(count).sum::<u64>();
    let [queues, messages, bytes] =
        [all(|node| node.queues), all(|node| node.messages), all(|node| node.bytes)];
    let (queues, messages) = (counted(queues, "queue", "queues"), counted(messages, "message", "messages"));
    line("waiting", &format!("{messages} of {bytes} bytes, in {queues}"))?;
    line("put aside", &counted(all(|node| node.dead_letters), "dead letter", "dead letters"))?;
    line("inboxes", &counted(all(|node| node.inbox), "message", "messages"))?;
    let names = nodes.iter().map(|node| {
        let runs = if node.running { " (runs)" } else { "" };
        format!("{}{runs}", field(&node.name))
    });
    let names: Vec<String> = names.collect();
    line("nodes", if names.is_empty() { "none".to_owned() } else { names.join(", ") }.as_str())?;
    for sentence in advice {
        line("advice", sentence)?;
    }
    Ok(())
}
