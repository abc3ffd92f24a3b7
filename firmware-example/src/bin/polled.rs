//! The firmware with a UART that is polled, and a clock that wakes it every millisecond.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};
use liner_firmware_example::board::{Clock, Uart};

#[entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else { end(EXIT_FAILURE) };
    let clock = Clock::start(peripherals.SYST);
    liner_firmware_example::run(Uart::start(), clock, || end(EXIT_SUCCESS))
}

/// Under QEMU, the end.
fn end(why: debug::ExitStatus) -> ! {
    loop {
        debug::exit(why);
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    end(EXIT_FAILURE)
}
