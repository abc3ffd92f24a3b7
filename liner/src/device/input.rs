//! Where a device's messages come from: this machine, or lines of a file descriptor.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::failure::Failure;
use crate::reading::Machine;

/// What the messages are made of.
#[derive(Debug)]
pub(crate) enum Payloads {
    /// Readings of this machine, as JSON.
    Readings(Machine),
    /// Lines, one message each.
    Lines(Lines),
}

/// Bytes that are read at once.
const CHUNK: usize = 16 * 1024;

/// Lines of a descriptor, read without ever waiting for it.
///
/// The descriptor stays as it is: its mode would change for every program that shares it. So it is read once for each time that
/// the poll says there is something, and the poll is asked anew after that. A file is always ready.
#[derive(Debug)]
pub(crate) struct Lines {
    file: File,
    token: Token,
    buffer: Vec<u8>,
    /// Where the first line that was not taken begins.
    start: usize,
    /// No line ends before this.
    scanned: usize,
    end: bool,
    /// The poll knows nothing of files.
    always_ready: bool,
    ready: bool,
    line_max: usize,
}

impl Lines {
    /// Lines of standard input, of at most `line_max` bytes.
    pub(crate) fn of_stdin(token: Token, line_max: usize) -> Result<Self, Failure> {
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        Ok(Self::new(
            stdin.map_err(|error| Failure::io("cannot open standard input", &error))?,
            token,
            line_max,
        ))
    }

    fn new(descriptor: OwnedFd, token: Token, line_max: usize) -> Self {
        let file = File::from(descriptor);
        Self {
            file,
            token,
            buffer: Vec::new(),
            start: 0,
            scanned: 0,
            end: false,
            always_ready: false,
            ready: false,
            line_max,
        }
    }

    pub(crate) const fn token(&self) -> Token {
        self.token
    }

    pub(crate) fn register(&mut self, registry: &Registry) -> Result<(), Failure> {
        let fd = self.file.as_raw_fd();
        match registry.register(&mut SourceFd(&fd), self.token, Interest::READABLE) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.always_ready = true;
                Ok(())
            }
            Err(error) => Err(Failure::io("cannot wait for standard input", &error)),
        }
    }

    /// The poll has something to say about it.
    pub(crate) const fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Whether a line can be had, or more be read, at once.
    pub(crate) fn is_ready(&self) -> bool {
        let rest = self.buffer.get(self.scanned..).unwrap_or_default();
        self.can_read() || rest.contains(&b'\n') || (self.end && !self.is_over())
    }

    const fn can_read(&self) -> bool {
        !self.end && (self.ready || self.always_ready)
    }

    /// Reads no more, and drops what was not taken.
    pub(crate) fn give_up(&mut self, registry: &Registry) {
        if !self.end && !self.always_ready {
            // If the poll keeps it, a wake-up for nothing is all that comes of it.
            let _ = registry.deregister(&mut SourceFd(&self.file.as_raw_fd()));
        }
        self.end = true;
        self.buffer.clear();
        self.start = 0;
        self.scanned = 0;
    }

    /// Whether every line was taken and no more will come.
    pub(crate) const fn is_over(&self) -> bool {
        self.end && self.start == self.buffer.len()
    }

    /// The next line without its end; take it with [`take`](Self::take). Reads if none is there, and it can be read.
    pub(crate) fn peek(&mut self, registry: &Registry) -> Result<Option<&[u8]>, Failure> {
        while self.line_end().is_none() && self.can_read() {
            self.read(registry)?;
        }
        let Some(end) = self.line_end() else { return Ok(None) };
        Ok(self.buffer.get(self.start..end))
    }

    /// Takes the line that was peeked at.
    pub(crate) fn take(&mut self) {
        if let Some(end) = self.line_end() {
            self.start = (end + 1).min(self.buffer.len());
            self.scanned = self.start;
        }
    }

    fn line_end(&mut self) -> Option<usize> {
        let rest = self.buffer.get(self.scanned..)?;
        if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            self.scanned += at;
            return Some(self.scanned);
        }
        self.scanned = self.buffer.len();
        // The last line may lack its end.
        (self.end && self.start < self.buffer.len()).then_some(self.buffer.len())
    }

    fn read(&mut self, registry: &Registry) -> Result<(), Failure> {
        let failed = |error| Failure::io("cannot read standard input", &error);
        self.buffer.drain(..self.start);
        self.scanned -= self.start;
        self.start = 0;
        if self.buffer.len() > self.line_max {
            return Err(too_long(self.line_max));
        }
        let before = self.buffer.len();
        self.buffer.resize(before + CHUNK, 0);
        let room = self.buffer.get_mut(before..).unwrap_or_default();
        let outcome = self.file.read(room);
        let read = outcome.as_ref().copied().unwrap_or(0);
        self.buffer.truncate(before + read);
        self.ready = false;
        match outcome {
            Ok(0) => self.end = true,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
            Err(error) => return Err(failed(error)),
        }
        let fd = self.file.as_raw_fd();
        if self.always_ready {
            return Ok(());
        }
        if self.end {
            return registry.deregister(&mut SourceFd(&fd)).map_err(failed);
        }
        registry.reregister(&mut SourceFd(&fd), self.token, Interest::READABLE).map_err(failed)
    }
}

