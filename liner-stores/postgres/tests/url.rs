//! What a URL may say, and what is said about one that is wrong.
#![allow(clippy::expect_used, reason = "a test may fail")]

use core::time::Duration;
use std::path::Path;

use liner_store_postgres::{Host, RootCert, SslMode, TargetSession, Url};

fn parse(text: &str) -> Url {
    text.parse().expect("the URL is good")
}

fn refusal(text: &str) -> String {
    text.parse::<Url>().expect_err("the URL is wrong").to_string()
}

#[test]
fn a_short_url_has_the_documented_defaults() {
    let url = parse("postgres://ann@/");
    assert_eq!((url.user(), url.database(), url.password()), ("ann", "ann", None));
    assert_eq!(url.hosts(), [Host::Tcp("localhost".to_owned(), 5432)]);
    assert_eq!((url.ssl_mode(), url.root_cert(), url.cert(), url.key()), (SslMode::Prefer, None, None, None));
    assert_eq!((url.application_name(), url.options()), (None, None));
    let seconds = Duration::from_secs;
    assert_eq!(url.connect_timeout(), seconds(10));
    assert_eq!((url.statement_timeout(), url.lock_timeout()), (seconds(30), seconds(5)));
    assert_eq!(url.keepalive(), Some(seconds(30)));
    assert_eq!(url.target_session(), TargetSession::Any);
    assert_eq!((url.min_connections(), url.max_connections()), (1, 10));
    assert_eq!((url.acquire_timeout(), url.idle_timeout()), (seconds(30), seconds(600)));
}

#[test]
fn every_option_can_be_read_back() {
    let url = parse(
        "postgresql://a%40n:p%3Aw@one:1,[::1]:2,three/d%2Fb?sslmode=verify-full&sslrootcert=/ca&sslcert=/cert&sslkey=/key\
         &application_name=my%20app&connect_timeout=3&statement_timeout=400&lock_timeout=50&keepalives=1\
         &keepalives_idle=60&options=-c%20geqo%3Doff&target_session_attrs=read-write&min_connections=2\
         &max_connections=7&acquire_timeout=250ms&idle_timeout=1h",
    );
    assert_eq!((url.user(), url.password(), url.database()), ("a@n", Some("p:w"), "d/b"));
    let tcp = |host: &str, port| Host::Tcp(host.to_owned(), port);
    assert_eq!(url.hosts(), [tcp("one", 1), tcp("::1", 2), tcp("three", 5432)]);
    assert_eq!(url.ssl_mode(), SslMode::VerifyFull);
    assert_eq!(url.root_cert(), Some(&RootCert::File("/ca".into())));
    assert_eq!((url.cert(), url.key()), (Some(Path::new("/cert")), Some(Path::new("/key"))));
    assert_eq!((url.application_name(), url.options()), (Some("my app"), Some("-c geqo=off")));
    let ms = Duration::from_millis;
    assert_eq!(url.connect_timeout(), ms(3_000));
    assert_eq!((url.statement_timeout(), url.lock_timeout()), (ms(400), ms(50)));
    assert_eq!(url.keepalive(), Some(ms(60_000)));
    assert_eq!(url.target_session(), TargetSession::ReadWrite);
    assert_eq!((url.min_connections(), url.max_connections()), (2, 7));
    assert_eq!((url.acquire_timeout(), url.idle_timeout()), (ms(250), ms(3_600_000)));
    assert_eq!(parse("postgres://a@h/d?keepalives=0").keepalive(), None);
}

#[test]
fn servers_may_stand_in_the_query() {
    let url = parse("postgresql:///db?host=/run/postgresql,two&port=1,2&user=ann&password=secret");
    assert_eq!(url.hosts(), [Host::Unix("/run/postgresql".into(), 1), Host::Tcp("two".to_owned(), 2)]);
    assert_eq!((url.user(), url.password(), url.database()), ("ann", Some("secret"), "db"));
    let shown = url.to_string();
    assert_eq!(parse(&shown).hosts(), url.hosts(), "{shown}");
}

