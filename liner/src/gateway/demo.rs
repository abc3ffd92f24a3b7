//! `liner gateway --demo`: the whole path in one process, with readings of this machine.

use std::fs::DirBuilder;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use liner_mio::{Class, Message, Node};
use serde::Serialize;

use super::{SECOND, STOP_PATIENCE, Setup, connect, ignore, survives};
use crate::args::GatewayArgs;
use crate::clock::{Clock, Ticks};
use crate::device::{self, Config, Notice, Payloads};
use crate::event;
use crate::failure::Failure;
use crate::out::{self, Out, tell};
use crate::reading::Machine;
use crate::store::{build, drive_failure, open, stop_failure};
use crate::store_url::StoreUrl;
use crate::watch::{Stop, Watch};

const TOPIC: &str = "readings";
const DEVICE: &str = "sensor";
const SUBSCRIBER: &str = "screen";
const FREE_PORT: &str = "127.0.0.1:0";
const EVERY: Duration = Duration::from_millis(200);
/// How long the last readings may take from the device to the subscriber.
const DRAIN: Duration = Duration::from_secs(3);

pub(super) fn run(args: &GatewayArgs) -> Result<(), Failure> {
    let stop = Stop::on_signals()?;
    let folder = Folder::new()?;
    let mut gateway = connect(&Setup {
        name: &args.name,
        store: &folder.store("gateway.db"),
        durability: args.durability,
        listen: FREE_PORT,
        device_listen: FREE_PORT,
        peers: &args.peer,
        insecure: false,
    })?;
    let mut addresses = gateway.listen_addrs().iter().map(ToString::to_string);
    let (Some(peers), Some(devices)) = (addresses.next(), addresses.next()) else {
        return Err(Failure::Work("the gateway listens nowhere".to_owned()));
    };
    let mut subscriber = build(
        Node::builder(SUBSCRIBER)
            .store(open(&folder.store("subscriber.db"), SUBSCRIBER, Class::Process)?)
            .durable(true)
            .peer(&peers)
            .subscribe(TOPIC),
    )?;
    let mut out = Out::new(args.json);
    say_started(&mut out, &gateway, (&peers, &devices), &folder).map_err(|error| out::failed(&error))?;

    let mut device = Device::start(devices)?;
    let mut watch = Watch::new(stop)?;
    watch.register(&mut [&mut gateway, &mut subscriber])?;
    let mut show = Show { out, clock: Clock::start(), arrived: 0, last: String::new(), read: device::Status::default() };
    let outcome = show.until(&mut watch, (&mut gateway, &mut subscriber), &device.statuses, Phase::Running);
    device.stop();
    outcome?;
    show.until(&mut watch, (&mut gateway, &mut subscriber), &device.statuses, Phase::Draining)?;
    device.join()?;
    subscriber.stop(STOP_PATIENCE, &mut ignore).map_err(|error| stop_failure(&error))?;
    gateway.stop(STOP_PATIENCE, &mut ignore).map_err(|error| stop_failure(&error))?;
    drop((gateway, subscriber));
    show.end()
}
