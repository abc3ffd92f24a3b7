//! Rows in which connections break, or lead nowhere.

use std::io::{self, ErrorKind};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use liner_mio::{Client, Event, Mode, SendOptions, Status, Taken};
use liner_proto::rng::Rng;

use crate::{KEPT, PATIENCE, Told, client, next, run, wait_until};

/// Stands between two clients, and breaks their connections.
struct Proxy {
    address: String,
    to: Mutex<String>,
    /// Both ends of all connections.
    links: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
}

impl Proxy {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            to: Mutex::default(),
            links: Mutex::default(),
            accepted: AtomicUsize::new(0),
        });
        let here = Arc::clone(&proxy);
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                // Whoever is there is tried again.
                let _ = here.join(near);
            }
        });
        proxy
    }

    fn join(&self, near: TcpStream) -> io::Result<()> {
        let far = TcpStream::connect(&*self.to.lock().unwrap())?;
        self.accepted.fetch_add(1, Ordering::Relaxed);
        let mut links = self.links.lock().unwrap();
        for (from, to) in [(&near, &far), (&far, &near)] {
            let (mut from, mut to) = (from.try_clone()?, to.try_clone()?);
            links.push(from.try_clone()?);
            std::thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }

    /// Breaks all connections. Says how many ends that were.
    fn cut(&self) -> usize {
        let links: Vec<TcpStream> = self.links.lock().unwrap().drain(..).collect();
        links.iter().filter(|link| link.shutdown(Shutdown::Both).is_ok()).count()
    }
}

