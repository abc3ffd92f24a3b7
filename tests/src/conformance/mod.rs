//! What every store must do, as plain functions over the [`Store`] trait.
//!
//! Each rule gets a place of its own, empty at first. [`conformance_tests!`](crate::conformance_tests) makes one test of
//! each rule for a store.

use liner_proto::effect::{StoreFault, StoreOp};
use liner_proto::store::Store;

pub mod atomic;
pub mod full;
pub mod inbox;
pub mod killed;
pub mod model;
pub mod numbers;
pub mod queues;
pub mod reading;
pub mod records;
pub mod shared;
pub mod trouble;
mod view;

pub use view::{View, ViewedQueue};

/// Opens the store of one place. What it held stays if the store is one that persists.
pub type Open<'a> = &'a mut dyn FnMut() -> Box<dyn Store>;

/// What a store is able to do beyond the rules that hold for all of them.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    /// What was committed is there when the place is opened again.
    pub persists: bool,
    /// Queues it keeps at once.
    pub queues: usize,
    /// Peers of which it keeps a cursor.
    pub cursors: usize,
    /// It keeps a directory and dead letters.
    pub directory: bool,
    /// It keeps an inbox.
    pub inbox: bool,
    /// Bytes of the longest name.
    pub name_max: usize,
    /// Records of more than so many bytes in all cannot be kept; it is tried out where that is less than 64 MiB.
    pub bytes_max: usize,
}

impl Capabilities {
    /// Whether it can be filled within a test.
    pub const fn is_bounded(&self) -> bool {
        self.bytes_max < 64 << 20
    }
}

/// A store under test, with the means to open it again.
pub struct Place<'a> {
    open: Open<'a>,
    store: Option<Box<dyn Store>>,
    /// What it is able to do.
    pub caps: Capabilities,
}

impl core::fmt::Debug for Place<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Place").field("caps", &self.caps).finish_non_exhaustive()
    }
}

impl<'a> Place<'a> {
    /// Opens the place.
    pub fn new(open: Open<'a>, caps: Capabilities) -> Self {
        let store = Some(open());
        Self { open, store, caps }
    }

    /// The store.
    #[expect(clippy::expect_used, reason = "a test may fail")]
    pub fn store(&mut self) -> &mut dyn Store {
        self.store.as_deref_mut().expect("the store is open")
    }

    /// Applies a group of which every request is right, and commits it.
    #[expect(clippy::panic, reason = "a test may fail")]
    pub fn done(&mut self, group: &[StoreOp<'_>]) {
        if let Err(fault) = self.try_done(group) {
            let words = self.store().last_error().unwrap_or_default().to_owned();
            panic!("{group:?}: {fault} ({words})");
        }
    }

    /// Applies a group and commits it. A store may find out at either that it has no room.
    ///
    /// # Errors
    /// What the store says.
    pub fn try_done(&mut self, group: &[StoreOp<'_>]) -> Result<(), StoreFault> {
        self.store().apply(group).and_then(|()| self.store().commit())
    }

    /// Closes the store and opens it again, if it is one that persists.
    pub fn reopen(&mut self) {
        if self.caps.persists {
            self.store = None;
            self.store = Some((self.open)());
        }
    }

    /// Everything the store tells when it is opened. What was applied before must be committed.
    pub fn view(&mut self) -> View {
        self.reopen();
        View::of(self.store())
    }
}

/// Makes a test of each rule of the conformance suite. `$place` is an expression for a closure that makes a fresh place
/// whenever it is called, and gives the closure that opens it.
#[macro_export]
macro_rules! conformance_tests {
    ($place:expr, $caps:expr) => {
        $crate::conformance_tests!(@each $place, $caps;
            atomic::a_failed_group_leaves_nothing,
            atomic::a_group_sees_its_own_requests,
            atomic::what_was_applied_is_visible_at_once,
            full::full_leaves_no_trace,
            full::acks_go_on_when_it_is_full,
            full::a_move_within_a_full_store_succeeds,
            inbox::a_store_keeps_an_inbox_or_says_that_it_does_not,
            inbox::what_was_delivered_stays,
            inbox::a_failed_group_delivers_nothing,
            inbox::a_full_store_delivers_nothing,
            model::any_groups_do_what_the_model_does,
            numbers::an_append_follows_the_last_number,
            numbers::an_append_is_whole_records_of_its_numbers,
            numbers::nothing_moves_backwards,
            numbers::a_trim_may_lead,
            numbers::a_drop_is_remembered_until_it_is_trimmed,
            numbers::a_rotation_shifts_every_number,
            numbers::a_rotation_forgets_what_is_below_it,
            numbers::a_gap_forgotten_in_part_survives_a_rotation,
            numbers::numbers_at_the_end_of_their_range_are_refused,
            queues::a_new_store_is_empty,
            queues::a_queue_must_be_open,
            queues::queues_are_apart,
            queues::a_queue_that_is_opened_again_keeps_its_content,
            queues::a_closed_queue_is_forgotten,
            queues::topics_are_kept_by_queue,
            queues::cursors_are_kept_by_peer_and_epoch,
            queues::the_inbox_epoch_is_told_first,
            queues::the_directory_is_kept,
            queues::dead_letters_are_taken,
            queues::names_may_hold_anything,
            reading::records_come_back_as_they_were,
            reading::a_load_begins_and_ends_anywhere,
            reading::a_buffer_too_small_says_what_it_needs,
            reading::a_gap_is_shortened_to_what_was_asked_for,
            reading::small_appends_are_loaded_together,
            reading::what_is_queued_is_counted,
            reading::large_records_are_kept,
            reading::large_records_stand_among_small_ones,
        );
    };
    (@each $place:expr, $caps:expr; $($room:ident :: $rule:ident,)*) => {
        $(
            #[test]
            fn $rule() {
                let mut open = ($place)();
                $crate::conformance::$room::$rule(&mut open, $caps);
            }
        )*
    };
}
