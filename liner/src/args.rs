//! The command line.

mod looks;
mod upkeep;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use liner_mio::{Class, InDoubt, LineUrl};

use crate::duration;
use crate::failure::EXIT_CODES;
use crate::log::{self, Filter};
use crate::store_url::StoreUrl;
pub(crate) use looks::{DlqAction, DlqArgs, LookArgs, PendingArgs};
pub(crate) use upkeep::{StoreAction, StoreArgs, StoreBackupArgs, StoreCheckArgs, StoreCopyArgs};

/// Messages between programs, with no broker needed: a message stays in its sender's store until the other side has committed it.
#[derive(Debug, Parser)]
#[command(name = "liner", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
To see it work, on this machine alone:
  liner gateway --demo

The same path by hand, in terminals of their own:
  liner gateway
  liner sub readings --name w
  liner device --topic readings
  liner pub device hello

`liner COMMAND --help` explains one command. An option that names a variable of the environment is read from there too: the command
line goes before the environment. A variable that is empty counts as none.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Take messages from devices into one store, and hand them on to whoever subscribes
    Gateway(GatewayArgs),
    /// Send messages to a gateway as a small device does: with a store in RAM, over COBS frames
    Device(DeviceArgs),
    /// Print the messages of one or more topics, a line each
    Sub(SubArgs),
    /// Send a message, or many, to a topic, or to a device by its name
    Pub(PubArgs),
    /// Deliver what a store holds, without the node that has put it there, and end when nothing is left
    Drain(DrainArgs),
    /// Give up a node that never comes back: its subscriptions, and what is queued for it
    Forget(ForgetArgs),
    /// Measure how many messages a second pass between two nodes on this machine, and how long one takes there and back
    Bench(BenchArgs),
    /// Show what waits in a store, and for whom
    Pending(PendingArgs),
    /// Show who has subscribed to what, as a store knows it
    #[command(after_help = looks::TOPICS_HELP)]
    Topics(LookArgs),
    /// List, read, send again or drop messages that were put aside
    Dlq(DlqArgs),
    /// Move what is in a store to another one, look whether one is in order, or back a file up while nodes use it
    Store(StoreArgs),
    /// Print a script that completes this command's words in a shell
    Completions(CompletionsArgs),
}

/// What all that works has in common.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What is told on standard error: error, warn (what is lost or held up), info (what comes and goes), debug or trace (what the core
    /// does), and MODULE=LEVEL for a module of the core, with commas between them
    #[arg(long, env = "LINER_LOG", value_name = "LEVEL", default_value = "info", value_parser = log::filter)]
    pub(crate) log: Filter,
}

impl Command {
    /// What is told of its work, if it does any.
    pub(crate) const fn log(&self) -> Option<&Filter> {
        let args = match self {
            Self::Gateway(args) => &args.log,
            Self::Device(args) => &args.log,
            Self::Sub(args) => &args.log,
            Self::Pub(args) => &args.log,
            Self::Drain(args) => &args.log,
            Self::Forget(args) => &args.log,
            Self::Bench(args) => &args.log,
            Self::Pending(args) => &args.look.log,
            Self::Topics(args) => &args.log,
            Self::Dlq(args) => match &args.action {
                DlqAction::List { look, .. }
                | DlqAction::Read { look, .. }
                | DlqAction::Redrive { look, .. }
                | DlqAction::Drop { look, .. } => &look.log,
            },
            Self::Store(args) => match &args.action {
                StoreAction::Copy(args) => &args.log,
                StoreAction::Check(args) => &args.look.log,
                StoreAction::Backup(args) => &args.log,
            },
            Self::Completions(_) => return None,
        };
        Some(&args.log)
    }
}

/// What the gateway's and a subscriber's command lines share.
pub(crate) const PEERS_ADDRESS: &str = "127.0.0.1:7420";
pub(crate) const DEVICES_ADDRESS: &str = "127.0.0.1:7421";

/// What `--size` may ask for. How long a message may be, the node knows.
const SIZE_MAX: u32 = 16 * 1024 * 1024;

