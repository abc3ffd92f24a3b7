//! What counts the starts is cut off while it is made, is lost, or comes back as it was: the microcontroller starts all the same, says
//! which start it takes this one for, and nothing new is taken for old.

use std::fs;

use liner_tests::relay::Rates;
use readings::Reset;

use super::lives::Lives;
use super::machine::{Bench, Machine};
use super::subscriber;
use crate::line::reboots::wait_until;
use crate::line::seed;

/// Bytes of the flash.
const FLASH: u64 = 2048;

/// Cuts among which is one that comes while the flash is made.
const CUTS: u32 = 100;

#[test]
fn a_cut_while_flash_is_made_does_no_harm() {
    for _ in 0..CUTS {
        let folder = tempfile::tempdir().unwrap();
        let start = || Machine::start("polled-flash", folder.path(), "null");
        let begun = || fs::read_dir(folder.path()).unwrap().next().map(|file| file.unwrap().path());
        let machine = start();
        wait_until("the flash is begun", || begun().is_some());
        drop(machine);
        let is_cut_off = begun().is_some_and(|file| fs::metadata(file).unwrap().len() < FLASH);
        let mut machine = start();
        wait_until("it has started", || machine.queued() > 0);
        if is_cut_off {
            return;
        }
    }
    panic!("no cut came while the flash was made");
}

#[test]
fn a_microcontroller_that_forgets_its_starts_loses_nothing() {
    let mut bench = Bench::new("polled-flash", seed(), Rates::NONE);
    let _gateway = bench.gateway();
    let sub = subscriber(bench.folder.path(), &bench.peers);
    bench.power();
    let (flash, mut lives, mut old) = (bench.folder.path().join("flash.bin"), Lives::default(), Vec::new());
    // As it comes back, if it does: after the first start, twice after the second, or empty.
    for (life, start) in (1..).zip([1, 1, 2, 3, 3, 3, 1, 1]) {
        lives.take_some(&sub, life, 30);
        assert_eq!(lives.now().started().0, start, "life {life}");
        assert_eq!(lives.now().missing(), [], "life {life}");
        bench.cut_power();
        match life {
            1 | 6 | 7 => fs::remove_file(&flash).unwrap(),
            3 => old = fs::read(&flash).unwrap(),
            4 | 5 => fs::write(&flash, &old).unwrap(),
            _ => {}
        }
        bench.power();
    }
    assert!(lives.0.iter().all(|life| life.started().1 == Reset::Power));
}
