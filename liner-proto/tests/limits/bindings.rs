//! Peers that keep fewer topic numbers than a queue has given out.

use liner_proto::router::{Event, Framing, SendError};
use liner_proto::wire::control::CloseReason;
use liner_proto::wire::record::Mode;

use crate::pair::{NOW, Node, OwnedRecord, Pair, subscriber};

#[test]
fn topics_above_the_numbers_that_a_peer_keeps_are_written_out() {
    const TOPICS: [&str; 5] = ["topic/a", "topic/b", "topic/c", "topic/d", "topic/e"];
    for framing in [Framing::Length, Framing::Cobs] {
        for bindings in [0, 1, 2] {
            let mut pair = Pair::new(Node::start("sender", |_| {}), Node::start("screen", |_| {}));
            pair.framing = framing;
            for topic in TOPICS {
                pair.to.router.subscribe(NOW, topic);
            }
            pair.link();
            pair.from.hang_up();
            pair.to.hang_up();
            // The queue gives out numbers before the peer says that it keeps so few.
            for round in 0..3_u8 {
                for topic in TOPICS {
                    pair.send(topic, &[round; 30]);
                }
            }
            pair.from.serve();
            pair.to.restart(|config| {
                config.limits.bindings_max = bindings;
                if framing == Framing::Length {
                    // Two records with their lengths, as they stand on the wire.
                    config.limits.window_bytes = 80;
                }
            });
            for topic in TOPICS {
                pair.to.router.subscribe(NOW, topic);
            }
            pair.link();
            let expected: Vec<(String, Vec<u8>)> = (0..3_u8)
                .flat_map(|round| TOPICS.map(|topic| (topic.to_string(), vec![round; 30])))
                .collect();
            assert_eq!(pair.to.got, expected, "{framing:?}, {bindings} numbers");
            for (index, record) in pair.records.iter().enumerate() {
                let number = index as u32 % 5 + 1;
                let spelled = if number <= bindings {
                    OwnedRecord::Number(number)
                } else {
                    OwnedRecord::Text(TOPICS[index % 5].into())
                };
                assert_eq!(*record, spelled, "{framing:?}, {bindings} numbers");
            }
            let events = [pair.from.events(), pair.to.events()].concat();
            let broken = events.iter().find(
                |event| matches!(event, Event::PeerDown { reason, .. } if *reason != CloseReason::LinkLost),
            );
            assert_eq!(broken, None, "{framing:?}, {bindings} numbers");
            assert_eq!(pair.from.router.queued(), 0);
        }
    }
}

#[test]
fn a_topic_that_is_written_out_counts_against_what_the_peer_takes() {
    let topic = "x".repeat(60);
    for (len, arrives) in [(37, true), (40, false)] {
        let mut pair = Pair::new(Node::start("sender", |_| {}), subscriber(&["y", &topic], |_| {}));
        pair.link();
        pair.from.hang_up();
        pair.to.hang_up();
        pair.send(&topic, &vec![1; len]);
        pair.from.serve();
        pair.to.restart(|config| {
            config.limits.bindings_max = 0;
            config.limits.message_max = 100;
        });
        pair.to.router.subscribe(NOW, &topic);
        pair.link();
        assert_eq!((pair.payloads().len() == 1, pair.from.letters().len() == 1), (arrives, !arrives));
        let refused = pair.from.router.send(NOW, &topic, &[1; 40], Mode::One);
        assert_eq!(refused, Err(SendError::TooLarge { max: 38 }));
        let dead = pair.from.store.dead_letters().first().map(|dead| dead.topic.to_string());
        assert_eq!(dead, (!arrives).then(|| topic.clone()), "with its text");
    }
}
