//! As much of PostgreSQL's protocol as it takes to be let in where nobody asks for a password, and to run statements.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::net::TcpStream;

use super::server::PATIENCE;

const VERSION: i32 = 3 << 16;
const SSL_REQUEST: i32 = 80_877_103;

/// Asks for encryption and, on another connection, to be let in without; says what came first of each answer. `S` or `N`, and `R` for
/// a request to authenticate or `E` for a refusal.
///
/// # Errors
/// If the server is not reached or goes away.
pub fn ping(address: SocketAddr, user: &str, database: &str) -> io::Result<[u8; 2]> {
    let mut stream = connect(address)?;
    stream.write_all(&message(None, &SSL_REQUEST.to_be_bytes())?)?;
    let mut encryption = [0];
    stream.read_exact(&mut encryption)?;
    let mut stream = connect(address)?;
    stream.write_all(&startup(user, database)?)?;
    let (kind, _) = read(&mut stream)?;
    let [encryption] = encryption;
    Ok([encryption, kind])
}

fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Runs statements by the simple protocol, and returns the rows of all of them as text.
pub(super) fn query(
    mut stream: impl Read + Write,
    user: &str,
    database: &str,
    statements: &str,
) -> io::Result<Vec<Vec<Option<String>>>> {
    stream.write_all(&startup(user, database)?)?;
    until_ready(&mut stream)?;
    stream.write_all(&message(Some(b'Q'), format!("{statements}\0").as_bytes())?)?;
    let rows = until_ready(&mut stream)?;
    stream.write_all(&message(Some(b'X'), &[])?)?;
    Ok(rows)
}

fn startup(user: &str, database: &str) -> io::Result<Vec<u8>> {
    let mut body = VERSION.to_be_bytes().to_vec();
    body.extend_from_slice(format!("user\0{user}\0database\0{database}\0\0").as_bytes());
    message(None, &body)
}

fn message(kind: Option<u8>, body: &[u8]) -> io::Result<Vec<u8>> {
    let len = i32::try_from(body.len() + 4).map_err(io::Error::other)?;
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(body);
    Ok(message)
}

fn read(stream: &mut impl Read) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    stream.read_exact(&mut head)?;
    let [kind, len @ ..] = head;
    let len = u32::from_be_bytes(len).saturating_sub(4);
    let mut body = Vec::new();
    stream.take(len.into()).read_to_end(&mut body)?;
    Ok((kind, body))
}

fn until_ready(stream: &mut impl Read) -> io::Result<Vec<Vec<Option<String>>>> {
    let mut rows = Vec::new();
    let mut refused = None;
    loop {
        let (kind, body) = read(stream)?;
        match kind {
            b'D' => rows.push(row(&body)?),
            // One that ends the connection is not followed by anything.
            b'E' if body.windows(6).any(|field| field == b"SFATAL") => return Err(refusal(&body)),
            b'E' => refused = Some(refusal(&body)),
            b'Z' => return refused.map_or(Ok(rows), Err),
            _ => {}
        }
    }
}

/// The fields of a refusal: severity, code, sentence and the rest.
fn refusal(body: &[u8]) -> io::Error {
    let fields = body.split(|byte| *byte == 0).filter_map(|field| field.split_first());
    let told = fields.filter(|(kind, _)| matches!(kind, b'S' | b'C' | b'M' | b'D'));
    let words: Vec<_> = told.map(|(_, text)| String::from_utf8_lossy(text)).collect();
    io::Error::other(words.join(" "))
}

fn row(mut body: &[u8]) -> io::Result<Vec<Option<String>>> {
    let mut count = [0; 2];
    body.read_exact(&mut count)?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(count) {
        let mut len = [0; 4];
        body.read_exact(&mut len)?;
        let Ok(len) = usize::try_from(i32::from_be_bytes(len)) else {
            columns.push(None);
            continue;
        };
        let mut value = vec![0; len];
        body.read_exact(&mut value)?;
        columns.push(Some(String::from_utf8_lossy(&value).into_owned()));
    }
    Ok(columns)
}
