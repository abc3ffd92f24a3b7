//! The board: an LM3S6965 as QEMU has it. This is the file to write anew for another one.

use core::cell::RefCell;
use core::convert::Infallible;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cortex_m::interrupt::InterruptNumber;
use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, SYST};
use cortex_m_rt::exception;
use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS, ExitStatus};
use critical_section::Mutex;
use embedded_io::{ErrorType, Read, ReadReady, Write};
use heapless::Deque;
use liner_proto::time::Instant;

/// Cycles of the processor in a millisecond.
const CYCLES: u32 = 12_500;

/// Milliseconds since the start, modulo 2^32. Only the exception writes it.
static MILLIS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    MILLIS.store(MILLIS.load(Relaxed).wrapping_add(1), Relaxed);
}

/// The clock: it wakes a processor that sleeps every millisecond.
pub struct Clock {
    seen: u32,
    millis: u64,
}

impl Clock {
    /// Starts it.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(CYCLES - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        Self { seen: 0, millis: 0 }
    }

    /// The time since the start. Ask at least every 49 days.
    pub fn now(&mut self) -> Instant {
        let seen = MILLIS.load(Relaxed);
        self.millis += u64::from(seen.wrapping_sub(self.seen));
        self.seen = seen;
        Instant::from_micros(self.millis * 1000)
    }
}

/// UART 0, polled.
pub struct Uart(());

/// UART 0, from which an interrupt takes what comes.
pub struct BufferedUart(Uart);

/// Registers of a PL011, as offsets from its first one.
mod register {
    pub(super) const DATA: usize = 0x00;
    pub(super) const FLAGS: usize = 0x18;
    pub(super) const LINE: usize = 0x2c;
    pub(super) const CONTROL: usize = 0x30;
    pub(super) const INTERRUPTS: usize = 0x38;
    pub(super) const CLEAR: usize = 0x44;
}

const UART0: usize = 0x4000_c000;
const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_FULL: u32 = 1 << 5;
const BUSY: u32 = 1 << 3;
/// The interrupts for bytes that have come, and for a few that have come and no more after them.
const RECEIVED: u32 = 1 << 4 | 1 << 6;

/// The chip's switch for the clocks of its UARTs.
const CLOCKS: usize = 0x400f_e104;

#[allow(unsafe_code, reason = "a register is reached by its address")]
fn read(address: usize) -> u32 {
    // SAFETY: all addresses here are registers of this chip, aligned, and reading them has no effect on memory.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

#[allow(unsafe_code, reason = "a register is reached by its address")]
fn write(address: usize, value: u32) {
    // SAFETY: as above; what is written concerns the UART and its clock only.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(value) }
}

impl Uart {
    /// Switches it on: 8 bits, no parity, with its queues of 16 bytes. QEMU does not mind the speed.
    pub fn start() -> Self {
        write(CLOCKS, read(CLOCKS) | 1);
        write(UART0 + register::LINE, 0b11 << 5 | 1 << 4);
        write(UART0 + register::CONTROL, 1 << 9 | 1 << 8 | 1);
        Self(())
    }

    fn has(flag: u32) -> bool {
        read(UART0 + register::FLAGS) & flag != 0
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!Self::has(RECEIVE_EMPTY))
    }
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let mut len = 0;
        for place in bytes {
            while Self::has(RECEIVE_EMPTY) {
                if len > 0 {
                    return Ok(len);
                }
            }
            *place = read(UART0 + register::DATA) as u8;
            len += 1;
        }
        Ok(len)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            while Self::has(TRANSMIT_FULL) {}
            write(UART0 + register::DATA, u32::from(byte));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while Self::has(BUSY) {}
        Ok(())
    }
}

/// What the interrupt has taken, and nobody has read yet: 22 ms of a line at 115,200 baud.
static RECEIVED_BYTES: Mutex<RefCell<Deque<u8, 256>>> = Mutex::new(RefCell::new(Deque::new()));

/// The interrupt of UART 0.
#[derive(Clone, Copy)]
struct Uart0;

#[allow(unsafe_code, reason = "whoever names an interrupt has to know it")]
// SAFETY: it is number 5 on this chip, and no other value of the type has another.
unsafe impl InterruptNumber for Uart0 {
    fn number(self) -> u16 {
        5
    }
}

/// All interrupts that have no handler of their own: without a crate for the chip, that is the UART's, too.
#[allow(unsafe_code, reason = "that is how this handler is declared")]
#[exception]
unsafe fn DefaultHandler(number: i16) {
    assert_eq!(number, 5, "nobody has asked for this interrupt");
    critical_section::with(|token| {
        let mut bytes = RECEIVED_BYTES.borrow_ref_mut(token);
        while !Uart::has(RECEIVE_EMPTY) {
            // Without room it is lost, as on the line: the gateway sends it again.
            let _ = bytes.push_back(read(UART0 + register::DATA) as u8);
        }
    });
    write(UART0 + register::CLEAR, RECEIVED);
}

impl BufferedUart {
    /// Switches it on, and its interrupt.
    pub fn start() -> Self {
        let uart = Uart::start();
        write(UART0 + register::INTERRUPTS, RECEIVED);
        #[allow(unsafe_code, reason = "an interrupt could break a critical section that masks it")]
        // SAFETY: nothing here masks single interrupts.
        unsafe {
            NVIC::unmask(Uart0);
        }
        Self(uart)
    }
}

impl ErrorType for BufferedUart {
    type Error = Infallible;
}

impl ReadReady for BufferedUart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(critical_section::with(|token| !RECEIVED_BYTES.borrow_ref(token).is_empty()))
    }
}

impl Read for BufferedUart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            let len = critical_section::with(|token| {
                let mut received = RECEIVED_BYTES.borrow_ref_mut(token);
                let come = core::iter::from_fn(|| received.pop_front());
                bytes.iter_mut().zip(come).map(|(place, byte)| *place = byte).count()
            });
            if len > 0 {
                return Ok(len);
            }
            cortex_m::asm::wfi();
        }
    }
}

impl Write for BufferedUart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.0.flush()
    }
}

/// Starts anew; under QEMU, the end.
pub fn reboot() -> ! {
    end(EXIT_SUCCESS)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    end(EXIT_FAILURE)
}

fn end(why: ExitStatus) -> ! {
    loop {
        debug::exit(why);
    }
}
