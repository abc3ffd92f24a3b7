//! Word that the directory has changed, on a connection of its own.

use core::future::{Future as _, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::io;
use std::sync::Arc;

use liner_proto::store::Notices;
use redis::{AsyncConnectionConfig, PushInfo, PushKind};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use crate::keys;
use crate::link::{LinkError, notified};
use crate::url::Url;

/// Attempts to connect are so far apart at least.
const PAUSE: Duration = Duration::from_millis(250);
/// How often what has come is taken, and what waits for it is told, in a wait without patience.
const STEPS: usize = 4;

/// Waits for word from the server and for an interruption at the same time.
///
/// All of it runs on the thread that waits, and while it waits: no other thread is started but for looking up a host's name.
#[derive(Debug)]
pub(crate) struct Subscriber {
    runtime: Runtime,
    word: Arc<Notify>,
    interruption: Arc<Notify>,
}

impl Subscriber {
    pub(crate) fn new(url: Url) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .thread_keep_alive(Duration::from_secs(1))
            .build()?;
        let word = Arc::new(Notify::new());
        runtime.spawn(follow(url, Arc::clone(&word)));
        Ok(Self { runtime, word, interruption: Arc::new(Notify::new()) })
    }
}

impl Notices for Subscriber {
    fn wait(&mut self, patience: Duration) -> bool {
        let Self { runtime, word, interruption } = self;
        runtime.block_on(async {
            let (mut word, mut interruption) = (pin!(word.notified()), pin!(interruption.notified()));
            let mut any = poll_fn(|context| {
                if word.as_mut().poll(context).is_ready() {
                    return Poll::Ready(true);
                }
                interruption.as_mut().poll(context).map(|()| false)
            });
            if patience.is_zero() {
                for _ in 0..STEPS {
                    tokio::task::yield_now().await;
                }
            }
            tokio::time::timeout(patience, &mut any).await.unwrap_or(false)
        })
    }

    fn interrupter(&self) -> Box<dyn Fn() + Send + Sync> {
        let interruption = Arc::clone(&self.interruption);
        Box::new(move || interruption.notify_one())
    }
}

/// Passes on every word, and connects again for as long as somebody waits.
async fn follow(url: Url, word: Arc<Notify>) {
    let mut attempts = tokio::time::interval(PAUSE);
    attempts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        attempts.tick().await;
        // What has failed is tried again: the connection for turns says why.
        let _ = listen(&url, &word).await;
    }
}

/// Returns when the connection is lost.
async fn listen(url: &Url, word: &Arc<Notify>) -> Result<(), LinkError> {
    let lost = Arc::new(Notify::new());
    let (tell_word, tell_lost) = (Arc::clone(word), Arc::clone(&lost));
    let tell = move |told: PushInfo| {
        if told.kind == PushKind::Message {
            tell_word.notify_one();
        } else if told.kind == PushKind::Disconnection {
            tell_lost.notify_one();
        }
        Ok::<(), redis::aio::SendError>(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(url.connect_timeout))
        .set_response_timeout(Some(url.command_timeout))
        .set_push_sender(tell);
    let client = notified(url)?;
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connection.map_err(LinkError::of)?;
    connection.subscribe(keys::DIRECTORY).await.map_err(LinkError::of)?;
    // Something may have changed before.
    word.notify_one();
    lost.notified().await;
    Ok(())
}