#[derive(Debug, Args)]
#[command(after_help = gateway_help())]
pub(crate) struct GatewayArgs {
    /// A file with options, for what neither the command line nor the environment says [default: none]
    #[arg(long, env = "LINER_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check all options, say what the gateway would do and where each of them comes from, and end without having opened anything
    /// [default: off]
    #[arg(long)]
    pub(crate) check_config: bool,
    /// Its name: what devices and peers know it by
    #[arg(long, env = "LINER_NAME", default_value = "gateway", value_parser = name)]
    pub(crate) name: String,
    /// Where messages are kept: sqlite:PATH, redis://HOST, postgres://HOST/DATABASE, or ram: to keep nothing
    #[arg(
        long,
        env = "LINER_STORE",
        hide_env_values = true,
        value_name = "URL",
        default_value = "sqlite:liner-gateway.db"
    )]
    pub(crate) store: StoreUrl,
    /// What a stored message has to survive; a server is refused if its settings fall short of it [default: power for a file, what the
    /// settings say for a server]
    #[arg(long, env = "LINER_DURABILITY", value_enum)]
    pub(crate) durability: Option<Durability>,
    /// Where peers (subscribers, other nodes) connect
    #[arg(long, env = "LINER_LISTEN", value_name = "ADDR", default_value = PEERS_ADDRESS)]
    pub(crate) listen: String,
    /// Where devices connect: COBS frames over TCP, as a serial-to-TCP bridge gives
    #[arg(long, env = "LINER_DEVICE_LISTEN", value_name = "ADDR", default_value = DEVICES_ADDRESS)]
    pub(crate) device_listen: String,
    /// A line to a device, opened again whenever it comes back; may be given several times: a serial port as
    /// serial:///dev/ttyUSB0?baud=115200 (and parity=, stop=, flow=, duplex=), or tcp://HOST:PORT, which dials a
    /// serial-to-TCP bridge. Commas separate several [default: none]
    #[arg(long, env = "LINER_DEVICE", value_delimiter = ',', value_name = "URL")]
    pub(crate) device: Vec<LineUrl>,
    /// A node to connect to, again and again until it answers; may be given several times, or with commas between them
    /// [default: none]
    #[arg(long, env = "LINER_PEER", value_delimiter = ',', value_name = "ADDR", value_parser = address)]
    pub(crate) peer: Vec<String>,
    /// What becomes of messages that a device may have had before it was switched off, or a node before it lost its store: they come
    /// again, marked (redeliver), are put aside (dead-letter), or wait for an answer (ask). NAME=POLICY is for that one alone; may
    /// be given several times [default: redeliver]
    #[arg(long, env = "LINER_IN_DOUBT", value_name = "[NAME=]POLICY", value_parser = in_doubt)]
    pub(crate) in_doubt: Vec<InDoubtRule>,
    /// Listen where other machines can connect: nothing asks them who they are yet [default: off]
    #[arg(long, env = "LINER_INSECURE")]
    pub(crate) insecure: bool,
    /// Show the whole path at work: a device with readings of this machine, the gateway with a temporary store on free
    /// ports, and a subscriber, until Ctrl-C. What the environment or --config says of stores and ports is set aside [default: off]
    #[arg(long)]
    pub(crate) demo: bool,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

fn gateway_help() -> String {
    format!(
        "\
A message is acknowledged to the device after it was committed here, together with the note of how far that device has
come: it is in the store once, through kills and power cuts. It leaves the store when the subscriber has handled it. What
nobody has subscribed to is kept for the first subscriber with a name, up to 100,000 messages or 256 MiB a topic. Nobody has
to read the status lines.

In the file for --config each option is a key of its name: text in quotes, true or false for a flag, a list for what may be given
several times. The command line goes before the environment, the environment before the file. --insecure=false, --demo=false and
--json=false turn off again what the file turns on.

Examples:
  liner gateway --demo
  liner gateway --store sqlite:/var/lib/liner/gateway.db
  liner gateway --device-listen 192.168.1.10:7421 --insecure
  liner gateway --device serial:///dev/ttyUSB0?baud=115200 --device tcp://192.168.1.20:4001
  liner gateway --config /etc/liner/gateway.toml --check-config

{EXIT_CODES}"
    )
}

/// What is done about messages in doubt, for one node or for all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InDoubtRule {
    pub(crate) name: Option<String>,
    pub(crate) policy: InDoubt,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Durability {
    /// The loss of power: every commit waits for the disk
    Power,
    /// The death of the process, not of the machine: faster
    Process,
}

