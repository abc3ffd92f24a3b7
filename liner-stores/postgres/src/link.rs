//! A connection. It is driven by whoever waits for an answer, in a runtime of its own: no thread belongs to it.

use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};

use crate::dial;
use crate::error::{Failure, OpenError};
use crate::pool::Slot;
use crate::url::Url;

/// A value and what it is, for a statement that is not prepared by name.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// One statement of several that are sent at once.
pub(crate) type Step<'a> = Pin<Box<dyn Future<Output = Result<Vec<Row>, Error>> + 'a>>;

/// A server says itself that a statement took too long, a little later than that.
const GRACE: Duration = Duration::from_secs(5);

/// How long an answer may take.
pub(crate) fn patience(url: &Url) -> Duration {
    url.statement_timeout() + url.statement_timeout().min(GRACE)
}

/// A connection to the server.
#[derive(Debug)]
pub(crate) struct Link {
    // Dropped before the runtime that drives it.
    client: Client,
    runtime: Runtime,
    /// How long an answer may take.
    patience: Duration,
    /// It has failed, or nobody knows in which state its session is.
    broken: Cell<bool>,
    /// Its place in the pool: free when the connection is closed.
    _slot: Option<Slot>,
}

/// The step that failed, and why.
#[derive(Debug)]
pub(crate) struct Stumbled {
    pub(crate) step: usize,
    pub(crate) failure: Failure,
}

impl Link {
    /// Connects, for the node of this name.
    pub(crate) fn open(url: &Url, name: &str, slot: Option<Slot>) -> Result<Self, OpenError> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| OpenError::Connect { server: url.to_string(), words: error.to_string() })?;
        let client = runtime.block_on(dial::connect(url, name))?;
        Ok(Self { client, runtime, patience: patience(url), broken: Cell::new(false), _slot: slot })
    }

    /// Whether it has failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.get() || self.client.is_closed()
    }

    /// Whether the server has ended the connection, as far as that is known without a word to it.
    pub(crate) fn is_closed(&self) -> bool {
        // What came in meanwhile is looked at: by the system, by the connection's task, and then here.
        self.runtime.block_on(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
        self.is_broken()
    }

    fn run<T>(&self, answer: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        let answer = async { tokio::time::timeout(self.patience, answer).await };
        let answer = self.runtime.block_on(answer).unwrap_or(Err(Failure::Silent));
        if answer.as_ref().is_err_and(Failure::breaks) {
            self.broken.set(true);
        }
        answer
    }

    /// Runs statements without values or answers.
    pub(crate) fn batch(&self, sql: &str) -> Result<(), Failure> {
        self.run(async { Ok(self.client.batch_execute(sql).await?) })
    }

    /// Runs one statement.
    pub(crate) fn query(&self, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Failure> {
        self.run(async { Ok(self.client.query_typed(sql, params).await?) })
    }

    /// A step without values or answers.
    pub(crate) fn plain<'a>(&'a self, sql: &'a str) -> Step<'a> {
        Box::pin(async move { self.client.batch_execute(sql).await.map(|()| Vec::new()) })
    }

    /// A step with values.
    pub(crate) fn step<'a, const N: usize>(&'a self, sql: &'a str, params: [Param<'a>; N]) -> Step<'a> {
        Box::pin(async move { self.client.query_typed(sql, &params).await })
    }

    /// Sends all steps at once, and waits for their answers. Tells of the first one that failed, in their order.
    pub(crate) fn pipeline(&self, mut steps: Vec<Step<'_>>) -> Result<Vec<Vec<Row>>, Stumbled> {
        let mut answers: Vec<Option<Result<Vec<Row>, Error>>> = steps.iter().map(|_| None).collect();
        let all = poll_fn(|context| {
            let mut waits = false;
            // A step is sent when it is polled first: in this order.
            for (step, answer) in steps.iter_mut().zip(&mut answers) {
                if answer.is_none() {
                    match step.as_mut().poll(context) {
                        Poll::Ready(ready) => *answer = Some(ready),
                        Poll::Pending => waits = true,
                    }
                }
            }
            if waits { Poll::Pending } else { Poll::Ready(()) }
        });
        let waited = self.run(async {
            all.await;
            Ok(())
        });
        let mut rows = Vec::with_capacity(answers.len());
        for (step, answer) in answers.into_iter().enumerate() {
            match answer {
                Some(Ok(answer)) => rows.push(answer),
                Some(Err(error)) => {
                    let failure = Failure::from(error);
                    self.broken.set(self.broken.get() || failure.breaks());
                    return Err(Stumbled { step, failure });
                }
                None => return Err(Stumbled { step, failure: Failure::Silent }),
            }
        }
        waited.map(|()| rows).map_err(|failure| Stumbled { step: 0, failure })
    }
}
