//! Whatever a server says, it is an answer or a fault.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use liner_store_redis::{OpenError, Options, RedisStore};

/// Opens at a server that says this to whatever it hears first.
fn open(said: &[u8]) -> OpenError {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
    let port = listener.local_addr().expect("it has one").port();
    let url = format!("redis://127.0.0.1:{port}?connect_timeout=50ms&command_timeout=50ms");
    std::thread::scope(|scope| {
        scope.spawn(|| -> std::io::Result<()> {
            let (mut stream, _) = listener.accept()?;
            stream.read_exact(&mut [0; 14])?;
            stream.write_all(said)?;
            stream.read_to_end(&mut Vec::new()).map(drop)
        });
        RedisStore::open(&url, &Options { name: "sensor".to_owned() }).expect_err("it is no server")
    })
}

#[test]
fn no_answer_is_a_panic_or_takes_memory_for_what_has_not_come() {
    let nested = "*1\r\n".repeat(100_000);
    for kind in ['$', '*', '%', '|', '~', '>', '=', '!'] {
        for length in [i64::MIN, -1, 0, 1, 1 << 30, i64::MAX / 2 + 1, i64::MAX] {
            open(format!("{kind}{length}\r\n+a\r\n").as_bytes());
        }
    }
    for said in ["", "\r\n", "-\r\n", "+\r\n", "_\r\n", "(1\r\n", ",x\r\n", "#x\r\n", "\0\0\0\0", &nested] {
        open(said.as_bytes());
    }
    let half_right = "+PONG\r\n*0\r\n*0\r\n";
    assert!(matches!(open(half_right.as_bytes()), OpenError::OldServer { .. }));
}

#[test]
fn what_is_no_redis_is_told() {
    let words = open(b"HTTP/1.1 400 Bad Request\r\n\r\n").to_string();
    assert!(words.contains("what listens there does not speak as a Redis does"), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
}
