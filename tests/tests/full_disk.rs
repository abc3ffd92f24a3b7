//! A disk without room under a node's file, again and again: a send says so, nothing that was accepted is lost, acknowledgements go on
//! meanwhile, and all works again as soon as there is room.
//!
//! The test starts its own executable in namespaces of its own, with a file system of eight mebibytes in memory.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "so a test ends, and says what it did")]
#![expect(clippy::disallowed_methods, reason = "a test that waits in vain has to end")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use liner_mio::{Class, Client, ClientSendError, Reliability, Store, Taken};
use liner_store_sqlite::{Options, SqliteStore};

/// Names the folder of the file system to the process that has it.
const DISK: &str = "LINER_TEST_DISK";
/// How often the disk is filled: 30 times if nothing else is asked for.
const ROUNDS: &str = "LINER_E2E_FULL_DISKS";
const PATIENCE: Duration = Duration::from_secs(30);
const PAYLOAD: usize = 4096;

#[test]
fn a_disk_that_is_full_again_and_again_loses_nothing() {
    if let Some(disk) = std::env::var_os(DISK) {
        return fill_again_and_again(Path::new(&disk));
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=8m tmpfs \"$LINER_TEST_DISK\" && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, "sh"]);
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "a_disk_that_is_full_again_and_again_loses_nothing"]);
    let output = command.env(DISK, folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    print!("{said}");
}

fn client(folder: &Path, name: &str, topic: &str) -> Client {
    let path = folder.join(format!("{name}.db"));
    let options = Options {
        name: name.to_owned(),
        durability: Class::Process,
        limit_bytes: None,
        boot_id: "this run".to_owned(),
    };
    let open =
        move || SqliteStore::open(&path, &options).map(|store| Box::new(store) as Box<dyn Store + Send>);
    let client = Client::new(name, topic, "127.0.0.1:0", open).unwrap();
    client.set_patience(Duration::from_millis(50));
    client
}

/// Has the receiver run, with what arrives.
fn receive(receiver: &Client) -> Receiver<(u64, bool)> {
    let (tell, arrived) = channel();
    receiver
        .run(move |taken: &Taken| {
            let number = taken.payload()[..8].try_into().unwrap();
            assert_eq!(taken.payload(), payload(u64::from_le_bytes(number)));
            let _ = tell.send((u64::from_le_bytes(number), taken.message().maybe_redelivered));
        })
        .unwrap();
    arrived
}

fn payload(number: u64) -> Vec<u8> {
    let mut payload = vec![number as u8; PAYLOAD];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

/// Takes all the room that is left.
fn fill(disk: &Path) -> PathBuf {
    let path = disk.join("fill");
    let mut file = std::fs::File::create(&path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    path
}

/// What became of a message.
#[derive(Debug)]
enum Sent {
    Stored,
    /// It found the disk full, and is in memory: it is stored when there is room.
    Doubtful,
    Refused(String),
}

fn send(sender: &Client, number: u64) -> Sent {
    match sender.send_to("t", &payload(number), Reliability::AtLeastOnce) {
        Ok(_) => Sent::Stored,
        Err(ClientSendError::Unknown { .. }) => Sent::Doubtful,
        Err(error) => Sent::Refused(error.to_string()),
    }
}

fn fill_again_and_again(disk: &Path) {
    let rounds = std::env::var(ROUNDS).map_or(30, |rounds| rounds.parse().unwrap());
    let elsewhere = tempfile::tempdir().unwrap();
    let (sender, receiver) = (client(disk, "sender", "to-sender"), client(elsewhere.path(), "receiver", "t"));
    sender.run(|_: &Taken| ()).unwrap();
    let address = sender.bound_listen_addr().unwrap();
    receiver.configure(move |builder| builder.peer(&address));
    let arrived = receive(&receiver);
    while sender.list_addresses("t").unwrap().is_empty() {
        std::thread::yield_now();
    }
    receiver.stop().unwrap();
    assert_eq!(arrived.iter().count(), 0);
    let (mut accepted, mut stored, mut had) = (0, 0, 0);
    let (mut refused, mut doubtful, mut slowest) = (0, 0, Duration::ZERO);
    // What was under way when the receiver went last may come marked: the sender does not know whether it arrived.
    let mut offered = 0;
    for round in 0..rounds {
        // Another program takes the room, or the queue itself does.
        let filler = (round % 2 == 0).then(|| fill(disk));
        let words = loop {
            match send(&sender, accepted + 1) {
                Sent::Stored => {
                    accepted += 1;
                    stored = accepted;
                }
                Sent::Doubtful => (accepted, doubtful) = (accepted + 1, doubtful + 1),
                Sent::Refused(words) => break words,
            }
            assert!(accepted < 2048 * (round + 1), "eight mebibytes are never full");
        };
        assert!(words.contains("full"), "round {round}: {words}");
        refused += 1;
        // What is stored arrives, and is acknowledged: that needs room, too, and there is none but the ballast.
        let arrived = receive(&receiver);
        while had < stored {
            let (number, again) = arrived.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("round {round}: {had} of {stored} have come");
            });
            assert_eq!(number, had + 1, "round {round}");
            assert!(!again || number <= offered, "round {round}: {number} is new, {offered} were under way");
            had = number;
        }
        receiver.stop().unwrap();
        for (number, again) in arrived {
            assert_eq!(number, had + 1, "round {round}");
            assert!(!again || number <= offered, "round {round}: {number} is new, {offered} were under way");
            had = number;
        }
        offered = accepted;
        if let Some(filler) = filler {
            std::fs::remove_file(filler).unwrap();
        }
        let freed = Instant::now();
        loop {
            match send(&sender, accepted + 1) {
                Sent::Stored => break,
                Sent::Doubtful => (accepted, doubtful) = (accepted + 1, doubtful + 1),
                Sent::Refused(words) => assert!(words.contains("full"), "round {round}: {words}"),
            }
            assert!(freed.elapsed() < PATIENCE, "round {round}: it stays full");
        }
        slowest = slowest.max(freed.elapsed());
        accepted += 1;
        stored = accepted;
    }
    sender.stop().unwrap();
    println!(
        "{rounds} rounds: {accepted} accepted, {doubtful} of them in doubt at first, {refused} refused as the store is full; works again after {slowest:?} at most"
    );
}
