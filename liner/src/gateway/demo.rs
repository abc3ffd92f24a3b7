//! `liner gateway --demo`: the whole path in one process, with readings of this machine.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use liner_mio::{Class, Event, Message, Node};
use serde::Serialize;

use super::{SECOND, STOP_PATIENCE, Setup, connect, ignore, survives};
use crate::args::GatewayArgs;
use crate::clock::{Clock, Ticks};
use crate::device::{self, Config, End as DeviceEnd, Notice, Payloads, Place, Status};
use crate::event;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::node::{build, drive_failure, open, stop_failure};
use crate::out::{self, Out};
use crate::reading::{Machine, Reading};
use crate::watch::{Stop, Watch};

const TOPIC: &str = "readings";
const DEVICE: &str = "sensor";
const SUBSCRIBER: &str = "screen";
const FREE_PORT: &str = "127.0.0.1:0";
const EVERY: Duration = Duration::from_millis(200);
/// How long the last readings may take from the device to the subscriber.
const DRAIN: Duration = Duration::from_secs(3);

pub(super) fn run(args: &GatewayArgs) -> Result<(), Failure> {
    let clock = Clock::start();
    let stop = Stop::on_signals()?;
    let folder = Folder::temporary("demo")?;
    let mut gateway = connect(&Setup {
        name: &args.name,
        store: &folder.store("gateway.db"),
        durability: args.durability,
        listen: FREE_PORT,
        device_listen: FREE_PORT,
        devices: &[],
        peers: &args.peer,
        in_doubt: &args.in_doubt,
        insecure: false,
    })?;
    let mut addresses = gateway.listen_addrs().iter().map(ToString::to_string);
    let (Some(peers), Some(devices)) = (addresses.next(), addresses.next()) else {
        return Err(Failure::Work("the gateway listens nowhere".to_owned()));
    };
    let mut subscriber = build(
        Node::builder(SUBSCRIBER)
            .store(open(&folder.store("subscriber.db"), SUBSCRIBER, Some(Class::Process))?)
            .durable(true)
            .accept_weak_acks(true)
            .peer(&peers)
            .subscribe(TOPIC),
    )?;
    let mut out = Out::new(args.json);
    say_started(&mut out, &gateway, (&peers, &devices), &folder).map_err(|error| out::failed(&error))?;

    let device = Device::start(devices)?;
    let mut watch = Watch::new(stop)?;
    watch.register(&mut [&mut gateway, &mut subscriber])?;
    let mut show = Show::new(out, clock);
    while !watch.is_stopped() && !device.is_over() {
        show.turn(&mut watch, &mut gateway, &mut subscriber, &device)?;
    }
    let status = device.end()?;
    show.read = status;
    let until = show.clock.elapsed() + DRAIN;
    while (gateway.queued() > 0 || !gateway.is_idle() || !subscriber.is_idle())
        && show.clock.elapsed() < until
    {
        show.drive(&mut gateway, &mut subscriber)?;
        watch.wait_for(
            &mut [&mut gateway, &mut subscriber],
            Some(until.saturating_sub(show.clock.elapsed())),
        )?;
    }
    subscriber.stop(STOP_PATIENCE, &mut ignore).map_err(|error| stop_failure(&error))?;
    gateway.stop(STOP_PATIENCE, &mut ignore).map_err(|error| stop_failure(&error))?;
    drop((gateway, subscriber));
    show.end().map_err(|error| out::failed(&error))
}

/// The device in its thread.
struct Device {
    thread: JoinHandle<Result<(Status, DeviceEnd), Failure>>,
    statuses: Receiver<Status>,
    stop: UnixStream,
}

impl Device {
    fn start(devices: String) -> Result<Self, Failure> {
        let (stop, write) = Stop::pair()?;
        // It is told once a tenth of a second; what nobody took is out of date.
        let (sender, statuses): (SyncSender<Status>, _) = sync_channel(64);
        let config = Config {
            name: DEVICE.to_owned(),
            topic: TOPIC.to_owned(),
            place: Place::Tcp(devices),
            every: Some(EVERY),
            count: None,
            status_every: EVERY / 2,
            line_every: EVERY,
        };
        let work = move || {
            let payloads = Payloads::Readings(Machine::new());
            device::drive(&config, payloads, stop, &mut |notice| {
                if let Notice::Status(status) = notice {
                    let _ = sender.try_send(*status);
                }
            })
        };
        let thread = thread::Builder::new().name("device".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Failure::io("cannot start the device's thread", &error))?;
        Ok(Self { thread, statuses, stop: write })
    }

    fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    fn end(self) -> Result<Status, Failure> {
        drop(self.stop);
        match self.thread.join() {
            Ok(Ok((_, DeviceEnd::Failed(failure)))) => Err(failure),
            Ok(outcome) => outcome.map(|(status, _)| status),
            Err(_) => Err(Failure::Work("the device's thread has failed".to_owned())),
        }
    }
}