#[test]
fn the_password_is_never_shown() {
    for text in [
        "postgres://ann:s%65cret@h:1/d?sslmode=require",
        "postgres://ann@h:1/d?password=s%65cret&sslmode=require",
    ] {
        let url = parse(text);
        assert_eq!(url.to_string(), "postgres://ann@h:1/d?sslmode=require");
        assert!(!format!("{url:?}").contains("cret"));
        assert_eq!(url.password(), Some("secret"));
    }
}

#[test]
fn certificates_follow_libpq() {
    let mode = |query: &str| parse(&format!("postgres://a@h/d?{query}")).ssl_mode();
    assert_eq!(mode("sslmode=require"), SslMode::Require);
    assert_eq!(mode("sslmode=require&sslrootcert=/ca"), SslMode::VerifyCa);
    assert_eq!(mode("sslrootcert=system"), SslMode::VerifyFull);
    assert_eq!(mode("sslmode=disable"), SslMode::Disable);
}

#[test]
fn what_is_wrong_is_named_with_what_there_is() {
    for (url, words) in [
        ("mysql://a@h/d", "postgres:// or postgresql://"),
        ("postgres://a@h/d?sslmod=require", "there is no option sslmod; there are host, port"),
        ("postgres://a@h/d?passfile=x", "there is no option passfile"),
        (
            "postgres://a@h/d?sslmode=on",
            "sslmode=on: there are disable, prefer, require, verify-ca, verify-full",
        ),
        ("postgres://a@h/d?sslmode=verify-full", "sslmode=verify-full needs sslrootcert"),
        (
            "postgres://a@h/d?sslmode=require&sslrootcert=system",
            "sslrootcert=system goes with sslmode=verify-full",
        ),
        ("postgres://a@h/d?sslcert=/c", "sslcert and sslkey go together"),
        ("postgres://a@h/d?max_connections=0", "max_connections=0: a number from 1 to 1000"),
        ("postgres://a@h/d?min_connections=11", "min_connections=11: a number from 0 to 10"),
        ("postgres://a@h/d?lock_timeout=1", "lock_timeout=1: a time from 10 ms to 60 min"),
        ("postgres://a@h/d?idle_timeout=5weeks", "as 500ms, 5s, 10min or 1h"),
        ("postgres://a@h/d?keepalives=yes", "keepalives=yes: a number from 0 to 1"),
        ("postgres://a@h/d?target_session_attrs=standby", "there are any, read-write and primary"),
        ("postgres://a@h/d?sslmode=require&sslmode=disable", "sslmode stands there twice"),
        ("postgres://a@h/d?options=", "options has no value"),
        ("postgres://a@h/d?sslmode", "an option is NAME=VALUE"),
        ("postgres://a@h:70000/d", "port 70000: a number from 1 to 65535"),
        ("postgres://a@h/d?host=i", "host stands there twice"),
        ("postgres://a@h/d?user=b", "user stands there twice"),
        ("postgres://a@h,/d", "a server has no name"),
        ("postgres:///d?host=a,b,c&port=1,2&user=a", "3 servers and 2 ports"),
        ("postgres://a:%ZZ@h/d", "the password: behind % stand two hexadecimal digits"),
        ("postgres://a@h/%00", "and not 00"),
    ] {
        let refusal = refusal(url);
        assert!(refusal.contains(words), "{url}: {refusal}");
    }
}

#[test]
fn what_stands_beside_the_brackets_of_an_address_is_not_passed_over() {
    for server in ["[::1]5433", "[::1]x:5433", "::1", "::1:5433", "[::1", "a:b:1"] {
        let refusal = refusal(&format!("postgres://ann@{server}/d"));
        assert!(refusal.contains("stands in brackets"), "{server}: {refusal}");
    }
}
