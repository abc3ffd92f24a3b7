//! A program that does nothing: what the others are weighed against.

#![no_std]
#![no_main]

use liner_sizes as _;

#[no_mangle]
extern "C" fn start() -> ! {
    loop {
        core::hint::spin_loop();
    }
}
