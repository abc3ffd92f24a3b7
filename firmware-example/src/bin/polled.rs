//! The firmware with a UART that is polled, and a clock that wakes it every millisecond.

#![no_std]
#![no_main]

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use liner_firmware_example::board::{Clock, Uart};

#[entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else { unreachable!("main runs once") };
    liner_firmware_example::run(Uart::start(), Clock::start(peripherals.SYST))
}
