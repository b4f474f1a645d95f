//! Who works on a request, and until when it is answered.
//!
//! Neighbours: `ops` above, which says what to do for each request; `pool`
//! for what has to wait. Promises: each request is answered once, with EIO
//! when it takes longer than it may, and soon when who asked was killed: the
//! kernel lets nobody go whose request was read. A disk that answers nothing
//! never holds the last thread that reads requests, so whatever needs no disk
//! is answered at once. Never: makes another thread work while the one that read a request
//! can. Tested by the unit tests below and `fs/tests/mount_stalled.rs`.

use crate::errno::errno;
use crate::pool::{Job, Pool};
use fuser::Errno;
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tracing::Span;
use warp_flow::Result;
use warp_flow::asker::Asker;

/// Most threads for what has to wait: more than the requests that the kernel
/// has in the background, so that these alone cannot take them all.
const POOL_THREADS: usize = 96;

/// How often those whose requests take long are looked at: whether they were
/// killed.
const LOOK: Duration = Duration::from_secs(1);
/// Requests by which the kernel hands over what it keeps.
const CHANGES_CONTENT: [&str; 2] = ["write", "setattr"];
/// SIGKILL among the signals that /proc shows as pending.
const KILL_PENDING: u64 = 1 << 8;

/// What fuser wants a request answered with.
pub(crate) trait Answer: Send + 'static {
    /// Answers with an error.
    fn fail(self, errno: Errno);
}

macro_rules! answers {
    ($($reply:ident)*) => {
        $(impl Answer for fuser::$reply {
            fn fail(self, errno: Errno) {
                self.error(errno);
            }
        })*
    };
}

answers! {
    ReplyAttr ReplyCreate ReplyData ReplyDirectory ReplyDirectoryPlus ReplyEmpty ReplyEntry
    ReplyLseek ReplyStatfs ReplyWrite ReplyXattr
}

/// Where requests are taken, and watched until they are answered.
pub(crate) struct Desk {
    /// Threads that read requests.
    readers: usize,
    /// Those of them that work on one.
    busy: AtomicUsize,
    pool: Pool,
    book: Arc<Book>,
    watch: Option<JoinHandle<()>>,
}

/// The requests that are not answered yet.
struct Book {
    deadline: Duration,
    pages: Mutex<Pages>,
    /// There is a request to be watched again, or it is over.
    news: Condvar,
    refused: Arc<AtomicU64>,
    /// What is logged of a request is of this mount.
    mount: Span,
}

#[derive(Default)]
struct Pages {
    next: u64,
    /// By number, and so in the order in which their time is up.
    open: BTreeMap<u64, Entry>,
    /// There was nothing to watch: the next entry wakes who does.
    idle: bool,
    over: bool,
}

struct Entry {
    asked: Instant,
    asks: Asks,
    /// No time limit.
    patient: bool,
    /// Answers with an error; false if it was answered already.
    give_up: Box<dyn FnOnce(Errno) -> bool + Send>,
}

/// Who asks what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asks {
    pub(crate) what: &'static str,
    pub(crate) ino: u64,
    /// The open file, and the bytes of it that are meant; 0 where none are.
    pub(crate) fh: u64,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The thread; 0 where the kernel asks by itself.
    pub(crate) pid: u32,
}

impl Asks {
    /// Of an open file, and so many bytes of it from there.
    pub(crate) fn of(self, fh: u64, offset: u64, len: u64) -> Self {
        Self { fh, offset, len, ..self }
    }

    /// What is logged while it is worked on belongs to it.
    fn span(&self, mount: &Span) -> Span {
        let Self { what: req, ino, fh, offset, len, pid } = *self;
        tracing::debug_span!(parent: mount, "request", %req, ino, fh, offset, len, pid)
    }
}

/// True if this thread is about to die, and waits for an answer only.
fn is_killed(pid: u32) -> bool {
    // 0 is also who lives in a place where this process cannot see it.
    pid != 0 && std::fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| has_kill(&s))
}

