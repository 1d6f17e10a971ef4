//! One client's session: its state, its loop, and what ends it.
//!
//! One task owns both sockets. Client messages are handled in order, one after another; while one
//! waits (for the catalog, the disk, a person) the backend's answers go on being relayed.

mod approve;
mod catalog;
mod client;
mod effects;
mod evidence;
mod farewell;
mod lasting;
mod names;
mod opaque;
mod query;
mod question;
mod refuse;
mod requests;
mod rule;
mod scripts;
mod second_look;
mod server;
mod understand;
mod wakeups;

use std::{
    collections::VecDeque,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use chaperone_audit_log::{Durable, RecordRef, SentHasher, Seq};
use chaperone_contract::Session as Caller;
use chaperone_policy_host::Digest;
use tokio::{task::JoinHandle, time::Instant};
use uuid::Uuid;

use self::{question::OwnAnswer, requests::Requests, scripts::Scripts, wakeups::Wakeups};
use crate::metrics::{self, SessionCounts};

use super::{
    cancel::Registered,
    changes::{Change, Touched},
    decide::{Ground, Statement, memo::Rulings},
    disclosure::PutOff,
    names::Names,
    parameters::Parameters,
    portal::{Portal, Prepared},
    protocol::{self, Malformed, frontend},
    queue::Expected,
    refusal::{Refusal, sqlstate},
    shared::{Backend, Shared},
    sockets::{HIGH_WATER, Sockets},
    startup::CancelKey,
    upstream::{self, Login},
};

/// The client's messages wait while so many replies are expected. More than a backend can owe
/// without having sent any: its buffer of 8 KiB (PqSendBufferSize) goes out when it is full, also
/// without a Sync, and the shortest reply has five bytes.
const QUEUED: usize = 16_384;

/// Who a session belongs to, and what it may use.
pub(crate) struct Grounds {
    pub(crate) caller: Arc<Caller>,
    pub(crate) backend: Arc<Backend>,
    /// The login that the session uses at the backend.
    pub(crate) login: Login,
    /// The record of its start.
    pub(crate) record: RecordRef,
    /// Settings that it started with and that were decided, to be recorded.
    pub(crate) settings: Vec<Arc<Statement>>,
    /// The identity ends here.
    pub(crate) expires_at: Option<Instant>,
    /// What the backend's own cancel requests name.
    pub(crate) backend_key: CancelKey,
    pub(crate) registered: Registered,
}

/// Why a session is over.
#[derive(Debug)]
pub(crate) enum End {
    /// The client said goodbye or went away.
    Client,
    /// The backend closed the connection.
    Backend,
    /// Chaperone ends it, and says why.
    Told(Refusal),
}

impl From<Malformed> for End {
    fn from(malformed: Malformed) -> Self {
        End::Told(Refusal::new(
            sqlstate::PROTOCOL_VIOLATION,
            "protocol",
            malformed.to_string(),
        ))
    }
}

/// Which messages of the client are dropped until it sends Sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Skip {
    No,
    /// The backend knows of no error: Sync is answered here.
    Local,
    /// The backend skips as well: Sync goes on to it.
    Server,
}

/// What a turn begins with.
enum Event {
    /// Something was read, a side ended, or a backlog fell below its mark.
    Bytes,
    /// What waits for its record will wait for ever.
    LogFailed,
    /// The client may have asked to cancel.
    Asked,
    /// The backend has taken a cancel request.
    CancelTaken,
    Drain,
    /// The catalog was looked at again, or could not be.
    SeenAgain(Option<second_look::Seen>),
    /// A deadline may have come.
    Alarm,
}

/// What a session did, for its last record.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) executions: u64,
    pub(crate) denied: u64,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// A session in progress.
pub(crate) struct Session {
    shared: Arc<Shared>,
    grounds: Grounds,
    sockets: Sockets,

    queue: VecDeque<Expected>,
    /// Counts Syncs and simple Queries, for pending names.
    batch: u64,
    /// The backend's transaction status as of its last ReadyForQuery.
    status: u8,
    /// Something was sent since the last Sync.
    unsynced: bool,
    /// Something with effects was sent since the last Sync.
    batch_effects: bool,
    /// Something with effects was sent since the transaction began.
    wrote: bool,
    skip: Skip,
    /// The client was told of an error that the backend does not know of: its answers are dropped
    /// until ReadyForQuery.
    suppress: bool,
    /// The transaction must be made to fail before that ReadyForQuery goes out.
    fail_transaction: bool,
    /// Something that decides how names resolve was changed in this transaction.
    transaction_effects: bool,
    /// The batch that is being sent may change how statements are understood. Its end may undo that,
    /// so what comes behind it is looked at anew.
    batch_meaning: bool,
    /// Since the last Sync something was defined that its batch's end makes visible to others.
    batch_defines: bool,
    /// Changes that were answered well and are not committed yet.
    lasting: lasting::Lasting,
    /// Why the session cannot go on, where that turned out in the middle of something.
    broken: Option<End>,
    /// Messages of the client that may change what names stand for, counted.
    acts: u64,
    put_off: PutOff,
    /// A transaction block has ended since the last ReadyForQuery.
    block_ended: bool,
    /// Whether the set of this digest shows what sessions of others notify with.
    foreign_payloads: Option<(Digest, bool)>,

