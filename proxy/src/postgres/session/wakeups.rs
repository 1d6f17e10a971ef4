//! What a session's task waits for besides its sockets.
//!
//! Nothing here costs anything per statement: each source is told once which task to wake, and
//! looked at cheaply from then on.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use chaperone_audit_log::{Durable, LogFailed, Seq};
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep_until},
};

use crate::audit::{Audit, Waiter};

/// The clock, the log and the end of the process. Polled by one task only.
pub(super) struct Wakeups {
    alarm: Pin<Box<Sleep>>,
    durable: Waiter,
    drain: watch::Receiver<bool>,
    drained: Pin<Box<dyn Future<Output = ()> + Send>>,
    drain_told: bool,
}

impl Wakeups {
    pub(super) fn new(audit: &Audit, drain: &watch::Receiver<bool>, at: Instant) -> Self {
        let mut watched = drain.clone();
        let drained = async move {
            // A closed channel means that the process is going down as well.
            let _ = watched.wait_for(|drain| *drain).await;
        };
        Self {
            alarm: Box::pin(sleep_until(at)),
            durable: audit.waiter(),
            drain: drain.clone(),
            // Out of budget it would not be told whom to wake.
            drained: Box::pin(tokio::task::unconstrained(drained)),
            drain_told: false,
        }
    }

    /// Ready at `at` or some time before it: an alarm that was set for an earlier time stays.
    pub(super) fn poll_alarm(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if at < self.alarm.deadline() || self.alarm.is_elapsed() {
            self.alarm.as_mut().reset(at);
        }
        self.alarm.as_mut().poll(cx)
    }

    /// Ready when the record is on disk, or the log has failed.
    pub(super) fn poll_durable(
        &mut self,
        seq: Seq,
        cx: &Context<'_>,
    ) -> Poll<Result<Durable, LogFailed>> {
        self.durable.poll(seq, cx)
    }

    /// Ready when the process is to end. Not to be polled again then.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // An error is a closed channel.
        let unchanged = matches!(self.drain.has_changed(), Ok(false));
        if self.drain_told && unchanged {
            return Poll::Pending;
        }
        self.drain_told = true;
        self.drained.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use chaperone_audit_log::{LogOptions, PrivateKey};

    use super::*;

    fn audit(dir: &tempfile::TempDir) -> Audit {
        let key = PrivateKey::generate("auditor").unwrap();
        Audit::open(dir.path(), LogOptions::new(vec![key.public()])).unwrap()
    }

    #[tokio::test]
    async fn an_alarm_never_comes_late_and_can_be_set_again() {
        let dir = tempfile::tempdir().unwrap();
        let (_tell, drain) = watch::channel(false);
        let start = Instant::now();
        let far = start + Duration::from_secs(3600);
        let mut wakeups = Wakeups::new(&audit(&dir), &drain, far);
        for step in 1..4 {
            let at = start + Duration::from_millis(20 * step);
            while Instant::now() < at {
                poll_fn(|cx| wakeups.poll_alarm(at, cx)).await;
            }
            // What is farther off does not put off what was set; it is asked for again.
            let polled = poll_fn(|cx| Poll::Ready(wakeups.poll_alarm(far, cx))).await;
            assert!(polled.is_pending());
        }
    }

    #[tokio::test]
    async fn the_end_of_the_process_is_noticed_whenever_it_comes() {
        let dir = tempfile::tempdir().unwrap();
        let (tell, drain) = watch::channel(false);
        let far = Instant::now() + Duration::from_secs(3600);
        let mut wakeups = Wakeups::new(&audit(&dir), &drain, far);
        let ended = tokio::spawn(async move {
            // Asked again and again, within one task.
            for _ in 0..1000 {
                let polled = poll_fn(|cx| Poll::Ready(wakeups.poll_drain(cx))).await;
                assert!(polled.is_pending());
            }
            poll_fn(|cx| wakeups.poll_drain(cx)).await;
        });
        tokio::task::yield_now().await;
        tell.send_replace(true);
        tokio::time::timeout(Duration::from_secs(10), ended)
            .await
            .unwrap()
            .unwrap();
    }
}
