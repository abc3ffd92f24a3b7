//! A port that is taken away and comes back, as one on USB does.

use std::time::{Duration, Instant};

use liner::proto::rng::Rng;
use liner_tests::relay::Rates;

use super::setup::{Arrivals, BAUD, DEVICE, Feeder, GATEWAY, Line};
use super::{asked, seed};

/// How soon messages come again once the port is back.
const RESUMES: Duration = Duration::from_secs(1);

#[test]
#[expect(clippy::disallowed_methods, reason = "how long it takes is what is tested")]
fn traffic_goes_on_within_a_second_after_the_port_is_back() {
    let (folder, seed) = (tempfile::tempdir().unwrap(), seed());
    let mut rng = Rng::new([seed, 1]);
    let line = Line::new(folder.path(), seed, Rates::NONE, Some(BAUD));
    let (_gateway, sub, mut device) = (line.gateway(), line.subscriber(), line.device());
    let feeder = Feeder::start(device.stdin(), seed, 0, u64::MAX);
    let mut arrivals = Arrivals::new(seed);
    let (times, mut longest) = (asked("LINER_E2E_UNPLUGGED", 3), Duration::ZERO);
    for _ in 0..times {
        let until = arrivals.last + 20 + rng.below(50);
        arrivals.take_until(&sub, until);
        let side = if rng.below(2) == 0 { GATEWAY } else { DEVICE };
        line.relay.remove(side).unwrap();
        // What the gateway has already is on its way: nothing else comes.
        let back = Instant::now() + Duration::from_millis(400 + rng.below(1600));
        while let Some(line) = sub.line_within(back.saturating_duration_since(Instant::now())) {
            arrivals.take(&serde_json::from_str(&line).unwrap());
        }
        line.relay.bring_back(side).unwrap();
        let begun = Instant::now();
        arrivals.take(&sub.json());
        longest = longest.max(begun.elapsed());
    }
    // What is fed is in no hurry to be sent.
    line.relay.set_baud(None).unwrap();
    let sent = feeder.end();
    arrivals.take_until(&sub, sent);
    let ended = device.end();
    assert_eq!(ended.code, Some(0), "{:?}", ended.errors);
    assert!(sub.line_now().is_none(), "more arrived than was sent");
    println!("taken away {times} times, messages after {longest:?} at the latest, {sent} messages: {line}");
    assert!(longest <= RESUMES, "it took {longest:?}");
}
