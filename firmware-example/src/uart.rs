//! UART 0, a PL011: polled, or with an interrupt that takes what comes.

use core::cell::RefCell;
use core::convert::Infallible;

use critical_section::Mutex;
use embedded_io::{ErrorType, Read, ReadReady, Write};
use heapless::Deque;

use crate::board::{power_uart, read, unmask_uart, write};

/// UART 0, polled.
pub struct Uart(());

/// UART 0, from which an interrupt takes what comes.
pub struct BufferedUart(Uart);

/// Its registers.
mod register {
    const BEGIN: usize = 0x4000_c000;
    pub(super) const DATA: usize = BEGIN;
    pub(super) const FLAGS: usize = BEGIN + 0x18;
    pub(super) const LINE: usize = BEGIN + 0x2c;
    pub(super) const CONTROL: usize = BEGIN + 0x30;
    pub(super) const INTERRUPTS: usize = BEGIN + 0x38;
    pub(super) const CLEAR: usize = BEGIN + 0x44;
}

const BUSY: u32 = 1 << 3;
const RECEIVE_EMPTY: u32 = 1 << 4;
const TRANSMIT_FULL: u32 = 1 << 5;
/// The interrupts for bytes that have come, and for a few that have come and no more after them.
const RECEIVED: u32 = 1 << 4 | 1 << 6;

impl Uart {
    /// Switches it on: 8 bits, no parity, with its queues of 16 bytes. QEMU does not mind the speed.
    pub fn start() -> Self {
        power_uart();
        write(register::LINE, 0b11 << 5 | 1 << 4);
        write(register::CONTROL, 1 << 9 | 1 << 8 | 1);
        Self(())
    }

    fn has(flag: u32) -> bool {
        read(register::FLAGS) & flag != 0
    }
}

impl ErrorType for Uart {
    type Error = Infallible;
}

impl ReadReady for Uart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!Self::has(RECEIVE_EMPTY))
    }
}

impl Read for Uart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        let mut len = 0;
        for place in bytes {
            while Self::has(RECEIVE_EMPTY) {
                if len > 0 {
                    return Ok(len);
                }
            }
            *place = read(register::DATA) as u8;
            len += 1;
        }
        Ok(len)
    }
}

impl Write for Uart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        for &byte in bytes {
            while Self::has(TRANSMIT_FULL) {}
            write(register::DATA, u32::from(byte));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        while Self::has(BUSY) {}
        Ok(())
    }
}

/// What the interrupt has taken, and nobody has read yet: 22 ms of a line at 115,200 baud.
static RECEIVED_BYTES: Mutex<RefCell<Deque<u8, 256>>> = Mutex::new(RefCell::new(Deque::new()));

/// The interrupt has come.
pub(crate) fn handle_interrupt() {
    // First: what comes from here on interrupts again. A byte that came before this and behind the last look would wait for ever.
    write(register::CLEAR, RECEIVED);
    critical_section::with(|token| {
        let mut bytes = RECEIVED_BYTES.borrow_ref_mut(token);
        while !Uart::has(RECEIVE_EMPTY) {
            // Without room it is lost, as on the line: the gateway sends it again.
            let _ = bytes.push_back(read(register::DATA) as u8);
        }
    });
}

impl BufferedUart {
    /// Switches it on, and its interrupt.
    pub fn start() -> Self {
        let uart = Uart::start();
        write(register::INTERRUPTS, RECEIVED);
        unmask_uart();
        Self(uart)
    }
}

impl ErrorType for BufferedUart {
    type Error = Infallible;
}

impl ReadReady for BufferedUart {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(critical_section::with(|token| !RECEIVED_BYTES.borrow_ref(token).is_empty()))
    }
}

impl Read for BufferedUart {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize, Infallible> {
        if bytes.is_empty() {
            return Ok(0);
        }
        loop {
            let len = critical_section::with(|token| {
                let mut received = RECEIVED_BYTES.borrow_ref_mut(token);
                let come = core::iter::from_fn(|| received.pop_front());
                bytes.iter_mut().zip(come).map(|(place, byte)| *place = byte).count()
            });
            if len > 0 {
                return Ok(len);
            }
            cortex_m::asm::wfi();
        }
    }
}

impl Write for BufferedUart {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        self.0.flush()
    }
}