    statements: Names<Arc<Prepared>>,
    portals: Names<Arc<Portal>>,
    /// Runs in flight that change names when they end (PREPARE, DECLARE, …).
    naming: usize,
    /// Runs in flight that can still fail on our side.
    fallible: usize,

    ground: Option<Ground>,
    ground_checked: Instant,
    ground_fingerprint: Option<String>,
    /// Which changes of our sessions it knows of.
    ground_changes: Option<u64>,
    /// Up to which one of others it knows all of them.
    ground_settled: u64,
    /// A change of this session's own that may take effect.
    changing: Option<Change>,
    /// What was defined in this transaction.
    defined: Touched,
    /// Who this is among those who change the catalog.
    owner: u64,
    stale: bool,
    scripts: Scripts,
    rulings: Rulings,
    own: OwnAnswer,

    /// Digests what the run that the backend answers sends.
    sent: SentHasher,
    /// The last record that output waits for.
    evidence: Option<Seq>,
    wakeups: Wakeups,
    /// Bytes of the client's COPY data or the backend's rows that are still to be passed on.
    client_pass: usize,
    upstream_pass: usize,
    /// A client message too large to be held: what is left of it, and what it is answered with.
    client_drop: usize,
    cancelling: Option<JoinHandle<()>>,
    /// What the backend answers waits for this.
    second_look: Option<JoinHandle<second_look::Seen>>,

    requests: Requests,
    /// The request that is being handled, for its records.
    last_request: Uuid,
    /// A BEGIN is under way.
    block_opened: bool,
    /// The backend has said why it ends the connection: SQLSTATE and text for the record.
    last_words: Option<(String, String)>,
    /// The client wants what runs to be cancelled, and the backend does not know of it yet.
    cancel_wanted: bool,
    /// The client cancelled while its statement waited for a person.
    cancelled_while_held: bool,
    /// The client has said goodbye: what it sent before runs to its end.
    said_goodbye: bool,
    /// How often a person let a statement through after a wait.
    waits: u64,