impl Durability {
    pub(crate) const fn class(self) -> Class {
        match self {
            Self::Power => Class::Power,
            Self::Process => Class::Process,
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = device_help())]
pub(crate) struct DeviceArgs {
    /// The gateway's address for devices; one that is away is waited for
    #[arg(long, env = "LINER_CONNECT", value_name = "ADDR", default_value = DEVICES_ADDRESS, value_parser = address)]
    pub(crate) connect: String,
    /// The serial port that leads to the gateway, instead of an address: a path, or serial:///dev/ttyUSB0?baud=115200 (and
    /// parity=, stop=, flow=, duplex=); one that is not there is waited for [default: none]
    #[arg(long, env = "LINER_SERIAL", value_name = "PATH", value_parser = serial)]
    pub(crate) serial: Option<LineUrl>,
    /// The topic it sends to, up to 64 bytes
    #[arg(long, env = "LINER_TOPIC", value_parser = device_topic)]
    pub(crate) topic: String,
    /// Its name, up to 32 bytes: give each device its own
    #[arg(long, env = "LINER_NAME", default_value = "device", value_parser = device_name)]
    pub(crate) name: String,
    /// How long after one message the next is sent [default: 100ms; with --payload-from: as they come]
    #[arg(long, env = "LINER_EVERY", value_name = "TIME", value_parser = duration::parse)]
    pub(crate) every: Option<Duration>,
    /// End after this many messages, once all are acknowledged [default: no end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// What to send: - for the lines of standard input, one message each, to its end [default: readings of this machine]
    #[arg(long, value_name = "-", value_parser = ["-"])]
    pub(crate) payload_from: Option<String>,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

fn device_help() -> String {
    format!(
        "\
Messages wait in 16 KiB of RAM until the gateway has committed them. When that is full, or the gateway keeps no more of
a topic that nobody has subscribed to, a reading is left out and counted, and standard input is simply not read for a while.
What is in RAM when this program is stopped or killed is lost: a stop says how much that is. A line has up to 4,096 bytes: a
longer one ends the program after all lines before it are acknowledged. Nobody has to read the status lines.

What is sent to the device's name (`liner pub NAME PAYLOAD`) is printed as `liner sub` prints it: `TOPIC FROM#SEQ PAYLOAD`, with `*`
behind SEQ if it may have come before. With --json such a line has \"event\":\"message\".

Examples:
  liner device --topic readings
  liner device --topic readings --name boiler --every 1s --count 60
  seq 1000 | liner device --topic numbers --payload-from -
  liner device --topic readings --serial /dev/ttyUSB1

{EXIT_CODES}"
    )
}

#[derive(Debug, Args)]
#[command(after_help = sub_help())]
pub(crate) struct SubArgs {
    /// The topics to subscribe to
    #[arg(required = true, value_name = "TOPIC", value_parser = topic)]
    pub(crate) topics: Vec<String>,
    /// A name makes it durable: what is sent while it is away waits for it [default: none, and nothing waits]
    #[arg(long, env = "LINER_NAME", value_parser = name)]
    pub(crate) name: Option<String>,
    /// Where it keeps how far it has come: sqlite:PATH, the URL of a server, or ram: [default: sqlite:liner-NAME.db with --name, else ram:]
    #[arg(long, env = "LINER_STORE", hide_env_values = true, value_name = "URL")]
    pub(crate) store: Option<StoreUrl>,
    /// A node that has messages, tried again until it answers; may be given several times, or with commas between them
    /// [default: 127.0.0.1:7420, or none with --listen]
    #[arg(long, env = "LINER_PEER", value_delimiter = ',', value_name = "ADDR", value_parser = address)]
    pub(crate) peer: Vec<String>,
    /// Where nodes that have messages can connect to this one [default: nowhere]
    #[arg(long, env = "LINER_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Listen where other machines can connect: nothing asks them who they are yet [default: off]
    #[arg(long, env = "LINER_INSECURE")]
    pub(crate) insecure: bool,
    /// End once this many messages are acknowledged; what came together with the last one is printed too [default: no end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

fn sub_help() -> String {
    format!(
        "\
A line is `TOPIC FROM#SEQ PAYLOAD`: FROM is the node that first sent the message, SEQ its number there. A line is written out
before its message is acknowledged: after a kill the last ones may come again, marked by `*` behind SEQ. Control characters
are escaped, as \\n or \\u{{1b}}, and so are spaces in TOPIC and FROM. When nobody reads the lines any more, it ends: what was
not written is not acknowledged.

With --json a line has the fields topic, from, seq, payload and maybe_redelivered; a payload that is not UTF-8 is in base64,
with a field \"encoding\":\"base64\".

Examples:
  liner sub readings
  liner sub readings alarms --name w --json
  liner sub numbers --name w --count 1000

{EXIT_CODES}"
    )
}

#[derive(Debug, Args)]
#[command(after_help = pub_help())]
pub(crate) struct PubArgs {
    /// The topic; for a device it is the device's name
    #[arg(value_name = "TOPIC|NAME", value_parser = topic)]
    pub(crate) topic: String,
    /// What to send: the text itself, or - for all of standard input; not with --size
    #[arg(allow_hyphen_values = true)]
    pub(crate) payload: Option<String>,
    /// Send payloads of this length instead of PAYLOAD: the message's number in this run, from 1 on, behind zeros [default: none]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(..=i64::from(SIZE_MAX)))]
    pub(crate) size: Option<u32>,
    /// A gateway's address for peers; may be given several times, or with commas between them
    #[arg(long, env = "LINER_PEER", value_delimiter = ',', value_name = "ADDR", default_value = PEERS_ADDRESS, value_parser = address)]
    pub(crate) peer: Vec<String>,
    /// Send it to every node that takes the topic, instead of to one of them [default: off]
    #[arg(long)]
    pub(crate) all: bool,
    /// Send it at most once, to all who take the topic now: it is neither stored nor acknowledged [default: off]
    #[arg(long)]
    pub(crate) best_effort: bool,
    /// Send before storing, and wait for the acknowledgement: only what has none within 50 ms is stored. A crash takes at most what was
    /// sent in that time. The next run with this file tells receivers of a gap, for the numbers that it cannot know to be unused
    /// [default: off]
    #[arg(long = "async")]
    pub(crate) asynchronous: bool,
    /// Send it so many times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: u64,
    /// How long it is of use: what is older when its turn comes is not sent on, and becomes a dead letter [default: no end]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(crate) ttl: Option<Duration>,
    /// How long to wait for an acknowledgement, anew after each that comes, or with --best-effort for somebody to answer
    /// [default: 10s with ram:; with a file it ends when the message is stored there]
    #[arg(long, env = "LINER_WAIT", value_name = "TIME", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
    /// Its name, by which the receiver knows who sent the message [default: one of 1,024 made up]
    #[arg(long, env = "LINER_NAME", value_parser = name)]
    pub(crate) name: Option<String>,
    /// Where the message waits until it is acknowledged: sqlite:PATH or the URL of a server, together with --name, or ram:
    #[arg(long, env = "LINER_STORE", hide_env_values = true, value_name = "URL", default_value = "ram:")]
    pub(crate) store: StoreUrl,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

fn pub_help() -> String {
    format!(
        "\
It ends when the message is acknowledged, and says by whom and at which class: `ram` lives in the gateway's memory,
`process` survives the death of the gateway, `power` the loss of power, `processed` means that the receiver has handled it. With a
store that is a file and without --wait or --async it ends as soon as the message is in there, whether or not anybody answers: the next run, or
`liner drain`, delivers what was not acknowledged by then. It goes to one of the nodes that take the topic, or with --all to each of
them. A device takes the topic of its own name; for one that is away, or was never seen, the gateway keeps it, up to 100,000 messages
or 256 MiB a topic.

A line is `TOPIC NAME#NUMBER acknowledged by GATEWAY (CLASS)`: NAME#NUMBER is what the receiver prints, of the last message if there
are several. Or it is `TOPIC stored in URL (CLASS): WAITING`, with how many wait there, or `TOPIC NAME sent to GATEWAY (best effort)`.

Examples:
  liner pub boiler 'set 60'
  liner pub boiler 'open 5s' --ttl 30s
  liner pub firmware - --peer 192.168.1.10:7420 < notes.txt
  liner pub readings 20.6 --name edge --store sqlite:edge.db
  liner pub load --size 100 --count 1000000 --name edge --store sqlite:edge.db

{EXIT_CODES}"
    )
}

#[derive(Debug, Args)]
#[command(after_help = drain_help())]
pub(crate) struct DrainArgs {
    /// The node whose messages are delivered, and as which it is known meanwhile
    #[arg(long, env = "LINER_NAME", value_parser = name)]
    pub(crate) name: String,
    /// Where they are: sqlite:PATH, or the URL of a server
    #[arg(long, env = "LINER_STORE", hide_env_values = true, value_name = "URL")]
    pub(crate) store: StoreUrl,
    /// A node to connect to, beside those whose addresses the store knows; may be given several times, or with commas between them
    /// [default: none]
    #[arg(long, env = "LINER_PEER", value_delimiter = ',', value_name = "ADDR", value_parser = address)]
    pub(crate) peer: Vec<String>,
    /// Where nodes that only connect to others find it [default: nowhere]
    #[arg(long, env = "LINER_LISTEN", value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Listen where other machines can connect: nothing asks them who they are yet [default: off]
    #[arg(long, env = "LINER_INSECURE")]
    pub(crate) insecure: bool,
    /// How long it may take [default: no end]
    #[arg(long, env = "LINER_WAIT", value_name = "TIME", value_parser = duration::parse)]
    pub(crate) wait: Option<Duration>,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

fn drain_help() -> String {
    format!(
        "\
It takes the node's name on the store, and does not start while that node runs. A line says each second what was delivered and what
waits. What is delivered is what is acknowledged; the rest stays where it is, whatever happens. It takes nothing itself: what others have
for NAME waits there until NAME runs.

Examples:
  liner drain --name edge --store sqlite:edge.db --peer 192.168.1.10:7420
  liner drain --name gateway --store sqlite:liner-gateway.db --listen 127.0.0.1:7420 --wait 1m

{EXIT_CODES}"
    )
}

#[derive(Debug, Args)]
#[command(after_help = forget_help())]
pub(crate) struct ForgetArgs {
    /// The node that never comes back
    #[arg(value_name = "NAME", value_parser = name)]
    pub(crate) forgotten: String,
    /// Give what was for it alone to others that take the topics, instead of dropping it [default: off]
    #[arg(long)]
    pub(crate) reroute: bool,
    /// The node that forgets it: the one that has the queue
    #[arg(long, env = "LINER_NAME", value_name = "NAME", default_value = "gateway", value_parser = name)]
    pub(crate) name: String,
    /// Where that one keeps its messages: sqlite:PATH, or the URL of a server
    #[arg(
        long,
        env = "LINER_STORE",
        hide_env_values = true,
        value_name = "URL",
        default_value = "sqlite:liner-gateway.db"
    )]
    pub(crate) store: StoreUrl,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

fn forget_help() -> String {
    format!(
        "\
It takes the name of the node that forgets on the store, and does not start while that node runs. What is queued for NAME is dropped, and
counted. With --reroute, what was sent to one of those who take a topic goes to another one of them, marked if NAME may have had it;
where there is no other one, it is kept for the next that subscribes. Copies of what went to all are dropped. Should NAME come back all the
same, it is a new subscriber. `liner drain` delivers what was given to others, or the node itself when it runs again.

A line is `NAME is forgotten: N rerouted, K of them kept for the next subscriber, D dropped`; with --json it has the fields name,
rerouted, kept and dropped.

Examples:
  liner forget worker-3 --reroute
  liner forget worker-3 --reroute --name edge --store sqlite:edge.db

{EXIT_CODES}"
    )
}

#[derive(Debug, Args)]
#[command(after_help = bench_help())]
pub(crate) struct BenchArgs {
    /// Where both nodes keep messages: ram:, or sqlite:PATH for a new folder PATH, on the disk that is to be measured, which is deleted
    /// at the end [default: a folder for temporary files]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<StoreUrl>,
    /// What a stored message survives; not with ram: [default: process]
    #[arg(long, value_enum)]
    pub(crate) durability: Option<Durability>,
    /// How long a message is
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    pub(crate) size: u32,
    /// How long each of the two measurements takes
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration::parse)]
    pub(crate) time: Duration,
    /// End each of them after so many messages, if that is sooner [default: no end]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// Print one JSON object a line [default: off]
    #[arg(long, env = "LINER_JSON")]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogArgs,
}

fn bench_help() -> String {
    format!(
        "\
Two nodes in one process, each with a store of its own, over TCP on 127.0.0.1. Messages are sent as `liner pub` sends them: each is stored
before it leaves, and by its receiver before it is acknowledged. First as many as go, then one at a time, each answered by a message
back. Compare figures of one machine only, and runs with nothing else at work.

Examples:
  liner bench
  liner bench --durability power --store sqlite:/var/lib/liner/bench
  liner bench --store ram: --size 1000 --time 20s

{EXIT_CODES}"
    )
}

#[derive(Debug, Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// The shell that is to read it
    pub(crate) shell: Shell,
}

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  liner completions bash > ~/.local/share/bash-completion/completions/liner
  liner completions zsh > ~/.zfunc/_liner
  liner completions fish > ~/.config/fish/completions/liner.fish";

fn text(text: &str, what: &str, max: usize) -> Result<String, String> {
    match text.len() {
        0 => Err(format!("{what} must not be empty")),
        len if len > max => Err(format!("{what} has at most {max} bytes, this one has {len}")),
        _ if text.contains(char::is_control) => Err(format!("{what} must not hold control characters")),
        _ => Ok(text.to_owned()),
    }
}

fn name(name: &str) -> Result<String, String> {
    text(name, "a name", 255)
}

fn topic(topic: &str) -> Result<String, String> {
    text(topic, "a topic", 255)
}

fn device_name(name: &str) -> Result<String, String> {
    text(name, "a device's name", 32)
}

fn device_topic(topic: &str) -> Result<String, String> {
    text(topic, "a device's topic", 64)
}

fn in_doubt(text: &str) -> Result<InDoubtRule, String> {
    // A name may hold the sign.
    let (of, policy) = text.rsplit_once('=').map_or((None, text), |(of, policy)| (Some(of), policy));
    let policy = match policy {
        "redeliver" => InDoubt::Redeliver,
        "dead-letter" => InDoubt::DeadLetter,
        "ask" => InDoubt::Ask,
        _ => return Err("write redeliver, dead-letter or ask, or NAME= and one of them".to_owned()),
    };
    Ok(InDoubtRule { name: of.map(name).transpose()?, policy })
}

/// The form only: whether there is such a host shows when it is dialled.
pub(crate) fn address(address: &str) -> Result<String, String> {
    let port = address
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.contains(','))
        .map(|(_, port)| port.parse());
    match port {
        Some(Ok(1_u16..)) => Ok(address.to_owned()),
        _ => Err("write HOST:PORT, for instance 127.0.0.1:7420".to_owned()),
    }
}

