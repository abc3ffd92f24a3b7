//! Processes that are killed between any two requests, and what their store has afterwards.
//!
//! The test starts its own executable as another process, which makes groups at random on the place and says after each commit how many
//! there were. It is killed at a random moment. Whoever opens the place then finds what the model has after that many
//! commits, or after one more, whose word was cut off: nothing else.

use std::env;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};

use liner_proto::effect::{StoreFault, StoreOp};
use liner_proto::id::Epoch;
use liner_proto::store::Store;

use super::model::Groups;
use super::records::Dice;
use super::{Capabilities, View};

/// Tells a process that it is the one to be killed: the place, the node's name and the seed.
const CHILD: &str = "LINER_TEST_KILLED";

/// How many processes die in a test.
const KILLS: &str = "LINER_TEST_KILLS";

/// What is between the parts of [`CHILD`].
const SEPARATOR: char = '\u{1f}';

/// Opens the store of a node in a place that a text names.
pub type OpenNamed = fn(place: &str, name: &str) -> Box<dyn Store>;

/// Runs in a test that is named `test`, its modules included: kills processes that use the place, and looks at what they leave.
#[expect(clippy::expect_used, reason = "a test may fail")]
pub fn whoever_is_killed_leaves_whole_commits(test: &str, place: &str, open: OpenNamed, caps: Capabilities) {
    if let Ok(child) = env::var(CHILD) {
        let mut parts = child.split(SEPARATOR);
        let (place, name) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let seed = parts.next().and_then(|seed| seed.parse().ok()).unwrap_or(0);
        return work(&mut *open(place, name), seed, caps);
    }
    let kills = env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let mut dice = Dice::new(kills);
    let mut in_doubt = 0;
    for seed in 0..kills {
        let name = format!("killed-{seed}");
        let mut child = start(test, &format!("{place}{SEPARATOR}{name}{SEPARATOR}{seed}"));
        let told = kill_after(&mut child, dice.below(60));
        let mut store = open(place, &name);
        let found = View::of(&mut *store);
        let mut groups = Groups::new(seed, caps);
        let expected = groups.view_after(told);
        if of_node(&found, &expected) != expected {
            let one_more = groups.view_after(told + 1);
            assert_eq!(of_node(&found, &one_more), one_more, "seed {seed}, after {told} commits");
            in_doubt += 1;
        }
        // It goes on from there.
        let inbox = StoreOp::Inbox { epoch: Epoch(seed + 1) };
        store.apply(&[inbox]).and_then(|()| store.commit()).expect("the store goes on");
        assert_eq!(View::of(&mut *store).inbox, Some(Epoch(seed + 1)));
    }
    let _ = writeln!(std::io::stderr(), "{kills} kills, {in_doubt} inside a commit or behind it");
}

/// The directory is everybody's: it is left out of what is compared.
fn of_node(found: &View, expected: &View) -> View {
    View { directory: expected.directory.clone(), ..found.clone() }
}

#[expect(clippy::expect_used, reason = "a test may fail")]
fn start(test: &str, child: &str) -> Child {
    let mut command = Command::new(env::current_exe().expect("the test knows its file"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(CHILD, child);
    command.stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null()).spawn().expect("it starts")
}

/// Kills the process when it has told that many commits; says how many it has told in all.
#[expect(clippy::expect_used, reason = "a test may fail")]
fn kill_after(child: &mut Child, commits: u64) -> u64 {
    let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut told = 0;
    let mut is_killed = false;
    loop {
        if !is_killed && told >= commits {
            child.kill().expect("it can be killed");
            is_killed = true;
        }
        let Some(Ok(line)) = lines.next() else { break };
        if let Some(number) = line.strip_prefix("committed ") {
            // The last word may have been cut off.
            told = number.strip_suffix('.').and_then(|number| number.parse().ok()).unwrap_or(told);
        }
    }
    let status = child.wait().expect("it ends");
    assert!(is_killed && !status.success(), "it ended by itself after {told} commits: {status}");
    told
}

/// What the process does that is killed. It ends by itself only if nobody does that for a long time.
#[expect(clippy::expect_used, reason = "a test may fail")]
fn work(store: &mut dyn Store, seed: u64, caps: Capabilities) {
    let mut groups = Groups::new(seed, caps);
    let mut out = std::io::stdout();
    for commit in 1..100_000_u64 {
        groups.next_turn(|group| match store.apply(group) {
            Ok(()) | Err(StoreFault::Refused) => {}
            Err(other) => unreachable_store(store, other),
        });
        if let Err(fault) = store.commit() {
            unreachable_store(store, fault);
        }
        writeln!(out, "committed {commit}.").and_then(|()| out.flush()).expect("somebody reads");
    }
}

#[expect(clippy::panic, reason = "a test may fail")]
fn unreachable_store(store: &dyn Store, fault: StoreFault) -> ! {
    panic!("{fault} ({})", store.last_error().unwrap_or_default())
}
