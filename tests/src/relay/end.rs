//! One end of the relayed line: a pseudo-terminal that a program opens by its path, or a TCP connection.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// How often it is looked whether a program has opened its terminal, or whether an address is there again.
const LOOK_EVERY: Duration = Duration::from_millis(2);
const DIAL_EVERY: Duration = Duration::from_millis(50);
/// A dialled address answers within this, or is away.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// What a program finds at an end.
#[derive(Clone, Debug)]
pub enum Port {
    /// A pseudo-terminal behind this symbolic link, as a serial port behind `/dev/serial/by-id`. It can be removed and
    /// brought back.
    Pty(PathBuf),
    /// A listener on this address; port 0 for a free one. One connection at a time.
    Listen(SocketAddr),
    /// A program that listens on this address, and is dialled.
    Dial(SocketAddr),
}

/// An end with its state.
#[derive(Debug)]
pub(super) enum End {
    Pty {
        link: PathBuf,
        /// Nothing while the port is removed.
        master: Option<OwnedFd>,
        /// A program has it open.
        open: bool,
    },
    Listen {
        listener: TcpListener,
        stream: Option<TcpStream>,
    },
    Dial {
        address: SocketAddr,
        stream: Option<TcpStream>,
        next: Duration,
    },
}

/// What a read or a write came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    Bytes(usize),
    /// Not now.
    None,
    /// The other side is gone.
    Gone,
}

impl End {
    pub(super) fn new(port: Port) -> io::Result<Self> {
        Ok(match port {
            Port::Pty(link) => {
                let master = Some(make_pty(&link)?);
                Self::Pty { link, master, open: false }
            }
            Port::Listen(address) => {
                let listener = TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Self::Listen { listener, stream: None }
            }
            Port::Dial(address) => Self::Dial { address, stream: None, next: Duration::ZERO },
        })
    }

    pub(super) const fn is_tcp(&self) -> bool {
        matches!(self, Self::Listen { .. } | Self::Dial { .. })
    }

    pub(super) const fn is_up(&self) -> bool {
        match self {
            Self::Pty { open, .. } => *open,
            Self::Listen { stream, .. } | Self::Dial { stream, .. } => stream.is_some(),
        }
    }

