//! Flash that counts the starts. QEMU has none that can be written for this chip, so it is a file beside the machine that behaves
//! like one: bits are cleared by a write, and set by the erasure of a page.

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use embedded_storage_async::nor_flash::{
    ErrorType, NorFlash, NorFlashError, NorFlashErrorKind, ReadNorFlash,
};
use sequential_storage::cache::Cache;
use sequential_storage::map::{MapConfig, MapStorage};

use crate::board::file;

/// Bytes of a page, and of a word.
const PAGE: usize = 1024;
const WORD: usize = 4;
/// All of it: one page is written while the other is erased.
const LEN: usize = 2 * PAGE;

/// The flash, as its file.
#[derive(Debug)]
pub struct Flash {
    file: usize,
}

/// It does not work any more, or was asked for what it does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlashError(NorFlashErrorKind);

impl NorFlashError for FlashError {
    fn kind(&self) -> NorFlashErrorKind {
        self.0
    }
}

/// Counts this start, and says its number, from 1 on. When this returns, the number is in flash.
///
/// # Errors
/// If flash does not work. Then there is no telling which start this is.
// Not inlined, so that its stack is free again before the main loop begins.
#[inline(never)]
pub fn count_start() -> Result<u32, FlashError> {
    let flash = Flash::open()?;
    let config = const { MapConfig::new(0..LEN as u32) };
    let mut map = MapStorage::<(), _, _>::new(flash, config, Cache::new_uncached());
    let mut buffer = [0; 16];
    let failed = |_| FlashError(NorFlashErrorKind::Other);
    block_on(async {
        let last = map.fetch_item::<u32>(&mut buffer, &()).await.map_err(failed)?;
        let start = last.unwrap_or(0).wrapping_add(1);
        map.store_item(&mut buffer, &(), &start).await.map_err(failed)?;
        Ok(start)
    })
}

/// Nothing here is ever waited for: flash of a chip is, and there is where the processor would sleep.
fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

impl Flash {
    fn open() -> Result<Self, FlashError> {
        let name = c"flash.bin";
        let file = file::open(name, file::AS_IT_IS).or_else(|| file::open(name, file::ANEW));
        let flash = Self { file: file.ok_or(FlashError(NorFlashErrorKind::Other))? };
        // A file without an end is new, or the machine was killed while it was made: nothing was counted in it.
        if !(file::seek(flash.file, LEN as u32 - 1) && file::read(flash.file, &mut [0])) {
            flash.erase_page(0)?;
            flash.erase_page(PAGE as u32)?;
        }
        Ok(flash)
    }

    fn erase_page(&self, page: u32) -> Result<(), FlashError> {
        let words = PAGE / WORD;
        let done = file::seek(self.file, page) && (0..words).all(|_| file::write(self.file, &[0xff; WORD]));
        done.then_some(()).ok_or(FlashError(NorFlashErrorKind::Other))
    }

    /// What a range has to be: in the flash, and whole units of it.
    fn check(from: u32, len: usize, unit: usize) -> Result<(), FlashError> {
        let from = from as usize;
        if !from.is_multiple_of(unit) || !len.is_multiple_of(unit) {
            return Err(FlashError(NorFlashErrorKind::NotAligned));
        }
        match from.checked_add(len) {
            Some(..=LEN) => Ok(()),
            _ => Err(FlashError(NorFlashErrorKind::OutOfBounds)),
        }
    }
}

impl Drop for Flash {
    fn drop(&mut self) {
        file::close(self.file);
    }
}

impl ErrorType for Flash {
    type Error = FlashError;
}

impl ReadNorFlash for Flash {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), FlashError> {
        Self::check(offset, bytes.len(), Self::READ_SIZE)?;
        let done = file::seek(self.file, offset) && file::read(self.file, bytes);
        done.then_some(()).ok_or(FlashError(NorFlashErrorKind::Other))
    }

    fn capacity(&self) -> usize {
        LEN
    }
}

impl NorFlash for Flash {
    const WRITE_SIZE: usize = WORD;
    const ERASE_SIZE: usize = PAGE;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), FlashError> {
        let len = to.checked_sub(from).ok_or(FlashError(NorFlashErrorKind::OutOfBounds))?;
        Self::check(from, len as usize, PAGE)?;
        (from..to).step_by(PAGE).try_for_each(|page| self.erase_page(page))
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), FlashError> {
        Self::check(offset, bytes.len(), WORD)?;
        for (word, place) in bytes.chunks_exact(WORD).zip((offset..).step_by(WORD)) {
            let mut cells = [0; WORD];
            self.read(place, &mut cells).await?;
            cells.iter_mut().zip(word).for_each(|(cell, byte)| *cell &= byte);
            let done = file::seek(self.file, place) && file::write(self.file, &cells);
            done.then_some(()).ok_or(FlashError(NorFlashErrorKind::Other))?;
        }
        Ok(())
    }
}
