//! Word that the directory has changed, on a connection of its own.

use core::time::Duration;
use std::io::{self, Write as _};
use std::sync::Arc;

use liner_proto::store::Notices;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use crate::client::{Client, Failure};
use crate::keys;
use crate::link::Link;
use crate::resp::{Inbound, Reply, Request};
use crate::url::Url;

const WAKER: Token = Token(0);
const SERVER: Token = Token(1);
/// How long to wait before the next attempt to connect.
const PAUSE: Duration = Duration::from_millis(250);

/// A connection that has subscribed.
#[derive(Debug)]
struct Subscription {
    link: Link,
    inbound: Inbound,
    /// A sign of life was asked for, and has not come yet.
    is_asked: bool,
}

/// Waits for word from the server and for an interruption at the same time.
#[derive(Debug)]
pub(crate) struct Subscriber {
    url: Url,
    poll: Poll,
    waker: Arc<Waker>,
    subscription: Option<Subscription>,
}

impl Subscriber {
    pub(crate) fn new(url: Url) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { url, poll, waker, subscription: None })
    }

    fn subscribe(&self) -> Result<Subscription, Failure> {
        let mut client = Client::connect(&self.url)?;
        client.command(&[b"SUBSCRIBE", keys::DIRECTORY.as_bytes()])?;
        let (link, inbound) = client.into_parts();
        let wrong = |error| Failure::Io { error, sent: false };
        link.set_nonblocking().map_err(wrong)?;
        let interest = Interest::READABLE;
        self.poll.registry().register(&mut SourceFd(&link.descriptor()), SERVER, interest).map_err(wrong)?;
        Ok(Subscription { link, inbound, is_asked: false })
    }

    /// Waits for one of both; says which, the interruption first.
    fn wait_for_any(&mut self, patience: Duration) -> Option<Token> {
        let mut events = Events::with_capacity(8);
        // An interrupted call is a short wait.
        let _ = self.poll.poll(&mut events, Some(patience));
        events.iter().map(mio::event::Event::token).min()
    }
}

impl Notices for Subscriber {
    fn wait(&mut self, patience: Duration) -> bool {
        let Some(subscription) = &mut self.subscription else {
            match self.subscribe() {
                Ok(subscription) => {
                    self.subscription = Some(subscription);
                    // Something may have changed before.
                    return true;
                }
                Err(_) => {
                    self.wait_for_any(patience.min(PAUSE));
                    return false;
                }
            }
        };
        // What came together with the last word is there already, and no event tells of it.
        let mut outcome = subscription.take();
        if matches!(outcome, Ok(false)) {
            match self.wait_for_any(patience) {
                Some(WAKER) => return false,
                Some(_) => outcome = self.subscription.as_mut().map_or(Ok(false), Subscription::take),
                None => outcome = self.subscription.as_mut().map_or(Ok(false), Subscription::ask),
            }
        }
        outcome.unwrap_or_else(|_| {
            // Its descriptor leaves the poll when it is closed.
            self.subscription = None;
            false
        })
    }

    fn interrupter(&self) -> Box<dyn Fn() + Send + Sync> {
        let waker = Arc::clone(&self.waker);
        // It fails only when the system has no memory; then the wait ends by its patience.
        Box::new(move || drop(waker.wake()))
    }
}

impl Subscription {
    /// Takes all that has come; says whether there was word.
    fn take(&mut self) -> io::Result<bool> {
        let mut is_word = false;
        loop {
            while let Some(reply) = self.inbound.whole()? {
                let kind = reply.list().and_then(<[Reply]>::first).and_then(Reply::text);
                is_word |= kind == Some("message");
                self.is_asked = false;
            }
            match self.inbound.fill(&mut self.link) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(is_word),
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks for a sign of life. That the last one has not come yet means that the server is gone.
    fn ask(&mut self) -> io::Result<bool> {
        if core::mem::replace(&mut self.is_asked, true) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.link.write_all(&Request::of(&[b"PING"]).bytes)?;
        self.link.flush()?;
        Ok(false)
    }
}
