//! How a connection is made, and the sentence for each reason why there is none.
#![allow(clippy::expect_used, reason = "a test may fail")]

mod turns;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use liner_proto::id::Class;
use liner_proto::store::Store as _;
use liner_store_postgres::grants;
use liner_tests::servers::certs::{Certs, Identity};
use liner_tests::servers::{Postgres, PostgresOptions, Tls, Version};
use turns::{begin, open, persist};

fn certs() -> &'static Certs {
    static CERTS: OnceLock<Certs> = OnceLock::new();
    CERTS.get_or_init(|| Certs::make().expect("openssl is there"))
}

fn encrypted(identity: &Identity) -> Postgres {
    let tls = Tls { identity: identity.clone(), client_ca: certs().ca.clone() };
    let hba = [
        "hostssl all certified 127.0.0.1/32 cert",
        "host all certified 127.0.0.1/32 reject",
        "host all secretive 127.0.0.1/32 scram-sha-256",
        "host all all 127.0.0.1/32 trust",
    ];
    let options =
        PostgresOptions { tls: Some(tls), hba: hba.map(str::to_owned).into(), ..PostgresOptions::default() };
    let server = Postgres::start(Version::V15, &options).expect("the server starts");
    let roles =
        "CREATE ROLE certified LOGIN SUPERUSER; CREATE ROLE secretive LOGIN SUPERUSER PASSWORD 'right'";
    server.query(roles).expect("the roles are made");
    server
}

fn good() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| encrypted(&certs().localhost))
}

fn url(server: &Postgres, user: &str, query: &str) -> String {
    format!("postgres://{user}@localhost:{}/postgres?{query}", server.address().port())
}

fn with_ca(mode: &str, ca: &Path) -> String {
    format!("sslmode={mode}&sslrootcert={}", ca.display())
}

/// Whether the session of the node that is open is encrypted.
fn is_encrypted(server: &Postgres, node: &str) -> bool {
    let sql = format!(
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING(pid) WHERE application_name = 'liner {node}'"
    );
    server.query(&sql).expect("the server answers")[0][0].as_deref() == Some("t")
}

fn refusal(url: &str) -> String {
    open(url, "node").expect_err("it is not let in").to_string()
}

fn assert_says(refusal: &str, words: &[&str]) {
    for words in words {
        assert!(refusal.contains(words), "it does not say `{words}`: {refusal}");
    }
}

#[test]
fn every_mode_encrypts_as_it_says() {
    let server = good();
    let ca = &certs().ca;
    for (mode, query, encrypted) in [
        ("disable", "sslmode=disable".to_owned(), false),
        ("prefer", "sslmode=prefer".to_owned(), true),
        ("none", String::new(), true),
        ("require", "sslmode=require".to_owned(), true),
        ("require-ca", with_ca("require", ca), true),
        ("verify-ca", with_ca("verify-ca", ca), true),
        ("verify-full", with_ca("verify-full", ca), true),
    ] {
        let mut store = open(&url(server, "postgres", &query), mode).expect("the store opens");
        assert_eq!(is_encrypted(server, mode), encrypted, "{mode}");
        assert!(store.inbox().is_ok());
    }
    // An address is a name too.
    let by_address = format!("{}?{}", server.url(), with_ca("verify-full", ca));
    open(&by_address, "by-address").expect("the certificate has it");
}

#[test]
fn an_authority_that_is_not_ours_is_refused() {
    for mode in ["require", "verify-ca", "verify-full", "prefer"] {
        let refusal = refusal(&url(good(), "postgres", &with_ca(mode, &certs().foreign_ca)));
        assert_says(&refusal, &["no encrypted connection to localhost:", "signed by nobody in sslrootcert"]);
    }
    let system = refusal(&url(good(), "postgres", "sslrootcert=system"));
    assert_says(&system, &["signed by nobody in sslrootcert"]);
}

#[test]
fn another_host_name_is_refused_where_names_count() {
    let server = encrypted(&certs().elsewhere);
    let refusal = refusal(&url(&server, "postgres", &with_ca("verify-full", &certs().ca)));
    assert_says(&refusal, &["its certificate is not for localhost", "or sslmode=verify-ca"]);
    open(&url(&server, "postgres", &with_ca("verify-ca", &certs().ca)), "node").expect("names do not count");
}

