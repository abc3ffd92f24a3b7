//! A device that uses all that the core has for devices, messages in pieces included.

#![no_std]
#![no_main]

#[no_mangle]
extern "C" fn start() -> ! {
    liner_sizes::everything::<1024>()
}

liner_sizes::weigh!(liner_sizes::device::<1024>());