    began: Instant,
    /// When the message came that is being handled.
    received: Instant,
    /// When the backend last finished with a run.
    answered: Instant,
    last_heard: Instant,
    draining: bool,
    counts: SessionCounts,
    pub(crate) totals: Totals,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, grounds: Grounds, sockets: Sockets) -> Self {
        let now = Instant::now();
        let counts = shared.metrics.session();
        let mut requests = Requests::new();
        let sent = shared.audit.blinder().sent();
        let absolute = now + shared.rules.absolute_timeout;
        let wakeups = Wakeups::new(&shared.audit, &shared.drain, absolute);
        let owner = grounds.backend.changes.owner();
        Self {
            shared,
            grounds,
            sockets,
            queue: VecDeque::new(),
            batch: 0,
            status: b'I',
            unsynced: false,
            batch_effects: false,
            wrote: false,
            skip: Skip::No,
            suppress: false,
            fail_transaction: false,
            transaction_effects: false,
            batch_meaning: false,
            batch_defines: false,
            lasting: lasting::Lasting::default(),
            broken: None,
            acts: 0,
            put_off: PutOff::default(),
            block_ended: false,
            foreign_payloads: None,
            statements: Names::default(),
            portals: Names::default(),
            naming: 0,
            fallible: 0,
            ground: None,
            ground_checked: now,
            ground_fingerprint: None,
            ground_changes: None,
            ground_settled: 0,
            changing: None,
            defined: Touched::default(),
            owner,
            stale: true,
            scripts: Scripts::default(),
            rulings: Rulings::default(),
            own: OwnAnswer::default(),
            sent,
            evidence: None,
            wakeups,
            client_pass: 0,
            upstream_pass: 0,
            client_drop: 0,
            cancelling: None,
            second_look: None,
            last_request: requests.next(),
            requests,
            block_opened: false,
            last_words: None,
            cancel_wanted: false,
            cancelled_while_held: false,
            said_goodbye: false,
            waits: 0,
            began: now,
            received: now,
            answered: now,
            last_heard: now,
            draining: false,
            counts,
            totals: Totals::default(),
        }
    }

    /// Runs to its end, and says the last word to the client.
    pub(crate) async fn run(&mut self) -> End {
        let end = match self.serve().await {
            Ok(()) => End::Client,
            Err(end) => end,
        };
        self.say_why(&end);
        protocol::bare(self.sockets.to_upstream.buffer(), frontend::TERMINATE);
        let farewell = Duration::from_secs(5);
        let _ = tokio::time::timeout(farewell, self.farewell()).await;
        if let Some(cancelling) = self.cancelling.take() {
            let _ = tokio::time::timeout(farewell, cancelling).await;
        }
        end
    }

    /// How it ended, for the figures.
    pub(crate) fn count_end(&mut self, end: metrics::SessionEnd) {
        self.counts.end = end;
    }

    /// What the session started with was decided before there was a session; the records say so.
    async fn record_settings(&mut self) -> Result<(), End> {
        for setting in std::mem::take(&mut self.grounds.settings) {
            // The policies may be others by now.
            self.permit(&setting, Parameters::default())
                .await?
                .map_err(End::Told)?;
        }
        Ok(())
    }

    async fn serve(&mut self) -> Result<(), End> {
        self.record_settings().await?;
        loop {
            while self.ready_for_client() && self.handle_client().await? {}
            // What is skipped need not have been sent: a client that hears of the error stops.
            self.sockets.client_must_hear =
                self.skip == Skip::Server && self.sockets.to_client.len() > 0;
            if self.draining && self.is_quiet() {
                return Err(End::Told(Refusal::new(
                    sqlstate::SHUTDOWN,
                    "drained",
                    "Chaperone is shutting down; connect again",
                )));
            }
            // What is left then is no whole message and never will be.
            if self.sockets.client_ended
                && (self.sockets.from_client.is_empty() || self.ready_for_client())
            {
                return Err(End::Client);
            }
            self.turn().await?;
        }
    }

    /// Whether the client's next message may be handled: nothing is being cancelled, which could
    /// hit it, and the backend takes it and keeps up.
    fn ready_for_client(&self) -> bool {
        self.cancelling.is_none()
            && !self.cancel_wanted
            && !self.sockets.client_must_hear
            && !self.sockets.upstream_deaf()
            && self.queue.len() < QUEUED
            && self.sockets.to_upstream.len() < HIGH_WATER
            && self.sockets.to_client.len() < HIGH_WATER
    }

    /// Nothing is under way.
    fn is_quiet(&self) -> bool {
        self.queue.is_empty() && self.status == b'I' && !self.unsynced
    }

    /// Waits until something happens and deals with all of it, apart from the client's messages.
    /// May be dropped at any time and called again.
    async fn turn(&mut self) -> Result<(), End> {
        match poll_fn(|cx| self.poll_event(cx)).await {
            Event::Bytes | Event::Asked => {}
            Event::LogFailed => return Err(End::Told(refuse::log_unavailable())),
            Event::CancelTaken => self.cancelling = None,
            Event::SeenAgain(seen) => self.looked_again(seen),
            Event::Drain => self.draining = true,
            Event::Alarm => self.on_deadline()?,
        }
        self.cancel_wanted |= self.grounds.registered.asked.take();
        self.pass_on_cancel();
        self.handle_upstream()?;
        if let Some(end) = self.broken.take() {
            return Err(end);
        }
        // Messages that are still unhandled then have been waiting for something.
        if self.sockets.client_ended && !self.is_farewell() {
            return Err(End::Client);
        }
        // What is left of it is the beginning of a message that will never come.
        let stopped_by_us =
            self.sockets.to_client.len() >= HIGH_WATER || self.second_look.is_some();
        let left = !self.sockets.from_upstream.is_empty();
        if self.sockets.upstream_ended && !(left && stopped_by_us) {
            return Err(End::Backend);
        }
        Ok(())
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let traffic = self.poll_traffic(cx);
        // What became durable before the log failed may still go.
        let audit = &self.shared.audit;
        let waits_for = self.waits_for();
        if waits_for.is_some_and(|seq| audit.log().proof(seq).is_none()) && audit.check().is_err() {
            return Poll::Ready(Event::LogFailed);
        }
        if traffic.is_ready() {
            return Poll::Ready(Event::Bytes);
        }
        let asked = self.grounds.registered.asked.poll(cx).is_ready();
        if asked || self.cancel_wanted && self.runs_at_backend() {
            return Poll::Ready(Event::Asked);
        }
        if let Some(task) = &mut self.cancelling
            && Pin::new(task).poll(cx).is_ready()
        {
            return Poll::Ready(Event::CancelTaken);
        }
        if let Some(look) = &mut self.second_look
            && let Poll::Ready(seen) = Pin::new(look).poll(cx)
        {
            // Nothing was seen where the task is gone, as at the end of the process.
            return Poll::Ready(Event::SeenAgain(seen.ok()));
        }
        if !self.draining && self.wakeups.poll_drain(cx).is_ready() {
            return Poll::Ready(Event::Drain);
        }
        let deadline = self.next_deadline();
        self.wakeups.poll_alarm(deadline, cx).map(|()| Event::Alarm)
    }

    /// Reads, writes, and lets go what has become evidence meanwhile.
    fn poll_traffic(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let heard = self.sockets.from_client.len();
            let moved = self.sockets.poll(cx).is_ready();
            // A session whose statement still runs is not idle; its time begins at the end.
            if moved && (self.sockets.from_client.len() != heard || !self.queue.is_empty()) {
                self.last_heard = Instant::now();
            }
            // The backend has its work by now: the log is written while it does that. Where a sync
            // takes long enough to be shared, other sessions of this thread have their turn before;
            // the thread writes what they all have recorded when it has nothing else to do.
            self.shared.audit.settle_if_due();
            let released = match self.waits_for() {
                Some(seq) => match self.wakeups.poll_durable(seq, cx) {
                    Poll::Ready(Ok(proof)) => {
                        self.let_go(proof);
                        true
                    }
                    _ => false,
                },
                None => false,
            };
            if moved {
                return Poll::Ready(());
            }
            if !released {
                return Poll::Pending;
            }
        }
    }

    /// The record that the next bytes to either side wait for.
    fn waits_for(&self) -> Option<Seq> {
        let sockets = &self.sockets;
        let both = [
            sockets.to_client.waits_for(),
            sockets.to_upstream.waits_for(),
        ];
        both.into_iter().flatten().min()
    }

    fn let_go(&mut self, proof: Durable) {
        self.sockets.to_client.release(proof);
        if self.sockets.to_upstream.waits_for().is_some() {
            self.sockets.to_upstream.release(proof);
            self.note_dispatch(proof);
        }
    }

    fn next_deadline(&self) -> Instant {
        let rules = &self.shared.rules;
        let mut next = self.began + rules.absolute_timeout;
        if self.queue.is_empty() {
            next = next.min(self.last_heard + rules.idle_timeout);
        }
        [self.grounds.expires_at, self.run_deadline()]
            .into_iter()
            .flatten()
            .fold(next, Instant::min)
    }

    fn on_deadline(&mut self) -> Result<(), End> {
        let now = Instant::now();
        let rules = &self.shared.rules;
        if self.run_deadline().is_some_and(|at| at <= now) {
            if let Some(run) = self.queue.front_mut().and_then(Expected::run_mut) {
                run.timed_out = true;
            }
            self.cancel_upstream();
            return Ok(());
        }
        let ended = |code: &str, message: &str| {
            Err(End::Told(
                Refusal::new(sqlstate::SHUTDOWN, code, message)
                    .hint("connect again with a token that is valid"),
            ))
        };
        if self.grounds.expires_at.is_some_and(|at| at <= now) {
            ended(
                "expired",
                "the session ends because its identity has expired",
            )
        } else if self.began + rules.absolute_timeout <= now {
            ended(
                "absolute-timeout",
                "the session has reached its longest life",
            )
        } else if self.queue.is_empty() && self.last_heard + rules.idle_timeout <= now {
            ended("idle-timeout", "the session was idle for too long")
        } else {
            Ok(())
        }
    }

    /// Passes the client's wish to cancel on, once what it is meant for is at the backend.
    fn pass_on_cancel(&mut self) {
        if !self.cancel_wanted {
            return;
        }
        if self.queue.is_empty() {
            self.cancel_wanted = false;
            self.cancelled_while_held = true;
        } else if self.runs_at_backend() {
            self.cancel_wanted = false;
            self.cancel_upstream();
        }
    }

    /// Whether what comes next in order has gone to the backend, rather than wait for its record.
    fn runs_at_backend(&self) -> bool {
        let next = self.queue.iter().find_map(Expected::run);
        self.sockets.to_upstream.waits_for().is_none()
            || next.is_none_or(|run| run.dispatched.is_some())
    }

    /// Asks the backend to cancel what it runs. No message of the client goes on until the backend
    /// has taken the request, so that it cannot hit a later statement.
    fn cancel_upstream(&mut self) {
        if self.cancelling.is_some() {
            return;
        }
        let endpoint = self.grounds.backend.endpoint.clone();
        let key = self.grounds.backend_key.clone();
        self.cancelling = Some(tokio::spawn(async move {
            let request = upstream::cancel(&endpoint, &key);
            match tokio::time::timeout(Duration::from_secs(10), request).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a cancel request did not reach the backend")
                }
                Err(_) => tracing::warn!("a cancel request to the backend timed out"),
            }
        }));
    }
}
