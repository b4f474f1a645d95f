//! Threads for requests that may have to wait.
//!
//! The threads that read the kernel's requests answer most of them at once: to
//! wake another costs more than an answer. A change that has to wait for the
//! disk goes here, so that reads are answered meanwhile. Promises: every job is run,
//! also those that wait when the pool is dropped. Never: has more jobs than
//! the kernel has requests under way. Tested by the unit tests below.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run jobs, first come first served.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    over: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut queue = self.queue();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.over {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Pool {
    /// A pool of so many threads.
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let mut pool = Self { shared: Arc::default(), threads: Vec::with_capacity(threads) };
        for number in 0..threads {
            let shared = Arc::clone(&pool.shared);
            let work = move || {
                while let Some(job) = shared.next() {
                    // A request whose answer panics is answered with an error
                    // when its reply is dropped; the next ones go on.
                    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
                }
            };
            let thread = std::thread::Builder::new().name(format!("fs-{number}"));
            pool.threads.push(thread.spawn(work)?);
        }
        Ok(pool)
    }

    /// Runs a job soon.
    pub(crate) fn run(&self, job: Job) {
        self.shared.queue().jobs.push_back(job);
        self.shared.wake.notify_one();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue().over = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_job_is_run_though_one_panics_and_the_pool_goes() {
        let done = Arc::new(AtomicUsize::new(0));
        let pool = Pool::new(2).unwrap();
        for n in 0..100 {
            let done = Arc::clone(&done);
            pool.run(Box::new(move || {
                std::thread::sleep(std::time::Duration::from_micros(50));
                assert!(n != 7, "the one that panics");
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
        drop(pool);
        assert_eq!(done.load(Ordering::SeqCst), 99);
    }
}