#[test]
fn m13_order_is_kept_and_nothing_comes_twice_over_fifty_reconnects() {
    const COUNT: u32 = 10_000;
    const CUTS: u32 = 50;
    const EACH: u32 = COUNT / CUTS;
    let folder = tempfile::tempdir().unwrap();
    let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    println!("seed {seed}");
    let mut rng = Rng::new([seed, 13]);
    // The connection breaks while its receiver has the message of this number: in each chunk once.
    let cuts: Vec<u32> = (0..CUTS).map(|chunk| chunk * EACH + rng.below(EACH.into()) as u32).collect();

    let proxy = Proxy::start();
    let one = client(&folder.path().join("one.db"), "one", "to-one");
    let two = client(&folder.path().join("two.db"), "two", "to-two");
    // Nobody knows another way than through the proxy.
    one.set_advertise_addr(Some(&proxy.address)).unwrap();
    one.configure(|builder| builder.configure(|config| config.mesh_max = 0));
    let address = proxy.address.clone();
    two.configure(move |builder| builder.peer(&address).configure(|config| config.mesh_max = 0));
    let ups = Arc::new(AtomicUsize::new(0));
    let up = Arc::clone(&ups);
    two.set_status_callback(move |status| {
        if matches!(status, Status::Event(Event::PeerUp { .. })) {
            up.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (tell, told) = channel();
    let (breaks, mut due) = (Arc::clone(&proxy), cuts.clone().into_iter().peekable());
    one.run(move |taken: &Taken| {
        let number = u32::from_be_bytes(taken.payload()[..4].try_into().unwrap());
        let cut = due.next_if_eq(&number).map(|_| {
            let before = ups.load(Ordering::SeqCst);
            let cut = breaks.cut();
            // What has arrived behind this one is not processed yet when the next connection begins: it is sent again.
            wait_until(|| number % 2 == 0 || ups.load(Ordering::SeqCst) > before);
            cut
        });
        let _ = tell.send((number, cut));
    })
    .unwrap();
    *proxy.to.lock().unwrap() = one.bound_listen_addr().unwrap();
    let _answers = run(&two);

    let mut had = 0;
    for (chunk, cut) in (0..CUTS).zip(cuts) {
        let payloads = (chunk * EACH..(chunk + 1) * EACH).map(|number| {
            let mut payload = vec![0; 256];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            payload
        });
        two.send_many("to-one", payloads, SendOptions::new(Mode::One)).unwrap();
        while had <= cut {
            let (number, broken) = told.recv_timeout(PATIENCE).unwrap();
            assert_eq!(number, had, "in order, and once");
            assert_eq!(broken.is_some(), number == cut);
            assert_ne!(broken, Some(0), "there was a connection");
            had += 1;
        }
    }
    while had < COUNT {
        assert_eq!(told.recv_timeout(PATIENCE).unwrap().0, had, "in order, and once");
        had += 1;
    }
    assert!(two.wait_until_acknowledged(PATIENCE).unwrap());
    assert!(told.try_recv().is_err(), "nothing came twice");
    let accepted = proxy.accepted.load(Ordering::Relaxed);
    assert!(accepted > CUTS as usize, "{accepted} connections");
}

/// A port that takes connections and says nothing.
fn silent() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A port that drops whoever wants to connect, as a firewall does: its queue is full, and stays so.
fn black_hole() -> (TcpListener, Vec<TcpStream>) {
    let hole = silent();
    rustix::net::listen(&hole, 0).unwrap();
    let address: SocketAddr = hole.local_addr().unwrap();
    let mut full = Vec::new();
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
            Ok(stream) => full.push(stream),
            Err(error) if error.kind() == ErrorKind::TimedOut => return (hole, full),
            Err(error) => panic!("{error}"),
        }
        assert!(full.len() < 16, "it takes everybody");
    }
}

/// Sends to all, and by turns to each, and says how long it took until they had it.
fn send_to_each(sender: &Client, workers: &[(Client, Receiver<Told>)]) -> Duration {
    let begin = Instant::now();
    for number in 0..100u8 {
        sender.send_all("news", &[number], KEPT).unwrap();
    }
    for (_, told) in workers {
        for number in 0..100 {
            assert_eq!(next(told).1, [number]);
        }
    }
    // What is for one goes to those that are there.
    for _ in 0..workers.len() * 10 {
        sender.send_to("news", b"x", KEPT).unwrap();
    }
    for (_, told) in workers {
        assert!((0..10).all(|_| next(told).1 == b"x"));
    }
    begin.elapsed()
}

#[test]
fn m23_a_peer_in_a_black_hole_holds_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let [free, one] = ["free", "one"].map(|name| {
        let sender = client(&folder.path().join(format!("{name}.db")), name, &format!("to-{name}"));
        sender.set_patience(PATIENCE);
        sender
    });
    let workers: Vec<_> = (0..8)
        .map(|number| {
            let name = format!("w{number}");
            let worker = client(&folder.path().join(format!("{name}.db")), &name, "news");
            let told = run(&worker);
            for sender in [&free, &one] {
                sender.add_receiver("news", &worker.bound_listen_addr().unwrap(), &name);
            }
            (worker, told)
        })
        .collect();
    let answers = run(&free);
    crate::wait_for(&free, "news", 8, true);
    let without = send_to_each(&free, &workers);
    free.stop().unwrap();
    drop(answers);

    let (silent, (hole, _full)) = (silent(), black_hole());
    for (listener, name) in [(&silent, "silent"), (&hole, "hole")] {
        one.add_receiver("news", &listener.local_addr().unwrap().to_string(), name);
    }
    let begin = Instant::now();
    let _answers = run(&one);
    crate::wait_for(&one, "news", 8, true);
    let found = begin.elapsed();
    let with = send_to_each(&one, &workers);
    // A machine that is busy with something else takes long without them, too.
    println!("connected after {found:?}, {with:?} with them, {without:?} without");
    assert!(found + with < Duration::from_secs(5) + 10 * without, "{found:?}, {with:?} against {without:?}");
    let waits_for_holes = |pending: Vec<liner_mio::PendingFor>| {
        let mut waits: Vec<_> = pending.into_iter().map(|it| (it.name, it.messages)).collect();
        waits.sort();
        waits == [("hole".to_owned(), 100), ("silent".to_owned(), 100)]
    };
    // The last acknowledgements may be on their way.
    wait_until(|| waits_for_holes(one.pending_by_peer().unwrap()));
    one.stop().unwrap();
    assert_eq!(one.pending_count().unwrap(), 200);
}
