//! Where options come from: the command line goes before the environment, the environment before a gateway's file, and the file
//! before what is usual.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::builder::{BoolishValueParser, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory as _, FromArgMatches as _};
use serde::Serialize;

use crate::args::{Cli, Command, Durability, PubArgs};
use crate::config_file::ConfigFile;
use crate::failure::Failure;
use crate::store_url::StoreUrl;

/// Where an option's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    /// The file with the line.
    File(String),
    /// The variable.
    Environment(String),
    CommandLine,
}

impl Origin {
    /// What has more goes before what has less.
    fn rank(&self) -> u8 {
        match self {
            Self::Default => 0,
            Self::File(_) => 1,
            Self::Environment(_) => 2,
            Self::CommandLine => 3,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Flag(bool),
    Text(Option<String>),
    List(Vec<String>),
}

/// An option as it counts.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

/// The options of the command that was asked for, by their names.
#[derive(Debug, Default)]
pub(crate) struct Settings(BTreeMap<String, Setting>);

impl Settings {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    /// Where the option comes from; the default if there is none of this name.
    pub(crate) fn origin(&self, name: &str) -> &Origin {
        self.0.get(name).map_or(&Origin::Default, |setting| &setting.origin)
    }

    /// A complaint about an option's value, with the place to mend it unless that is the command line.
    pub(crate) fn placed(&self, name: &str, failure: Failure) -> Failure {
        match (self.origin(name), failure) {
            (Origin::File(place) | Origin::Environment(place), Failure::Usage(text)) => {
                Failure::Usage(format!("{place}: {text}"))
            }
            (_, failure) => failure,
        }
    }

    /// Two options of which only one can hold.
    fn exclude(&self, one: &str, other: &str) -> Failure {
        let told = |name: &str| match self.origin(name) {
            Origin::CommandLine | Origin::Default => format!("--{name}"),
            Origin::Environment(variable) => variable.clone(),
            Origin::File(place) => format!("{name} ({place})"),
        };
        Failure::Usage(format!("{} cannot be used with {}: leave one of them out", told(one), told(other)))
    }
}

/// The command line with what fills its gaps.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) command: Command,
    pub(crate) settings: Settings,
}

/// Reads everything. Ends the process where the command line asks for help, or makes no sense.
///
/// # Errors
/// If a variable, the file, or all of them together make no sense.
pub(crate) fn read(words: &[OsString]) -> Result<Options, Failure> {
    let mut command = command();
    let mut matches = match command.clone().try_get_matches_from(words) {
        Ok(matches) => matches,
        Err(error) => {
            let failure = variable_of(&command, words, &error).or_else(|| value_of(&error));
            return Err(failure.unwrap_or_else(|| error.exit()));
        }
    };
    let mut file = None;
    if let Some((name, given)) = matches.subcommand()
        && let Ok(Some(path)) = given.try_get_one::<PathBuf>("config")
        && let Some(gateway) = command.find_subcommand(name)
    {
        let read = ConfigFile::read(path, gateway)?;
        command = command.clone().mut_subcommand(name, |gateway| read.fill(gateway, given));
        file = Some(read);
    }
    if file.is_some() {
        matches = command.clone().try_get_matches_from(words).unwrap_or_else(|error| error.exit());
    }
    let settings = match matches.subcommand() {
        Some((name, given)) => settings(command.find_subcommand(name), given, file.as_ref()),
        None => Settings::default(),
    };
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let mut options = Options { command: cli.command, settings };
    exclude(&mut options)?;
    fill_durability(&mut options);
    Ok(options)
}

/// The command line that is read: flags can be turned off again, and an empty variable counts as none.
pub(crate) fn command() -> clap::Command {
    Cli::command().mut_subcommands(with_gaps)
}

fn with_gaps(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| without_empty(flag(arg))).mut_subcommands(with_gaps)
}

fn flag(arg: Arg) -> Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    let arg = arg.action(ArgAction::Set).num_args(0..=1).require_equals(true).value_name("BOOL");
    let arg = arg.default_missing_value("true").default_value("false").hide_default_value(true);
    arg.value_parser(BoolishValueParser::new()).hide_possible_values(true)
}

fn without_empty(arg: Arg) -> Arg {
    let is_empty = arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    if is_empty { arg.env(Resettable::Reset) } else { arg }
}

pub(crate) fn is_flag(arg: &Arg) -> bool {
    arg.get_value_parser().type_id() == TypeId::of::<bool>()
}