#[test]
fn an_expired_certificate_is_refused() {
    let server = encrypted(&certs().expired);
    for mode in ["verify-ca", "verify-full"] {
        let refusal = refusal(&url(&server, "postgres", &with_ca(mode, &certs().ca)));
        assert_says(&refusal, &["its certificate has expired"]);
    }
}

/// A certificate as a recipe without extensions makes it.
fn of_version_1() -> Identity {
    let folder = certs().ca.parent().expect("it is in a folder");
    let run = |arguments: &str| {
        let arguments = arguments.split(' ');
        let done = Command::new("openssl").current_dir(folder).args(arguments).output().expect("it is there");
        assert!(done.status.success(), "{done:?}");
    };
    run("req -new -subj /CN=localhost -key localhost.key -out first.csr");
    run("x509 -req -in first.csr -CA ca.pem -CAkey ca.key -set_serial 1 -days 9 -out first.pem");
    Identity { certificate: folder.join("first.pem"), key: certs().localhost.key.clone() }
}

#[test]
fn certificates_of_hasty_recipes_are_refused_with_what_is_wrong_with_them() {
    let server = encrypted(&of_version_1());
    for query in ["sslmode=require".to_owned(), with_ca("verify-full", &certs().ca)] {
        assert_says(&refusal(&url(&server, "postgres", &query)), &["is of version 1", "subjectAltName"]);
    }
    let ca = Identity { certificate: certs().ca.clone(), key: certs().ca.with_extension("key") };
    let server = encrypted(&ca);
    open(&url(&server, "postgres", "sslmode=require"), "node").expect("it is not looked at");
    let refused = refusal(&url(&server, "postgres", &with_ca("verify-ca", &certs().ca)));
    assert_says(&refused, &["is that of an authority", "CA:FALSE"]);
}

fn plain() -> Postgres {
    Postgres::start(Version::V15, &PostgresOptions::default()).expect("the server starts")
}

#[test]
fn nobody_is_put_off_with_plain_text_but_who_prefers_only() {
    let server = plain();
    for (mode, query) in [
        ("require", "sslmode=require".to_owned()),
        ("verify-ca", with_ca("verify-ca", &certs().ca)),
        ("verify-full", with_ca("verify-full", &certs().ca)),
    ] {
        let refusal = refusal(&url(&server, "postgres", &query));
        assert_says(&refusal, &["does not encrypt, and", &format!("sslmode={mode}"), "sslmode=disable"]);
    }
    let _store =
        open(&url(&server, "postgres", "sslmode=prefer"), "prefers").expect("it goes on in plain text");
    assert!(!is_encrypted(&server, "prefers"));
}

#[test]
fn a_client_shows_its_certificate() {
    let login = |identity: &Identity| {
        format!(
            "{}&sslcert={}&sslkey={}",
            with_ca("verify-full", &certs().ca),
            identity.certificate.display(),
            identity.key.display()
        )
    };
    let own = certs().client("certified").expect("it is signed");
    open(&url(good(), "certified", &login(&own)), "node").expect("the certificate is enough");
    let none = refusal(&url(good(), "certified", &with_ca("verify-full", &certs().ca)));
    assert_says(&none, &["certificate"]);
    let others = certs().client("somebody").expect("it is signed");
    assert_says(&refusal(&url(good(), "certified", &login(&others))), &["does not let \"certified\" in"]);
    let foreign = certs().foreign_client("certified").expect("it is signed");
    let refused = refusal(&url(good(), "certified", &login(&foreign)));
    assert_says(&refused, &["see that sslcert is there and signed by whom it trusts"]);
}

#[test]
fn files_that_are_missing_or_wrong_are_named() {
    let missing = refusal(&url(good(), "postgres", &with_ca("verify-full", Path::new("/nowhere/ca.pem"))));
    assert_says(&missing, &["sslrootcert=/nowhere/ca.pem", "No such file"]);
    let key = &certs().localhost.key;
    let empty = refusal(&url(good(), "postgres", &with_ca("verify-full", key)));
    assert_says(&empty, &["there is no certificate in it"]);
    let mixed = format!(
        "{}&sslcert={}&sslkey={}",
        with_ca("verify-full", &certs().ca),
        certs().localhost.certificate.display(),
        certs().elsewhere.key.display()
    );
    assert_says(&refusal(&url(good(), "postgres", &mixed)), &["sslkey=", "does not go with sslcert"]);
}

