//! A node that is started only to send what its store holds.

#![expect(clippy::expect_used, reason = "a test ends where its premise fails")]

mod nodes;

use liner_proto::wire::record::Mode;
use nodes::{Node, cut, gateway, meet, settle};

#[test]
fn it_leaves_what_its_peers_have_for_its_name_as_it_is() {
    let mut gateway = gateway(10);
    let mut sub = Node::start("w", |config| config.durable = true);
    sub.router.subscribe(sub.now, "t");
    let line = meet(&mut sub, &mut gateway);
    cut(&mut sub, &mut gateway, line);
    for number in 0..3u8 {
        gateway.router.send(gateway.now, "t", &[number], Mode::One).expect("it is known");
    }
    gateway.serve();
    // The same store, of which only the queue is to be sent: it has something for the gateway to hand on.
    sub.configure(|config| config.takes = false);
    sub.restart();
    let line = meet(&mut sub, &mut gateway);
    sub.router.send(sub.now, "u", b"x", Mode::One).expect("the gateway keeps it");
    settle(&mut sub, &mut gateway, line);
    assert!(sub.router.is_idle(), "it is taken over");
    assert!(sub.got.is_empty() && sub.dead().is_empty(), "nothing has come");
    assert_eq!(gateway.router.queued_for("w"), 3);
    assert!(gateway.dead().is_empty());
    assert_eq!(gateway.held().rows, [("t".to_owned(), "w".to_owned())]);
    cut(&mut sub, &mut gateway, line);
    // It comes back as it was.
    sub.configure(|config| config.takes = true);
    sub.restart();
    sub.router.subscribe(sub.now, "t");
    meet(&mut sub, &mut gateway);
    assert_eq!(sub.got.len(), 3);
    assert_eq!(gateway.router.queued_for("w"), 0);
}
