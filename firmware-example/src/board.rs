//! The board: an LM3S6965 as QEMU has it. All that is unsafe is here. This is the file to write anew for another board, and
//! with a crate for its chip most of it is there already.

use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use cortex_m::peripheral::syst::SystClkSource;
use cortex_m::peripheral::{NVIC, SCB, SYST};
use cortex_m_rt::{ExceptionFrame, STACK_PAINT_VALUE, exception};
use cortex_m_semihosting::debug::{self, EXIT_SUCCESS};
use cortex_m_semihosting::syscall;
use liner_proto::time::Instant;
use lm3s6965::{Interrupt, interrupt};
use press::Board;
use readings::Reset;

use crate::uart;

/// Cycles of the processor in a millisecond.
const CYCLES: u32 = 12_500;

/// Milliseconds without a turn of the main loop after which the watchdog resets the chip.
const PATIENCE: u32 = 4_000;

/// Bytes of stack that nobody leaves out: it is used to here if so many below are as they were painted.
const STRETCH: usize = 1024;

/// The chip's switches: for the clocks of its parts, and the second half of its address in Ethernet.
const CLOCKS: [usize; 2] = [0x400f_e100, 0x400f_e104];
const SERIAL: usize = 0x400f_e1e4;

/// The watchdog's registers.
mod watchdog {
    pub(super) const LOAD: usize = 0x4000_0000;
    pub(super) const CONTROL: usize = 0x4000_0008;
    pub(super) const CLEAR: usize = 0x4000_000c;
}

/// Words at the end of RAM, which neither the linker nor a reset touches. What is in them after power came is not known.
mod kept {
    const BEGIN: usize = 0x2000_ffe0;
    /// Says that the other words are this program's.
    pub(super) const MARK: usize = BEGIN;
    /// Why it is going to start again, and what belongs to that.
    pub(super) const WHY: usize = BEGIN + 4;
    pub(super) const DETAIL: usize = BEGIN + 8;
    /// The number that was noted last.
    pub(super) const NOTE: usize = BEGIN + 12;
    pub(super) const THE_MARK: u32 = 0x4c49_4e45;
}

/// What stands in [`kept::WHY`].
mod why {
    pub(super) const WATCHDOG: u32 = 0;
    pub(super) const ASKED: u32 = 1;
    pub(super) const PANIC: u32 = 2;
    pub(super) const FAULT: u32 = 3;
}

#[expect(unsafe_code, reason = "a register is reached by its address")]
pub(crate) fn read(address: usize) -> u32 {
    // SAFETY: all addresses here are aligned, and those of registers of this chip or of memory that nothing else knows.
    unsafe { core::ptr::with_exposed_provenance::<u32>(address).read_volatile() }
}

#[expect(unsafe_code, reason = "a register is reached by its address")]
pub(crate) fn write(address: usize, value: u32) {
    // SAFETY: as above.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(address).write_volatile(value) }
}

/// Milliseconds since the start, modulo 2^32. Only the exception writes it.
static MILLIS: AtomicU32 = AtomicU32::new(0);

#[exception]
fn SysTick() {
    MILLIS.store(MILLIS.load(Relaxed).wrapping_add(1), Relaxed);
}

/// The board, switched on. Its clock wakes a processor that sleeps every millisecond.
pub struct Lm3s6965 {
    seen: u32,
    millis: u64,
    cycles: u32,
    reset: (Reset, u32),
}

impl Lm3s6965 {
    /// Starts clock and watchdog, and finds out why it was reset.
    pub fn start(mut timer: SYST) -> Self {
        timer.set_clock_source(SystClkSource::Core);
        timer.set_reload(CYCLES - 1);
        timer.clear_current();
        timer.enable_interrupt();
        timer.enable_counter();
        let reset = take_reset();
        write(CLOCKS[0], read(CLOCKS[0]) | 1 << 3);
        // It counts down twice, and resets at the end of the second time.
        write(watchdog::LOAD, CYCLES * PATIENCE / 2);
        write(watchdog::CONTROL, 0b11);
        Self { seen: 0, millis: 0, cycles: 0, reset }
    }

    /// What tells this chip from others of its kind.
    pub fn serial(&self) -> u64 {
        u64::from(read(SERIAL))
    }
}

/// Why there was a reset, and the last note of the start before. From here on a reset that says nothing is the watchdog's.
fn take_reset() -> (Reset, u32) {
    let reset = match (read(kept::MARK), read(kept::WHY), read(kept::DETAIL)) {
        (kept::THE_MARK, why::WATCHDOG, _) => Reset::Watchdog,
        (kept::THE_MARK, why::ASKED, _) => Reset::Asked,
        (kept::THE_MARK, why::PANIC, line) => Reset::Panic { line },
        (kept::THE_MARK, why::FAULT, address) => Reset::Fault { address },
        _ => Reset::Power,
    };
    let note = if reset == Reset::Power { 0 } else { read(kept::NOTE) };
    write(kept::WHY, why::WATCHDOG);
    write(kept::NOTE, 0);
    write(kept::MARK, kept::THE_MARK);
    (reset, note)
}

