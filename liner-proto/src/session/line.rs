//! What a session does on a line that loses and damages frames.
//!
//! Every step of the handshake is sent again until the next one has arrived. A side that listens and hears frames of a session
//! that it does not know says so with a greeting; whoever hears one in a session asks the peer whether it is there, and begins anew
//! if nothing comes back. A greeting alone ends no session: it may be late.

use super::{Owed, Session, State};
use crate::config::LineConfig;
use crate::id::SessionId;
use crate::planted::Fault;
use crate::time::{Duration, Instant};
use crate::timer::{Deadline, Wakeup, earlier};
use crate::wire::Body;
use crate::wire::control::CloseReason;

/// How long to wait for the next step of the handshake, at first; each time twice as long, up to [`AGAIN_MAX`].
const AGAIN: Duration = Duration::from_millis(200);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// The bytes of a step and of its answer, to count the time that they take on the line.
const STEP_BYTES: usize = 2 * 200;

/// How long to wait between two greetings.
const GREETING_REST: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct OnLine {
    config: LineConfig,
    patient: bool,
    /// When the last step of the handshake is sent again.
    again_at: Option<Instant>,
    tries: u8,
    /// When a step was sent last.
    step_at: Instant,
    /// The listener has not had the confirm.
    confirm_again: bool,
    greeting: bool,
    greeted_at: Option<Instant>,
    doubt: Option<Doubt>,
}

/// Whether the peer knows of the session.
#[derive(Clone, Copy, Debug)]
struct Doubt {
    /// The probe that settles it; 0 before it was sent.
    probe: u64,
    ask_at: Instant,
    until: Instant,
}

impl OnLine {
    pub(super) const fn new(config: LineConfig, patient: bool) -> Self {
        Self {
            config,
            patient,
            again_at: None,
            tries: 0,
            step_at: Instant::ZERO,
            confirm_again: false,
            greeting: patient,
            greeted_at: None,
            doubt: None,
        }
    }

    pub(super) const fn is_patient(&self) -> bool {
        self.patient
    }

    pub(super) const fn owes_greeting(&self) -> bool {
        self.greeting
    }

    pub(super) const fn owes_confirm(&self) -> bool {
        self.confirm_again
    }

    /// The probe that is to be sent, or sent again, because the peer may not know of the session.
    pub(super) fn owed(&self, now: Instant) -> Option<u64> {
        self.doubt.filter(|doubt| doubt.ask_at <= now && doubt.probe > 0).map(|doubt| doubt.probe)
    }

    pub(super) fn handle_echo(&mut self, number: u64) {
        if self.doubt.is_some_and(|doubt| doubt.probe <= number) {
            self.doubt = None;
        }
    }

    pub(super) fn sent(&mut self, now: Instant, owed: Owed, is_up: bool) {
        match owed {
            Owed::Hello { .. } | Owed::Answer { .. } => {
                let wait = (AGAIN * 2_u32.pow(u32::from(self.tries.min(8)))).min(AGAIN_MAX);
                self.again_at = Some(now + wait + self.config.time_for(STEP_BYTES));
                self.tries = self.tries.saturating_add(1);
                self.step_at = now;
            }
            Owed::Confirm { .. } => {
                self.again_at = None;
                if is_up {
                    self.confirm_again = false;
                }
            }
            Owed::Greet => {
                self.greeting = false;
                self.greeted_at = Some(now);
            }
            Owed::Probe { number } => {
                if let Some(doubt) = &mut self.doubt {
                    doubt.probe = number;
                    doubt.ask_at = now + (doubt.until.since(now) / 3).max(AGAIN / 4);
                }
            }
            Owed::Echo { .. } | Owed::KeepAlive | Owed::Close(_) => {}
        }
    }
}

