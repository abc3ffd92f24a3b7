//! A producer hands out jobs, and consumers take them by turns. One of them fails at its first job, and gets it again.
//!
//! ```text
//! cargo run --example producer_consumer
//! ```

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use liner::{Client, Mode, Reliability, SendOptions, Taken, client};

const PATIENCE: Duration = Duration::from_secs(20);
const JOBS: u32 = 30;

fn main() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("producer.db");
    let producer = client::new_sqlite("producer", "to-producer", "127.0.0.1:0", path, None)?;
    producer.run(|_: &Taken| ())?;
    let address = producer.bound_listen_addr().ok_or("the producer does not listen")?;

    let (done, dones) = channel();
    let mut consumers = Vec::new();
    for name in ["consumer-1", "consumer-2", "consumer-3"] {
        let path = dir.path().join(format!("{name}.db"));
        // All of them have the topic `jobs`: they are its replicas.
        let consumer = client::new_sqlite(name, "jobs", "127.0.0.1:0", path, None)?;
        let address = address.clone();
        consumer.configure(move |node| node.peer(&address));
        work(&consumer, name, done.clone())?;
        consumer.send_to("to-producer", b"ready", Reliability::AtLeastOnce)?;
        consumer.wait_until_acknowledged(PATIENCE)?;
        consumers.push(consumer);
    }

    // Jobs are posted without a wait, and stored together by the flush.
    for number in 0..JOBS {
        producer.post("jobs", &number.to_le_bytes(), SendOptions::new(Mode::One))?;
    }
    producer.flush()?;
    println!("{JOBS} jobs are stored");

    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut sum = 0;
    for _ in 0..JOBS {
        let (name, number) = dones.recv_timeout(PATIENCE)?;
        *counts.entry(name).or_default() += 1;
        sum += number;
    }
    for (name, count) in counts {
        println!("{name} did {count} of them");
    }
    println!("each was done once: {}", sum == JOBS * (JOBS - 1) / 2);
    Ok(())
}

fn work(
    consumer: &Client,
    name: &'static str,
    done: Sender<(&'static str, u32)>,
) -> Result<(), Box<dyn Error>> {
    consumer.run(move |taken: &Taken| -> Result<(), Box<dyn Error>> {
        if taken.failures() == 0 && name == "consumer-2" && taken.message().seq == 1 {
            println!("{name} fails");
            // It is called again with the same job after a pause, and the jobs behind it wait.
            return Err("out of paper".into());
        }
        let number = u32::from_le_bytes(taken.payload().try_into()?);
        done.send((name, number))?;
        Ok(())
    })?;
    Ok(())
}
