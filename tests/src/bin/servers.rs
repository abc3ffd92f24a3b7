//! Servers to try things on by hand: the same that the tests start.

use std::fmt;
use std::io::{self, Read as _, Write};
use std::process::ExitCode;

use liner_tests::servers::{PgBouncer, Pooling, Postgres, PostgresOptions, Redis, RedisOptions, Version};

const USAGE: &str = "\
servers NAME...     starts them, prints what each is reached by and its processes, and kills them at the end of standard input

A name is redis, postgres-13, postgres-15, postgres-18 or pgbouncer, which stands before a PostgreSQL 15 of its own.
";

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let servers: Option<Vec<Kind>> = names.iter().map(|name| kind(name)).collect();
    let Some(kinds) = servers.filter(|servers| !servers.is_empty()) else {
        return tell(USAGE.trim_end(), 2);
    };
    match work(&kinds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => tell(error, 1),
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Redis,
    Postgres(Version),
    PgBouncer,
}

/// Held until they are to end.
#[expect(dead_code, reason = "they are held, not used")]
enum Server {
    Redis(Redis),
    Postgres(Postgres),
    PgBouncer(PgBouncer, Postgres),
}

fn kind(name: &str) -> Option<Kind> {
    let postgres = |version: &Version| name == format!("postgres-{}", version.number());
    match name {
        "redis" => Some(Kind::Redis),
        "pgbouncer" => Some(Kind::PgBouncer),
        _ => Version::ALL.into_iter().find(postgres).map(Kind::Postgres),
    }
}

fn work(kinds: &[Kind]) -> io::Result<()> {
    let mut servers = Vec::new();
    for kind in kinds {
        servers.push(start(*kind)?);
    }
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn start(kind: Kind) -> io::Result<Server> {
    match kind {
        Kind::Redis => {
            let redis = Redis::start(&RedisOptions::default())?;
            show(&redis.url(), &redis.processes())?;
            Ok(Server::Redis(redis))
        }
        Kind::Postgres(version) => {
            let postgres = Postgres::start(version, &PostgresOptions::default())?;
            show(&postgres.url(), &postgres.processes())?;
            Ok(Server::Postgres(postgres))
        }
        Kind::PgBouncer => {
            let postgres = Postgres::start(Version::V15, &PostgresOptions::default())?;
            let bouncer = PgBouncer::start(&postgres, Pooling::Transaction)?;
            let processes: Vec<u32> = bouncer.processes().into_iter().chain(postgres.processes()).collect();
            show(&bouncer.url(), &processes)?;
            Ok(Server::PgBouncer(bouncer, postgres))
        }
    }
}

fn show(url: &str, processes: &[u32]) -> io::Result<()> {
    let numbers: Vec<String> = processes.iter().map(u32::to_string).collect();
    let mut out = io::stdout().lock();
    writeln!(out, "{url} {}", numbers.join(" "))?;
    out.flush()
}

fn tell(what: impl fmt::Display, code: u8) -> ExitCode {
    // Nobody is left to tell it to if this fails.
    let _ = writeln!(io::stderr(), "{what}");
    ExitCode::from(code)
}