pub(crate) fn is_list(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Append)
}

/// Whether the command line or the environment has this option.
pub(crate) fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// What is wrong with a value, and what to write instead; nothing for a good one.
pub(crate) fn refusal(arg: &Arg, value: &OsStr) -> Option<String> {
    let arg = arg.clone().env(Resettable::Reset).required(false);
    let mut word = OsString::from(format!("--{}=", arg.get_long()?));
    word.push(value);
    let alone = clap::Command::new("liner").no_binary_name(true).disable_help_flag(true).arg(arg.clone());
    let error = alone.try_get_matches_from([word]).err()?;
    let possible = arg.get_possible_values();
    let possible: Vec<&str> = possible.iter().map(clap::builder::PossibleValue::get_name).collect();
    Some(match error.source() {
        _ if is_flag(&arg) => "write true or false".to_owned(),
        _ if !possible.is_empty() => format!("write {}", possible.join(" or ")),
        _ if value.to_str().is_none() => "it is no text in UTF-8, write it anew".to_owned(),
        Some(source) => source.to_string(),
        None => "write another value".to_owned(),
    })
}

/// The variable that a refused value comes from: clap's own words speak of the option only.
fn variable_of(command: &clap::Command, words: &[OsString], error: &clap::Error) -> Option<Failure> {
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8)
    {
        return None;
    }
    let names = words.get(1..).unwrap_or_default();
    let mut command = command;
    for name in names {
        let Some(inner) = command.find_subcommand(name) else { break };
        command = inner;
    }
    command.get_arguments().find_map(|arg| {
        let (long, variable) = (format!("--{}", arg.get_long()?), arg.get_env()?);
        let with_value = format!("{long}=");
        let is_said = |word: &OsString| {
            let word = word.to_string_lossy();
            word == long || word.starts_with(&with_value)
        };
        if words.iter().any(is_said) {
            return None;
        }
        let value = std::env::var_os(variable)?;
        let delimiter = arg.get_value_delimiter();
        let text = value.to_str().unwrap_or_default();
        let parts = text.split(|c| Some(c) == delimiter).map(OsStr::new);
        let refused = if text.is_empty() {
            refusal(arg, &value)
        } else {
            parts.flat_map(|part| refusal(arg, part)).next()
        };
        Some(Failure::Usage(format!("{}: {}", variable.to_string_lossy(), refused?)))
    })
}

/// A refused value of the command line, in one sentence.
fn value_of(error: &clap::Error) -> Option<Failure> {
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return None;
    }
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let (arg, value) = (text(ContextKind::InvalidArg)?, text(ContextKind::InvalidValue)?);
    let arg = arg.split([' ', '=']).next()?.trim_matches(['<', '>', '[', ']', '.']);
    let what = match (error.source(), error.get(ContextKind::ValidValue)) {
        (Some(source), _) => source.to_string(),
        // Without one the option was given no value at all, and clap's words are right.
        (None, Some(ContextValue::Strings(valid))) if !value.is_empty() => {
            format!("there is no `{value}`, write {}", valid.join(" or "))
        }
        (None, _) => return None,
    };
    Some(Failure::Usage(format!("{arg}: {what}")))
}

fn settings(command: Option<&clap::Command>, matches: &ArgMatches, file: Option<&ConfigFile>) -> Settings {
    let options = command.into_iter().flat_map(clap::Command::get_arguments);
    let settings = options.filter_map(|arg| {
        let (name, id) = (arg.get_long()?, arg.get_id().as_str());
        let mut texts =
            matches.get_raw(id).into_iter().flatten().map(|text| text.to_string_lossy().into_owned());
        let value = if is_flag(arg) {
            Value::Flag(matches.get_one(id).copied().unwrap_or_default())
        } else if is_list(arg) {
            Value::List(texts.collect())
        } else if arg.get_value_parser().type_id() == TypeId::of::<StoreUrl>() {
            // It may hold a password.
            Value::Text(matches.get_one::<StoreUrl>(id).map(ToString::to_string))
        } else {
            Value::Text(texts.next())
        };
        let origin = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => Origin::CommandLine,
            Some(ValueSource::EnvVariable) => {
                Origin::Environment(arg.get_env().unwrap_or_default().to_string_lossy().into_owned())
            }
            _ => file.and_then(|file| file.place_of(id)).map_or(Origin::Default, Origin::File),
        };
        Some((name.to_owned(), Setting { value, origin }))
    });
    Settings(settings.collect())
}