fn has_kill(status: &str) -> bool {
    let pending = |line: &str| {
        let signals = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(signals.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|signals| signals & KILL_PENDING != 0)
}

impl Book {
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers whatever has waited for too long, or in vain.
    fn watch(&self) {
        let mut looked = Instant::now();
        let mut pages = self.pages();
        while !pages.over {
            if pages.open.is_empty() {
                pages.idle = true;
                pages = self.news.wait(pages).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let now = Instant::now();
            let first = pages.open.values().find(|entry| !entry.patient);
            let left = first
                .map_or(LOOK, |first| (first.asked + self.deadline).saturating_duration_since(now));
            let look = (looked + LOOK).saturating_duration_since(now);
            if left.is_zero() {
                let late = |entry: &Entry| !entry.patient && entry.asked + self.deadline <= now;
                let late: Vec<_> = pages.open.extract_if(.., |_, entry| late(entry)).collect();
                drop(pages);
                late.into_iter().for_each(|(_, entry)| self.give_up(entry, Errno::EIO));
            } else if look.is_zero() {
                drop(pages);
                self.let_killed_go(now);
                looked = now;
            } else {
                // What comes meanwhile has more time left than this.
                drop(self.news.wait_timeout(pages, left.min(look)));
            }
            pages = self.pages();
        }
    }

    fn let_killed_go(&self, now: Instant) {
        let is_old = |entry: &&Entry| entry.asked + LOOK / 2 <= now;
        let pids: Vec<_> = self.pages().open.values().filter(is_old).map(|e| e.asks.pid).collect();
        let killed: Vec<_> = pids.into_iter().filter(|pid| is_killed(*pid)).collect();
        if killed.is_empty() {
            return;
        }
        let mut pages = self.pages();
        let gone = pages.open.extract_if(.., |_, entry| killed.contains(&entry.asks.pid));
        let gone: Vec<_> = gone.collect();
        drop(pages);
        gone.into_iter().for_each(|(_, entry)| self.give_up(entry, Errno::EINTR));
    }

    fn give_up(&self, entry: Entry, errno: Errno) {
        let Entry { asked, asks: Asks { what, ino, .. }, give_up, .. } = entry;
        // Who was killed is told nothing.
        if errno == Errno::EIO && CHANGES_CONTENT.contains(&what) {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
        if give_up(errno) {
            let (after, errno) = (asked.elapsed(), errno.code());
            tracing::warn!(what, ino, ?after, errno, "neither disk nor peers answered in time");
        }
    }
}

/// The reply of one request, to be given once: by who works on it, or when its
/// time is up.
pub(crate) struct Once<R> {
    slot: Arc<Slot<R>>,
    book: Arc<Book>,
    number: u64,
}

struct Slot<R> {
    reply: Mutex<Option<R>>,
    asker: Asker,
}

impl<R> Slot<R> {
    fn reply(&self) -> MutexGuard<'_, Option<R>> {
        self.reply.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Answer> Once<R> {
    /// Gives the reply, with what `how` says; false if it was given already.
    pub(crate) fn give(&self, how: impl FnOnce(R)) -> bool {
        let reply = self.slot.reply().take();
        reply.map(how).is_some()
    }

    /// The same with a result: `how` says it if it is good.
    pub(crate) fn settle<T>(&self, result: Result<T>, how: impl FnOnce(R, T)) -> bool {
        self.give(|reply| match result {
            Ok(found) => how(reply, found),
            Err(e) => reply.fail(errno(&e)),
        })
    }

    /// Adds to a reply that is not complete yet; `None` if it was given.
    pub(crate) fn add<T>(&self, how: impl FnOnce(&mut R) -> T) -> Option<T> {
        self.slot.reply().as_mut().map(how)
    }
}

impl<R> Drop for Once<R> {
    fn drop(&mut self) {
        let entry = self.book.pages().open.remove(&self.number);
        if let Some(Entry { asked, asks, .. }) = entry {
            let us = asked.elapsed().as_micros() as u64;
            asks.span(&self.book.mount).in_scope(|| tracing::debug!(us, "answered"));
        }
    }
}

/// A thread that reads requests works on one.
struct Seat<'a>(&'a AtomicUsize);

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Desk {
    /// For so many threads that read requests, each of which is answered
    /// within `deadline`; the log says that it is of `portal`.
    pub(crate) fn new(readers: usize, deadline: Duration, portal: &str) -> io::Result<Self> {
        let (pages, news, refused) = Default::default();
        let mount = tracing::debug_span!("mount", %portal);
        let book = Arc::new(Book { deadline, pages, news, refused, mount });
        let watched = Arc::clone(&book);
        let watch = std::thread::Builder::new().name("deadline".into());
        let watch = Some(watch.spawn(move || watched.watch())?);
        let (busy, pool) = (AtomicUsize::new(0), Pool::new(POOL_THREADS));
        Ok(Self { readers, busy, pool, book, watch })
    }

    /// Of what the kernel handed over, how much was answered with an error;
    /// whoever refuses it counts it here, before that answer.
    pub(crate) fn refused(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.book.refused)
    }

    /// Has `act` work on a request: here, if others are left who read
    /// requests, and it will not `wait` for sure. It must give the reply.
    pub(crate) fn take<R: Answer>(
        &self,
        asks: Asks,
        reply: R,
        wait: bool,
        act: impl FnOnce(Once<R>) + Send + 'static,
    ) {
        let once = self.enter(asks, false, reply);
        let slot = Arc::clone(&once.slot);
        let span = asks.span(&self.book.mount);
        let work = move || {
            // One that waited here until its time was up is not begun.
            if !slot.asker.has_left() {
                span.in_scope(|| slot.asker.serve(|| act(once)));
            }
        };
        let seat = if wait { None } else { self.seat() };
        match seat {
            // As in the pool: one request that panics is answered with an
            // error, and the thread reads the next.
            Some(_seat) => {
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            }
            None => {
                let job: Job = Box::new(work);
                self.pool.run(job);
            }
        }
    }

    /// Notes a request that may take as long as it takes, unless who asked is
    /// killed.
    pub(crate) fn wait<R: Answer>(&self, asks: Asks, reply: R) -> Once<R> {
        self.enter(asks, true, reply)
    }

    fn enter<R: Answer>(&self, asks: Asks, patient: bool, reply: R) -> Once<R> {
        let slot = Arc::new(Slot { reply: Mutex::new(Some(reply)), asker: Asker::default() });
        let late = Arc::clone(&slot);
        let give_up = Box::new(move |errno| {
            let mut reply = late.reply();
            let Some(reply) = reply.take() else { return false };
            // First: who is told that it failed may try again at once, and
            // must not find it done later, over what came of that.
            late.asker.leave();
            reply.fail(errno);
            true
        });
        let mut pages = self.book.pages();
        let number = pages.next;
        pages.next += 1;
        pages.open.insert(number, Entry { asked: Instant::now(), asks, patient, give_up });
        if std::mem::take(&mut pages.idle) {
            self.book.news.notify_all();
        }
        drop(pages);
        Once { slot, book: Arc::clone(&self.book), number }
    }

    /// A seat for a thread that reads requests; none for the last of them.
    fn seat(&self) -> Option<Seat<'_>> {
        let seat = Seat(&self.busy);
        let before = self.busy.fetch_add(1, Ordering::Relaxed);
        (before + 1 < self.readers).then_some(seat)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.book.pages().over = true;
        self.book.news.notify_all();
        if let Some(watch) = self.watch.take() {
            let _ = watch.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    use warp_flow::FlowError;

    const READERS: usize = 3;
    const DEADLINE: Duration = Duration::from_millis(100);

    /// A reply that tells what was given.
    struct Told(Sender<i32>);

    impl Answer for Told {
        fn fail(self, errno: Errno) {
            // Who has gone need not be told.
            let _ = self.0.send(errno.code());
        }
    }

    fn asks(what: &'static str) -> Asks {
        Asks { what, ino: 1, fh: 0, offset: 0, len: 0, pid: 0 }
    }

    fn told() -> (Told, Receiver<i32>) {
        let (sender, receiver) = channel();
        (Told(sender), receiver)
    }

    fn soon(answers: &Receiver<i32>) -> i32 {
        answers.recv_timeout(Duration::from_secs(5)).unwrap()
    }

    #[test]
    fn however_many_are_stuck_the_next_is_answered_at_once_and_each_in_time() {
        let desk = Arc::new(Desk::new(READERS, DEADLINE, "").unwrap());
        let (open_gate, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let mut stuck = Vec::new();
        // As many threads read requests, and more requests get stuck.
        let (requests, next) = channel::<Told>();
        let next = Arc::new(Mutex::new(next));
        let readers: Vec<_> = (0..READERS)
            .map(|_| {
                let (desk, next, gate) = (Arc::clone(&desk), Arc::clone(&next), Arc::clone(&gate));
                std::thread::spawn(move || {
                    loop {
                        let Ok(reply) = next.lock().unwrap().recv() else { return };
                        let gate = Arc::clone(&gate);
                        desk.take(asks("stuck"), reply, false, move |once| {
                            // Until the sender has gone.
                            let _ = gate.lock().unwrap().recv();
                            once.give(|told| told.0.send(0).unwrap());
                        });
                    }
                })
            })
            .collect();
        for _ in 0..10 {
            let (reply, answers) = told();
            requests.send(reply).unwrap();
            stuck.push(answers);
        }
        for answers in &stuck {
            assert_eq!(soon(answers), Errno::EIO.code());
        }
        let (reply, answers) = told();
        desk.take(asks("quick"), reply, false, |once| {
            once.give(|told| told.0.send(7).unwrap());
        });
        assert_eq!(soon(&answers), 7);
        drop((open_gate, requests));
        readers.into_iter().for_each(|thread| thread.join().unwrap());
        // What they found in the end is told to nobody.
        assert!(stuck.iter().all(|answers| answers.recv().is_err()));
        let until = Instant::now() + Duration::from_secs(5);
        while !desk.book.pages().open.is_empty() {
            assert!(Instant::now() < until, "a request is watched that nobody works on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_waits_until_its_time_is_up_is_not_begun() {
        let desk = Desk::new(1, DEADLINE, "").unwrap();
        // All threads of the pool.
        let (open_gate, gate) = channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for _ in 0..POOL_THREADS {
            let gate = Arc::clone(&gate);
            desk.take(asks("stuck"), told().0, false, move |_| {
                let _ = gate.lock().unwrap().recv();
            });
        }
        let (reply, answers) = told();
        let begun = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&begun);
        desk.take(asks("late"), reply, true, move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        assert_eq!(soon(&answers), Errno::EIO.code());
        drop(open_gate);
        drop(desk);
        assert_eq!(begun.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_request_whose_work_panics_is_dropped_and_the_next_is_taken() {
        for readers in [1, 2] {
            let desk = Desk::new(readers, Duration::from_secs(60), "").unwrap();
            let (reply, answers) = told();
            desk.take(asks("panics"), reply, false, |_| panic!("on purpose"));
            let gone = answers.recv_timeout(Duration::from_secs(5));
            assert_eq!(gone, Err(RecvTimeoutError::Disconnected));
            let (reply, answers) = told();
            desk.take(asks("next"), reply, false, |once| {
                once.give(|told| told.0.send(7).unwrap());
            });
            assert_eq!(soon(&answers), 7);
        }
    }

    #[test]
    fn a_kill_shows_whether_it_was_sent_to_the_thread_or_to_all() {
        let status = |own: &str, all: &str| format!("State:\tD\nSigPnd:\t{own}\nShdPnd:\t{all}\n");
        let (none, term, kill) = ("0000000000000000", "0000000000004000", "0000000000000100");
        assert!(!has_kill(&status(none, none)) && !has_kill(&status(term, term)));
        assert!(has_kill(&status(kill, none)) && has_kill(&status(none, kill)));
        assert!(!has_kill("SigPnd:\tno number\n"));
        assert!(!is_killed(std::process::id()));
    }

    #[test]
    fn what_has_no_time_limit_is_answered_when_it_is_done() {
        let desk = Desk::new(2, DEADLINE, "").unwrap();
        let (reply, answers) = told();
        let once = desk.wait(asks("durable"), reply);
        assert!(answers.recv_timeout(DEADLINE * 3).is_err());
        assert!(once.give(|told| told.0.send(7).unwrap()));
        assert_eq!(soon(&answers), 7);
        drop(once);
        assert!(desk.book.pages().open.is_empty());
    }

    #[test]
    fn an_error_is_told_by_its_number() {
        let desk = Desk::new(2, DEADLINE, "").unwrap();
        let (reply, answers) = told();
        desk.take(asks("fails"), reply, false, |once| {
            let result: Result<()> = Err(FlowError::GivenUp);
            assert!(once.settle(result, |_, ()| panic!("it failed")));
            assert!(!once.give(|_| panic!("given already")));
        });
        assert_eq!(soon(&answers), Errno::EIO.code());
    }
}