/// What is shown, and what it is made of.
struct Show {
    out: Out,
    clock: Clock,
    ticks: Ticks,
    read: Status,
    arrived: u64,
}

impl Show {
    fn new(out: Out, clock: Clock) -> Self {
        Self { out, clock, ticks: Ticks::new(SECOND, SECOND), read: Status::default(), arrived: 0 }
    }

    fn turn(
        &mut self,
        watch: &mut Watch,
        gateway: &mut Node,
        subscriber: &mut Node,
        device: &Device,
    ) -> Result<(), Failure> {
        let left = self.ticks.left(self.clock.elapsed());
        watch.wait_for(&mut [gateway, subscriber], Some(left))?;
        let was_first = self.arrived == 0;
        self.drive(gateway, subscriber)?;
        while let Ok(status) = device.statuses.try_recv() {
            self.read = status;
        }
        // The first one is shown at once, then one each second.
        let is_first = was_first && self.arrived > 0;
        if self.ticks.take(self.clock.elapsed()) || is_first {
            self.line(gateway.queued()).map_err(|error| out::failed(&error))?;
        }
        Ok(())
    }

    fn drive(&mut self, gateway: &mut Node, subscriber: &mut Node) -> Result<(), Failure> {
        let failed = |error| drive_failure(&error);
        gateway.drive(Some(Duration::ZERO), &mut ignore).map_err(failed)?;
        let arrived = &mut self.arrived;
        subscriber.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| *arrived += 1).map_err(failed)?;
        for node in [gateway, subscriber] {
            while let Some(event) = node.poll_event() {
                // Coming and going is what the start and the end look like.
                if !matches!(event, Event::PeerUp { .. } | Event::PeerDown { .. }) {
                    event::tell(&event, node);
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, in_custody: u64) -> io::Result<()> {
        let seconds = self.clock.elapsed().as_secs();
        let line = Line {
            event: "status",
            seconds,
            reading: self.read.reading,
            read: self.read.sent.max(self.arrived),
            in_custody,
            arrived: self.arrived,
        };
        self.out.line(line, &line)?;
        self.out.flush()
    }

    fn end(&mut self) -> io::Result<()> {
        let end = End {
            event: "ended",
            read: self.read.sent,
            arrived: self.arrived,
            in_device: self.read.sent - self.read.acked,
        };
        self.out.line(end, &end)?;
        self.out.flush()
    }
}

#[derive(Clone, Copy, Serialize)]
struct Line {
    event: &'static str,
    seconds: u64,
    reading: Option<Reading>,
    read: u64,
    in_custody: u64,
    arrived: u64,
}

const HEAD: &str = "  time  this machine                                read  in custody  arrived";

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reading = self.reading.map(|reading| reading.to_string()).unwrap_or_default();
        let Self { seconds, read, in_custody, arrived, .. } = self;
        write!(f, "{seconds:>5}s  {reading:<41}{read:>7}{in_custody:>12}{arrived:>9}")
    }
}

#[derive(Clone, Copy, Serialize)]
struct End {
    event: &'static str,
    read: u64,
    arrived: u64,
    in_device: u64,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { read, arrived, in_device, .. } = self;
        write!(f, "\n{arrived} of {read} readings arrived")?;
        match in_device {
            0 => f.write_str("."),
            left => write!(f, "; {left} were still in the device's RAM."),
        }
    }
}

fn say_started(
    out: &mut Out,
    gateway: &Node,
    (peers, devices): (&str, &str),
    folder: &Folder,
) -> io::Result<()> {
    if out.is_json() {
        out.object(&serde_json::json!({
            "event": "started",
            "store": folder.store("gateway.db").to_string(),
            "class": gateway.store_class().to_string(),
            "peers": peers,
            "devices": devices,
        }))?;
        return out.flush();
    }
    out.title("A device reads this machine, a gateway keeps it, a subscriber gets it")?;
    let class = gateway.store_class();
    let lines = [
        format!("  device      {DEVICE}: a reading every {} ms, kept in RAM", EVERY.as_millis()),
        format!("  gateway     {}", folder.path().display()),
        format!("              {}", survives(class)),
        format!("              devices at {devices}, subscribers at {peers}"),
        format!("  subscriber  {SUBSCRIBER}: topic {TOPIC}"),
        format!("  join in     liner sub {TOPIC} --peer {peers}"),
        "  Ctrl-C ends it".to_owned(),
        String::new(),
    ];
    for line in &lines {
        out.raw(&[line.as_bytes()])?;
    }
    out.title(HEAD)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_a_terminal() {
        let reading = Reading {
            load: Some(10.42),
            memory_used_mib: Some(20_480),
            memory_total_mib: Some(65_536),
            temperature: Some(45.1),
        };
        let line = Line {
            event: "",
            seconds: 3600,
            reading: Some(reading),
            read: 18_000,
            in_custody: 3,
            arrived: 17_997,
        };
        let text = line.to_string();
        assert_eq!(text.chars().count(), HEAD.len());
        assert!(HEAD.len() <= 80);
    }
}
