//! One link's life: handshake, keep-alive, end.
//!
//! A session knows who the peer says it is and whether it is there. It does not know what is sent: the fields of the
//! streams pass through it as they are.

pub mod dial;
mod line;

use crate::config::{LineConfig, Timing};
use crate::id::SessionId;
use crate::planted::{Fault, Planted};
use crate::seal::{self, SealError};
use crate::time::Instant;
use crate::timer::{Deadline, Wakeup, earlier};
use crate::wire::control::CloseReason;
use crate::wire::handshake::{About, StreamFields};
use crate::wire::{Body, VERSION};
use line::OnLine;

/// The life of one link, seen from one end.
///
/// * inputs: [`handle`](Self::handle), [`handle_timeout`](Self::handle_timeout);
/// * commands: [`close`](Self::close);
/// * outputs: [`owed`](Self::owed), to be answered with [`sent`](Self::sent); [`deadline`](Self::deadline);
/// * getters: the rest.
#[derive(Debug)]
pub struct Session {
    state: State,
    id: SessionId,
    /// The handshake's until the frame that tells the other side the number is past.
    seal_in: SessionId,
    seal_out: SessionId,
    nonce: u64,
    peer_nonce: u64,
    timing: Timing,
    began: Instant,
    heard: Instant,
    spoke: Instant,
    /// Probes that were asked for, and how many of them are past: `probes_sent <= probes`.
    probes: u64,
    probes_sent: u64,
    /// The peer's latest probe, if it is not answered.
    probed: Option<u64>,
    /// What a line needs that loses frames; nothing on a reliable link.
    line: Option<OnLine>,
    planted: Planted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Dialler: the hello is owed.
    Greeting,
    /// Dialler: waits for the answer.
    AwaitAnswer,
    /// Dialler: the echo is owed.
    Confirming,
    /// Listener: waits for a hello.
    AwaitHello,
    /// Listener: the answer is owed.
    Answering,
    /// Listener: waits for the echo of its nonce.
    AwaitConfirm,
    Up,
    /// A last frame is owed.
    Closing(CloseReason),
    Closed,
}

/// The frame that a session owes its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Step 1.
    Hello {
        /// The dialler's nonce.
        nonce: u64,
    },
    /// Step 2.
    Answer {
        /// The dialler's nonce.
        echo: u64,
        /// The listener's nonce.
        nonce: u64,
    },
    /// Step 3.
    Confirm {
        /// The listener's nonce.
        echo: u64,
    },
    /// A question whether the peer is there.
    Probe {
        /// Which one of the session.
        number: u64,
    },
    /// The answer to the peer's probe.
    Echo {
        /// The probe's number.
        number: u64,
    },
    /// The marks, because the link has been silent.
    KeepAlive,
    /// The news that there is no session here, on a line.
    Greet,
    /// The end.
    Close(CloseReason),
}

/// What a frame of the handshake means to whoever composes sessions and streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// Not a frame of the session's: it belongs to delivery.
    Other,
    /// Nothing to anyone: on a line frames come late, and twice.
    Ignored,
    /// The dialler has introduced itself. Nothing is to change before its echo.
    Hello {
        /// Its name.
        name: &'a str,
        /// Which start of it this is.
        instance: u64,
        /// What it takes and stands for.
        about: About,
    },
    /// The listener has answered; the session is up for this side as soon as it has sent its echo.
    Answer {
        /// Its name.
        name: &'a str,
        /// Which start of it this is.
        instance: u64,
        /// What it takes and stands for.
        about: About,
        /// Its stream's fields.
        stream: StreamFields,
    },
    /// The dialler's echo: the session is up.
    Confirm {
        /// Its stream's fields.
        stream: StreamFields,
    },
    /// The peer has asked whether this side is there: the session owes it an echo.
    Probe,
    /// The peer has answered a probe, and all before it.
    Echo {
        /// The probe's number.
        number: u64,
    },
    /// The peer ends the session.
    Close(CloseReason),
}

impl Session {
    /// A session on a link that this side dialled.
    pub const fn dial(now: Instant, nonce: u64, timing: Timing) -> Self {
        Self::new(State::Greeting, now, nonce, timing)
    }

