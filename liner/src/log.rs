//! What the command says of its work on standard error, by levels.
//!
//! The command's own sentences come from here: at `warn` what is lost or held up, at `info` what comes and goes. The core speaks through
//! `log`. Its events, and all else at `warn` and `info`, is what the command tells in sentences of its own: it is left out unless a
//! filter names the core, so nothing is told twice. What is left of the core are `debug` and `trace`.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::metadata::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_log::log::LevelFilter as CoreFilter;
use tracing_log::{LogTracer, NormalizeEvent as _};
use tracing_subscriber::filter::Targets;

use crate::clock::Clock;
use crate::out;

/// What the core's records are named after.
const CORE: &str = "liner_proto";

/// Its events: each is told by the command.
const EVENTS: &str = "liner_proto::router::event";

/// The command's own, and how all of liner's modules begin.
const COMMAND: &str = "liner";

const HOW: &str =
    "write error, warn, info, debug or trace, and for a module MODULE=LEVEL, with commas between them";

/// Which records are told.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    targets: Targets,
    names_core: bool,
    /// Modules of others, which are told of only if they are named.
    names_others: bool,
}

/// Reads `LEVEL`, `MODULE=LEVEL`, or several with commas between them.
pub(crate) fn filter(text: &str) -> Result<Filter, String> {
    let level = |text: &str| match text {
        "error" => Ok(LevelFilter::ERROR),
        "warn" => Ok(LevelFilter::WARN),
        "info" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err(HOW.to_owned()),
    };
    let is_module = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | ':'))
    };
    let mut filter = Filter {
        targets: Targets::new().with_default(LevelFilter::INFO),
        names_core: false,
        names_others: false,
    };
    for part in text.split(',') {
        filter.targets = match part.split_once('=') {
            None => filter.targets.with_default(level(part)?),
            Some((module, of)) if is_module(module) => {
                filter.names_core |= module.starts_with(CORE);
                filter.names_others |= !module.starts_with(COMMAND);
                filter.targets.with_target(module, level(of)?)
            }
            Some(_) => return Err(HOW.to_owned()),
        };
    }
    Ok(filter)
}

impl Filter {
    fn lets(&self, target: &str, level: Level) -> bool {
        let is_told = target.starts_with(EVENTS) || target.starts_with(CORE) && level <= Level::INFO;
        let is_ours = target.starts_with(COMMAND) || self.names_others;
        is_ours && (self.names_core || !is_told) && self.targets.would_enable(target, &level)
    }

    fn most(&self) -> LevelFilter {
        let levels = self.targets.iter().map(|(_, level)| level);
        levels.chain(self.targets.default_level()).max().unwrap_or(LevelFilter::INFO)
    }
}

/// From now on what the filter lets through is told on standard error.
pub(crate) fn start(filter: &Filter) {
    let most = filter.most();
    let most_of_core = match most {
        LevelFilter::TRACE => CoreFilter::Trace,
        LevelFilter::DEBUG => CoreFilter::Debug,
        _ if filter.names_core => CoreFilter::Info,
        _ => CoreFilter::Off,
    };
    let log = Log { filter: filter.clone(), most, clock: Clock::start() };
    // There is one call of this in the process.
    let _ = tracing::subscriber::set_global_default(log);
    let _ = LogTracer::builder().with_max_level(most_of_core).init();
}

/// Where all records go. There are no spans.
#[derive(Debug)]
struct Log {
    filter: Filter,
    most: LevelFilter,
    clock: Clock,
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.lets(metadata.target(), *metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn event(&self, event: &Event<'_>) {
        let of_core = event.normalized_metadata();
        let metadata = of_core.as_ref().unwrap_or_else(|| event.metadata());
        let mut text = Text(String::new());
        event.record(&mut text);
        if metadata.target() == COMMAND {
            return out::say(text.0);
        }
        let level = metadata.level().as_str().to_ascii_lowercase();
        let seconds = self.clock.elapsed().as_secs_f64();
        out::say(format_args!("[{seconds:.6}] {level} {}: {}", metadata.target(), text.0));
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The message of a record; what `log` puts beside it is left out.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Into a string: nothing can fail.
            let _ = write!(self.0, "{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lets(text: &str, target: &str, level: Level) -> bool {
        filter(text).unwrap().lets(target, level)
    }

    #[test]
    fn a_level_lets_through_what_is_as_grave() {
        assert!(lets("warn", COMMAND, Level::WARN) && !lets("warn", COMMAND, Level::INFO));
        assert!(lets("info", COMMAND, Level::INFO) && !lets("info", COMMAND, Level::DEBUG));
        assert!(lets("debug", "liner_proto::router", Level::DEBUG));
        assert!(!lets("debug", "liner_proto::router", Level::TRACE));
    }

    #[test]
    fn what_the_command_tells_itself_comes_from_the_core_only_if_it_is_named() {
        for level in [Level::WARN, Level::INFO] {
            assert!(!lets("trace", "liner_proto::router::event", level));
            assert!(lets("liner_proto=info", "liner_proto::router::event", level));
        }
    }

    #[test]
    fn modules_of_others_are_quiet() {
        assert!(!lets("trace", "mio::poll", Level::TRACE) && lets("mio=trace", "mio::poll", Level::TRACE));
        assert!(!lets("trace", EVENTS, Level::DEBUG) && lets("liner_proto=debug", EVENTS, Level::DEBUG));
    }

    #[test]
    fn modules_have_levels_of_their_own() {
        let text = "warn,liner_proto::endpoint=trace";
        assert!(lets(text, "liner_proto::endpoint::input", Level::TRACE));
        assert!(!lets(text, "liner_proto::router", Level::DEBUG) && !lets(text, COMMAND, Level::INFO));
        assert!(lets("liner_proto=debug", COMMAND, Level::INFO), "the rest is as it always is");
    }

    #[test]
    fn what_is_no_filter_is_told_what_to_write() {
        for text in ["", "loud", "INFO", "info,", "=info", "liner_proto=", "liner_proto=loud", "a b=info"] {
            assert_eq!(filter(text).unwrap_err(), HOW, "{text}");
        }
    }
}
