//! Limits and times, with the defaults that the documentation states.

use core::time::Duration;

/// What a node lets one peer use of it, told to the peer in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame taken, seal included, in bytes.
    pub frame_max: u32,
    /// The largest message taken, its record's head included, in bytes. A message may be longer than a frame: it travels in
    /// pieces then, and takes memory while it arrives.
    pub message_max: u32,
    /// Messages that may be received and not yet committed.
    pub window_messages: u32,
    /// Bytes of records that may be received and not yet committed. One whole message always may.
    pub window_bytes: u32,
    /// Topic numbers of a peer that are kept in a session; beyond them topics travel as text.
    pub bindings_max: u32,
}

impl Limits {
    /// Makes the window no larger than what may be kept in all. One whole message always has room.
    #[cfg(feature = "alloc")]
    pub(crate) fn fit_window(&mut self, messages: u64, bytes: u64) {
        let fit = |most: u32, quota: u64| most.min(u32::try_from(quota).unwrap_or(u32::MAX).max(1));
        self.window_messages = fit(self.window_messages, messages);
        self.window_bytes = fit(self.window_bytes, bytes);
    }

    /// A host: payloads of 1 MiB in frames of one segment and its head, a window of 65,536 messages and 16 MiB.
    pub const HOST: Self = Self {
        frame_max: 64 * 1024 + 64,
        message_max: 1024 * 1024 + HEAD_BYTES_MAX,
        window_messages: 65_536,
        window_bytes: 16 * 1024 * 1024,
        bindings_max: 4096,
    };
}

/// When a node loses patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A connection whose handshake is not finished by then is closed.
    pub handshake: Duration,
    /// A connection whose handshake is not finished gives way to a new one, if there are too many, after this long and not before.
    pub handshake_min: Duration,
    /// A link that has been silent for this long sends its marks.
    pub keep_alive: Duration,
    /// A link from which nothing was heard for this long is dead.
    pub peer_silent: Duration,
    /// Messages in flight that are not received for this long reset the session.
    pub stall: Duration,
    /// In the asynchronous mode, what is not acknowledged by then is written to the store.
    pub write_behind: Duration,
    /// A store that failed is asked again after this long.
    pub store_retry: Duration,
    /// How long a write may make no progress.
    pub write_stall: Duration,
    /// How long a peer has to answer a probe before another instance of its name takes its place.
    pub probe: Duration,
}

impl Timing {
    /// The documented defaults.
    pub const DEFAULT: Self = Self {
        handshake: Duration::from_secs(3),
        handshake_min: Duration::from_millis(100),
        keep_alive: Duration::from_secs(5),
        peer_silent: Duration::from_secs(15),
        stall: Duration::from_secs(30),
        write_behind: Duration::from_millis(50),
        store_retry: Duration::from_millis(200),
        write_stall: Duration::from_secs(10),
        probe: Duration::from_millis(500),
    };
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A line that loses and damages bytes: a serial port, or a bridge to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineConfig {
    /// Its speed, in bits a second, at ten bits to a byte. If it is known, no more is given to the line than it can take soon, and
    /// nobody waits for an acknowledgement while the line is still sending.
    pub baud: Option<u32>,
    /// One side at a time may send, as on RS-485 with two wires: each frame waits for its acknowledgement.
    pub half_duplex: bool,
}

impl LineConfig {
    /// How long the line takes for so many bytes; no time if its speed is not known.
    pub const fn time_for(&self, bytes: usize) -> Duration {
        Duration::from_micros(self.micros_for(bytes) as u64)
    }

    /// The same in microseconds; at most 4 minutes.
    #[cfg_attr(target_os = "none", inline(never))]
    pub const fn micros_for(&self, bytes: usize) -> u32 {
        match self.baud {
            Some(baud) if baud > 0 => {
                // Divided in 32 bits: a small processor has no instruction for more.
                let sixteenths = 160_000_000 / baud;
                (bytes as u32).saturating_mul(sixteenths) >> 4
            }
            _ => 0,
        }
    }
}

/// The most bytes of a record that are not its payload: a topic and a name of 255 bytes, numbers and times. A gateway adds some of
/// them.
pub const HEAD_BYTES_MAX: u32 = 2 * (255 + 2) + 64;

/// Numbers reserved at a time by the asynchronous mode.
pub const RESERVATION: u64 = 65_536;
