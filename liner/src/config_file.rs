//! A file with options, in TOML. Its keys are the options of the command line: an option that is added there can be given here.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use clap::builder::Resettable;
use clap::{Arg, ArgMatches};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::failure::Failure;
use crate::options::{is_flag, is_given, is_list, refusal};

/// Larger is something else that was named by mistake.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What only the command line can say.
const ELSEWHERE: [&str; 2] = ["config", "check-config"];

/// The options of a file, each checked.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    name: String,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// The option's name for clap.
    id: String,
    values: Vec<String>,
    line: usize,
}

impl ConfigFile {
    /// Reads a file with options of this command.
    ///
    /// # Errors
    /// The first thing in it that is wrong, with its line and with what to do.
    pub(crate) fn read(path: &Path, command: &clap::Command) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let text = text(path, &name).map_err(Failure::Usage)?;
        let entries = entries(&text, command);
        let entries =
            entries.map_err(|(line, complaint)| Failure::Usage(format!("{name}:{line}: {complaint}")))?;
        Ok(Self { name, entries })
    }

    /// The file and the line where an option stands.
    pub(crate) fn place_of(&self, id: &str) -> Option<String> {
        let entry = self.entries.iter().find(|entry| entry.id == id)?;
        Some(format!("{}:{}", self.name, entry.line))
    }

    /// Puts what the file says in the place of the defaults, where nobody has said anything else.
    pub(crate) fn fill(&self, command: clap::Command, given: &ArgMatches) -> clap::Command {
        let entries = self.entries.iter().filter(|entry| !is_given(given, &entry.id));
        entries.fold(command, |command, entry| {
            // Each value of a list stands for itself here.
            let fill = |arg: Arg| arg.value_delimiter(Resettable::Reset).default_values(entry.values.clone());
            command.mut_arg(&entry.id, fill)
        })
    }
}

fn text(path: &Path, name: &str) -> Result<String, String> {
    if path.is_dir() {
        return Err(format!("{name} is a directory: name a file in it, for instance {name}/gateway.toml"));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
    read.map_err(|error| format!("{name} cannot be read, name a file that can: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{name} is larger than 1 MiB: name a file with options only"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
        format!("{name}:{line}: this is no text in UTF-8: name a file with options only")
    })?;
    if text.trim().is_empty() {
        return Err(format!("{name} is empty: write options into it, or leave --config out"));
    }
    Ok(text)
}

/// A line, and what is wrong there.
type Complaint = (usize, String);

fn entries(text: &str, command: &clap::Command) -> Result<Vec<Entry>, Complaint> {
    let line = |at: usize| 1 + text.bytes().take(at).filter(|&byte| byte == b'\n').count();
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        (line(at), syntax(error.message()))
    })?;
    // As they stand in the file, so that the first mistake is told first.
    let mut pairs: Vec<_> = table.get_ref().iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    let entry = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let name: &str = std::borrow::Cow::as_ref(key.get_ref());
        let here = |complaint| (line(key.span().start), complaint);
        let arg = option(command, name, value.get_ref()).map_err(here)?;
        let mut values = Vec::new();
        for (at, value) in values_of(name, arg, value).map_err(here)? {
            if value.contains('\0') {
                return Err((line(at), format!("{name}: take out the NUL character")));
            }
            let whole = arg.clone().value_delimiter(Resettable::Reset);
            if let Some(complaint) = refusal(&whole, OsStr::new(&value)) {
                return Err((line(at), format!("{name}: {complaint}")));
            }
            values.push(value);
        }
        Ok(Entry { id: arg.get_id().to_string(), values, line: line(key.span().start) })
    };
    pairs.into_iter().map(entry).collect()
}

/// What the parser says, as one sentence.
fn syntax(message: &str) -> String {
    let message: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    format!("this is no TOML, write KEY = VALUE: {}", message.join(", "))
}

/// The option that a key names.
fn option<'a>(command: &'a clap::Command, key: &str, value: &DeValue<'_>) -> Result<&'a Arg, String> {
    let options = || {
        let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
        named.filter(|(name, _)| !ELSEWHERE.contains(name))
    };
    if let Some((_, arg)) = options().find(|(name, _)| *name == key) {
        return Ok(arg);
    }
    if value.is_table() {
        return Err(format!("there is no table `{key}` here: write all options without one, as KEY = VALUE"));
    }
    if ELSEWHERE.contains(&key) {
        return Err(format!("`{key}` is for the command line only: take it out"));
    }
    let alike = key.trim_start_matches('-').replace('_', "-").to_lowercase();
    match options().find(|(name, _)| *name == alike) {
        Some((name, _)) => Err(format!("there is no option `{key}`: write `{name}`")),
        None => {
            let names: Vec<&str> = options().map(|(name, _)| name).collect();
            Err(format!("there is no option `{key}`: write one of {}", names.join(", ")))
        }
    }
}

/// The values with where they stand, as the command line would have them.
fn values_of(key: &str, arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<(usize, String)>, String> {
    let wrong = |value: &DeValue<'_>, how: &str| {
        Err(format!("`{key}` cannot be of the type {}: write {how}", value.type_str()))
    };
    let text = |value: &Spanned<DeValue<'_>>| {
        let at = value.span().start;
        value.get_ref().as_str().map(|text| (at, text.to_owned()))
    };
    if is_flag(arg) {
        return match value.get_ref().as_bool() {
            Some(flag) => Ok(vec![(value.span().start, flag.to_string())]),
            None => wrong(value.get_ref(), "true or false"),
        };
    }
    if !is_list(arg) {
        return match text(value) {
            Some(value) => Ok(vec![value]),
            None => wrong(value.get_ref(), &format!("text in quotes, {key} = \"…\"")),
        };
    }
    let how = format!("a list of texts in quotes, {key} = [\"…\", \"…\"]");
    let Some(values) = value.get_ref().as_array() else { return wrong(value.get_ref(), &how) };
    let mut texts = Vec::new();
    for value in values {
        match text(value) {
            Some(text) => texts.push(text),
            None => return wrong(value.get_ref(), &how),
        }
    }
    Ok(texts)
}
