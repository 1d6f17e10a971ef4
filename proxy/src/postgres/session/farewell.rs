//! How a session ends: what is recorded of what was under way, and the last words to both sides.

use std::{future::poll_fn, task::Poll, time::Duration};

use bytes::BytesMut;
use chaperone_audit_log::payload::Status;

use super::{End, Session, evidence::Ending};
use crate::postgres::{
    protocol::frontend,
    queue::Expected,
    refusal::{Refusal, sqlstate},
    run::Evidence,
};

/// How long a client may take to close its side, once it has been told that the session is over.
const LINGER: Duration = Duration::from_secs(1);

impl Session {
    /// Whether the client ended as it should, or is about to: with Terminate as its last message.
    pub(super) fn is_farewell(&self) -> bool {
        let terminate = [frontend::TERMINATE, 0, 0, 0, 4];
        self.said_goodbye || self.sockets.from_client.ends_with(&terminate)
    }

    /// Records the end of what was under way, and appends the last word to the client.
    pub(super) fn say_why(&mut self, end: &End) {
        // What waits for its intent is not sent any more.
        self.sockets.to_upstream.mark(None);
        self.sockets.to_upstream.withhold();
        let running = !self.queue.is_empty();
        if !matches!(end, End::Backend) {
            self.forget_unsent();
        }
        let told_fatal = self.last_words.is_some();
        self.close_runs(end);
        match end {
            End::Told(refusal) => {
                if refusal.sqlstate == sqlstate::LOG_UNAVAILABLE {
                    self.sockets.to_client.withhold();
                }
                let mut last = BytesMut::new();
                refusal.write(&mut last, "FATAL");
                self.sockets.to_client.buffer().unsplit(last);
                self.sockets.to_client.mark(None);
            }
            // What it said last (a FATAL of its own) still goes out where evidence allows it.
            End::Backend => {
                if !told_fatal {
                    let lost = Refusal::new(
                        sqlstate::CONNECTION_FAILURE,
                        "backend-lost",
                        "the connection to the backend was lost",
                    );
                    lost.write(self.sockets.to_client.buffer(), "FATAL");
                }
                self.sockets.to_client.mark(self.evidence);
            }
            End::Client => {}
        }
        if running && !matches!(end, End::Backend) {
            // A backend that works does not notice that nobody waits for it any more.
            self.cancel_upstream();
        }
    }

    /// What is held until it has a record does not leave any more, and does not count.
    fn forget_unsent(&mut self) {
        self.sockets.to_client.drop_unmarked();
        if let Some(run) = self.queue.front_mut().and_then(Expected::run_mut)
            && run.evidence == Evidence::Deferred
        {
            (run.rows, run.bytes) = (0, 0);
            let _ = self.sent.take();
        }
    }

    /// The session ends with runs in flight: they are cancelled, and what was not sent on did not
    /// leave. Whether a change came before its cancellation is not known, nor before the backend's last
    /// words, which are on record with what it was working on.
    fn close_runs(&mut self, end: &End) {
        // Where the log fails as well, the intents stand alone, which says the same.
        let _ = self.undone_by_end();
        let mut words = self.last_words.take();
        let queue = std::mem::take(&mut self.queue);
        for (place, entry) in queue.into_iter().enumerate() {
            // The backend works on what comes first.
            words = words.filter(|_| place == 0 && matches!(end, End::Backend));
            let runs = match entry {
                Expected::Execute { run, .. } => vec![run],
                Expected::Query { runs, .. } => runs,
                _ => continue,
            };
            for mut run in runs {
                if run.evidence == Evidence::Closed {
                    continue;
                }
                let statement = &run.permit.statement;
                let commits = matches!(statement.kind, chaperone_sql::Kind::Commit { .. });
                let status = match end {
                    End::Client | End::Told(_) if statement.effects.read_only && !commits => {
                        Status::Cancelled
                    }
                    _ => Status::Unknown,
                };
                let ending = match words.take() {
                    Some((state, text)) => Ending {
                        status,
                        ..Ending::failed(&state, text)
                    },
                    None => Ending::plain(status, "session-ended"),
                };
                // Where the log fails as well, the intent stands alone, which says the same.
                let _ = self.close_run(&mut run, ending);
            }
        }
    }

    /// Lets the last bytes out to both sides.
    pub(super) async fn farewell(&mut self) {
        loop {
            if let Some(seq) = self.sockets.to_client.waits_for() {
                match self.shared.audit.wait_durable(seq).await {
                    Ok(proof) => self.sockets.to_client.release(proof),
                    Err(_) => self.sockets.to_client.withhold(),
                }
            }
            let sockets = &mut self.sockets;
            sockets.upstream_limit = 0;
            sockets.client_limit = 0;
            let done = poll_fn(|cx| {
                let _ = sockets.poll(cx);
                let idle = sockets.to_client.waits_for().is_some()
                    || (sockets.client_ended || sockets.client_flushed())
                        && (sockets.upstream_ended || sockets.to_upstream.len() == 0);
                if idle { Poll::Ready(()) } else { Poll::Pending }
            });
            done.await;
            if self.sockets.to_client.waits_for().is_none() {
                break;
            }
        }
        if !self.sockets.client_ended {
            let client = &mut self.sockets.client;
            let _ = tokio::io::AsyncWriteExt::shutdown(client).await;
            // Closed with unread bytes, TCP resets the connection and the last words may be lost.
            let drained = async {
                let mut sink = [0; 4096];
                while matches!(
                    tokio::io::AsyncReadExt::read(client, &mut sink).await,
                    Ok(1..)
                ) {}
            };
            let _ = tokio::time::timeout(LINGER, drained).await;
        }
    }
}
