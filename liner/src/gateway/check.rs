//! `liner gateway --check-config`: what the gateway would do, and why.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};

use liner::store::survival;
use liner_mio::{BuildError, Class, Node};
use serde::Serialize;

use super::{Setup, configured, survives};
use crate::args::{Durability, GatewayArgs};
use crate::failure::Failure;
use crate::node::{build, build_failure};
use crate::options::{Origin, Settings, Value};
use crate::out::{self, Out, shown};
use crate::store_url::StoreUrl;

/// Prints it, for options that are sound.
pub(super) fn run(args: &GatewayArgs, settings: &Settings) -> Result<(), Failure> {
    let mut out = Out::new(args.json);
    say(&mut out, args, settings).and_then(|()| out.flush()).map_err(|error| out::failed(&error))
}

/// What can be said against the options before anything is opened, with where they stand.
pub(super) fn sound(args: &GatewayArgs, settings: &Settings) -> Result<(), Failure> {
    let store = args.store.check().map_err(|error| Failure::Usage(error.to_string()));
    store.map_err(|failure| settings.placed("store", failure))?;
    let peers = listens(&args.listen, args.insecure);
    let peers = peers.map_err(|failure| settings.placed("listen", failure))?;
    let devices = listens(&args.device_listen, args.insecure);
    let devices = devices.map_err(|failure| settings.placed("device-listen", failure))?;
    if peers.port() != 0 && peers == devices {
        let text = format!("peers and devices cannot share {peers}: give one of them another port");
        return Err(settings.placed("device-listen", settings.placed("listen", Failure::Usage(text))));
    }
    // A node with a store in RAM and without addresses opens nothing. Only its lines have not been looked at before.
    let node = build(configured(&Setup::new(args), Node::builder(&args.name)));
    node.map(drop).map_err(|failure| settings.placed("device", failure))
}

/// The first address that would be listened on.
fn listens(addr: &str, insecure: bool) -> Result<SocketAddr, Failure> {
    let bad = |source| build_failure(&BuildError::Address { addr: addr.to_owned(), source });
    let addrs: Vec<SocketAddr> = addr.to_socket_addrs().map_err(bad)?.collect();
    if let Some(addr) = addrs.iter().find(|addr| !insecure && !addr.ip().is_loopback()) {
        return Err(build_failure(&BuildError::Insecure { addr: *addr }));
    }
    let none = || bad(io::Error::new(io::ErrorKind::NotFound, "it stands for no address"));
    addrs.first().copied().ok_or_else(none)
}

#[derive(Serialize)]
struct Checked<'a> {
    event: &'static str,
    config: Option<String>,
    options: BTreeMap<&'a str, Shown<'a>>,
}

#[derive(Serialize)]
struct Shown<'a> {
    value: &'a Value,
    source: &'static str,
    /// The variable, or the file with the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
}

fn say(out: &mut Out, args: &GatewayArgs, settings: &Settings) -> io::Result<()> {
    let options = settings.iter().filter(|(name, _)| !matches!(*name, "config" | "check-config"));
    if out.is_json() {
        let shown = options.map(|(name, setting)| {
            let (source, at) = match &setting.origin {
                Origin::Default => ("default", None),
                Origin::File(place) => ("file", Some(place.as_str())),
                Origin::Environment(variable) => ("environment", Some(variable.as_str())),
                Origin::CommandLine => ("command line", None),
            };
            (name, Shown { value: &setting.value, source, at })
        });
        let config = args.config.as_ref().map(|path| path.display().to_string());
        return out.object(&Checked { event: "checked", config, options: shown.collect() });
    }
    out.title(&format!("liner gateway {} would", shown(&args.name)))?;
    for text in deeds(args) {
        out.raw(&[b"  ", shown(&text).as_bytes()])?;
    }
    out.title("because of")?;
    for (name, setting) in options {
        let origin = match &setting.origin {
            Origin::Default => "default",
            Origin::CommandLine => "command line",
            Origin::File(place) | Origin::Environment(place) => place,
        };
        let text = format!("  {name:<14} {}  ({})", words(&setting.value), shown(origin));
        out.raw(&[text.as_bytes()])?;
    }
    Ok(())
}

fn words(value: &Value) -> String {
    match value {
        Value::Flag(true) => "on".to_owned(),
        Value::Flag(false) => "off".to_owned(),
        Value::Text(text) => shown(text.as_deref().unwrap_or("none")).into_owned(),
        Value::List(texts) if texts.is_empty() => "none".to_owned(),
        Value::List(texts) => shown(&texts.join(", ")).into_owned(),
    }
}

/// What it would do, a line each.
fn deeds(args: &GatewayArgs) -> Vec<String> {
    let mut deeds = Vec::new();
    if args.demo {
        deeds.push(
            "show the path of messages, with a temporary store and on free ports of this machine".to_owned(),
        );
    } else {
        let kept = match (&args.store, args.durability.map(Durability::class)) {
            (StoreUrl::Ram, _) => survives(Class::Ram).to_owned(),
            (StoreUrl::Sqlite(_), asked) => survives(asked.unwrap_or(Class::Power)).to_owned(),
            (StoreUrl::Server(_), None) => "survives what the settings of the server say".to_owned(),
            (StoreUrl::Server(_), Some(asked)) => format!("has to survive {}", survival(asked)),
        };
        deeds.push(format!("keep messages in {}, which {kept}", args.store));
        deeds.push(format!("listen for peers on {}", args.listen));
        deeds.push(format!("listen for devices on {}", args.device_listen));
        deeds.extend(args.device.iter().map(|url| format!("open the line {url}")));
    }
    deeds.extend(args.peer.iter().map(|peer| format!("connect to {peer}")));
    if args.insecure && !args.demo {
        deeds.push("take connections from other machines, without asking who they are".to_owned());
    }
    deeds
}
