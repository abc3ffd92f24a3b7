//! URLs: what each option means, and what is said of a wrong one.
#![allow(clippy::expect_used, reason = "a test may fail")]

use std::time::Duration;

use liner_store_redis::{Place, TlsFiles, Url, UrlError};

fn url(text: &str) -> Url {
    text.parse().expect(text)
}

fn wrong(text: &str) -> String {
    let error: UrlError = text.parse::<Url>().expect_err(text);
    error.to_string()
}

#[test]
fn all_options_are_read_back() {
    let text = "rediss://al%3Aice:pass%40word@example.org:7000/5?connect_timeout=250ms&command_timeout=2m\
                &ca=/a%20b/ca.pem&cert=c.pem&key=k.pem";
    let read = url(text);
    let files = TlsFiles { ca: Some("/a b/ca.pem".into()), identity: Some(("c.pem".into(), "k.pem".into())) };
    assert_eq!(read.place, Place::Tcp { host: "example.org".to_owned(), port: 7000, tls: Some(files) });
    assert_eq!((read.user.as_deref(), read.db), (Some("al:ice"), 5));
    assert_eq!(read.connect_timeout, Duration::from_millis(250));
    assert_eq!(read.command_timeout, Duration::from_secs(120));
    assert_eq!(
        read.to_string(),
        "rediss://al%3Aice@example.org:7000/5?connect_timeout=250ms&command_timeout=120000ms\
         &ca=/a%20b/ca.pem&cert=c.pem&key=k.pem"
    );
}

#[test]
fn defaults_are_what_is_documented() {
    let read = url("redis://localhost");
    assert_eq!(read.place, Place::Tcp { host: "localhost".to_owned(), port: 6379, tls: None });
    assert_eq!((read.user, read.db), (None, 0));
    assert_eq!(
        (read.connect_timeout, read.command_timeout),
        (Duration::from_secs(3), Duration::from_secs(5))
    );
    let read = url("rediss://[::1]:7000");
    let tls = Some(TlsFiles::default());
    assert_eq!(read.place, Place::Tcp { host: "::1".to_owned(), port: 7000, tls });
    assert!(read.to_string().starts_with("rediss://[::1]:7000/0?"));
    let read = url("unix:///run/redis%3F/socket?db=2&user=alice&password=secret&connect_timeout=7");
    assert_eq!(read.place, Place::Unix("/run/redis?/socket".into()));
    assert_eq!(
        (read.user.as_deref(), read.db, read.connect_timeout),
        (Some("alice"), 2, Duration::from_secs(7))
    );
}

#[test]
fn a_password_is_never_shown() {
    for text in [
        "redis://:secret@localhost",
        "redis://alice:secret@localhost/2",
        "redis://localhost?user=alice&password=secret",
        "unix:///socket?user=alice&password=secret",
    ] {
        let read = url(text);
        assert!(!format!("{read} {read:?}").contains("secret"), "{read:?}");
        assert_ne!(read, url(&text.replace("secret", "other")), "it is there");
    }
    for text in [
        "redis://:secret@localhost:port",
        "redis://:secret@localhost/db",
        "redis://:secret@localhost?password=secret",
        "redis://:secret@localhost?pass=secret",
        "redis://:secret%zz@localhost",
        "unix://socket?password=secret",
        "tcp://:secret@localhost",
    ] {
        let words = wrong(text);
        assert!(!words.contains("secret"), "{words}");
    }
}

#[test]
fn what_is_wrong_is_named() {
    for (text, words) in [
        ("localhost", "begins with redis://, rediss:// or unix://"),
        ("http://localhost", "begins with redis://, rediss:// or unix://"),
        ("redis://localhost?colour=red", "the option `colour`"),
        ("redis://localhost?ca=f", "the option `ca`, which redis:// does not have"),
        ("unix:///socket?cert=f", "the option `cert`, which unix:// does not have"),
        ("redis://localhost/1?db=1", "says `db` twice"),
        ("redis://localhost?connect_timeout=1s&connect_timeout=1s", "says `connect_timeout` twice"),
        ("redis://localhost/first", "the URL's database is not understood"),
        ("redis://localhost/-1", "the URL's database is not understood"),
        ("redis://localhost?connect_timeout=soon", "the URL's time is not understood"),
        ("redis://localhost?connect_timeout=0s", "from 1ms to 60m"),
        ("redis://localhost?command_timeout=2h", "from 1ms to 60m"),
        ("rediss://localhost?cert=f", "both cert=FILE and key=FILE"),
        ("redis://alice@localhost", "a user has a password"),
        ("unix://relative/socket", "an absolute path"),
    ] {
        let told = wrong(text);
        assert!(told.contains(words), "{text}: {told}");
    }
    for text in
        ["redis://", "redis://:6379", "redis://localhost:0", "redis://localhost:65536", "redis://[::1"]
    {
        wrong(text);
    }
}
