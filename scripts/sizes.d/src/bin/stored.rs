//! A device that keeps its messages in a store.

#![no_std]
#![no_main]

#[no_mangle]
extern "C" fn start() -> ! {
    liner_sizes::stored()
}

liner_sizes::weigh!(liner_sizes::stored_device());
