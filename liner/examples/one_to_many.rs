//! One client sends to everyone who takes a topic. One of them is away, and gets it when it is back.
//!
//! ```text
//! cargo run --example one_to_many
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use liner::{Client, Reliability, Taken, client};

const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let shop = client::new_sqlite("shop", "to-shop", "127.0.0.1:0", dir.path().join("shop.db"), None)?;
    shop.run(|_: &Taken| ())?;
    let address = shop.bound_listen_addr().ok_or("the shop does not listen")?;

    // Three screens take the topic `prices` beside their own.
    let mut screens: Vec<(Client, Receiver<String>)> = Vec::new();
    for name in ["screen-1", "screen-2", "screen-3"] {
        let path = dir.path().join(format!("{name}.db"));
        let screen = client::new_sqlite(name, &format!("to-{name}"), "127.0.0.1:0", path, None)?;
        let address = address.clone();
        screen.configure(move |node| node.peer(&address));
        screen.subscribe("prices")?;
        screens.push((screen, channel().1));
    }
    for (screen, prices) in &mut screens {
        *prices = show(screen)?;
        // The shop knows a screen once it has said what it takes: its greeting comes behind that.
        screen.send_to("to-shop", b"here", Reliability::AtLeastOnce)?;
        screen.wait_until_acknowledged(PATIENCE)?;
    }

    shop.send_all("prices", b"apples 2.40", Reliability::AtLeastOnce)?;
    for (screen, prices) in &screens {
        println!("{} shows {}", screen.unique_name(), prices.recv_timeout(PATIENCE)?);
    }

    let (away, _) = &screens[2];
    away.stop()?;
    println!("{} is switched off", away.unique_name());
    shop.send_all("prices", b"apples 2.60", Reliability::AtLeastOnce)?;
    for (screen, prices) in &screens[..2] {
        println!("{} shows {}", screen.unique_name(), prices.recv_timeout(PATIENCE)?);
    }
    let prices = show(away)?;
    println!("{} is back, and shows {}", away.unique_name(), prices.recv_timeout(PATIENCE)?);
    Ok(())
}

/// Runs a screen that shows what it is told.
fn show(screen: &Client) -> Result<Receiver<String>, Box<dyn Error>> {
    let (tell, told) = channel();
    screen.run(move |taken: &Taken| tell.send(String::from_utf8_lossy(taken.payload()).into_owned()))?;
    Ok(told)
}
