//! Free ports of the loopback.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

const LOWEST: u16 = 10_000;
/// What Linux gives to clients starts here if nobody changed it.
const USUAL_LOWEST_OF_CLIENTS: u16 = 32_768;
const TRIES: u16 = 1_000;

/// A port for TCP that no other server of a test gets, whatever process it is in, as long as this lives: also not while the server is
/// down. So a server comes back on the port it had.
///
/// The claim is the UDP port of the same number, which the kernel takes back from a process that is killed. It is none of those that
/// the kernel gives to clients: else a client that dials a server that is down can be given the server's port, and connect to itself.
#[derive(Debug)]
pub(super) struct Port {
    claim: UdpSocket,
    number: u16,
}

impl Port {
    pub(super) fn claim() -> io::Result<Self> {
        let span = lowest_of_clients().saturating_sub(LOWEST).max(1);
        let start = RandomState::new().hash_one(()) % u64::from(span);
        let start = u16::try_from(start).unwrap_or(0);
        for step in 0..TRIES {
            let number = LOWEST + (start + step) % span;
            let Ok(claim) = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)) else { continue };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { claim, number });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no port free from {} on", LOWEST + start)))
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn address(&self) -> SocketAddr {
        debug_assert!(self.claim.local_addr().is_ok_and(|address| address.port() == self.number));
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

fn lowest_of_clients() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|word| word.parse().ok());
    // Where clients are given nearly all of them, some must do.
    lowest.filter(|lowest| *lowest > LOWEST + TRIES).unwrap_or(USUAL_LOWEST_OF_CLIENTS)
}
