//! The firmware with a UART whose bytes an interrupt takes, and a clock that wakes it every millisecond.

#![no_std]
#![no_main]

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use liner_firmware_example::board::{BufferedUart, Clock};

#[entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else { unreachable!("main runs once") };
    liner_firmware_example::run(BufferedUart::start(), Clock::start(peripherals.SYST))
}