impl Board for Lm3s6965 {
    /// Ask at least every 49 days.
    fn now(&mut self) -> Instant {
        let seen = MILLIS.load(Relaxed);
        self.millis += u64::from(seen.wrapping_sub(self.seen));
        self.seen = seen;
        Instant::from_micros(self.millis * 1000)
    }

    fn cycles(&mut self) -> u32 {
        let (mut millis, mut left);
        loop {
            (millis, left) = (MILLIS.load(Relaxed), SYST::get_current());
            if millis == MILLIS.load(Relaxed) {
                break;
            }
        }
        let cycles = millis.wrapping_mul(CYCLES).wrapping_add(CYCLES - 1 - left);
        // The clock may have come round a moment before its exception.
        if (cycles.wrapping_sub(self.cycles) as i32) > 0 {
            self.cycles = cycles;
        }
        self.cycles
    }

    fn sleep(&mut self) {
        cortex_m::asm::wfi();
    }

    fn feed(&mut self) {
        write(watchdog::CLEAR, 0);
    }

    fn stack(&self) -> u32 {
        let (end, start) = stack();
        let mut lowest = start;
        // Down to where a whole stretch is painted: all of the RAM would take longer than a turn may.
        while let Some(word) = (lowest.saturating_sub(STRETCH).max(end)..lowest)
            .step_by(4)
            .find(|&word| read(word) != STACK_PAINT_VALUE)
        {
            lowest = word;
        }
        (start - lowest) as u32
    }

    fn reset(&self) -> (Reset, u32) {
        self.reset
    }

    fn note(&mut self, number: u32) {
        write(kept::NOTE, number);
    }

    fn restart(&mut self) -> ! {
        restart(why::ASKED, 0)
    }

    fn stop(&mut self) -> ! {
        loop {
            debug::exit(EXIT_SUCCESS);
        }
    }

    fn fault(&mut self) -> ! {
        cortex_m::asm::udf()
    }
}

fn restart(reason: u32, detail: u32) -> ! {
    write(kept::WHY, reason);
    write(kept::DETAIL, detail);
    SCB::sys_reset()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    restart(why::PANIC, info.location().map_or(0, core::panic::Location::line))
}

// Not expected, as others here are: the exception's macro writes it twice, and the lint speaks once.
#[allow(unsafe_code, reason = "that is how this handler is declared")]
#[exception]
unsafe fn HardFault(frame: &ExceptionFrame) -> ! {
    restart(why::FAULT, frame.pc())
}

/// The stack's lowest address, and the one behind its highest.
#[expect(unsafe_code, reason = "the linker says where the stack is")]
fn stack() -> (usize, usize) {
    // SAFETY: nothing is read from these; it is their addresses that count.
    unsafe extern "C" {
        static _stack_end: u32;
        static _stack_start: u32;
    }
    (&raw const _stack_end as usize, &raw const _stack_start as usize)
}

/// Lets the UART interrupt.
#[expect(unsafe_code, reason = "an interrupt could break a critical section that masks it")]
pub(crate) fn unmask_uart() {
    // SAFETY: nothing here masks single interrupts.
    unsafe { NVIC::unmask(Interrupt::UART0) }
}

#[interrupt]
fn UART0() {
    uart::handle_interrupt();
}

/// Switches the clock of UART 0 on.
pub(crate) fn power_uart() {
    write(CLOCKS[1], read(CLOCKS[1]) | 1);
}

/// A file of the host, which is what QEMU has in the place of flash. Each function says whether the host has done it.
pub(crate) mod file {
    use super::syscall;

    /// How it is opened: to read and write, and either as it is or made anew.
    pub(crate) const AS_IT_IS: usize = 3;
    pub(crate) const ANEW: usize = 7;

    #[expect(unsafe_code, reason = "the host reads what it is told to")]
    pub(crate) fn open(name: &core::ffi::CStr, how: usize) -> Option<usize> {
        let bytes = name.to_bytes();
        // SAFETY: the name has its length, and a zero behind it.
        let handle = unsafe { syscall!(OPEN, bytes.as_ptr(), how, bytes.len()) };
        (handle != usize::MAX).then_some(handle)
    }

    #[expect(unsafe_code, reason = "the host does as it is told")]
    pub(crate) fn seek(handle: usize, place: u32) -> bool {
        // SAFETY: no memory is touched.
        unsafe { syscall!(SEEK, handle, place) == 0 }
    }

    #[expect(unsafe_code, reason = "the host writes where it is told to")]
    pub(crate) fn read(handle: usize, into: &mut [u8]) -> bool {
        // SAFETY: the host writes no more than the length.
        unsafe { syscall!(READ, handle, into.as_mut_ptr(), into.len()) == 0 }
    }

    #[expect(unsafe_code, reason = "the host is only told to forget it")]
    pub(crate) fn close(handle: usize) {
        // SAFETY: no memory is touched.
        let _ = unsafe { syscall!(CLOSE, handle) };
    }

    #[expect(unsafe_code, reason = "the host reads what it is told to")]
    pub(crate) fn write(handle: usize, bytes: &[u8]) -> bool {
        // SAFETY: the host reads no more than the length.
        unsafe { syscall!(WRITE, handle, bytes.as_ptr(), bytes.len()) == 0 }
    }
}
