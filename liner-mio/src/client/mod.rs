//! The convenient form: a node on a thread of its own, with calls that wait.

mod blocked;
mod command;
mod dispatch;
mod error;
mod handling;
mod looping;
mod settings;
mod status;
mod verbs;

use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use liner_proto::delivery::SendMode;
use liner_proto::id::{Class, SendId};
use liner_proto::router::{NAME_BYTES_MAX, SendError, SendOptions};
use liner_proto::store::Store;
use liner_proto::wire::record::Mode;

use crate::node::Node;
use command::{Commands, Job, JobEnd, Ticket};
use dispatch::{Dispatch, Dispatcher};
pub use error::{
    ClientForgetError, ClientSendError, ClientStopError, NewClientError, RunError, StoppedOnlyError,
    SubscribeError,
};
use handling::Callback;
pub use handling::{Failures, Outcome, Taken};
use looping::{End, Loop};
use settings::Settings;
pub use settings::{Backpressure, Reliability, Status};
pub use verbs::{KnownAddress, PendingFor};

/// What a send that was successful has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its message, or the last of several. Messages that are sent as best effort have no number: the last one that has.
    pub id: SendId,
    /// What its storage survives; [`Class::Ram`] if it is sent as best effort.
    pub class: Class,
}

/// A participant with calls that wait, for programs that use threads.
///
/// # Threads
/// [`run`](Self::run) starts two. `liner-loop` drives a [`Node`]: sockets, timers, the store. `liner-dispatch` calls the
/// callback, and the [status callback](Self::set_status_callback), one call at a time, so that both may call anything here,
/// blocking sends among it. [`stop`](Self::stop) ends both.
///
/// # What is promised
/// A message is acknowledged to its sender when the callback has returned success for it, and not before. A callback that fails
/// or panics is called again ([`Failures`]); meanwhile later messages of the same sender wait, and nobody else's do. A
/// successful send is stored, at [`Sent::class`], before it returns, unless the client is configured for the asynchronous mode. Sends of
/// several threads share commits.
///
/// Calls can be made from any thread. It is dropped as if [`stop`](Self::stop) had been called.
pub struct Client {
    settings: Mutex<Settings>,
    /// The run that is going on, until its end was waited for.
    running: Mutex<Option<Running>>,
    /// Nothing stands in `running` any more.
    ended: Condvar,
}

/// A run, and how it is talked to.
struct Running {
    commands: Arc<Commands>,
    dispatch: Arc<Dispatch>,
    /// Nothing if somebody waits for their end.
    threads: Option<Threads>,
    dispatcher_id: ThreadId,
    /// What a send that has returned survives.
    class: Class,
}

struct Threads {
    loop_thread: JoinHandle<End>,
    dispatcher: JoinHandle<()>,
}

/// No run goes on, and none begins while this is held.
type Idle<'c> = MutexGuard<'c, Option<Running>>;

/// Why there is no place for another run.
enum Occupied {
    /// One goes on.
    Runs,
    /// One ends when the callback has returned that asks.
    Ends,
}

