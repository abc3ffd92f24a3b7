//! Word of other nodes: `LISTEN` on a connection of its own, which is driven by whoever waits.

use core::future::{Future as _, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::sync::Arc;

use liner_proto::store::{LEASE, Notices};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_postgres::{Client, Error};

use crate::dial;
use crate::url::Url;

/// The first pause before it connects again, and the longest one.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long an answer of the server may take.
const ANSWER: Duration = Duration::from_secs(5);

const PID: &str = "SELECT pg_backend_pid()";

/// What waits for word of other nodes.
#[derive(Debug)]
pub(crate) struct Listener {
    // Goes before the runtime that drives it.
    state: State,
    /// The server has said something unasked, or the connection is lost.
    told: Arc<Notify>,
    interrupted: Arc<Notify>,
    pause: Duration,
    url: Url,
    name: String,
    /// Nothing while it waits.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
enum State {
    /// Without a connection: it is tried again at that time.
    Apart(Option<Instant>),
    Listening(Client),
    /// A pooler gives the session to others after each transaction: words would go to them. Asked again after a while.
    Pooled(Instant),
}

impl Listener {
    pub(crate) fn new(url: &Url, name: &str) -> Option<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().ok()?;
        Some(Self {
            state: State::Apart(None),
            told: Arc::default(),
            interrupted: Arc::default(),
            pause: PAUSE,
            url: url.clone(),
            name: name.to_owned(),
            runtime: Some(runtime),
        })
    }

    /// Waits until there is something to say. Says whether there is.
    async fn hear(&mut self, until: Instant) -> bool {
        loop {
            match &self.state {
                State::Listening(client) => {
                    let heard = tokio::time::timeout_at(until, self.told.notified()).await.is_ok();
                    if !client.is_closed() {
                        return heard;
                    }
                    self.state = State::Apart(None);
                }
                State::Apart(at) => {
                    let at = at.unwrap_or_else(Instant::now);
                    tokio::time::sleep_until(at.min(until)).await;
                    if at >= until {
                        return false;
                    }
                    if self.connect(until).await {
                        // Nobody knows what was said meanwhile.
                        return true;
                    }
                }
                State::Pooled(asked_again) => {
                    let asked_again = *asked_again;
                    tokio::time::sleep_until(asked_again.min(until)).await;
                    if asked_again >= until {
                        return false;
                    }
                    self.state = State::Apart(None);
                }
            }
        }
    }

    /// Tries to connect, and says whether it listens now.
    async fn connect(&mut self, until: Instant) -> bool {
        let limit = until.max(Instant::now() + ANSWER);
        match tokio::time::timeout_at(limit, self.listen()).await {
            Ok(Some(state)) => {
                self.pause = PAUSE;
                let listens = matches!(state, State::Listening(_));
                self.state = state;
                listens
            }
            Ok(None) | Err(_) => {
                self.state = State::Apart(Some(Instant::now() + self.pause));
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                false
            }
        }
    }

    async fn listen(&self) -> Option<State> {
        let client = dial::connect_and_hear(&self.url, &self.name, Some(self.told.clone())).await.ok()?;
        if self.is_pooled(&client).await? {
            return Some(State::Pooled(Instant::now() + LEASE));
        }
        client.batch_execute("LISTEN lnr_directory").await.ok()?;
        Some(State::Listening(client))
    }

    /// Whether each transaction may run in another session of the server's. Another connection takes a session for itself: it must not be
    /// the one that this one has had, and this one must still have it.
    async fn is_pooled(&self, client: &Client) -> Option<bool> {
        let before = pid(client).await.ok()?;
        let other = dial::connect(&self.url, &self.name).await.ok()?;
        other.batch_execute("BEGIN").await.ok()?;
        let taken = pid(&other).await.ok()?;
        let after = pid(client).await.ok()?;
        Some(before == taken || before != after)
    }
}

async fn pid(client: &Client) -> Result<i32, Error> {
    let rows = client.query_typed(PID, &[]).await?;
    Ok(rows.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0))
}

impl Notices for Listener {
    fn wait(&mut self, patience: Duration) -> bool {
        let Some(runtime) = self.runtime.take() else { return false };
        let interrupted = self.interrupted.clone();
        let heard = runtime.block_on(async {
            let until = Instant::now() + patience;
            let (mut interruption, mut heard) = (pin!(interrupted.notified()), pin!(self.hear(until)));
            poll_fn(|context| match interruption.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => heard.as_mut().poll(context),
            })
            .await
        });
        self.runtime = Some(runtime);
        heard
    }

    fn interrupter(&self) -> Box<dyn Fn() + Send + Sync> {
        let interrupted = self.interrupted.clone();
        Box::new(move || interrupted.notify_one())
    }
}
