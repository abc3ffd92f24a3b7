//! Whoever is at the other end does not stop: the microcontroller does what it was told all the same, and counts right.

use liner::proto::wire::record::{GapReason, encode_gap};
use readings::{Command, MESSAGE_MAX, Report, encode};

use super::machine::Machine;
use super::overflow::LONGEST_TURN;
use super::villain::Villain;
use crate::line::seed;

/// A microcontroller in a session with a gateway that behaves, and has sent nothing yet.
fn connected() -> (tempfile::TempDir, Villain, Machine) {
    let (folder, mut villain) = (tempfile::tempdir().unwrap(), Villain::new(seed()));
    villain.is_good = true;
    let serial = format!("tcp:{},nodelay", villain.address());
    // Nothing is lost on its line: QEMU waits until a byte is read.
    let machine = Machine::start("polled", folder.path(), &serial);
    villain.listen_until("its messages", |villain| villain.marks.received > 4);
    villain.begin(1);
    (folder, villain, machine)
}

fn tell(villain: &mut Villain, command: Command) {
    villain.message("press-1", encode(&command, &mut [0; MESSAGE_MAX]));
}

#[test]
fn a_microcontroller_reboots_however_often_it_is_told() {
    let (_folder, mut villain, mut machine) = connected();
    for _ in 0..50 {
        tell(&mut villain, Command::Reboot);
        villain.listen(100);
        if machine.resets() > 0 {
            return;
        }
    }
    panic!("each command puts off what the one before has asked for");
}

#[test]
fn as_many_commands_as_there_can_be_are_missed() {
    let (_folder, mut villain, _machine) = connected();
    let mut record = [0; 16];
    let len = encode_gap(GapReason::Expired, 1 << 32, &mut record).unwrap();
    villain.record(&record[..len]);
    tell(&mut villain, Command::ReadNow);
    let of_commands = |report: &&Report| !matches!(report, Report::Started { .. });
    villain.listen_until("a report", |villain| villain.reports.iter().any(|report| of_commands(&report)));
    assert_eq!(villain.reports.iter().find(of_commands), Some(&Report::Missed { commands: u32::MAX }));
}

/// Messages that the gateway has, and has not committed.
const DEEP: u64 = 400;

#[test]
fn a_turn_is_short_however_many_messages_wait_for_their_commit() {
    let (_folder, mut villain, mut machine) = connected();
    villain.commits = false;
    tell(&mut villain, Command::SetPeriod(1));
    villain.listen_until("a deep queue", |villain| villain.marks.next > DEEP);
    // None of the next frames arrives: they are sent again, from deep in the queue.
    villain.is_good = false;
    villain.listen(300);
    villain.is_good = true;
    // Half of it is committed, and then all.
    villain.acknowledge(villain.marks.received, 0, villain.marks.next / 2, 32);
    villain.listen(50);
    villain.commits = true;
    // The report is not to be dropped among the readings.
    tell(&mut villain, Command::SetPeriod(1000));
    tell(&mut villain, Command::ReadNow);
    let is_health = |report: &&Report| matches!(report, Report::Health { .. });
    villain.listen_until("its health", |villain| villain.reports.iter().any(|report| is_health(&report)));
    let health = villain.reports.iter().find(is_health);
    println!("{health:?}");
    let Some(&Report::Health { longest_turn, .. }) = health else { unreachable!() };
    assert!(longest_turn <= LONGEST_TURN && machine.resets() == 0, "{health:?}");
}
