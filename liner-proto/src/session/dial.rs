//! The life of a device's line: the side that says hello, on a line that loses and damages frames.
//!
//! It is what [`Session`](super::Session) is on such a line for whoever dials, and nothing besides: a device has no other
//! kind of link. Every step of the handshake is sent again until the next one has arrived. A greeting says that the gateway knows of no
//! session; then it is asked whether it is there, and the session begins anew if nothing comes back. A greeting alone ends no
//! session: it may be late.

use super::{check_about, check_stream, session_id};
use crate::config::{LineConfig, Timing};
use crate::id::SessionId;
use crate::logging::debug;
use crate::planted::{Fault, Planted};
use crate::seal;
use crate::time::{Duration, Moment, Tick};
use crate::timer::{Deadline, Wakeup, earlier};
use crate::wire::control::CloseReason;
use crate::wire::device::Answer;
use crate::wire::{VERSION, tag};

/// How long to wait for the next step of the handshake, at first; each time twice as long, up to eight
/// times as long. Microseconds.
const AGAIN: u32 = 200_000;

/// The bytes of a step and of its answer, to count the time that they take on the line.
const STEP_BYTES: usize = 2 * 200;

/// The life of one line, seen from the end that says hello.
#[derive(Debug)]
pub struct Dial {
    state: State,
    /// Why it ends.
    reason: CloseReason,
    /// The handshake's until the answer is here.
    seal: SessionId,
    nonce: u64,
    peer_nonce: u64,
    began: Tick,
    heard: Tick,
    spoke: Tick,
    /// Probes that were asked for, and how many of them are past: `probes_sent <= probes`.
    probes: u32,
    probes_sent: u32,
    /// The peer's latest probe, if it is not answered.
    probed: Option<u64>,
    /// When the hello is sent again.
    again_at: Option<Tick>,
    tries: u8,
    /// When it was sent last.
    step_at: Tick,
    /// The listener has not had the confirm.
    confirm_again: bool,
    doubt: Option<Doubt>,
}

/// When a device loses patience: what it takes of [`Timing`]. Times above 9 hours are taken for 9 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceTiming {
    /// Units of [`Tick`]. Four times [`Timing::handshake`]: a line that has to send it again takes longer.
    handshake: u32,
    /// [`Timing::keep_alive`].
    keep_alive: u32,
    /// [`Timing::peer_silent`].
    peer_silent: u32,
    /// Half of [`Timing::probe`]: on a line nobody else claims the session meanwhile.
    probe: u32,
}

impl DeviceTiming {
    /// The documented defaults.
    pub const DEFAULT: Self = Self::new(&Timing::DEFAULT);

    /// What concerns a device. In a `const` it costs a device nothing.
    pub const fn new(timing: &Timing) -> Self {
        Self {
            handshake: units(timing.handshake, 4),
            keep_alive: units(timing.keep_alive, 1),
            peer_silent: units(timing.peer_silent, 1),
            probe: units(timing.probe, 1) / 2,
        }
    }
}

impl Default for DeviceTiming {
    fn default() -> Self {
        Self::DEFAULT
    }
}

const fn units(duration: Duration, times: u64) -> u32 {
    let millis = duration.as_secs().saturating_mul(1000).saturating_add(duration.subsec_millis() as u64);
    Tick::units_of_millis(millis.saturating_mul(times))
}

/// What a device's session has to know of time, and its line.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The line.
    pub line: LineConfig,
    /// When it loses patience.
    pub timing: DeviceTiming,
    /// A wrong behaviour to show.
    pub planted: Planted,
}

/// Whether the peer knows of the session.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// The probe that settles it; 0 before it was sent.
    probe: u32,
    ask_at: Tick,
    until: Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is no link.
    Idle,
    /// The hello is owed.
    Greeting,
    AwaitAnswer,
    /// The echo is owed.
    Confirming,
    Up,
    /// A last frame is owed.
    Closing,
    Closed,
}

/// The frame that is owed to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Step 1, with this side's [`nonce`](Dial::nonce).
    Hello,
    /// Step 3, with the peer's [`nonce`](Dial::peer_nonce).
    Confirm,
    /// A question whether the peer is there: [`probe_number`](Dial::probe_number).
    Probe,
    /// The answer to the peer's: [`echo_number`](Dial::echo_number).
    Echo,
    /// Anything, because the line has been silent.
    KeepAlive,
    /// The end, with its [`reason`](Dial::reason).
    Close,
}

impl Dial {
    /// There is a link: the hello is owed.
    pub const fn begin(now: Tick, nonce: u64) -> Self {
        Self {
            state: State::Greeting,
            reason: CloseReason::Normal,
            seal: SessionId::HANDSHAKE,
            nonce,
            peer_nonce: 0,
            began: now,
            heard: now,
            spoke: now,
            probes: 0,
            probes_sent: 0,
            probed: None,
            again_at: None,
            tries: 0,
            step_at: Tick::ZERO,
            confirm_again: false,
            doubt: None,
        }
    }

