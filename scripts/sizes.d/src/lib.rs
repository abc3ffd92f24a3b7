//! The main loops that are weighed. They run nowhere: what matters is that the compiler can leave nothing of them out.

#![no_std]

mod memory;

use core::hint::black_box;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use liner_proto::endpoint::{AssignedEndpoint, DeviceConfig, Endpoint, Event, StoredEndpoint, TopicIndex};
use liner_proto::id::Class;
use liner_proto::pump::{self, Overflow, WithStore};
use liner_proto::store::{RamStore, Store};
use liner_proto::time::Instant;

/// Bytes of the buffers, which are the caller's choice and not weighed.
pub const QUEUE: usize = 512;
pub const FRAME: usize = 256;
pub const STORE: usize = 512;
/// What `turn` writes into: whole frames, and room for the largest message.
const SCRATCH: usize = 320;
const RECEIVED: usize = 64;

/// A device's end of a line. Messages of up to `MESSAGE` bytes go in pieces.
pub type Device<const MESSAGE: usize> = Endpoint<'static, QUEUE, FRAME, MESSAGE>;

/// The same without a random source.
pub type AssignedDevice<const MESSAGE: usize> = AssignedEndpoint<'static, QUEUE, FRAME, MESSAGE>;

/// Registers of a peripheral, as far as the compiler knows: what is written leaves, what is read may be anything.
#[repr(C)]
struct Board {
    data: AtomicU32,
    status: AtomicU32,
    ticks: AtomicU32,
    seed: AtomicU32,
    button: AtomicU32,
}

#[used]
#[link_section = ".registers"]
static BOARD: Board = Board {
    data: AtomicU32::new(0),
    status: AtomicU32::new(0),
    ticks: AtomicU32::new(0),
    seed: AtomicU32::new(0),
    button: AtomicU32::new(0),
};

impl Board {
    fn here() -> &'static Self {
        black_box(&BOARD)
    }

    fn now() -> Instant {
        let here = Self::here();
        Instant::from_micros(u64::from(here.ticks.load(Relaxed)) << 32 | u64::from(here.ticks.load(Relaxed)))
    }

    fn seed() -> u64 {
        let low = Self::here().seed.load(Relaxed);
        u64::from(low) << 32 | u64::from(Self::here().seed.load(Relaxed))
    }
}

/// What a driver has put into `bytes`, and how much of it, may be anything: the driver is not weighed.
fn receive(bytes: &mut [u8]) -> &[u8] {
    black_box(bytes)
}

fn transmit(bytes: &[u8]) {
    black_box(bytes);
}

/// Somebody looks at all of it.
fn heard(event: Event<'_>) {
    black_box(event);
}

fn config() -> DeviceConfig<'static> {
    DeviceConfig::new("sensor", &["air", "door"], [Board::seed(), Board::seed()])
}

fn reading() -> [u8; 4] {
    Board::here().data.load(Relaxed).to_le_bytes()
}

/// Sends a reading whenever a button says so, and takes what comes.
pub fn plain() -> ! {
    let mut endpoint = Device::<0>::new(config(), Board::now());
    let (mut scratch, mut received) = ([0; SCRATCH], [0; RECEIVED]);
    loop {
        let button = Board::here().button.load(Relaxed);
        if button != 0 {
            let topic = TopicIndex(button as u16);
            let sent = pump::send(&mut endpoint, Board::now(), (topic, &reading()), Overflow::Refuse);
            Board::here().data.store(u32::from(sent.is_ok()), Relaxed);
        }
        let bytes = receive(&mut received);
        let (out, _) = pump::turn(&mut endpoint, Board::now(), bytes, &mut scratch, heard);
        transmit(out);
    }
}

/// The same with messages in pieces, a queue that drops its oldest, a clock to wake up by, and an end.
pub fn everything<const MESSAGE: usize>() -> ! {
    let mut config = config();
    config.accept_weak_acks = Board::here().button.load(Relaxed) == 3;
    config.line.half_duplex = Board::here().button.load(Relaxed) == 5;
    config.line.baud = Some(Board::here().button.load(Relaxed));
    let mut endpoint = AssignedDevice::<MESSAGE>::new(config, Board::now());
    let (mut scratch, mut received) = ([0; SCRATCH], [0; RECEIVED]);
    loop {
        let button = Board::here().button.load(Relaxed);
        match button {
            0 => {}
            1 => endpoint.close(Board::now()),
            2 => {
                endpoint.drop_oldest();
            }
            _ => {
                let message = (TopicIndex(button as u16), &reading()[..]);
                let overflow = if button & 4 == 0 { Overflow::Refuse } else { Overflow::DropOldest };
                let sent = pump::send(&mut endpoint, Board::now(), message, overflow);
                Board::here().data.store(sent.map_or(0, |number| number as u32), Relaxed);
            }
        }
        let bytes = receive(&mut received);
        let (out, _) = pump::turn(&mut endpoint, Board::now(), bytes, &mut scratch, heard);
        transmit(out);
        let stats = endpoint.line_stats();
        Board::here().data.store(stats.seal_errors + stats.retransmissions, Relaxed);
        Board::here().data.store(endpoint.queued() as u32 + endpoint.acked() as u32, Relaxed);
        if let Some((at, _)) = endpoint.poll_timeout() {
            Board::here().ticks.store(at.as_micros() as u32, Relaxed);
        }
    }
}

/// The first one with its messages in a store that remembers.
pub fn stored() -> ! {
    let mut config = config();
    config.class = Class::Process;
    let mut endpoint = StoredDevice::new(config, Board::now());
    let mut store = KeptStore::new();
    // As if it had something to remember: a new one is seen to be empty, and the way back is left out.
    let recovered = black_box(&mut store).recover(&mut |item| endpoint.restore(&item));
    Board::here().data.store(u32::from(recovered.is_ok()), Relaxed);
    let (mut scratch, mut received) = ([0; SCRATCH], [0; RECEIVED]);
    loop {
        let mut device = WithStore { endpoint: &mut endpoint, store: &mut store };
        let button = Board::here().button.load(Relaxed);
        if button != 0 {
            let topic = TopicIndex(button as u16);
            let sent = pump::send(&mut device, Board::now(), (topic, &reading()), Overflow::Refuse);
            Board::here().data.store(u32::from(sent.is_ok()), Relaxed);
        }
        let bytes = receive(&mut received);
        let (out, served) = pump::turn(&mut device, Board::now(), bytes, &mut scratch, heard);
        transmit(out);
        Board::here().data.store(u32::from(served.is_ok()), Relaxed);
    }
}

/// The endpoint of a device with a store.
pub type StoredDevice = StoredEndpoint<'static, QUEUE, FRAME>;

/// A store of the programs: in memory, since flash is driven differently on each board.
pub type KeptStore = RamStore<STORE>;

/// States what the values of a program take in RAM beside the buffers, where `scripts/sizes` finds it.
#[macro_export]
macro_rules! weigh {
    ($bytes:expr) => {
        #[used]
        #[no_mangle]
        #[link_section = ".weights"]
        static RAM: [u8; $bytes] = [0; _];
    };
}

/// What a device takes beside its buffers.
pub const fn device<const MESSAGE: usize>() -> usize {
    size_of::<Device<MESSAGE>>() - QUEUE - FRAME - MESSAGE
}

/// What a device with a store takes beside the buffers of both.
pub const fn stored_device() -> usize {
    size_of::<StoredDevice>() - QUEUE - FRAME + size_of::<KeptStore>() - STORE
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
