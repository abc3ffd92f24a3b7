//! Everyone talks to everyone: three clients in one room, two of which know nothing but the address of the first.
//!
//! ```text
//! cargo run --example many_to_many
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use liner::{Client, Event, Reliability, Status, Taken, client};

const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let mut guests: Vec<(Client, Receiver<String>)> = Vec::new();
    let (find, found) = channel();
    for name in ["anna", "bert", "cara"] {
        let path = dir.path().join(format!("{name}.db"));
        let guest = client::new_sqlite(name, &format!("to-{name}"), "127.0.0.1:0", path, None)?;
        guest.subscribe("room")?;
        if let Some((first, _)) = guests.first() {
            let address = first.bound_listen_addr().ok_or("the first guest does not listen")?;
            guest.configure(move |node| node.peer(&address));
        }
        let find = find.clone();
        guest.set_status_callback(move |status| match status {
            Status::Event(Event::Subscribed { name: other, topic }) if &**topic == "room" => {
                // Nobody listens any more when all are found.
                let _ = find.send((name, other.to_string()));
            }
            // A full disk, for instance: it goes on by itself when there is room.
            Status::Event(Event::StoreFailed(why)) => println!("{name} cannot store: {why}"),
            _ => {}
        });
        let (tell, told) = channel();
        guest.run(move |taken: &Taken| {
            tell.send(format!("{}: {}", taken.from(), String::from_utf8_lossy(taken.payload())))
        })?;
        guests.push((guest, told));
    }
    // Nodes tell each other whom they know: bert and cara find each other without having been told.
    let mut pairs = BTreeSet::new();
    while pairs.len() < guests.len() * (guests.len() - 1) {
        let pair = found.recv_timeout(PATIENCE);
        pairs.insert(pair.map_err(|_| format!("not all have found each other, only {pairs:?}"))?);
    }
    for (guest, _) in &guests {
        // Whoever takes a topic and sends to it does not hear itself.
        guest.send_all(
            "room",
            format!("I am {}", guest.unique_name()).as_bytes(),
            Reliability::AtLeastOnce,
        )?;
    }
    for (guest, told) in &guests {
        let mut heard = [told.recv_timeout(PATIENCE)?, told.recv_timeout(PATIENCE)?];
        heard.sort();
        println!("{} heard {}", guest.unique_name(), heard.join(" and "));
    }
    Ok(())
}
