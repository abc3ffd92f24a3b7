//! The firmware with a UART that hands over what an interrupt takes. Flash counts its starts, and its epochs come from there.

#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use cortex_m::Peripherals;
use cortex_m_rt::entry;
use liner_firmware_example::board::Lm3s6965;
use liner_firmware_example::flash;
use liner_firmware_example::uart::BufferedUart;
use press::{Board, Press, QUEUE};

#[entry]
fn main() -> ! {
    static mut PRESS: MaybeUninit<Press<BufferedUart, false>> = MaybeUninit::uninit();
    static mut MEMORY: [u8; QUEUE] = [0; QUEUE];
    let Some(peripherals) = Peripherals::take() else { unreachable!("main runs once") };
    let mut board = Lm3s6965::start(peripherals.SYST);
    press::calm_down(&mut board);
    // Without its number it could not tell new readings from old ones: it had better not send any.
    let Ok(start) = flash::count_start() else { panic!("the flash does not work") };
    let seed = [board.serial(), u64::from(start)];
    let press = Press::place(PRESS, MEMORY, BufferedUart::start(), board.now(), start, seed);
    press::run(&mut board, press)
}
