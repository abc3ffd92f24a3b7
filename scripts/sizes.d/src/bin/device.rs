//! A device that sends and receives messages of at most a frame.

#![no_std]
#![no_main]

#[no_mangle]
extern "C" fn start() -> ! {
    liner_sizes::plain()
}

liner_sizes::weigh!(liner_sizes::device::<0>());
