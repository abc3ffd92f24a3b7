//! A program without std and without an allocator that holds the core: it links only if the core needs neither.

#![no_std]
#![no_main]

#[cfg(with_alloc)]
extern crate alloc;
extern crate liner_proto;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