/// Of options that exclude each other the one that goes before holds; two from one place are a mistake.
fn exclude(options: &mut Options) -> Result<(), Failure> {
    let settings = &options.settings;
    let rank = |name: &str| settings.origin(name).rank();
    match &mut options.command {
        Command::Gateway(args) if args.demo => {
            // The demonstration sets aside what is less near to whoever asks for it.
            let clashes = |name: &&str| rank(name) > 0 && rank(name) >= rank("demo");
            match ["store", "listen", "device-listen", "device"].iter().copied().find(clashes) {
                Some(name) => Err(settings.exclude("demo", name)),
                None => Ok(()),
            }
        }
        Command::Device(args) if args.serial.is_some() && rank("connect") > 0 => {
            if rank("connect") == rank("serial") {
                return Err(settings.exclude("serial", "connect"));
            }
            if rank("connect") > rank("serial") {
                args.serial = None;
            }
            Ok(())
        }
        Command::Pub(args) => exclude_of_pub(args, settings),
        Command::Gateway(_)
        | Command::Device(_)
        | Command::Sub(_)
        | Command::Drain(_)
        | Command::Bench(_)
        | Command::Pending(_)
        | Command::Topics(_)
        | Command::Dlq(_)
        | Command::Store(_)
        | Command::Completions(_)
        | Command::Forget(_) => Ok(()),
    }
}

/// Of a file the most is asked for, unless somebody says otherwise; of a server nothing is.
fn fill_durability(options: &mut Options) {
    if let Command::Gateway(args) = &mut options.command
        && args.durability.is_none()
        && !args.store.is_server()
    {
        args.durability = Some(Durability::Power);
        if let Some(setting) = options.settings.0.get_mut("durability") {
            setting.value = Value::Text(Some("power".to_owned()));
        }
    }
}

/// What is sent, and what best effort leaves no use for.
fn exclude_of_pub(args: &mut PubArgs, settings: &Settings) -> Result<(), Failure> {
    match (&args.payload, args.size) {
        (Some(_), Some(_)) => {
            return Err(Failure::Usage(
                "PAYLOAD cannot be used with --size: leave one of them out".to_owned(),
            ));
        }
        (None, None) => {
            return Err(Failure::Usage(
                "nothing to send: write PAYLOAD behind the topic, - for standard input, or --size BYTES"
                    .to_owned(),
            ));
        }
        _ => {}
    }
    if !args.best_effort {
        return Ok(());
    }
    for (name, is_on) in [("all", args.all), ("async", args.asynchronous)] {
        if is_on {
            return Err(settings.exclude("best-effort", name));
        }
    }
    // What the environment says of all messages gives way to what is said of this one.
    let rank = |name: &str| settings.origin(name).rank();
    if args.store != StoreUrl::Ram && rank("store") >= rank("best-effort") {
        return Err(settings.exclude("best-effort", "store"));
    }
    args.store = StoreUrl::Ram;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn variables_are_named_after_their_options_and_are_none_of_the_tests() {
        let command = command();
        let commands = command.get_subcommands();
        let options = commands.flat_map(clap::Command::get_arguments);
        let mut named = 0;
        for option in options {
            let Some(variable) = option.get_env() else { continue };
            let wanted = format!("LINER_{}", option.get_long().unwrap().replace('-', "_").to_uppercase());
            assert_eq!(variable, wanted.as_str());
            for taken in ["LINER_E2E", "LINER_TEST", "LINER_FIRMWARE", "LINER_WORLD", "LINER_STREAMS"] {
                assert!(!wanted.starts_with(taken), "{wanted}");
            }
            named += 1;
        }
        assert!(named > 20, "{named}");
    }

    #[test]
    fn refusals_say_what_to_write() {
        let command = command();
        let gateway = command.find_subcommand("gateway").unwrap();
        let told = |name: &str, value: &str| {
            let option = gateway.get_arguments().find(|option| option.get_long() == Some(name)).unwrap();
            refusal(option, OsStr::new(value))
        };
        assert_eq!(told("durability", "disk").as_deref(), Some("write power or process"));
        assert_eq!(told("insecure", "perhaps").as_deref(), Some("write true or false"));
        assert!(told("peer", "nonsense").unwrap().contains("HOST:PORT"));
        assert!(told("name", "").unwrap().contains("empty"));
        for (name, value) in [("durability", "power"), ("insecure", "false"), ("peer", "a:1"), ("name", "-x")]
        {
            assert_eq!(told(name, value), None);
        }
    }
}
