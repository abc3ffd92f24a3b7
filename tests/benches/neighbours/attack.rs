//! Everybody who means ill: connections that dribble, that stop in the middle of a header, that forge frames, and peers that flood and
//! never acknowledge.

mod flood;

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use liner_mio::{Message, Mode, Node};
use liner_proto::id::SessionId;
use liner_proto::router::{NodeConfig, Router};
use mio::net::TcpStream;

use crate::child::{Other, lines, raise_files, say, yield_to_others};
use crate::honest::{Figures, Sender, payload, store};
use crate::{PAIRS, Pair, RUN, print_figure};
use flood::Flood;

/// Connections that send a byte a second.
const DRIBBLING: usize = 10_000;

/// Connections that stop in the middle of the first frame's head.
const STOPPED: usize = 1000;

/// Connections that send frames which look right.
const FORGING: usize = 100;

/// Peers that flood and never acknowledge.
const FLOODS: usize = 4;

/// The attack goes round all of its connections in a second, in so many steps: it is to be a steady rain, and no gusts that hold a
/// processor for milliseconds.
const STEPS: usize = 1000;

pub(crate) fn print(kinds: &[&str]) {
    println!(
        "{DRIBBLING} dribbling, {STOPPED} stopped, {FORGING} forging connections, {FLOODS} floods ({}): honest traffic \
         (median of {PAIRS} pairs)",
        if kinds.is_empty() { "all".into() } else { kinds.join(" and ") }
    );
    let mut victim = Other::spawn(&["victim"]);
    let address = victim.line();
    let builder = Node::builder("honest").store(store()).durable(true).peer(&address).subscribe("back");
    let mut honest = Sender::new(builder.build().expect("a node"), vec!["t".into()]);
    while !honest.node().is_taken_by("t", "victim") {
        honest.node().drive(Some(Duration::from_millis(10)), &mut |_: &Message<'_>| {}).expect("a turn");
    }
    // The first ones make room for what is allowed.
    let mut newcomers = 0;
    honest.run(RUN / 2, |_| true);
    let quiet = Stats::of(&mut victim);
    attacked(&mut honest, (&address, kinds), &mut newcomers);
    let budget = Stats::of(&mut victim);
    let pairs: Vec<Pair> = (0..PAIRS)
        .map(|_| Pair {
            without: run(&mut honest, &address, &mut newcomers),
            with: attacked(&mut honest, (&address, kinds), &mut newcomers),
        })
        .collect();
    print_figure("round trip, p50", &pairs, |figures| figures.trip(50));
    print_figure("round trip, p99", &pairs, |figures| figures.trip(99));
    print_figure("a newcomer's message, p50", &pairs, |figures| figures.join(50));
    print_figure("a newcomer's message, p99", &pairs, |figures| figures.join(99));
    let last = Stats::of(&mut victim);
    let kib = |later: &Stats, earlier: &Stats| (later.memory as i64 - earlier.memory as i64) / 1024;
    println!(
        "  memory: {} KiB, budgets {:+} KiB, after that {:+} KiB",
        quiet.memory / 1024,
        kib(&budget, &quiet),
        kib(&last, &budget)
    );
    println!(
        "  accepted {}, arrived {}, a second time {}, forged that arrived {}",
        honest.accepted(),
        last.honest,
        last.again,
        last.forged
    );
    assert_eq!((last.honest, last.forged), (honest.accepted(), 0), "nothing is lost, and nothing forged");
}

struct Stats {
    honest: u64,
    again: u64,
    forged: u64,
    memory: u64,
}

impl Stats {
    fn of(victim: &mut Other) -> Self {
        let line = victim.ask("stats");
        let numbers: Vec<u64> = line.split(' ').map(|word| word.parse().expect("a number")).collect();
        Self { honest: numbers[0], again: numbers[1], forged: numbers[2], memory: numbers[3] }
    }
}

/// A run while the attack goes on.
fn attacked(honest: &mut Sender, (address, kinds): (&str, &[&str]), newcomers: &mut u64) -> Figures {
    let mut attack = Other::spawn(&[&["attack", address], kinds].concat());
    assert_eq!(attack.line(), "everywhere");
    let figures = run(honest, address, newcomers);
    println!("    (the attack: {})", attack.ask("what"));
    figures
}

/// A run with newcomers beside the honest node.
fn run(honest: &mut Sender, address: &str, newcomers: &mut u64) -> Figures {
    let (first, to) = (*newcomers, address.to_owned());
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let joining = std::thread::spawn(move || {
        let mut joins = Vec::new();
        loop {
            joins.push(join(first + joins.len() as u64, &to));
            if ended.recv_timeout(Duration::from_millis(50)) != Err(RecvTimeoutError::Timeout) {
                return joins;
            }
        }
    });
    let mut figures = honest.run(RUN, |_| true);
    drop(end);
    figures.joins = joining.join().expect("they all got in");
    *newcomers += figures.joins.len() as u64;
    figures.sort();
    figures
}

/// How long it takes until a node that nobody has seen before has handed over a message.
fn join(number: u64, address: &str) -> Duration {
    let began = Instant::now();
    let builder = Node::builder(&format!("new-{number}")).store(store()).peer(address);
    let mut node = builder.build().expect("a node");
    node.send("t", &payload(number), Mode::One).expect("it waits for whoever answers");
    while !node.is_idle() {
        assert!(began.elapsed() < Duration::from_secs(60), "a newcomer did not get in");
        node.drive(Some(Duration::from_millis(100)), &mut |_: &Message<'_>| {}).expect("a turn");
    }
    began.elapsed()
}

// ---------------------------------------------------------------------- the other process

/// What a connection does when its turn comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dribbling,
    Stopped,
    Forging,
}

struct Bad {
    kind: Kind,
    stream: Option<TcpStream>,
    told: usize,
}

pub(crate) fn send(address: &str, wanted: &[&str]) {
    raise_files(13_000);
    yield_to_others();
    let address: SocketAddr = address.parse().expect("an address");
    let count = |kind: &str, count| if wanted.is_empty() || wanted.contains(&kind) { count } else { 0 };
    let kinds = [
        (Kind::Dribbling, count("dribble", DRIBBLING)),
        (Kind::Stopped, count("stop", STOPPED)),
        (Kind::Forging, count("forge", FORGING)),
    ];
    let mut all: Vec<Bad> = kinds
        .into_iter()
        .flat_map(|(kind, count)| (0..count).map(move |_| Bad { kind, stream: None, told: 0 }))
        .collect();
    let frames = forged();
    let mut floods: Vec<Flood> =
        (0..count("flood", FLOODS)).map(|index| Flood::new(index, address)).collect();
    let (lines, mut opened, mut wrote) = (lines(), 0_u64, 0_u64);
    let (began, mut step) = (Instant::now(), 0);
    loop {
        // Spread over the kinds: each step is for every thousandth connection.
        for bad in all.iter_mut().skip(step % STEPS).step_by(STEPS) {
            if bad.stream.is_none() {
                bad.stream = TcpStream::connect(address).ok();
                bad.told = 0;
                opened += 1;
            }
            wrote += u64::from(bad.go_on(&frames));
        }
        floods.iter_mut().for_each(Flood::turn);
        step += 1;
        if step == STEPS {
            say("everywhere");
        }
        let next = began + Duration::from_secs(1) * step as u32 / STEPS as u32;
        if lines.recv_timeout(next.saturating_duration_since(Instant::now())).is_ok() {
            let (sent, up) = floods.iter().fold((0, 0), |(sent, up), it| (sent + it.sent, up + it.sessions));
            let pace = opened as f64 / began.elapsed().as_secs_f64();
            say(&format!("{pace:.0} connections/s, {wrote} writes, {up} floods let in, {sent} MiB of them"));
        }
    }
}

impl Bad {
    /// Sends the next bytes. Says whether any were taken.
    fn go_on(&mut self, frames: &[u8]) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        // Whoever is closed comes back with its next turn.
        let closed = match stream.read(&mut [0; 256]) {
            Ok(len) => len == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected),
        };
        let bytes: &[u8] = match self.kind {
            _ if closed => &[],
            // The head of a frame of 300 bytes, and then its body, a byte at a time.
            Kind::Dribbling => [[44].as_slice(), &[1], &[0], &[0], &[7]][self.told.min(4)],
            Kind::Stopped if self.told == 0 => &[44, 1],
            Kind::Stopped => return false,
            Kind::Forging => frames,
        };
        match stream.write(bytes) {
            Ok(len) if len > 0 => {
                self.told += 1;
                true
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => false,
            Ok(_) | Err(_) => {
                self.stream = None;
                false
            }
        }
    }
}

/// A hello of the honest node, as it could have been seen on the wire, and what could follow it: frames under the seal of a session that
/// does not exist.
fn forged() -> Vec<u8> {
    let now = liner_proto::time::Instant::from_micros(1);
    let mut router = Router::new(NodeConfig::new("honest", [7, 9], liner_proto::id::Class::Ram), now);
    router.start(now);
    let dial = router.add_peer(now, "victim");
    let conn = router.handle_dialed(now, dial, liner_mio::Framing::Length);
    let transmit = router.poll_transmit(now, conn);
    let mut bytes = [transmit.head, transmit.body].concat();
    for session in [0, 1, 0x5747_4e47] {
        bytes.extend(flood::frame(SessionId(session), &flood::batch_of(1, 1, "t", &payload(0))));
    }
    bytes
}