/// A port's path, or its URL.
fn serial(text: &str) -> Result<LineUrl, String> {
    let url = if text.contains("://") { text.parse() } else { LineUrl::from_path(text) };
    let url = url.map_err(|error| error.to_string())?;
    if url.serial().is_none() {
        return Err("a bridge has an address: write --connect HOST:PORT".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_for_messages_in_doubt_name_a_node_or_nobody() {
        let rule = |name: Option<&str>, policy| InDoubtRule { name: name.map(str::to_owned), policy };
        assert_eq!(in_doubt("ask"), Ok(rule(None, InDoubt::Ask)));
        assert_eq!(in_doubt("boiler=dead-letter"), Ok(rule(Some("boiler"), InDoubt::DeadLetter)));
        assert_eq!(in_doubt("a=b=redeliver"), Ok(rule(Some("a=b"), InDoubt::Redeliver)));
        for bad in ["", "boiler", "boiler=", "=ask", "boiler=drop"] {
            assert!(in_doubt(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_have_a_port() {
        for good in ["127.0.0.1:7420", "[::1]:7420", "localhost:1"] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in
            ["", "7420", ":7420", "localhost", "localhost:", "localhost:0", "localhost:70000", "a:1,b:1"]
        {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
    #[test]
    fn a_serial_line_is_a_path_or_a_url() {
        let url = |text: &str| serial(text).map(|url| url.to_string());
        assert_eq!(url("/dev/ttyS0").as_deref(), Ok("serial:///dev/ttyS0"));
        assert_eq!(url("serial:///dev/ttyS0?baud=9600").as_deref(), Ok("serial:///dev/ttyS0?baud=9600"));
        assert!(serial("/dev/ttyS0?baud=x").unwrap_err().contains("baud=115200"));
        assert!(serial("tcp://a:1").unwrap_err().contains("--connect HOST:PORT"));
    }
}