    /// A session on a link that the other side dialled.
    pub const fn accept(now: Instant, nonce: u64, timing: Timing) -> Self {
        Self::new(State::AwaitHello, now, nonce, timing)
    }

    const fn new(state: State, now: Instant, nonce: u64, timing: Timing) -> Self {
        Self {
            state,
            id: SessionId::HANDSHAKE,
            seal_in: SessionId::HANDSHAKE,
            seal_out: SessionId::HANDSHAKE,
            nonce,
            peer_nonce: 0,
            timing,
            began: now,
            heard: now,
            spoke: now,
            probes: 0,
            probes_sent: 0,
            probed: None,
            line: None,
            planted: Planted::NONE,
        }
    }

    /// The same on a line that loses frames: what the handshake needs is sent again until it has arrived, and what comes out of
    /// place is ignored. A `patient` listener waits for a hello as long as it takes.
    #[must_use]
    pub const fn on_line(mut self, config: LineConfig, patient: bool, planted: Planted) -> Self {
        self.line = Some(OnLine::new(config, patient));
        self.planted = planted;
        self
    }

    /// Whether messages may pass.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether nothing more will be sent or taken.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// Whether the end has been decided.
    pub const fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing(_) | State::Closed)
    }

    /// The number of the session; that of the handshake until both nonces are known.
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The other side's nonce; 0 before it has told it.
    pub const fn peer_nonce(&self) -> u64 {
        self.peer_nonce
    }

    /// The seed of the seal of the next frame that arrives.
    pub const fn seal_in(&self) -> SessionId {
        self.seal_in
    }

    /// The seed of the seal of the frame that is owed now.
    pub const fn seal_out(&self) -> SessionId {
        self.seal_out
    }

    /// The body of a frame, and whether it is sealed for no session. On a line such frames come in a session, too: from a peer
    /// that does not know of it.
    ///
    /// # Errors
    /// If the seal does not fit.
    pub fn open<'f>(&self, frame: &'f [u8]) -> Result<(&'f [u8], bool), SealError> {
        let plain = self.seal_in == SessionId::HANDSHAKE && !self.planted.has(Fault::CrcNotSeeded);
        match seal::open(self.seal_in, frame) {
            Err(SealError::Broken) if self.line.is_some() && !plain => {
                Ok((seal::open(SessionId::HANDSHAKE, frame)?, true))
            }
            opened => Ok((opened?, plain)),
        }
    }

    /// Takes a frame whose seal was good; `plain` says that it was sealed for no session.
    ///
    /// # Errors
    /// The reason for which the session must end: pass it to [`close`](Self::close).
    pub fn handle<'a>(
        &mut self,
        now: Instant,
        body: &Body<'a>,
        plain: bool,
    ) -> Result<Heard<'a>, CloseReason> {
        if self.line.is_some() && self.is_out_of_place(now, body, plain) {
            return Ok(Heard::Ignored);
        }
        self.heard = now;
        if let Body::Close(close) = body {
            self.state = State::Closed;
            return Ok(Heard::Close(close.reason));
        }
        match (self.state, body) {
            (State::AwaitHello, Body::Hello(hello)) => {
                if !(hello.version_min..=hello.version_max).contains(&VERSION) {
                    return Err(CloseReason::Unsupported);
                }
                check_about(&hello.about, true)?;
                self.peer_nonce = hello.nonce;
                self.id = session_id(hello.nonce, self.nonce);
                self.state = State::Answering;
                Ok(Heard::Hello { name: hello.name, instance: hello.instance, about: hello.about })
            }
            (State::AwaitAnswer, Body::Answer(answer)) => {
                if answer.version != VERSION {
                    return Err(CloseReason::Unsupported);
                }
                if answer.echo != self.nonce {
                    return Err(CloseReason::Violation);
                }
                self.peer_nonce = answer.nonce;
                self.id = session_id(self.nonce, answer.nonce);
                self.seal_for_session();
                check_about(&answer.about, false)?;
                check_stream(&answer.stream)?;
                self.state = State::Confirming;
                let (name, instance) = (answer.name, answer.instance);
                Ok(Heard::Answer { name, instance, about: answer.about, stream: answer.stream })
            }
            (State::AwaitConfirm, Body::Confirm(confirm)) => {
                if confirm.echo != self.nonce {
                    return Err(CloseReason::Violation);
                }
                check_stream(&confirm.stream)?;
                self.state = State::Up;
                Ok(Heard::Confirm { stream: confirm.stream })
            }
            (State::Up, Body::Hello(_) | Body::Answer(_) | Body::Confirm(_)) => Err(CloseReason::Violation),
            (State::Up, Body::Probe(probe)) => {
                // One echo at a time is owed, however often the peer asks.
                self.probed = Some(probe.number);
                Ok(Heard::Probe)
            }
            (State::Up, Body::Echo(echo)) if echo.number > self.probes_sent => Err(CloseReason::Violation),
            (State::Up, Body::Echo(echo)) => {
                if let Some(line) = &mut self.line {
                    line.handle_echo(echo.number);
                }
                Ok(Heard::Echo { number: echo.number })
            }
            (State::Up, _) => Ok(Heard::Other),
            (State::Closing(_) | State::Closed, _) => Ok(Heard::Other),
            _ => Err(CloseReason::Violation),
        }
    }

    /// Has the peer asked whether it is there, as soon as the session is up. Returns the number of the probe: one that is not
    /// sent yet does for all who ask.
    pub const fn probe(&mut self) -> u64 {
        if self.probes == self.probes_sent {
            self.probes += 1;
        }
        self.probes
    }

    /// Ends the session: the peer is told why if it can still be told.
    pub const fn close(&mut self, reason: CloseReason) {
        if !self.is_ending() {
            self.state = State::Closing(reason);
        }
    }

    /// Says whether it is too late for something, and what must be done about it.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.handle_line_timeout(now);
        // A keep-alive is owed by the time alone.
        let late = match self.state {
            State::Closing(_) | State::Closed => false,
            State::Up => now >= self.heard + self.timing.peer_silent,
            State::Greeting
            | State::AwaitAnswer
            | State::Confirming
            | State::AwaitHello
            | State::Answering
            | State::AwaitConfirm => self.handshake_until().is_some_and(|until| now >= until),
        };
        if late {
            self.close(CloseReason::Timeout);
        }
    }

    /// The frame that the session itself owes. Seal it with [`seal_out`](Self::seal_out) as it is before [`sent`](Self::sent).
    pub fn owed(&self, now: Instant) -> Option<Owed> {
        match self.state {
            State::Greeting => Some(Owed::Hello { nonce: self.nonce }),
            State::Answering => Some(Owed::Answer { echo: self.peer_nonce, nonce: self.nonce }),
            State::Confirming => Some(Owed::Confirm { echo: self.peer_nonce }),
            State::Closing(reason) => Some(Owed::Close(reason)),
            State::Up => self.owed_up(now),
            State::AwaitHello if self.line.as_ref().is_some_and(OnLine::owes_greeting) => Some(Owed::Greet),
            State::AwaitHello | State::AwaitAnswer | State::AwaitConfirm | State::Closed => None,
        }
    }

    fn owed_up(&self, now: Instant) -> Option<Owed> {
        let doubted = self.line.as_ref().and_then(|line| line.owed(now));
        if self.line.as_ref().is_some_and(OnLine::owes_confirm) {
            Some(Owed::Confirm { echo: self.peer_nonce })
        } else if let Some(number) = self.probed {
            Some(Owed::Echo { number })
        } else if self.probes_sent < self.probes {
            Some(Owed::Probe { number: self.probes })
        } else if let Some(number) = doubted {
            Some(Owed::Probe { number })
        } else {
            (now.since(self.spoke) >= self.timing.keep_alive).then_some(Owed::KeepAlive)
        }
    }

    /// The frame that is owed now is on its way.
    pub fn sent(&mut self, now: Instant) {
        let owed = self.owed(now);
        self.spoke = now;
        if let (Some(line), Some(owed)) = (&mut self.line, owed) {
            line.sent(now, owed, self.state == State::Up);
        }
        match owed {
            Some(Owed::Echo { .. }) => self.probed = None,
            Some(Owed::Probe { .. }) => self.probes_sent = self.probes,
            _ => {}
        }
        if self.state == State::Answering {
            self.seal_for_session();
        }
        self.state = match self.state {
            State::Greeting => State::AwaitAnswer,
            State::Answering => State::AwaitConfirm,
            State::Confirming => State::Up,
            State::Closing(_) => State::Closed,
            State::AwaitAnswer | State::AwaitHello | State::AwaitConfirm | State::Up | State::Closed => {
                self.state
            }
        };
    }

    /// From here on frames are sealed for the session.
    fn seal_for_session(&mut self) {
        if !self.planted.has(Fault::CrcNotSeeded) {
            self.seal_in = self.id;
            self.seal_out = self.id;
        }
    }

    /// When the handshake takes too long. A line that has to send it again takes longer.
    fn handshake_until(&self) -> Option<Instant> {
        match &self.line {
            None => Some(self.began + self.timing.handshake),
            Some(line) if line.is_patient() && self.state == State::AwaitHello => None,
            Some(_) => Some(self.began + 4 * self.timing.handshake),
        }
    }

    /// Something of the peer's has arrived that cannot be read yet.
    pub const fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Some other frame is on its way.
    pub const fn spoke(&mut self, now: Instant) {
        self.spoke = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do, or a frame is owed. A link that is full cannot take a
    /// keep-alive, and needs none: say so with `full`.
    pub fn deadline(&self, full: bool) -> Option<Deadline> {
        match self.state {
            // A last frame that is owed leaves as soon as the link takes it, or never.
            State::Closing(_) | State::Closed => None,
            State::Up => earlier(
                self.line_deadline(),
                earlier(
                    Some((self.heard + self.timing.peer_silent, Wakeup::PeerSilent)),
                    (!full).then_some((self.spoke + self.timing.keep_alive, Wakeup::KeepAlive)),
                ),
            ),
            State::Greeting
            | State::AwaitAnswer
            | State::Confirming
            | State::AwaitHello
            | State::Answering
            | State::AwaitConfirm => {
                earlier(self.line_deadline(), self.handshake_until().map(|until| (until, Wakeup::Handshake)))
            }
        }
    }
}

