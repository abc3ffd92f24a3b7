//! A serial port: opened for this process alone, set up, read and written without ever waiting.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{
    ControlModes, InputModes, OptionalActions, QueueSelector, SpecialCodeIndex, ioctl_tiocexcl, tcflush,
    tcgetattr, tcsetattr,
};

use super::url::{Parity, SerialSettings};

/// An open serial port that no other process has, in raw mode. Reading and writing never wait.
///
/// The kernel would take up to 4 KiB to send, which is a third of a second at 115,200 baud: what is written then would wait
/// behind it. So a write is refused with [`ErrorKind::WouldBlock`] while 256 bytes or more are unsent, which is where the
/// kernel calls a port writable again, and takes 50 ms of the line's time or 512 bytes, whichever is more.
#[derive(Debug)]
pub struct SerialPort {
    file: File,
    /// The most bytes of one write.
    piece: usize,
    hardware_flow: bool,
}

/// Why a port cannot be opened now. Each says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SerialError {
    /// It does not exist, or nothing is plugged in. It may come.
    #[error("{} is not there: it is opened as soon as it is", .0.display())]
    Away(PathBuf),
    /// Another process has it.
    #[error("{} is in use by another program: stop that one", .0.display())]
    Busy(PathBuf),
    /// This process may not open it.
    #[error(
        "there is no permission to open {}: add the user to the group that owns it, which is often `dialout`", .0.display()
    )]
    Permission(PathBuf),
    /// It is something else.
    #[error("{} is no serial port: name one, for instance /dev/ttyUSB0", .0.display())]
    NoPort(PathBuf),
    /// It cannot be set up as wanted.
    #[error("{} cannot do {what}: choose what the port and the device can do", path.display())]
    Unsupported {
        /// The port.
        path: PathBuf,
        /// What it cannot do, as an option of the URL.
        what: String,
    },
    /// Something else.
    #[error("{} cannot be opened, look after the port or name another one: {source}", path.display())]
    Io {
        /// The port.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl SerialError {
    /// Whether the port is not there, so that it can only be waited for.
    pub const fn is_away(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

impl SerialPort {
    /// Opens a port and sets it up.
    ///
    /// Another process that has it locked, or opened it exclusively, is respected; this one does both. A pseudo-terminal is locked
    /// only.
    ///
    /// # Errors
    /// See [`SerialError`]. Nothing is open then.
    pub fn open(settings: &SerialSettings) -> Result<Self, SerialError> {
        let path = &settings.path;
        let failed = |error: Errno| classify(path, error);
        // It becomes nobody's controlling terminal, and a carrier is not waited for.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(failed)?);
        // A terminal's own exclusive mode does not keep root out; the lock does not keep out who does not ask for it.
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(SerialError::Busy(path.clone())),
            // There are file systems without locks.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        configure(&file, settings)?;
        let device = path.canonicalize().unwrap_or_default();
        // One end of a pseudo-terminal would stay exclusive for as long as the other end is open, whoever has closed it.
        if !device.starts_with("/dev/pts") {
            ioctl_tiocexcl(&file).map_err(failed)?;
        }
        hasten(&device);
        let baud = settings.baud as usize;
        // On the slowest lines no piece takes longer than 5 s: a write that makes no progress for 10 s counts as broken.
        let piece = (baud / 200).max(512).min(baud / 2);
        Ok(Self { file, piece, hardware_flow: settings.hardware_flow })
    }

    /// Whether the kernel has less than 256 bytes to send.
    fn has_room(&self) -> io::Result<bool> {
        let mut ready = [PollFd::new(&self.file, PollFlags::OUT)];
        poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        // A port that is gone counts as well: the write says so.
        Ok(ready.iter().any(|port| !port.revents().is_empty()))
    }
}

impl Read for SerialPort {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Write for SerialPort {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.has_room()? {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.file.write(bytes.get(..self.piece).unwrap_or(bytes))
    }

    /// Does nothing: nothing waits outside the kernel.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for SerialPort {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.raw()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.raw()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.raw()).deregister(registry)
    }
}

impl SerialPort {
    fn raw(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        // Closing waits until all is sent, for up to 30 s if the other side holds it up.
        if self.hardware_flow || !self.has_room().unwrap_or(false) {
            let _ = tcflush(&self.file, QueueSelector::OFlush);
        }
    }
}

fn classify(path: &Path, error: Errno) -> SerialError {
    let path = path.to_owned();
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::NODEV | Errno::IO => SerialError::Away(path),
        Errno::BUSY => SerialError::Busy(path),
        Errno::ACCESS | Errno::PERM => SerialError::Permission(path),
        Errno::NOTTY | Errno::ISDIR => SerialError::NoPort(path),
        _ => SerialError::Io { path, source: error.into() },
    }
}

/// Eight bits, raw, at the wanted rate, whatever the modem lines say.
fn configure(file: &File, settings: &SerialSettings) -> Result<(), SerialError> {
    let path = &settings.path;
    let failed = |error: Errno| classify(path, error);
    let unsupported = |what: String| SerialError::Unsupported { path: path.clone(), what };
    let mut termios = tcgetattr(file).map_err(failed)?;
    termios.make_raw();
    termios.input_modes.remove(InputModes::IXOFF | InputModes::IXANY | InputModes::INPCK);
    termios.input_modes.insert(InputModes::IGNBRK | InputModes::IGNPAR);
    let (parity, parity_modes) = match settings.parity {
        Parity::None => ("parity=none", ControlModes::empty()),
        Parity::Even => ("parity=even", ControlModes::PARENB),
        Parity::Odd => ("parity=odd", ControlModes::PARENB | ControlModes::PARODD),
    };
    if settings.parity != Parity::None {
        termios.input_modes.insert(InputModes::INPCK);
    }
    let choices = [
        (parity, ControlModes::PARENB | ControlModes::PARODD, parity_modes),
        choice("stop=2", "stop=1", ControlModes::CSTOPB, settings.two_stop_bits),
        choice("flow=hardware", "flow=none", ControlModes::CRTSCTS, settings.hardware_flow),
        ("data=8", ControlModes::CSIZE, ControlModes::CS8),
    ];
    for (_, all, wanted) in choices {
        termios.control_modes.remove(all);
        termios.control_modes.insert(wanted);
    }
    termios.control_modes.insert(ControlModes::CREAD | ControlModes::CLOCAL);
    termios.special_codes[SpecialCodeIndex::VMIN] = 1;
    termios.special_codes[SpecialCodeIndex::VTIME] = 0;
    let baud = settings.baud;
    let no_such_rate = || unsupported(format!("baud={baud}"));
    termios.set_speed(baud).map_err(|_| no_such_rate())?;
    match tcsetattr(file, OptionalActions::Now, &termios) {
        Err(Errno::INVAL) => return Err(no_such_rate()),
        outcome => outcome.map_err(failed)?,
    }
    // A driver does what it can of what it was asked for, and calls that a success.
    let applied = tcgetattr(file).map_err(failed)?;
    if let Some((what, ..)) =
        choices.iter().find(|(_, all, wanted)| applied.control_modes.intersection(*all) != *wanted)
    {
        return Err(unsupported((*what).to_owned()));
    }
    // Clocks are divided by whole numbers. Receivers stand a deviation of a few per cent.
    if applied.output_speed().abs_diff(baud) > baud / 40 {
        return Err(no_such_rate());
    }
    Ok(())
}

const fn choice(
    yes: &'static str,
    no: &'static str,
    mode: ControlModes,
    chosen: bool,
) -> (&'static str, ControlModes, ControlModes) {
    if chosen { (yes, mode, mode) } else { (no, mode, ControlModes::empty()) }
}

/// Lets a USB adapter of FTDI hand bytes over after 1 ms instead of 16, where this process may say so. It is what the driver
/// does for `ASYNC_LOW_LATENCY` too; the call for that flag has no safe form, and other drivers have no such delay.
fn hasten(device: &Path) {
    let Some(name) = device.file_name() else { return };
    let timer = Path::new("/sys/class/tty").join(name).join("device/latency_timer");
    if let Ok(mut timer) = OpenOptions::new().write(true).open(timer) {
        // Refused, the port works all the same.
        let _ = timer.write_all(b"1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_port_closed_is_told_with_what_to_do() {
        for (error, words) in [
            (Errno::NOENT, "/dev/p is not there"),
            (Errno::NODEV, "/dev/p is not there"),
            (Errno::IO, "/dev/p is not there"),
            (Errno::BUSY, "/dev/p is in use by another program: stop that one"),
            (Errno::ACCESS, "no permission to open /dev/p: add the user"),
            (Errno::NOTTY, "/dev/p is no serial port: name one"),
            (Errno::NOMEM, "/dev/p cannot be opened"),
        ] {
            let told = classify(Path::new("/dev/p"), error).to_string();
            assert!(told.contains(words), "{told}");
        }
    }
}