impl Session {
    /// Whether a frame means nothing here, because it is late or comes twice. What it shows of frames that were lost is taken
    /// note of.
    pub(super) fn is_out_of_place(&mut self, now: Instant, body: &Body<'_>, plain: bool) -> bool {
        let Some(line) = &mut self.line else { return false };
        match (self.state, body) {
            (State::Closing(_) | State::Closed, _) => true,
            (State::Up, Body::Answer(answer)) => {
                line.confirm_again |= plain && (answer.echo, answer.nonce) == (self.nonce, self.peer_nonce);
                true
            }
            (State::Up, Body::Greet) => {
                if plain && line.doubt.is_none() {
                    let until = now + self.timing.probe / 2 + line.config.time_for(STEP_BYTES);
                    line.doubt = Some(Doubt { probe: 0, ask_at: now, until });
                    self.probe();
                }
                true
            }
            (State::Up, Body::Hello(_) | Body::Confirm(_)) => true,
            (State::Up, _) => plain && !self.planted.has(Fault::CrcNotSeeded),
            (State::AwaitAnswer, Body::Answer(answer)) => answer.echo != self.nonce,
            (State::AwaitAnswer, Body::Close(_)) => false,
            (State::AwaitAnswer, Body::Greet) => {
                // The hello was lost, or is still under way.
                if line.step_at + AGAIN / 2 <= now {
                    self.state = State::Greeting;
                }
                true
            }
            (State::AwaitConfirm, Body::Confirm(confirm)) => confirm.echo != self.nonce || plain,
            (State::AwaitConfirm, Body::Close(_)) => plain,
            (State::AwaitConfirm, Body::Hello(hello)) => {
                if hello.nonce == self.peer_nonce {
                    self.answer_again();
                }
                true
            }
            (State::AwaitConfirm, _) => {
                // The dialler is there already: its confirm was lost.
                if !plain && line.step_at + AGAIN / 4 <= now {
                    self.answer_again();
                }
                true
            }
            (State::AwaitHello, Body::Hello(_)) => false,
            (
                State::Greeting
                | State::AwaitAnswer
                | State::Confirming
                | State::AwaitHello
                | State::Answering,
                _,
            ) => true,
        }
    }

    fn answer_again(&mut self) {
        self.state = State::Answering;
        self.seal_out = SessionId::HANDSHAKE;
    }

    /// Whether a hello with this nonce is another one than this session began with.
    pub fn is_news(&self, nonce: u64) -> bool {
        match self.state {
            State::AwaitConfirm | State::Answering => nonce != self.peer_nonce,
            State::Up => true,
            State::Greeting
            | State::AwaitAnswer
            | State::Confirming
            | State::AwaitHello
            | State::Closing(_)
            | State::Closed => false,
        }
    }

    /// A frame has arrived that no seal opens: the peer may be in a session that this side does not know.
    pub fn handle_unopened(&mut self, now: Instant) {
        if self.state == State::AwaitHello
            && let Some(line) = &mut self.line
            && line.greeted_at.is_none_or(|at| at + GREETING_REST <= now)
        {
            line.greeting = true;
        }
    }

    pub(super) fn handle_line_timeout(&mut self, now: Instant) {
        let Some(line) = &mut self.line else { return };
        if line.again_at.is_some_and(|at| at <= now) {
            line.again_at = None;
            if self.state == State::AwaitAnswer {
                self.state = State::Greeting;
            } else if self.state == State::AwaitConfirm {
                self.answer_again();
            }
        } else if self.state == State::Up && line.doubt.is_some_and(|doubt| doubt.until <= now) {
            line.doubt = None;
            self.close(CloseReason::Timeout);
        }
    }

    pub(super) fn line_deadline(&self) -> Option<Deadline> {
        let line = self.line.as_ref()?;
        match self.state {
            State::AwaitAnswer | State::AwaitConfirm => line.again_at.map(|at| (at, Wakeup::Handshake)),
            State::Up => {
                let doubt = line.doubt?;
                earlier(Some((doubt.ask_at, Wakeup::Probe)), Some((doubt.until, Wakeup::Probe)))
            }
            State::Greeting
            | State::Confirming
            | State::AwaitHello
            | State::Answering
            | State::Closing(_)
            | State::Closed => None,
        }
    }
}
