//! `liner gateway`: takes messages from devices, keeps them, and hands them on.

mod check;
mod demo;
mod lines;
mod status;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use liner_mio::{Builder, Class, Event, Framing, LineUrl, Message, Node};
use serde::Serialize;

use crate::args::{DEVICES_ADDRESS, Durability, GatewayArgs, InDoubtRule, PEERS_ADDRESS};
use crate::clock::{Clock, Ticks};
use crate::event::gap_name;
use crate::failure::Failure;
use crate::gaps::Gaps;
use crate::line_status::{LINE_EVERY, LineStatus};
use crate::node::{build, drive_failure, open, stop_failure};
use crate::options::Settings;
use crate::out::{Out, Report, shown};
use crate::store_url::StoreUrl;
use crate::watch::{Stop, Watch};
use lines::Lines;
use status::{Counts, Status, Told};

/// How long the end may take: the store has to take what was begun.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn run(args: &GatewayArgs, settings: &Settings) -> Result<(), Failure> {
    if !args.demo {
        check::sound(args, settings)?;
    }
    if args.check_config {
        return check::run(args, settings);
    }
    if args.demo {
        return demo::run(args);
    }
    let mut node = connect(&Setup::new(args))?;
    // Not before: opening may check a large file, and a signal ends that at once.
    let mut watch = Watch::new(Stop::on_signals()?)?;
    watch.register(&mut [&mut node])?;
    let mut report = Report::new(Out::new(args.json));
    report.write(|out| say_started(out, args, &node));
    serve(&mut node, &mut watch, &mut report)?;
    node.stop(STOP_PATIENCE, &mut ignore).map_err(|error| stop_failure(&error))
}

/// What a gateway is made of.
pub(super) struct Setup<'a> {
    pub(super) name: &'a str,
    pub(super) store: &'a StoreUrl,
    pub(super) durability: Option<Durability>,
    pub(super) listen: &'a str,
    pub(super) device_listen: &'a str,
    pub(super) devices: &'a [LineUrl],
    pub(super) peers: &'a [String],
    pub(super) in_doubt: &'a [InDoubtRule],
    pub(super) insecure: bool,
}

impl<'a> Setup<'a> {
    fn new(args: &'a GatewayArgs) -> Self {
        Self {
            name: &args.name,
            store: &args.store,
            durability: args.durability,
            listen: &args.listen,
            device_listen: &args.device_listen,
            devices: &args.device,
            peers: &args.peer,
            in_doubt: &args.in_doubt,
            insecure: args.insecure,
        }
    }
}

/// Builds the gateway's node: peers are listened for first, then devices.
pub(super) fn connect(setup: &Setup<'_>) -> Result<Node, Failure> {
    let store = open(setup.store, setup.name, setup.durability.map(Durability::class))?;
    let builder = Node::builder(setup.name);
    // A commit may wait for the disk for long; acknowledgements of what is committed should not.
    let builder = if setup.store.is_ram() { builder.store(store) } else { builder.store_on_worker(store) };
    let builder = configured(setup, builder);
    build(builder.listen(setup.listen, Framing::Length).listen(setup.device_listen, Framing::Cobs))
}

/// A gateway but for its store and its addresses.
fn configured(setup: &Setup<'_>, builder: Builder) -> Builder {
    let mut builder = builder.takes_custody(true).durable(true).insecure(setup.insecure);
    for device in setup.devices {
        builder = builder.line(device.as_str());
    }
    for InDoubtRule { name, policy } in setup.in_doubt {
        builder = match name {
            Some(name) => builder.in_doubt_of(name, *policy),
            None => builder.in_doubt(*policy),
        };
    }
    for peer in setup.peers {
        builder = builder.peer(peer);
    }
    builder
}

