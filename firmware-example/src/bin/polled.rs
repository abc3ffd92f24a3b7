//! The firmware with a UART that is polled. It has neither flash nor a random source: the gateway makes its epochs.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use liner_firmware_example::board::Lm3s6965;
use liner_firmware_example::uart::Uart;
use press::{Board, Press, QUEUE};

#[entry]
fn main() -> ! {
    static mut PRESS: MaybeUninit<Press<Uart, true>> = MaybeUninit::uninit();
    static mut MEMORY: [u8; QUEUE] = [0; QUEUE];
    let Some(peripherals) = Peripherals::take() else { unreachable!("main runs once") };
    let mut board = Lm3s6965::start(peripherals.SYST);
    let press = Press::place(PRESS, MEMORY, Uart::start(), board.now(), 0, [0; 2]);
    press::run(&mut board, press)
}
