//! The firmware with a UART that is polled, and a clock that wakes it every millisecond.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use cortex_m_semihosting::debug::{self, EXIT_FAILURE, EXIT_SUCCESS};
use liner_firmware_example::Device;
use liner_firmware_example::board::{Clock, Uart};
use liner_proto::pump::Port;

#[entry]
fn main() -> ! {
    let Some(peripherals) = Peripherals::take() else { end(EXIT_FAILURE) };
    let mut clock = Clock::start(peripherals.SYST);
    let mut port = Port::<_, 512>::new(Uart::start());
    let mut device = Device::new(clock.now());
    loop {
        device.measure(clock.now());
        let idle = device.turn(&mut port, clock.now());
        if idle && device.is_to_reboot() {
            end(EXIT_SUCCESS);
        }
        if idle {
            cortex_m::asm::wfi();
        }
    }
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
