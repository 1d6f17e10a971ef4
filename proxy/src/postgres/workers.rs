//! The threads that sessions run on.
//!
//! A session stays on one thread for its life: its statements wake no other core, and what it
//! shares with nobody stays in one cache. What a moving session would win, a thread that is free
//! while another is busy, a stream of small statements makes good by itself.

use std::{
    io,
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Runtimes of one thread each. They end when this is dropped, and with them what still
/// runs there.
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    handle: Handle,
    sessions: Arc<AtomicUsize>,
    _end: oneshot::Sender<()>,
}

/// A session's place on a worker; it is free again when this is dropped.
pub(crate) struct Seat {
    pub(crate) handle: Handle,
    sessions: Arc<AtomicUsize>,
}

impl Workers {
    /// As many as given, or half as many as there are cores: who sends the statements and who runs
    /// them mostly share the machine, and one busy thread is woken less often than two idle ones.
    ///
    /// A thread calls `when_idle` each time that it has nothing to do any more.
    pub(crate) fn start(
        count: Option<NonZeroUsize>,
        when_idle: impl Fn() + Clone + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let count = count.map_or(cores.div_ceil(2), NonZeroUsize::get);
        let workers = (1..=count)
            .map(|number| Worker::start(number, when_idle.clone()))
            .collect::<Result<_, _>>()?;
        Ok(Self { workers })
    }

    /// A place where the fewest sessions are.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let least = |worker: &&Worker| worker.sessions.load(Ordering::Relaxed);
        let worker = self.workers.iter().min_by_key(least)?;
        worker.sessions.fetch_add(1, Ordering::Relaxed);
        Some(Seat {
            handle: worker.handle.clone(),
            sessions: Arc::clone(&worker.sessions),
        })
    }
}

/// Bytes of a thread's stack. Statements are followed to a bounded depth (`chaperone_sql::Limits`),
/// and a build without optimisation needs almost the usual 2 MiB for that alone; an overflow would end
/// the process. What is not touched takes no memory.
const STACK: usize = 8 << 20;

impl Worker {
    fn start(number: usize, when_idle: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            // Whom this wakes has its turn before the thread sleeps.
            .on_thread_park(when_idle)
            .build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new()
            .name(format!("sessions-{number}"))
            .stack_size(STACK)
            .spawn(move || {
                // An error is the sender's end.
                let _ = runtime.block_on(ended);
                runtime.shutdown_background();
            })?;
        Ok(Self {
            handle,
            sessions: Arc::default(),
            _end: end,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_spread_and_places_come_back() {
        let count = 3;
        let workers = Workers::start(NonZeroUsize::new(count), || ()).unwrap();
        let seats: Vec<Seat> = (0..2 * count).filter_map(|_| workers.seat()).collect();
        let taken = |workers: &Workers| -> Vec<usize> {
            let sessions = workers.workers.iter().map(|worker| &worker.sessions);
            sessions
                .map(|count| count.load(Ordering::Relaxed))
                .collect()
        };
        assert_eq!(taken(&workers), vec![2; count]);
        drop(seats);
        assert_eq!(taken(&workers), vec![0; count]);
    }

    #[test]
    fn what_runs_on_a_worker_ends_with_it() {
        struct Told(std::sync::mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                let _ = self.0.send(());
            }
        }
        let workers = Workers::start(None, || ()).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let guard = Told(tell);
        workers.seat().unwrap().handle.spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        drop(workers);
        told.recv_timeout(std::time::Duration::from_secs(10))
            .unwrap();
    }

    #[test]
    fn whom_an_idle_thread_wakes_has_its_turn() {
        use std::{
            future::poll_fn,
            sync::Mutex,
            task::{Poll, Waker},
        };
        let waiting: Arc<Mutex<Option<Waker>>> = Arc::default();
        let wake = Arc::clone(&waiting);
        let workers = Workers::start(NonZeroUsize::new(1), move || {
            if let Some(waker) = wake.lock().unwrap().take() {
                waker.wake();
            }
        })
        .unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        workers.seat().unwrap().handle.spawn(async move {
            let mut polled = 0;
            poll_fn(|cx| {
                polled += 1;
                *waiting.lock().unwrap() = Some(cx.waker().clone());
                if polled == 3 {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                }
            })
            .await;
            tell.send(polled).unwrap();
        });
        let patience = std::time::Duration::from_secs(10);
        assert_eq!(told.recv_timeout(patience), Ok(3));
    }
}