    /// Where a listening end listens.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Listen { listener, .. } => listener.local_addr().ok(),
            Self::Pty { .. } | Self::Dial { .. } => None,
        }
    }

    /// What to wait for data on, if it is up.
    pub(super) fn data_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Pty { master, open: true, .. } => master.as_ref().map(|master| master.as_fd()),
            Self::Pty { .. } => None,
            Self::Listen { stream, .. } | Self::Dial { stream, .. } => stream.as_ref().map(|s| s.as_fd()),
        }
    }

    /// What to wait for somebody new on.
    pub(super) fn accept_fd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Listen { listener, stream: None } => Some(listener.as_fd()),
            Self::Pty { .. } | Self::Listen { .. } | Self::Dial { .. } => None,
        }
    }

    /// How long until it is to be looked at, although nothing can be waited for.
    pub(super) fn left(&self, now: Duration) -> Option<Duration> {
        match self {
            Self::Pty { master: Some(_), open: false, .. } => Some(LOOK_EVERY),
            Self::Dial { stream: None, next, .. } => Some(next.saturating_sub(now)),
            Self::Pty { .. } | Self::Listen { .. } | Self::Dial { .. } => None,
        }
    }

    /// Comes up if somebody is there now. Says whether it did.
    pub(super) fn come_up(&mut self, now: Duration) -> io::Result<bool> {
        match self {
            Self::Pty { master: Some(master), open, .. } if !*open && !is_hung_up(master)? => {
                // What is passed on from now on would come back as an echo, until the program has set the modes itself.
                set_raw(master)?;
                *open = true;
                Ok(true)
            }
            Self::Listen { listener, stream } if stream.is_none() => match listener.accept() {
                Ok((accepted, _)) => {
                    *stream = Some(prepared(accepted)?);
                    Ok(true)
                }
                Err(_) => Ok(false),
            },
            Self::Dial { stream: None, next, .. } if *next <= now => {
                *next = now + DIAL_EVERY;
                self.dial()
            }
            Self::Pty { .. } | Self::Listen { .. } | Self::Dial { .. } => Ok(false),
        }
    }

    /// Dials whatever the time. Says whether somebody answered.
    pub(super) fn dial(&mut self) -> io::Result<bool> {
        let Self::Dial { address, stream, .. } = self else { return Ok(false) };
        if let Ok(dialled) = TcpStream::connect_timeout(address, DIAL_PATIENCE) {
            *stream = Some(prepared(dialled)?);
        }
        Ok(stream.is_some())
    }

    /// The other side is gone, or is to be: a connection ends with a reset.
    pub(super) fn go_down(&mut self) {
        match self {
            // The terminal stays for the next program.
            Self::Pty { open, .. } => *open = false,
            Self::Listen { stream, .. } | Self::Dial { stream, .. } => {
                if let Some(stream) = stream.take() {
                    // If it fails, the connection is over already.
                    let _ = rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                }
            }
        }
    }

    /// Takes the port away, as if its plug had been pulled.
    pub(super) fn remove(&mut self) -> io::Result<()> {
        self.go_down();
        if let Self::Pty { link, master, .. } = self {
            std::fs::remove_file(&*link)?;
            *master = None;
        }
        Ok(())
    }

    /// Brings a port back that was taken away.
    pub(super) fn bring_back(&mut self) -> io::Result<()> {
        if let Self::Pty { link, master, .. } = self
            && master.is_none()
        {
            *master = Some(make_pty(link)?);
        }
        Ok(())
    }

    pub(super) fn read(&mut self, into: &mut [u8]) -> Moved {
        moved(match self {
            Self::Pty { master: Some(master), .. } => rustix::io::read(&*master, into).map_err(Into::into),
            Self::Pty { .. } => return Moved::Gone,
            Self::Listen { stream, .. } | Self::Dial { stream, .. } => match stream {
                Some(stream) => stream.read(into),
                None => return Moved::Gone,
            },
        })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Moved {
        moved(match self {
            Self::Pty { master: Some(master), .. } => rustix::io::write(&*master, bytes).map_err(Into::into),
            Self::Pty { .. } => return Moved::Gone,
            Self::Listen { stream, .. } | Self::Dial { stream, .. } => match stream {
                Some(stream) => stream.write(bytes),
                None => return Moved::Gone,
            },
        })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Self::Pty { link, master: Some(_), .. } = self {
            // A link that leads nowhere would be all that is left of it.
            let _ = std::fs::remove_file(link);
        }
    }
}

fn moved(result: io::Result<usize>) -> Moved {
    match result {
        Ok(0) => Moved::Gone,
        Ok(bytes) => Moved::Bytes(bytes),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
            Moved::None
        }
        Err(_) => Moved::Gone,
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A new pseudo-terminal with the link to it. Until a program opens it, it counts as hung up.
fn make_pty(link: &Path) -> io::Result<OwnedFd> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&master, true)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let path = ptsname(&master, Vec::new())?;
    // The kernel tells of no hang-up before the first program was there.
    let slave = rustix::fs::open(&path, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    drop(slave);
    std::os::unix::fs::symlink(path.to_string_lossy().as_ref(), link)?;
    Ok(master)
}

fn set_raw(master: &OwnedFd) -> io::Result<()> {
    let mut modes = tcgetattr(master)?;
    modes.make_raw();
    Ok(tcsetattr(master, OptionalActions::Now, &modes)?)
}

/// No program has the terminal open.
fn is_hung_up(master: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(master, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    Ok(fds.iter().any(|fd| fd.revents().contains(PollFlags::HUP)))
}
