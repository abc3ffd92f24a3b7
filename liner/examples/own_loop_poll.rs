//! A node in a program that has an event loop of its own, with plain `poll(2)`. No thread is started.
//!
//! ```text
//! cargo run --example own_loop_poll
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::os::fd::AsFd as _;
use std::time::Duration;

use liner::{Framing, Message, Mode, Node};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn main() -> Result<(), Box<dyn Error>> {
    let mut listener =
        Node::builder("listener").listen("127.0.0.1:0", Framing::Length).subscribe("ticks").build()?;
    let address = listener.listen_addrs()[0].to_string();
    let mut talker = Node::builder("talker").peer(&address).build()?;
    for tick in 1..=3u32 {
        talker.send("ticks", &tick.to_le_bytes(), Mode::One)?;
    }

    let mut heard = 0;
    while heard < 3 || !talker.is_idle() {
        // A node is one descriptor, readable when it has something to do, and a deadline.
        let due = [listener.next_deadline(), talker.next_deadline()].into_iter().flatten().min();
        let timeout = due.map(Timespec::try_from).transpose()?;
        {
            let (one, two) = (listener.as_fd(), talker.as_fd());
            let mut fds = [PollFd::new(&one, PollFlags::IN), PollFd::new(&two, PollFlags::IN)];
            poll(&mut fds, timeout.as_ref())?;
        }
        talker.drive(Some(Duration::ZERO), &mut |_: &Message<'_>| {})?;
        listener.drive(Some(Duration::ZERO), &mut |message: &Message<'_>| {
            println!("{} says {:?}", message.from, message.payload);
            heard += 1;
        })?;
    }
    Ok(())
}
