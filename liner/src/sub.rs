//! `liner sub`: a line for every message, written out before the message is acknowledged.

use std::io;
use std::time::Duration;

use liner_mio::{Framing, Handler, Message, Node};

use crate::args::{PEERS_ADDRESS, SubArgs};
use crate::clock::Clock;
use crate::event;
use crate::failure::Failure;
use crate::gaps::Gaps;
use crate::line::Line;
use crate::name::random_name;
use crate::node::{build, drive_failure, keep, stop_failure};
use crate::out::{Out, tell};
use crate::store_url::StoreUrl;
use crate::watch::{Stop, Watch};

/// What a default store's file name has of the node's at most. A file's name has 255 bytes, and the store puts up to 105 of its own
/// behind this one's for the files beside it.
const FILE_BYTES_MAX: usize = 140;

/// How long the end may take: the store has to take what was printed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &SubArgs) -> Result<(), Failure> {
    let name = args.name.clone().unwrap_or_else(|| random_name("sub", 32));
    let mut node = connect(args, &name)?;
    // Not before: opening may check a large file, and a signal ends that at once.
    let mut watch = Watch::new(Stop::on_signals()?)?;
    watch.register(&mut [&mut node])?;
    let mut printer = Printer::new(Out::new(args.json));
    for address in node.listen_addrs() {
        tell(format_args!("listening on {address}"));
    }
    let enough = |printer: &Printer| args.count.is_some_and(|count| printer.printed >= count);
    let (clock, mut gaps) = (Clock::start(), Gaps::default());
    while !(enough(&printer) && node.is_idle()) {
        watch.wait_for(&mut [&mut node], gaps.left(clock.elapsed()))?;
        if watch.is_stopped() {
            break;
        }
        node.drive(Some(Duration::ZERO), &mut printer).map_err(|error| drive_failure(&error))?;
        while let Some(event) = node.poll_event() {
            if let Some(failure) = event::fatal(&event, &name) {
                return Err(failure);
            }
            if let Some(event) = gaps.take(event) {
                event::tell(&event, &node);
            }
        }
        gaps.due(clock.elapsed()).iter().for_each(|gap| event::tell(gap, &node));
    }
    gaps.rest().iter().for_each(|gap| event::tell(gap, &node));
    node.stop(STOP_PATIENCE, &mut printer).map_err(|error| stop_failure(&error))?;
    match args.count {
        Some(count) if printer.printed < count => {
            Err(unfinished(printer.printed, count, args.name.is_some()))
        }
        _ => Ok(()),
    }
}

/// What is left to do, and how.
fn unfinished(printed: u64, count: u64, waits: bool) -> Failure {
    let next = if waits {
        format!("go on under the same --name with --count {}", count - printed)
    } else {
        "without --name nothing waits for it, and it counts anew when it is started again".to_owned()
    };
    Failure::Unfinished(format!("stopped after {printed} of {count} messages: {next}"))
}

fn connect(args: &SubArgs, name: &str) -> Result<Node, Failure> {
    let url = args.store.clone().unwrap_or_else(|| default_store(args.name.as_deref()));
    let mut builder = keep(Node::builder(name), &url, name)?
        .durable(args.name.is_some())
        // It sends nothing: what others keep of it does not matter.
        .accept_weak_acks(true)
        .insecure(args.insecure);
    for topic in &args.topics {
        builder = builder.subscribe(topic);
    }
    if let Some(listen) = &args.listen {
        builder = builder.listen(listen, Framing::Length);
    }
    for peer in &args.peer {
        builder = builder.peer(peer);
    }
    if args.peer.is_empty() && args.listen.is_none() {
        builder = builder.peer(PEERS_ADDRESS);
    }
    if let Some(count) = args.count {
        // What comes together with the last message is printed too: let that not be much.
        builder = builder.configure(move |config| {
            let most = u64::from(config.limits.window_messages);
            config.limits.window_messages = u32::try_from(count.min(most)).unwrap_or(u32::MAX);
        });
    }
    build(builder)
}

fn default_store(name: Option<&str>) -> StoreUrl {
    let Some(name) = name else { return StoreUrl::Ram };
    let safe = |c: char| if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    // Names that become the same file share it: rows are keyed by the name itself.
    let mut file: String = name.chars().map(safe).collect();
    if file.len() > FILE_BYTES_MAX {
        // Cut, and told apart by a checksum.
        file.truncate(file.floor_char_boundary(FILE_BYTES_MAX - 9));
        file.push_str(&format!("-{:08x}", crc32c::crc32c(name.as_bytes())));
    }
    StoreUrl::Sqlite(format!("liner-{file}.db").into())
}

/// Prints messages.
pub(crate) struct Printer {
    out: Out,
    printed: u64,
    line: Vec<u8>,
    error: Option<io::Error>,
}

impl Printer {
    const fn new(out: Out) -> Self {
        Self { out, printed: 0, line: Vec::new(), error: None }
    }

    fn print(&mut self, message: &Message<'_>) -> io::Result<()> {
        if self.out.is_json() {
            return self.out.object(&Line::of(message));
        }
        self.line.clear();
        Line::of(message).write(&mut self.line);
        self.out.raw(&[&self.line])
    }
}

impl Handler for Printer {
    fn message(&mut self, message: &Message<'_>) {
        if self.error.is_none() {
            match self.print(message) {
                Ok(()) => self.printed += 1,
                Err(error) => self.error = Some(error),
            }
        }
    }

    fn turn_end(&mut self) -> io::Result<()> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_before_the_count_says_how_to_go_on() {
        let told = |waits| unfinished(3, 10, waits).to_string();
        assert!(told(true).contains("3 of 10") && told(true).contains("--count 7"), "{}", told(true));
        assert!(told(false).contains("without --name nothing waits"), "{}", told(false));
    }

    #[test]
    fn the_default_store_stays_in_this_folder() {
        assert_eq!(default_store(None), StoreUrl::Ram);
        assert_eq!(default_store(Some("w")), StoreUrl::Sqlite("liner-w.db".into()));
        assert_eq!(default_store(Some("../a b")), StoreUrl::Sqlite("liner-.._a_b.db".into()));
    }

    #[test]
    fn the_longest_names_have_a_file_each() {
        let file = |name: &str| match default_store(Some(name)) {
            StoreUrl::Sqlite(path) => path.into_os_string().into_string().unwrap(),
            StoreUrl::Ram | StoreUrl::Server(_) => panic!("no file"),
        };
        let long = "ü".repeat(127);
        assert_ne!(file(&long), file(&format!("{long}x")));
        for name in [long, "a".repeat(255), "a".repeat(141)] {
            assert!(file(&name).len() <= "liner-.db".len() + FILE_BYTES_MAX, "{}", file(&name));
        }
        assert_eq!(file(&"a".repeat(140)), format!("liner-{}.db", "a".repeat(140)));
    }
}
