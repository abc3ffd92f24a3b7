//! The examples do what they say.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs an example, which cargo has built beside the command. Gives its lines.
fn lines(name: &str) -> Vec<String> {
    let command = Path::new(env!("CARGO_BIN_EXE_liner"));
    let path: PathBuf = command.with_file_name("examples").join(name);
    let output = Command::new(&path).output().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {errors}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn one_to_one() {
    let lines = lines("one_to_one");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(
        lines.contains(&"anna's message 1 is stored, and survives the loss of Power".to_owned()),
        "{lines:?}"
    );
    assert!(lines.contains(&r#"bert was told "hello, bert" by anna"#.to_owned()), "{lines:?}");
    assert_eq!(lines[2], r#"anna was told "hello, anna""#);
}

#[test]
fn one_to_many() {
    let expected = [
        "screen-1 shows apples 2.40",
        "screen-2 shows apples 2.40",
        "screen-3 shows apples 2.40",
        "screen-3 is switched off",
        "screen-1 shows apples 2.60",
        "screen-2 shows apples 2.60",
        "screen-3 is back, and shows apples 2.60",
    ];
    assert_eq!(lines("one_to_many"), expected);
}

#[test]
fn many_to_many() {
    let expected = [
        "anna heard bert: I am bert and cara: I am cara",
        "bert heard anna: I am anna and cara: I am cara",
        "cara heard anna: I am anna and bert: I am bert",
    ];
    assert_eq!(lines("many_to_many"), expected);
}

#[test]
fn producer_consumer() {
    let mut lines = lines("producer_consumer");
    // The second consumer fails while the jobs are being handed out, or after.
    lines.retain(|line| line != "30 jobs are stored" && line != "consumer-2 fails");
    let expected = [
        "consumer-1 did 10 of them",
        "consumer-2 did 10 of them",
        "consumer-3 did 10 of them",
        "each was done once: true",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn own_loop_mio() {
    assert_eq!(lines("own_loop_mio"), ["talker says 21.5", "talker says 21.7", "talker says 22.0"]);
}

#[test]
fn own_loop_poll() {
    let expected = ["talker says [1, 0, 0, 0]", "talker says [2, 0, 0, 0]", "talker says [3, 0, 0, 0]"];
    assert_eq!(lines("own_loop_poll"), expected);
}