/// Whatever a thread has left behind is complete: nothing is changed in two steps under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// A client that does not run yet. `name` is unique among all nodes that it will meet, and stays the same over restarts;
    /// `topic` is where it is sent to; `listen` is `host:port`, port 0 takes a free one. `open` opens its store, now to see
    /// whether it can be, and whenever it is needed; it calls nothing of the client.
    ///
    /// # Errors
    /// See [`NewClientError`].
    pub fn new<E: fmt::Display>(
        name: &str,
        topic: &str,
        listen: &str,
        open: impl Fn() -> Result<Box<dyn Store + Send>, E> + Send + 'static,
    ) -> Result<Self, NewClientError> {
        let fits = |text: &str| !text.is_empty() && text.len() <= NAME_BYTES_MAX;
        if !fits(name) {
            return Err(NewClientError::Name { name: name.to_owned() });
        }
        if !fits(topic) {
            return Err(NewClientError::Topic { topic: topic.to_owned() });
        }
        if listen.is_empty() {
            return Err(NewClientError::Listen);
        }
        let open = Box::new(move || open().map_err(|error| error.to_string()));
        drop(open().map_err(|said| NewClientError::Store { said })?);
        let settings = Settings::new(name, topic, listen, open);
        Ok(Self { settings: Mutex::new(settings), running: Mutex::new(None), ended: Condvar::new() })
    }

    // ------------------------------------------------------------------ running

    /// Binds the address, recovers from the store, and starts the two threads. `callback` is given each message that arrives; it
    /// counts as processed, and is acknowledged, when that returned nothing or `Ok`. Nothing happens if the client runs already;
    /// a run that was told to stop is waited for.
    ///
    /// # Errors
    /// See [`RunError`]. Nothing of the run remains then, and it may be tried again.
    pub fn run<O: Outcome>(
        &self,
        mut callback: impl FnMut(&Taken) -> O + Send + 'static,
    ) -> Result<(), RunError> {
        self.start(Callback::ByReturn(Box::new(move |taken| callback(taken).failure())))
    }

    /// As [`run`](Self::run), but the callback is given messages to settle whenever and wherever it likes:
    /// [`Taken::settle`], [`Taken::fail`], [`Taken::put_aside`]. Several of one sender may be out at a time.
    ///
    /// # Errors
    /// See [`RunError`].
    pub fn run_unsettled(&self, callback: impl FnMut(Taken) + Send + 'static) -> Result<(), RunError> {
        self.start(Callback::ByHand(Box::new(callback)))
    }

    fn start(&self, callback: Callback) -> Result<(), RunError> {
        let mut running = match self.idle() {
            Ok(running) => running,
            Err(Occupied::Runs) => return Ok(()),
            Err(Occupied::Ends) => return Err(RunError::Ending),
        };
        let mut settings = lock(&self.settings);
        let node = settings.build()?;
        settings.bound = node.listen_addrs().first().map(ToString::to_string);
        // Otherwise sends return before anything is stored.
        let is_stored = node.send_mode() == SendMode::Stored;
        let class = if is_stored { node.store_class() } else { Class::Ram };
        let commands = Arc::new(Commands::new(node.waker()));
        let dispatch = Arc::new(Dispatch::new(settings.failures, Arc::clone(&commands)));
        let looping = Loop::new(node, &settings, Arc::clone(&commands), Arc::clone(&dispatch));
        let status = Arc::clone(&settings.status);
        drop(settings);
        let dispatcher = Dispatcher::new(Arc::clone(&dispatch), callback, status);
        let dispatcher = spawn("liner-dispatch", move || dispatcher.run())?;
        let (tell, begun) = sync_channel(1);
        // Nothing is written before both threads are there: of a run that cannot begin nothing remains.
        let begun = spawn("liner-loop", move || looping.run(&tell)).and_then(|thread| {
            let error = match begun.recv() {
                Ok(Ok(())) => return Ok(thread),
                Ok(Err(error)) => RunError::Drive(error),
                Err(_) => RunError::Panicked,
            };
            // Its store and its sockets are free again before anybody is told.
            let _ = thread.join();
            Err(error)
        });
        let loop_thread = match begun {
            Ok(thread) => thread,
            Err(error) => {
                dispatch.end();
                // A status callback may ask for the client meanwhile.
                drop(running);
                let _ = dispatcher.join();
                return Err(error);
            }
        };
        let dispatcher_id = dispatcher.thread().id();
        let threads = Some(Threads { loop_thread, dispatcher });
        *running = Some(Running { commands, dispatch, threads, dispatcher_id, class });
        Ok(())
    }

    /// Waits for the end of a run that ends.
    fn idle(&self) -> Result<Idle<'_>, Occupied> {
        let patience = lock(&self.settings).patience;
        let mut running = lock(&self.running);
        while let Some(found) = running.as_mut() {
            if found.commands.go_on() {
                return Err(Occupied::Runs);
            }
            let is_own = found.is_dispatched_here();
            if is_own && !found.commands.are_closed() {
                return Err(Occupied::Ends);
            }
            if let Some(threads) = found.threads.take() {
                let dispatch = Arc::clone(&found.dispatch);
                drop(running);
                // How it ended was told when it did.
                let _ = threads.join(&dispatch, if is_own { Duration::ZERO } else { patience });
                running = self.note_end();
            } else if is_own {
                return Err(Occupied::Ends);
            } else {
                running = self.ended.wait(running).unwrap_or_else(PoisonError::into_inner);
            }
        }
        Ok(running)
    }

    /// The threads of the run have ended, as far as they were waited for.
    fn note_end(&self) -> Idle<'_> {
        let mut running = lock(&self.running);
        *running = None;
        self.ended.notify_all();
        running
    }

    /// Whether it runs: after a successful [`run`](Self::run), until it is stopped or its node cannot go on.
    pub fn is_running(&self) -> bool {
        lock(&self.running).as_ref().is_some_and(|running| !running.commands.are_closed())
    }

    /// Ends the run in good order: the callback that is being called returns, what was sent or posted is stored, every peer is told.
    /// Messages that are not acknowledged stay in the store, messages that were not settled come again. Then
    /// [`run`](Self::run) may be called again. Nothing happens if the client does not run.
    ///
    /// Called by a callback it returns at once, and the run ends after the callback has returned.
    ///
    /// # Errors
    /// See [`ClientStopError`].
    pub fn stop(&self) -> Result<(), ClientStopError> {
        let patience = lock(&self.settings).patience;
        let mut running = lock(&self.running);
        let Some(found) = running.as_mut() else { return Ok(()) };
        found.commands.stop(patience);
        if found.is_dispatched_here() {
            return Ok(());
        }
        let Some(threads) = found.threads.take() else {
            // Another thread waits for the same.
            let is_waited_for =
                |running: &mut Option<Running>| running.as_ref().is_some_and(|run| run.threads.is_none());
            drop(self.ended.wait_while(running, is_waited_for));
            return Ok(());
        };
        let dispatch = Arc::clone(&found.dispatch);
        drop(running);
        let ended = threads.join(&dispatch, patience);
        drop(self.note_end());
        ended
    }

    // ------------------------------------------------------------------ sending

    /// Sends a message to one of those who take the topic, by turns among those that are connected, else among those that are away.
    /// Never to nobody. With [`Reliability::AtLeastOnce`] it is stored when this returns.
    ///
    /// # Errors
    /// See [`ClientSendError`].
    pub fn send_to(
        &self,
        topic: &str,
        payload: &[u8],
        reliability: Reliability,
    ) -> Result<Sent, ClientSendError> {
        self.send(topic, payload, reliability.options(false))
    }

    /// Sends a message to everyone who takes the topic: for all of them it is stored, or for none.
    ///
    /// # Errors
    /// See [`ClientSendError`].
    pub fn send_all(
        &self,
        topic: &str,
        payload: &[u8],
        reliability: Reliability,
    ) -> Result<Sent, ClientSendError> {
        self.send(topic, payload, reliability.options(true))
    }

    /// Sends a message with all that a sender may want: a time to live, for instance.
    ///
    /// # Errors
    /// See [`ClientSendError`].
    pub fn send(&self, topic: &str, payload: &[u8], options: SendOptions) -> Result<Sent, ClientSendError> {
        self.send_many(topic, core::iter::once(payload), options)
    }

    /// Sends messages in their order, with as few commits as possible. `Ok` means that all of them are stored.
    ///
    /// # Errors
    /// See [`ClientSendError`]. Those before the one that was refused are sent ([`ClientSendError::sent`] says how many).
    pub fn send_many<P: AsRef<[u8]>>(
        &self,
        topic: &str,
        payloads: impl IntoIterator<Item = P>,
        options: SendOptions,
    ) -> Result<Sent, ClientSendError> {
        let (commands, class) = self.commands()?;
        self.check_topic(topic)?;
        let payloads: Vec<Box<[u8]>> = payloads.into_iter().map(|payload| payload.as_ref().into()).collect();
        if payloads.is_empty() || payloads.iter().any(|payload| payload.is_empty()) {
            return Err(ClientSendError::Empty);
        }
        let (ticket, promise) = Ticket::new(payloads.len());
        commands.give(Job::new(topic, payloads, options, Some(promise)))?;
        let id = ticket.wait()?;
        let class = if options.mode == Mode::BestEffort { Class::Ram } else { class };
        Ok(Sent { id, class })
    }

    /// Hands over a message to be sent, and does not wait: what became of it is told by [`flush`](Self::flush), or by
    /// [`stop`](Self::stop). Posted messages keep their order. A call that waits may overtake those to other topics that wait for
    /// room: flush first.
    ///
    /// # Errors
    /// `Busy`, if 16 MiB or 65,536 messages were posted that are not queued yet: flush. `Unavailable` and `Full`, while the store is known to be
    /// away, or to have no room. `Empty`. `Refused` with
    /// [`SendError::OwnTopic`]. `NotRunning`, also from the moment on at which a stop stores what was posted.
    pub fn post(&self, topic: &str, payload: &[u8], options: SendOptions) -> Result<(), ClientSendError> {
        let (commands, _) = self.commands()?;
        self.check_topic(topic)?;
        if payload.is_empty() {
            return Err(ClientSendError::Empty);
        }
        commands.post(Job::new(topic, vec![payload.into()], options, None))
    }

    /// Waits until everything is stored that was sent or posted before.
    ///
    /// # Errors
    /// The first error of what was [posted](Self::post) since the last flush that has told one; `Unknown` if the store is late: the
    /// next flush tells the rest.
    pub fn flush(&self) -> Result<(), ClientSendError> {
        let (commands, _) = self.commands()?;
        let (ticket, promise) = Ticket::new(0);
        commands.give(Job::wait(promise, JobEnd::Flushed))?;
        ticket.wait().map(|_| ())
    }

    /// Waits until nothing is queued for anyone: everything was acknowledged. Says whether it came to that within `patience`.
    ///
    /// # Errors
    /// `NotRunning`.
    pub fn wait_until_acknowledged(&self, patience: Duration) -> Result<bool, ClientSendError> {
        let (commands, _) = self.commands()?;
        let (ticket, promise) = Ticket::new(0);
        commands.give(Job::wait(promise, JobEnd::Acknowledged(patience)))?;
        match ticket.wait() {
            Ok(_) => Ok(true),
            Err(ClientSendError::Unknown { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    // ------------------------------------------------------------------ helpers

    /// Whether somebody else may take the topic.
    fn check_topic(&self, topic: &str) -> Result<(), ClientSendError> {
        if lock(&self.settings).topic == topic {
            return Err(ClientSendError::Refused { sent: 0, why: SendError::OwnTopic });
        }
        Ok(())
    }

    /// How the loop is talked to, if it runs.
    fn commands(&self) -> Result<(Arc<Commands>, Class), ClientSendError> {
        let running = lock(&self.running);
        let found = running.as_ref().filter(|running| !running.commands.are_closed());
        let found = found.ok_or(ClientSendError::NotRunning)?;
        Ok((Arc::clone(&found.commands), found.class))
    }

    /// Asks the loop, and waits for its answer; nothing if it does not run.
    fn ask<T: Send + 'static>(&self, ask: impl FnOnce(&mut Node) -> T + Send + 'static) -> Option<T> {
        let (commands, _) = self.commands().ok()?;
        commands.ask(ask)
    }
}

impl Running {
    /// Whether this is the thread that calls its callbacks.
    fn is_dispatched_here(&self) -> bool {
        self.dispatcher_id == std::thread::current().id()
    }
}

impl Threads {
    /// Waits for them, for the dispatcher's for `patience` at most beyond what the loop has waited.
    fn join(self, dispatch: &Dispatch, patience: Duration) -> Result<(), ClientStopError> {
        let ended = self.loop_thread.join();
        let stuck = !dispatch.wait_for_end(patience);
        if !stuck {
            let _ = self.dispatcher.join();
        }
        match ended {
            Err(_) => Err(ClientStopError::Panicked),
            Ok(End::Failed(error)) => Err(ClientStopError::Failed(error)),
            Ok(End::Stopped(Err(error))) => Err(error),
            Ok(End::Stopped(Ok(()))) if stuck => Err(ClientStopError::CallbackBusy),
            Ok(End::Stopped(Ok(()))) => Ok(()),
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, RunError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(RunError::Thread)
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = lock(&self.settings);
        f.debug_struct("Client")
            .field("name", &settings.name)
            .field("topic", &settings.topic)
            .finish_non_exhaustive()
    }
}