/// Whoever has no epochs says so, and is assigned some by the side that it has dialled: with numbers that begin anew at every
/// start, and no word of that, it would lose messages that were all taken before.
const fn check_about(about: &About, may_be_assigned: bool) -> Result<(), CloseReason> {
    let knows_seal = about.seals & About::SEAL_CRC32C != 0;
    let without_epochs = about.roles & About::ROLE_WITHOUT_EPOCHS != 0;
    let epochs_fit = about.inbox.is_none() == without_epochs && (may_be_assigned || !without_epochs);
    if knows_seal && epochs_fit { Ok(()) } else { Err(CloseReason::Unsupported) }
}

const fn check_stream(stream: &StreamFields) -> Result<(), CloseReason> {
    if stream.epoch.is_none() { Err(CloseReason::Unsupported) } else { Ok(()) }
}

/// The number of the session: both nonces, mixed. Never the one of the handshake.
fn session_id(dialler: u64, listener: u64) -> SessionId {
    let begun = seal::checksum(SessionId::HANDSHAKE, &[&dialler.to_le_bytes()]);
    let mixed = seal::checksum(SessionId(begun), &[&listener.to_le_bytes()]);
    SessionId(if mixed == 0 { 1 } else { mixed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;
    use crate::wire::control::{Echo, Probe};
    use crate::wire::handshake::{Acks, Answer, Confirm, Hello};

    const NOW: Instant = Instant::ZERO;

    const ABOUT: About = About {
        inbox: Epoch(1),
        acks: Acks::Processed,
        frame_max: 512,
        message_max: 400,
        window_messages: 8,
        window_bytes: 4096,
        bindings_max: 0,
        seals: About::SEAL_CRC32C,
        roles: 0,
    };

    const STREAM: StreamFields =
        StreamFields { epoch: Epoch(2), predecessor: None, oldest: 1, next: 1, known: None, assigned: None };

    fn hello(about: About) -> Body<'static> {
        let (version_min, version_max) = (VERSION, VERSION);
        Body::Hello(Hello { version_min, version_max, name: "a", instance: 1, nonce: 7, about })
    }

    /// What becomes of a listener's session with such a dialler.
    fn accepted(about: About, stream: StreamFields) -> Result<Session, CloseReason> {
        let mut session = Session::accept(NOW, 8, Timing::DEFAULT);
        session.handle(NOW, &hello(about), true)?;
        session.sent(NOW);
        session.handle(NOW, &Body::Confirm(Confirm { echo: 8, stream }), false)?;
        Ok(session)
    }

    /// What becomes of a dialler's session with such a listener.
    fn dialled(about: About, stream: StreamFields) -> Result<Session, CloseReason> {
        let mut session = Session::dial(NOW, 7, Timing::DEFAULT);
        session.sent(NOW);
        let (name, instance, nonce) = ("b", 1, 8);
        let answer = Answer { version: VERSION, echo: 7, name, instance, nonce, about, stream };
        session.handle(NOW, &Body::Answer(answer), true)?;
        session.sent(NOW);
        Ok(session)
    }

    #[test]
    fn whoever_has_no_epochs_or_another_seal_is_not_supported() {
        let unsupported = [
            (About { inbox: Epoch::NONE, ..ABOUT }, STREAM),
            (About { roles: About::ROLE_WITHOUT_EPOCHS, ..ABOUT }, STREAM),
            (About { seals: !About::SEAL_CRC32C, ..ABOUT }, STREAM),
            (ABOUT, StreamFields { epoch: Epoch::NONE, ..STREAM }),
        ];
        for (about, stream) in unsupported {
            for session in [accepted(about, stream), dialled(about, stream)] {
                assert_eq!(session.err(), Some(CloseReason::Unsupported), "{about:?} {stream:?}");
            }
        }
        let more = About { seals: u8::MAX, roles: !About::ROLE_WITHOUT_EPOCHS, ..ABOUT };
        for session in [accepted(more, STREAM), dialled(more, STREAM)] {
            assert!(session.is_ok_and(|session| session.is_up()));
        }
    }

    #[test]
    fn however_often_the_peer_asks_it_is_answered_once() {
        let mut session = accepted(ABOUT, STREAM).unwrap();
        for number in 1..=1000 {
            assert_eq!(session.handle(NOW, &Body::Probe(Probe { number }), false), Ok(Heard::Probe));
        }
        assert_eq!(session.owed(NOW), Some(Owed::Echo { number: 1000 }));
        session.sent(NOW);
        assert_eq!(session.owed(NOW), None);
    }

    #[test]
    fn one_probe_does_for_all_who_ask_before_it_leaves() {
        let mut session = accepted(ABOUT, STREAM).unwrap();
        assert_eq!((session.probe(), session.probe()), (1, 1));
        session.handle(NOW, &Body::Probe(Probe { number: 9 }), false).unwrap();
        assert_eq!(session.owed(NOW), Some(Owed::Echo { number: 9 }));
        session.sent(NOW);
        let echo = Body::Echo(Echo { number: 1 });
        assert_eq!(session.handle(NOW, &echo, false), Err(CloseReason::Violation), "nothing was asked yet");
        assert_eq!(session.owed(NOW), Some(Owed::Probe { number: 1 }));
        session.sent(NOW);
        assert_eq!((session.owed(NOW), session.probe()), (None, 2));
        assert_eq!(session.handle(NOW, &echo, false), Ok(Heard::Echo { number: 1 }));
    }

    #[test]
    fn nobody_is_probed_before_the_session_is_up() {
        let mut session = Session::accept(NOW, 8, Timing::DEFAULT);
        session.handle(NOW, &hello(ABOUT), true).unwrap();
        session.sent(NOW);
        assert_eq!(
            session.handle(NOW, &Body::Probe(Probe { number: 1 }), false),
            Err(CloseReason::Violation)
        );
    }
}
