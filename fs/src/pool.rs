//! Threads for requests that may have to wait.
//!
//! Neighbours: `desk`, which answers most requests on the thread that read
//! them: to wake another costs more than an answer. Promises: every job is
//! run, also those that wait when the pool is dropped; a job waits for a
//! thread only while as many as may be are busy. Never: keeps threads that
//! nobody needs. Tested by the unit tests below.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A thread that had nothing to do for this long ends.
const IDLE: Duration = Duration::from_secs(10);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs, first come first served.
pub(crate) struct Pool {
    most: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// There is a job, or it is over.
    wake: Condvar,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
    started: u64,
    over: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` ends the thread, which is no longer counted then.
    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.over {
                break;
            }
            queue.idle += 1;
            let woken = self.wake.wait_timeout(queue, IDLE);
            let (back, waited) = woken.unwrap_or_else(PoisonError::into_inner);
            queue = back;
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() {
                break;
            }
        }
        queue.threads -= 1;
        self.ended.notify_all();
        None
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            // A request whose answer panics is answered with an error when
            // its reply is dropped; the next ones go on.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
        }
    }
}

impl Pool {
    /// A pool of at most so many threads.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, shared: Arc::default() }
    }

    /// Runs a job soon.
    pub(crate) fn run(&self, job: Job) {
        let mut queue = self.shared.queue();
        queue.jobs.push_back(job);
        if queue.idle < queue.jobs.len() && queue.threads < self.most {
            queue.threads += 1;
            queue.started += 1;
            let (shared, name) = (Arc::clone(&self.shared), format!("fs-{}", queue.started));
            drop(queue);
            let thread = std::thread::Builder::new().name(name).spawn(move || shared.work());
            if let Err(e) = thread {
                // The others do it, or the next to come; until then it waits.
                tracing::error!("no thread for a request: {e}");
                self.shared.queue().threads -= 1;
            }
        } else {
            drop(queue);
            self.shared.wake.notify_one();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.over = true;
        self.shared.wake.notify_all();
        while queue.threads > 0 {
            queue = self.shared.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_is_run_though_one_panics_and_the_pool_goes() {
        let done = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new(2);
        for n in 0..100 {
            let done = Arc::clone(&done);
            pool.run(Box::new(move || {
                std::thread::sleep(Duration::from_micros(50));
                assert!(n != 7, "the one that panics");
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
        drop(pool);
        assert_eq!(done.load(Ordering::SeqCst), 99);
    }

    #[test]
    fn jobs_that_wait_for_one_another_get_a_thread_each() {
        let pool = Pool::new(8);
        let together = Arc::new(Barrier::new(8));
        for _ in 0..8 {
            let together = Arc::clone(&together);
            // With fewer threads the test would never end.
            pool.run(Box::new(move || {
                together.wait();
            }));
        }
    }
}
