//! What the kernel allows: length-prefixed frames over one loopback TCP stream, nothing else done.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::child::{Other, hear};

const BUFFER: usize = 64 * 1024;

pub(crate) fn rate(size: usize, count: u64) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let mut sender = Other::spawn(&["raw-send", &address, &size.to_string(), &count.to_string()]);
    let stream = listener.accept().expect("the child").0;
    let mut stream = BufReader::with_capacity(BUFFER, stream);
    let mut payload = vec![0; size];
    let began = Instant::now();
    sender.tell("go");
    for _ in 0..count {
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("a length");
        payload.resize(u32::from_le_bytes(length) as usize, 0);
        stream.read_exact(&mut payload).expect("a payload");
        std::hint::black_box(&payload);
    }
    began.elapsed()
}

pub(crate) fn send(address: &str, size: usize, count: u64) {
    let stream = TcpStream::connect(address).expect("the parent listens");
    let mut stream = BufWriter::with_capacity(BUFFER, stream);
    let payload = vec![0x5a; size];
    hear();
    for _ in 0..count {
        stream.write_all(&(size as u32).to_le_bytes()).expect("the parent reads");
        stream.write_all(&payload).expect("the parent reads");
    }
    stream.flush().expect("the parent reads");
    hear();
}

pub(crate) fn trips(count: usize) -> Vec<Duration> {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let _echo = Other::spawn(&["raw-echo", &address]);
    let mut stream = listener.accept().expect("the child").0;
    stream.set_nodelay(true).expect("a TCP stream");
    let (payload, mut answer) = ([0x5a; 64], [0; 64]);
    (0..count)
        .map(|_| {
            let began = Instant::now();
            stream.write_all(&payload).expect("the child reads");
            stream.read_exact(&mut answer).expect("the child answers");
            began.elapsed()
        })
        .collect()
}

pub(crate) fn echo(address: &str) {
    let mut stream = TcpStream::connect(address).expect("the parent listens");
    stream.set_nodelay(true).expect("a TCP stream");
    let mut payload = [0; 64];
    while stream.read_exact(&mut payload).is_ok() && stream.write_all(&payload).is_ok() {}
}