    /// Whether there is a link on which a session is up, begins or ends.
    pub const fn has_link(&self) -> bool {
        !matches!(self.state, State::Idle)
    }

    /// Whether messages may pass.
    pub const fn is_up(&self) -> bool {
        matches!(self.state, State::Up)
    }

    /// Whether the end has been decided.
    pub const fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing | State::Closed)
    }

    /// Whether nothing more will be sent or taken.
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Idle | State::Closed)
    }

    /// Whether the peer has answered in this session.
    pub const fn was_answered(&self) -> bool {
        self.peer_nonce != 0
    }

    /// The seed of the seal of the frame that is sent next.
    pub const fn seal(&self) -> SessionId {
        self.seal
    }

    /// Whether a frame is whole, and whether it is sealed for no session: it comes from a peer that does not know of this one.
    ///
    /// Nothing if neither seal fits.
    pub fn open(&self, frame: &[u8], pace: &Pace) -> Option<bool> {
        let mut session = self.seal;
        loop {
            if seal::open(session, frame).is_ok() {
                let plain = session == SessionId::HANDSHAKE && !pace.planted.has(Fault::CrcNotSeeded);
                return Some(plain);
            }
            if session == SessionId::HANDSHAKE {
                return None;
            }
            session = SessionId::HANDSHAKE;
        }
    }

    /// A greeting: the gateway knows of no session here, or did not when it said so.
    pub fn handle_greeting(&mut self, now: Tick, plain: bool, pace: &Pace) {
        // The hello was lost, or is still under way.
        if self.state == State::AwaitAnswer && self.step_at.after(AGAIN / 2).is_past(now) {
            self.state = State::Greeting;
        } else if self.state == State::Up && plain && self.doubt.is_none() {
            debug!("the gateway may have started anew: it is asked");
            let until = now.plus(pace.timing.probe).after(pace.line.micros_for(STEP_BYTES));
            self.doubt = Some(Doubt { probe: 0, ask_at: now, until });
            self.probe();
        }
    }

    /// An answer: says whether it is the one that was waited for. The session is up as soon as the echo is sent.
    ///
    /// # Errors
    /// The reason for which the session must end: pass it to [`close`](Self::close).
    pub(crate) fn handle_answer(
        &mut self,
        now: Tick,
        answer: &Answer,
        plain: bool,
        pace: &Pace,
    ) -> Result<bool, CloseReason> {
        if answer.echo != self.nonce {
            return Ok(false);
        }
        if self.state != State::AwaitAnswer {
            self.confirm_again |= plain && answer.nonce == self.peer_nonce && self.state == State::Up;
            return Ok(false);
        }
        if answer.version != VERSION {
            return Err(CloseReason::Unsupported);
        }
        self.peer_nonce = answer.nonce;
        if !pace.planted.has(Fault::CrcNotSeeded) {
            self.seal = session_id(self.nonce, answer.nonce);
        }
        check_about(&answer.about, false)?;
        check_stream(&answer.stream)?;
        self.state = State::Confirming;
        self.heard = now;
        Ok(true)
    }

    /// Another frame: says whether it means anything. On a line frames come late, and twice.
    pub fn hear(&mut self, now: Tick, tag: u8, plain: bool) -> bool {
        let is_in_place =
            (self.state == State::Up && !plain) || (self.state == State::AwaitAnswer && tag == tag::CLOSE);
        if is_in_place {
            self.heard = now;
        }
        is_in_place
    }

    /// The peer has asked whether this side is there: an echo is owed, one at a time, however often it asks.
    pub const fn handle_probe(&mut self, number: u64) {
        self.probed = Some(number);
    }

    /// The peer has answered a probe, and all before it.
    ///
    /// # Errors
    /// If it was not asked.
    #[cfg_attr(target_os = "none", inline(never))]
    pub fn handle_echo(&mut self, number: u64) -> Result<(), CloseReason> {
        if number > u64::from(self.probes_sent) {
            return Err(CloseReason::Violation);
        }
        if self.doubt.is_some_and(|doubt| u64::from(doubt.probe) <= number) {
            self.doubt = None;
        }
        Ok(())
    }

    /// The peer has ended the session.
    pub const fn handle_close(&mut self) {
        self.state = State::Closed;
    }

    /// Has the peer asked whether it is there, as soon as the session is up: one probe that is not sent yet does for all who ask.
    pub const fn probe(&mut self) {
        if self.probes == self.probes_sent {
            self.probes = self.probes.wrapping_add(1);
        }
    }

    /// The link is gone, and with it what was said on it.
    pub const fn forget(&mut self) {
        self.state = State::Idle;
    }

    /// Ends the session: the peer is told why if it can still be told.
    pub const fn close(&mut self, reason: CloseReason) {
        if self.has_link() && !self.is_ending() {
            self.state = State::Closing;
            self.reason = reason;
        }
    }

    /// Time has passed: says whether it is too late for something, and sees to what must be done about it.
    pub fn handle_timeout(&mut self, now: Tick, pace: &Pace) {
        let late = match self.state {
            State::Idle | State::Closing | State::Closed => return,
            State::Up => {
                self.silent_at(pace).is_past(now) || self.doubt.is_some_and(|doubt| doubt.until.is_past(now))
            }
            State::Greeting | State::AwaitAnswer | State::Confirming => {
                if self.again_at.is_some_and(|at| at.is_past(now)) {
                    self.again_at = None;
                    if self.state == State::AwaitAnswer {
                        self.state = State::Greeting;
                    }
                }
                self.handshake_until(pace).is_past(now)
            }
        };
        if late {
            self.doubt = None;
            self.close(CloseReason::Timeout);
        }
    }

    const fn silent_at(&self, pace: &Pace) -> Tick {
        self.heard.plus(pace.timing.peer_silent)
    }

    const fn keep_alive_at(&self, pace: &Pace) -> Tick {
        self.spoke.plus(pace.timing.keep_alive)
    }

    /// When the handshake takes too long.
    const fn handshake_until(&self, pace: &Pace) -> Tick {
        self.began.plus(pace.timing.handshake)
    }

    /// The frame that is owed. Seal it with [`seal`](Self::seal) as it is before [`sent`](Self::sent).
    pub fn owed(&self, now: Tick, pace: &Pace) -> Option<Owed> {
        Some(match self.state {
            State::Greeting => Owed::Hello,
            State::Confirming => Owed::Confirm,
            State::Closing => Owed::Close,
            State::Up if self.confirm_again => Owed::Confirm,
            State::Up if self.probed.is_some() => Owed::Echo,
            State::Up if self.probes_sent != self.probes || self.asks_again(now) => Owed::Probe,
            State::Up if self.keep_alive_at(pace).is_past(now) => Owed::KeepAlive,
            State::Up | State::Idle | State::AwaitAnswer | State::Closed => return None,
        })
    }

    /// Whether the probe that settles a doubt is to be sent once more.
    fn asks_again(&self, now: Tick) -> bool {
        self.doubt.is_some_and(|doubt| doubt.probe > 0 && doubt.ask_at.is_past(now))
    }

    /// This side's nonce.
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The peer's.
    pub const fn peer_nonce(&self) -> u64 {
        self.peer_nonce
    }

    /// The number of the probe that is owed: the next one, or the one that settles a doubt again, which is no later than the last.
    pub const fn probe_number(&self) -> u32 {
        self.probes
    }

    /// The number of the peer's probe that is to be answered.
    pub fn echo_number(&self) -> u64 {
        self.probed.unwrap_or(0)
    }

    /// Why the session ends.
    pub const fn reason(&self) -> CloseReason {
        self.reason
    }

    /// The frame that was owed is on its way.
    pub fn sent(&mut self, now: Tick, owed: Owed, pace: &Pace) {
        match owed {
            Owed::Hello => {
                let wait = (AGAIN << self.tries.min(3)) + pace.line.micros_for(STEP_BYTES);
                self.again_at = Some(now.after(wait));
                self.tries = self.tries.saturating_add(1);
                self.step_at = now;
                self.state = State::AwaitAnswer;
            }
            Owed::Confirm => {
                self.again_at = None;
                self.confirm_again = false;
                self.state = State::Up;
            }
            Owed::Probe => {
                if let Some(doubt) = &mut self.doubt {
                    doubt.probe = self.probes;
                    let left = doubt.until.micros_since(now);
                    doubt.ask_at = now.after((left / 3).max(AGAIN / 4));
                }
                self.probes_sent = self.probes;
            }
            Owed::Echo => self.probed = None,
            Owed::KeepAlive => {}
            Owed::Close => self.state = State::Closed,
        }
    }

    /// Whether nothing was sent since the link came, or for `micros` microseconds.
    pub fn was_silent(&self, now: Tick, micros: u32) -> bool {
        self.spoke.is_ago(micros, now)
    }

    /// Some frame is on its way.
    pub const fn spoke(&mut self, now: Tick) {
        self.spoke = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, or a frame is owed. A side that may not be heard needs no
    /// keep-alive: say so with `muted`.
    pub fn deadline(&self, muted: bool, pace: &Pace) -> Option<Deadline<Tick>> {
        match self.state {
            // A last frame that is owed leaves as soon as the link takes it, or never.
            State::Idle | State::Closing | State::Closed => None,
            State::Up => {
                let doubt = self.doubt.map(|doubt| (doubt.ask_at.soonest(doubt.until), Wakeup::Probe));
                let keep_alive = (!muted).then_some((self.keep_alive_at(pace), Wakeup::KeepAlive));
                earlier(doubt, earlier(Some((self.silent_at(pace), Wakeup::PeerSilent)), keep_alive))
            }
            State::Greeting | State::AwaitAnswer | State::Confirming => {
                let again = self.again_at.filter(|_| self.state == State::AwaitAnswer);
                let until = self.handshake_until(pace);
                Some((again.map_or(until, |at| at.soonest(until)), Wakeup::Handshake))
            }
        }
    }
}
