//! The command line of what looks at a store.

use clap::{Args, Subcommand};

use super::{LogArgs, name, topic};
use crate::store_url::StoreUrl;

/// What all looks at a store have in common.
#[derive(Debug, Args)]
pub(crate) struct LookArgs {
    /// The store that is looked at: sqlite:PATH, or the URL of a server. Its nodes may run meanwhile
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

pub(super) const TOPICS_HELP: &str = "\
A line is `TOPIC NAME ADDRESS`. The address is `@NAME` for a node that only connects to others, `~` stands before that of one that is
forgotten once it is away, and `device:` is a device, whose commands go to the topic of its own name.

Examples:
  liner topics
  liner topics --store sqlite:/var/lib/liner/gateway.db --json";

#[derive(Debug, Args)]
#[command(after_help = PENDING_HELP)]
pub(crate) struct PendingArgs {
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// The node whose queues are shown [default: all that use the store]
    #[arg(long, env = "LINER_NAME", value_parser = name)]
    pub(crate) name: Option<String>,
}

const PENDING_HELP: &str = "\
A line is `OWNER FOR MESSAGES BYTES`: the node OWNER keeps so many messages for the node FOR. `topic:T` is what is kept for whoever
subscribes to T first, `address:A` what waits for whoever answers there. What is acknowledged is not counted.

Examples:
  liner pending
  liner pending --store sqlite:/var/lib/liner/gateway.db --json";

#[derive(Debug, Args)]
#[command(after_help = DLQ_HELP)]
pub(crate) struct DlqArgs {
    #[command(subcommand)]
    pub(crate) action: DlqAction,
}

const DLQ_HELP: &str = "\
A line of `list` is `ID OWNER PEER REASON TOPIC - PAYLOAD`: the node OWNER has put aside what was for PEER. With the reason failed it is
what OWNER took from PEER and could not handle: `redrive` hands it to OWNER again. If OWNER does not take TOPIC, it is what came from
PEER, too: that is not sent again by `redrive`, but can be published to whoever takes TOPIC now. Of a PAYLOAD that is long there is its
beginning, and how long it is: `read` prints all of it, and so does --json. Reasons: quota, expired, failed, orphaned, too_large,
unsubscribed, in_doubt.

Examples:
  liner dlq list --topic alarms
  liner dlq read 7 > payload
  liner dlq redrive 7 8
  liner dlq read 7 | liner pub alarms -
  liner dlq drop --topic logs";

#[derive(Debug, Subcommand)]
pub(crate) enum DlqAction {
    /// Print them, a line each, from the oldest on
    List {
        #[command(flatten)]
        look: LookArgs,
        /// Those of this topic alone [default: all]
        #[arg(long, value_parser = topic)]
        topic: Option<String>,
    },
    /// Print the payload of one of them, as it was sent
    Read {
        #[command(flatten)]
        look: LookArgs,
        /// Which
        id: i64,
    },
    /// Queue them again for the node that each was for, or that has failed at it, all or none: when their owner starts the next time
    Redrive {
        #[command(flatten)]
        look: LookArgs,
        /// Which
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Delete them, all that are named or none
    Drop {
        #[command(flatten)]
        look: LookArgs,
        /// Which
        #[arg(required_unless_present_any = ["topic", "all"], value_name = "ID")]
        ids: Vec<i64>,
        /// All of this topic [default: those that are named]
        #[arg(long, conflicts_with_all = ["ids", "all"], value_parser = topic)]
        topic: Option<String>,
        /// All there are [default: off]
        #[arg(long, conflicts_with = "ids")]
        all: bool,
    },
}
