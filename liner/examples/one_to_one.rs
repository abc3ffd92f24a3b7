//! Two clients: one greets, the other one answers from its callback.
//!
//! ```text
//! cargo run --example one_to_one
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use liner::{Reliability, Taken, client};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    // Each has a file of its own; `anna` learns of `bert` by an address, and he of her by her connection.
    let bert =
        Arc::new(client::new_sqlite("bert", "to-bert", "127.0.0.1:0", dir.path().join("bert.db"), None)?);
    let answerer = Arc::downgrade(&bert);
    bert.run(move |taken: &Taken| -> Result<(), Box<dyn Error>> {
        println!("bert was told {:?} by {}", String::from_utf8_lossy(taken.payload()), taken.from());
        let bert = answerer.upgrade().ok_or("bert is gone")?;
        // A blocking send in a callback. If it fails, so does the callback, and it is called again with the message.
        bert.send_to("to-anna", b"hello, anna", Reliability::AtLeastOnce)?;
        Ok(())
    })?;

    let anna = client::new_sqlite("anna", "to-anna", "127.0.0.1:0", dir.path().join("anna.db"), None)?;
    let address = bert.bound_listen_addr().ok_or("bert does not listen")?;
    anna.configure(move |node| node.peer(&address));
    let (tell, told) = channel();
    anna.run(move |taken: &Taken| tell.send(taken.payload().to_vec()))?;

    let sent = anna.send_to("to-bert", b"hello, bert", Reliability::AtLeastOnce)?;
    println!("anna's message {} is stored, and survives the loss of {:?}", sent.id.0, sent.class);
    let answer = told.recv_timeout(Duration::from_secs(10))?;
    println!("anna was told {:?}", String::from_utf8_lossy(&answer));
    anna.stop()?;
    bert.stop()?;
    Ok(())
}
