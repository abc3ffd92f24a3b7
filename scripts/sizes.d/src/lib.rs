//! The main loops that are weighed. They run nowhere: what matters is that the compiler can leave nothing of them out.

#![no_std]

mod memory;

use core::hint::black_box;
use core::panic::PanicInfo;

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

/// What a board may say, as far as the compiler knows: anything.
fn any<T: Default>() -> T {
    black_box(T::default())
}

#[inline(never)]
fn now() -> Instant {
    Instant::from_micros(any())
}

/// Somebody wants to know it.
fn tell(word: u32) {
    black_box(word);
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
    black_box(&event);
}

fn config() -> DeviceConfig<'static> {
    DeviceConfig::new("sensor", &["air", "door"], [any(), any()])
}

fn reading() -> [u8; 4] {
    any()
}

/// Sends a reading whenever a button says so, and takes what comes.
pub fn plain() -> ! {
    let mut endpoint = Device::<0>::new(config(), now());
    let (mut scratch, mut received) = ([0; SCRATCH], [0; RECEIVED]);
    loop {
        let button: u32 = any();
        if button != 0 {
            let topic = TopicIndex(button as u16);
            let sent = pump::send(&mut endpoint, now(), (topic, &reading()), Overflow::Refuse);
            tell(u32::from(sent.is_ok()));
        }
        let bytes = receive(&mut received);
        let (out, _) = pump::turn(&mut endpoint, now(), bytes, &mut scratch, heard);
        transmit(out);
    }
}

/// The same with messages in pieces, a queue that drops its oldest, a clock to wake up by, and an end.
pub fn everything<const MESSAGE: usize>() -> ! {
    let mut config = config();
    config.accept_weak_acks = any();
    config.line.half_duplex = any();
    config.line.baud = Some(any());
    let mut endpoint = AssignedDevice::<MESSAGE>::new(config, now());
    let (mut scratch, mut received) = ([0; SCRATCH], [0; RECEIVED]);
    loop {
        let button: u32 = any();
        match button {
            0 => {}
            1 => endpoint.close(now()),
            2 => {
                endpoint.drop_oldest();
            }
            _ => {
                let message = (TopicIndex(button as u16), &reading()[..]);
                let overflow = if button & 4 == 0 { Overflow::Refuse } else { Overflow::DropOldest };
                let sent = pump::send(&mut endpoint, now(), message, overflow);
                tell(sent.map_or(0, |number| number as u32));
            }
        }
        let bytes = receive(&mut received);
        let (out, _) = pump::turn(&mut endpoint, now(), bytes, &mut scratch, heard);
        transmit(out);
        let stats = endpoint.line_stats();
        tell(stats.seal_errors + stats.retransmissions);
        tell(endpoint.queued() as u32 + endpoint.acked() as u32);
        if let Some((at, _)) = endpoint.poll_timeout() {
            tell(at.as_micros() as u32);
        }
    }
}

/// The first one with its messages in a store that remembers.
pub fn stored() -> ! {
    let mut config = config();
    config.class = Class::Process;
    let mut endpoint = StoredDevice::new(config, now());
    let mut store = KeptStore::new();
    // As if it had something to remember: a new one is seen to be empty, and the way back is left out.
    let recovered = black_box(&mut store).recover(&mut |item| endpoint.restore(&item));
    tell(u32::from(recovered.is_ok()));
    let (mut scratch, mut received) = ([0; SCRATCH], [0; RECEIVED]);
    loop {
        let mut device = WithStore { endpoint: &mut endpoint, store: &mut store };
        let button: u32 = any();
        if button != 0 {
            let topic = TopicIndex(button as u16);
            let sent = pump::send(&mut device, now(), (topic, &reading()), Overflow::Refuse);
            tell(u32::from(sent.is_ok()));
        }
        let bytes = receive(&mut received);
        let (out, served) = pump::turn(&mut device, now(), bytes, &mut scratch, heard);
        transmit(out);
        tell(u32::from(served.is_ok()));
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
