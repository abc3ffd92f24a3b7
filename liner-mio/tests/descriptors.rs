//! A process that has no descriptor left for whoever connects. The bound is the process's, so that this is the only test here.
#![expect(clippy::unwrap_used, reason = "so a test ends")]

mod common;

use std::net::TcpStream;
use std::time::Duration;

use common::{How, Patience, listener, talker};
use liner_mio::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn allow(files: Option<u64>) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: files, maximum }).unwrap();
}

#[test]
fn without_descriptors_nobody_is_accepted_and_the_loop_sleeps() {
    let before = getrlimit(Resource::Nofile).current;
    let mut to = listener("to", "t", How::InPlace);
    let mut from = talker("from", &to, How::InPlace);
    from.node.send("t", b"first", Mode::One).unwrap();
    common::run([&mut from, &mut to], |[from, to]| to.seen.len() == 1 && from.node.is_idle());
    let addr = to.node.listen_addrs()[0];
    let strangers: Vec<_> = (0..20).map(|_| TcpStream::connect(addr).unwrap()).collect();
    let next = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    allow(Some(next));
    let patience = Patience::new();
    while to.node.next_deadline() == Some(Duration::ZERO) {
        patience.check();
        to.turn();
    }
    // Turns that wait for nothing find nothing: it does not ask again and again.
    let accepted = to.node.connections();
    assert!(accepted < 20, "there were descriptors: the test tests nothing");
    assert!(to.node.next_deadline().is_some_and(|due| due > Duration::from_millis(1)));
    for number in 0..50_u8 {
        from.node.send("t", &[number], Mode::One).unwrap();
    }
    common::run([&mut from, &mut to], |[from, to]| to.seen.len() == 51 && from.node.is_idle());
    allow(before);
    common::run([&mut to], |[to]| to.node.connections() == 21);
    drop(strangers);
}