/// A gateway subscribes to nothing itself.
pub(super) const fn ignore(_: &Message<'_>) {}

/// Works until the stop.
fn serve(node: &mut Node, watch: &mut Watch, report: &mut Report) -> Result<(), Failure> {
    let clock = Clock::start();
    let mut ticks = Ticks::new(SECOND, SECOND);
    let mut told = Told::default();
    let mut gaps = Gaps::default();
    let mut lines = Lines::default();
    // A person wants to know how a line is, not every second.
    let line_every = if report.is_json() { SECOND } else { LINE_EVERY };
    let mut line_ticks = Ticks::new(SECOND, line_every);
    let mut before = Counts::of(node);
    while !watch.is_stopped() {
        // Without traffic there is nothing to say, and no reason to wake up.
        let changed = before.is_outdated(node) || told.is_owed() || gaps.is_owed();
        watch.wait_for(&mut [node], changed.then(|| ticks.left(clock.elapsed())))?;
        node.drive(Some(Duration::ZERO), &mut ignore).map_err(|error| drive_failure(&error))?;
        while let Some(event) = node.poll_event() {
            if let Some(event) = gaps.take(event) {
                told.take(&event, node.store_error().as_deref());
            }
        }
        while let Some(event) = node.poll_line() {
            told.say(false, event.to_string());
        }
        if ticks.take(clock.elapsed()) || watch.is_stopped() {
            for gap in gaps.rest() {
                told.take(&gap, None);
                report.write(|out| say_gap(out, &gap));
            }
            told.tell();
            if line_ticks.take(clock.elapsed()) || watch.is_stopped() {
                for (url, stats) in lines.changed(node) {
                    let status = LineStatus::new(url, &stats);
                    report.write(|out| out.line(&status, &status));
                }
            }
            let counts = Counts::of(node);
            if counts != before {
                let status = Status::new(&counts, &before);
                report.write(|out| out.line(status, &status));
                before = counts;
            }
        }
    }
    Ok(())
}

/// Programs read of gaps among the status lines; people read of them where all events are told.
fn say_gap(out: &mut Out, gap: &Event) -> std::io::Result<()> {
    let Event::Gap { from, count, reason } = gap else { return Ok(()) };
    if !out.is_json() {
        return Ok(());
    }
    out.object(&Gap { event: "gap", from, count: *count, reason: gap_name(*reason) })
}

#[derive(Serialize)]
struct Gap<'a> {
    event: &'static str,
    from: &'a str,
    count: u64,
    reason: &'static str,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum Started<'a> {
    Started { name: &'a str, store: String, class: String },
    Listening { peers: Option<SocketAddr>, devices: Option<SocketAddr>, lines: Vec<&'a str> },
}

fn say_started(out: &mut Out, args: &GatewayArgs, node: &Node) -> std::io::Result<()> {
    let class = node.store_class();
    let store = args.store.to_string();
    let mut addresses = node.listen_addrs().iter().copied();
    let (peers, devices) = (addresses.next(), addresses.next());
    let lines: Vec<&str> = args.device.iter().map(LineUrl::as_str).collect();
    if out.is_json() {
        out.object(&Started::Started { name: &args.name, store, class: class.to_string() })?;
        return out.object(&Started::Listening { peers, devices, lines });
    }
    out.title(&format!("liner gateway {}", args.name))?;
    let line = |label: &str, text: &str| format!("  {label:<9}{text}");
    let mut screen = vec![
        line("store", &format!("{store} ({})", survives(class))),
        line("peers", &peers.map(|address| address.to_string()).unwrap_or_default()),
        line("devices", &devices.map(|address| address.to_string()).unwrap_or_default()),
    ];
    for (index, text) in lines.iter().enumerate() {
        screen.push(line(if index == 0 { "lines" } else { "" }, &shown(text)));
    }
    screen.extend([
        line("next", &format!("liner sub readings --name w{}", option("--peer", peers, PEERS_ADDRESS))),
        line("", &format!("liner device --topic readings{}", option("--connect", devices, DEVICES_ADDRESS))),
    ]);
    for text in screen {
        out.raw(&[text.as_bytes()])?;
    }
    Ok(())
}

pub(super) const fn survives(class: Class) -> &'static str {
    match class {
        Class::Ram => "survives nothing: for trying things out",
        Class::Process => "survives the death of the process",
        Class::Power => "survives the loss of power",
    }
}

/// The option that leads here from this machine, unless it is the default.
fn option(name: &str, address: Option<SocketAddr>, default: &str) -> String {
    match address.map(|address| reachable(address).to_string()) {
        Some(address) if address != default => format!(" {name} {address}"),
        _ => String::new(),
    }
}

/// What listens on every address is dialled on one of them.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_suggested_can_be_dialled() {
        let option = |address: &str| option("--peer", address.parse().ok(), PEERS_ADDRESS);
        assert_eq!(option("127.0.0.1:7420"), "");
        assert_eq!(option("0.0.0.0:7420"), "");
        assert_eq!(option("0.0.0.0:7000"), " --peer 127.0.0.1:7000");
        assert_eq!(option("[::]:7420"), " --peer [::1]:7420");
        assert_eq!(option("192.168.1.10:7420"), " --peer 192.168.1.10:7420");
    }
}