/// A line that cannot be a message.
pub(crate) fn too_long(max: usize) -> Failure {
    Failure::Work(format!("a line of standard input has more than {max} bytes: send it in pieces"))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use mio::{Events, Poll};

    use super::*;

    const TOKEN: Token = Token(1);

    fn all(lines: &mut Lines, poll: &mut Poll) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        let mut events = Events::with_capacity(4);
        while !lines.is_over() {
            while let Some(line) = lines.peek(poll.registry()).unwrap() {
                taken.push(line.to_vec());
                lines.take();
            }
            if lines.is_over() {
                break;
            }
            poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
            assert!(!events.is_empty(), "nothing came");
            lines.set_ready();
        }
        taken
    }

    #[test]
    fn lines_of_a_pipe_are_taken_one_by_one() {
        let mut poll = Poll::new().unwrap();
        let (read, mut write) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(read.into(), TOKEN, 100);
        lines.register(poll.registry()).unwrap();
        assert!(lines.peek(poll.registry()).unwrap().is_none());
        write.write_all(b"a\n\nb c").unwrap();
        drop(write);
        assert_eq!(all(&mut lines, &mut poll), [&b"a"[..], b"", b"b c"]);
    }

    #[test]
    fn a_line_that_was_read_is_ready_although_nothing_more_comes() {
        let poll = Poll::new().unwrap();
        let (read, mut write) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(read.into(), TOKEN, 100);
        lines.register(poll.registry()).unwrap();
        write.write_all(b"a\nb\nc").unwrap();
        lines.set_ready();
        assert_eq!(lines.peek(poll.registry()).unwrap(), Some(&b"a"[..]));
        lines.take();
        assert!(lines.is_ready());
        assert_eq!(lines.peek(poll.registry()).unwrap(), Some(&b"b"[..]));
        lines.take();
        assert!(!lines.is_ready(), "half a line is none");
        drop(write);
        lines.set_ready();
        assert_eq!(lines.peek(poll.registry()).unwrap(), Some(&b"c"[..]));
        assert!(lines.is_ready());
        lines.take();
        assert!(!lines.is_ready() && lines.is_over());
    }

    #[test]
    fn what_is_given_up_is_over() {
        let poll = Poll::new().unwrap();
        let (read, mut write) = UnixStream::pair().unwrap();
        let mut lines = Lines::new(read.into(), TOKEN, 100);
        lines.register(poll.registry()).unwrap();
        write.write_all(b"a\nb\nc").unwrap();
        lines.set_ready();
        assert!(lines.peek(poll.registry()).unwrap().is_some());
        lines.give_up(poll.registry());
        assert!(lines.is_over() && !lines.is_ready());
        assert_eq!(lines.peek(poll.registry()).unwrap(), None);
    }

    #[test]
    fn more_than_a_chunk_is_read_to_its_end() {
        let mut poll = Poll::new().unwrap();
        let (read, mut write) = UnixStream::pair().unwrap();
        let writer = std::thread::spawn(move || {
            for n in 0..20_000 {
                writeln!(write, "{n}").unwrap();
            }
        });
        let mut lines = Lines::new(read.into(), TOKEN, 100);
        lines.register(poll.registry()).unwrap();
        let taken = all(&mut lines, &mut poll);
        writer.join().unwrap();
        assert_eq!(taken.len(), 20_000);
        assert!(taken.iter().enumerate().all(|(n, line)| line == n.to_string().as_bytes()));
    }

    #[test]
    fn a_file_needs_no_poll() {
        let mut poll = Poll::new().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"x\ny\n").unwrap();
        file.rewind().unwrap();
        let mut lines = Lines::new(file.into(), TOKEN, 100);
        lines.register(poll.registry()).unwrap();
        assert_eq!(all(&mut lines, &mut poll), [b"x", b"y"]);
    }

    #[test]
    fn a_line_that_never_ends_is_refused() {
        let poll = Poll::new().unwrap();
        let mut lines = Lines::new(File::open("/dev/zero").unwrap().into(), TOKEN, 100);
        lines.register(poll.registry()).unwrap();
        lines.set_ready();
        assert!(
            lines.peek(poll.registry()).is_err() || {
                lines.set_ready();
                lines.peek(poll.registry()).is_err()
            }
        );
    }
}