#[test]
fn who_is_not_let_in_is_told_why() {
    let server = good();
    let port = server.address().port();
    let wrong = refusal(&format!("postgres://secretive:wrong@localhost:{port}/postgres"));
    assert_says(&wrong, &["does not let \"secretive\" in", "password authentication failed"]);
    let none = refusal(&url(server, "secretive", ""));
    assert_says(&none, &["does not let \"secretive\" in", "in the URL or in PGPASSWORD"]);
    open(&format!("postgres://secretive:right@localhost:{port}/postgres"), "node").expect("it is right");
    let nobody = refusal(&url(server, "nobody", ""));
    assert_says(&nobody, &["role \"nobody\" does not exist", "CREATE ROLE"]);
    let nowhere = refusal(&format!("postgres://postgres@localhost:{port}/nowhere"));
    assert_says(&nowhere, &["database \"nowhere\" does not exist", "CREATE DATABASE"]);
}

#[test]
fn permissions_that_are_missing_are_named() {
    let server = plain();
    server.query("CREATE ROLE limited LOGIN").expect("the role is made");
    let limited = url(&server, "limited", "");
    assert_says(&refusal(&limited), &["permission denied", "GRANT USAGE, CREATE ON SCHEMA public TO ROLE"]);
    drop(open(&server.url(), "owner").expect("the tables are made"));
    assert_says(
        &refusal(&limited),
        &["permission denied for table", "GRANT SELECT, INSERT, UPDATE, DELETE ON liner_"],
    );
    // What is documented is enough.
    server.query(&grants("public", "limited")).expect("the script runs");
    let mut store = open(&limited, "node").expect("the store opens");
    begin(&mut store);
    (1..6).for_each(|number| persist(&mut store, number));
    drop(store);
    server.query("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC").expect("it is revoked");
    assert_says(&refusal(&limited), &["GRANT CONNECT ON DATABASE \"postgres\" TO ROLE"]);
}

/// A server that lets everybody in and says that it has this version.
fn says_version(version: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it has one").port();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let mut request = [0; 4];
        stream.read_exact(&mut request)?;
        let mut rest = vec![0; u32::from_be_bytes(request) as usize - 4];
        stream.read_exact(&mut rest)?;
        let parameter = format!("server_version\0{version}\0");
        let mut reply = b"R\0\0\0\x08\0\0\0\0S".to_vec();
        reply.extend(u32::try_from(parameter.len() + 4).expect("it is short").to_be_bytes());
        reply.extend(parameter.bytes());
        reply.extend(b"Z\0\0\0\x05I");
        stream.write_all(&reply)?;
        stream.read(&mut request).map(drop)
    });
    port
}

#[test]
fn an_old_server_is_refused() {
    let port = says_version("12.22 (Debian 12.22-1)");
    let refusal = refusal(&format!("postgres://a@127.0.0.1:{port}/d?sslmode=disable"));
    assert_says(&refusal, &["PostgreSQL 12.22 (Debian 12.22-1) is too old: liner needs 13 or a newer one"]);
}

#[test]
fn the_first_server_that_will_do_is_taken() {
    let (standby, primary) = (plain(), plain());
    standby.stop().expect("it stops");
    let down = standby.address();
    std::fs::write(standby.data().join("standby.signal"), "").expect("the data are there");
    let both = format!("postgres://postgres@{down},{}/postgres", primary.address());
    drop(open(&both, "node").expect("the second one is there"));
    standby.restart().expect("it starts again");
    assert_says(&refusal(&both), &["is a standby", "target_session_attrs=read-write"]);
    let writable = format!("{both}?target_session_attrs=read-write");
    open(&writable, "node").expect("the second one can be written");
    let socket = format!(
        "postgres://postgres@/postgres?host={}&port={}&sslmode=require",
        primary.socket_folder().display(),
        primary.address().port()
    );
    open(&socket, "node").expect("it is reached by its socket");
}

#[test]
fn the_class_follows_the_settings() {
    let slack = PostgresOptions { settings: vec!["fsync = off".to_owned()], ..PostgresOptions::default() };
    let slack = Postgres::start(Version::V15, &slack).expect("the server starts");
    for (server, commit, class) in [
        (good(), "on", Class::Power),
        (good(), "local", Class::Power),
        (good(), "remote_write", Class::Power),
        (good(), "off", Class::Ram),
        (&slack, "on", Class::Process),
        (&slack, "off", Class::Ram),
    ] {
        let options = format!("options=-c%20synchronous_commit%3D{commit}");
        let store = open(&url(server, "postgres", &options), "classy").expect("the store opens");
        assert_eq!(store.class(), class, "{commit}");
    }
}
