use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use chaperone_contract::{Operation, Value};

use super::*;

#[derive(Default)]
struct Sink {
    states: Mutex<Vec<(State, u8)>>,
    broken: Mutex<bool>,
}

impl EventSink for Sink {
    fn record<'a>(
        &'a self,
        event: &'a Event,
    ) -> BoxFuture<'a, Result<Option<chaperone_audit_log::RecordRef>, NotRecorded>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if *self.broken.lock().unwrap() {
                return Err(NotRecorded);
            }
            self.states
                .lock()
                .unwrap()
                .push((event.state, event.missing));
            Ok(None)
        })
    }
}

impl Sink {
    fn count(&self, state: State) -> usize {
        let states = self.states.lock().unwrap();
        states.iter().filter(|(s, _)| *s == state).count()
    }
}

fn person(subject: &str) -> Person {
    Person {
        issuer: "https://issuer.invalid".into(),
        subject: subject.into(),
    }
}

fn approver(subject: &str, groups: &[&str]) -> Approver {
    Approver {
        person: person(subject),
        actors: Vec::new(),
        groups: groups.iter().map(|&g| g.to_owned()).collect(),
        strength: Strength::default(),
    }
}

fn requester() -> Requester {
    Requester {
        person: person("dba"),
        actors: vec![person("agent"), person("runner")],
        role: "dba".into(),
        target: "clinic".into(),
        database: "clinic".into(),
    }
}

fn shown(text: &str, value: &str) -> Shown {
    Shown {
        text: text.into(),
        parameters: vec![Parameter {
            type_name: "text".into(),
            value: Value::Text(value.into()),
        }],
        policy: "risky-commands".into(),
        code: "ddl".into(),
        reason: "a table goes".into(),
        objects: Vec::new(),
        purpose: None,
        run: None,
    }
}

const TTL: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(5);

fn held_by(requester: Requester, text: &str, groups: &[&str], approvers: u8) -> Held {
    let groups = groups.iter().map(|&g| g.to_owned()).collect();
    Held::new(
        requester,
        shown(text, "x"),
        &Operation::default(),
        groups,
        approvers,
        TTL,
        None,
    )
    .unwrap()
}

fn held(text: &str) -> Held {
    held_by(requester(), text, &[], 1)
}

fn registry() -> (Approvals, Arc<Sink>) {
    let sink = Arc::new(Sink::default());
    let options = Options {
        groups: vec!["approvers".into()],
        open: 6,
        open_per_requester: 3,
        ..Options::default()
    };
    (Approvals::new(options, sink.clone()), sink)
}

#[tokio::test(start_paused = true)]
async fn granted_while_the_session_waits() {
    let (approvals, sink) = registry();
    let ticket = approvals.request(held("DROP TABLE a")).await.unwrap();
    let fay = approver("fay", &["approvers"]);
    assert_eq!(approvals.list(&fay).len(), 1);
    assert_eq!(approvals.list(&approver("x", &["others"])).len(), 0);
    let view = approvals.view(ticket.id(), &fay).await.unwrap();
    assert_eq!(view.shown.unwrap().text, "DROP TABLE a");
    let (waited, decided) = tokio::join!(approvals.wait(&ticket, WAIT), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        approvals.approve(ticket.id(), &fay, None).await
    });
    assert_eq!(decided.unwrap().state, State::Granted);
    let Outcome::Granted(grant) = waited else {
        panic!("{waited:?}")
    };
    let released = grant.release().await.unwrap();
    assert_eq!(released.id(), ticket.id());
    assert!(matches!(approvals.wait(&ticket, WAIT).await, Outcome::Gone));
    assert_eq!(
        approvals.approve(ticket.id(), &fay, None).await,
        Err(RefusedAnswer::Over(State::Released))
    );
    assert!(
        approvals
            .view(ticket.id(), &fay)
            .await
            .unwrap()
            .shown
            .is_none()
    );
    let states: Vec<State> = sink.states.lock().unwrap().iter().map(|s| s.0).collect();
    assert_eq!(
        states,
        [
            State::Requested,
            State::Seen,
            State::Granted,
            State::Released
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_answered_later_and_runs_once() {
    let (approvals, _) = registry();
    let ticket = approvals.request(held("DROP TABLE a")).await.unwrap();
    assert!(matches!(
        approvals.wait(&ticket, WAIT).await,
        Outcome::Pending
    ));
    let id = ticket.id();
    drop(ticket);
    // The same statement again joins, another one does not.
    let again = approvals.request(held("DROP TABLE a")).await.unwrap();
    assert!(again.joined() && again.id() == id);
    let other = approvals.request(held("DROP TABLE b")).await.unwrap();
    assert_ne!(other.id(), id);
    let fay = approver("fay", &["approvers"]);
    approvals.approve(id, &fay, None).await.unwrap();
    let binding = held("DROP TABLE a").binding().clone();
    assert!(
        approvals
            .take_grant(held("DROP TABLE b").binding())
            .is_none()
    );
    // A grant that is dropped goes back.
    drop(approvals.take_grant(&binding).unwrap());
    let grant = approvals.take_grant(&binding).unwrap();
    assert!(approvals.take_grant(&binding).is_none());
    let _ = grant.release().await.unwrap();
    assert!(approvals.take_grant(&binding).is_none());
}

#[test]
fn everything_that_matters_is_in_the_binding() {
    let base = held("DROP TABLE a");
    let operation = Operation {
        command: "DROP TABLE".into(),
        ..Operation::default()
    };
    let with = |requester: Requester, shown: &Shown, operation: &Operation| {
        Binding::new(requester, &shown.text, &shown.parameters, operation)
    };
    let same = shown("DROP TABLE a", "x");
    assert_eq!(
        with(requester(), &same, &Operation::default()),
        *base.binding()
    );
    let mut others = vec![
        with(
            requester(),
            &shown("DROP TABLE a ", "x"),
            &Operation::default(),
        ),
        with(
            requester(),
            &shown("DROP TABLE a", "y"),
            &Operation::default(),
        ),
        with(requester(), &same, &operation),
    ];
    for change in [
        |r: &mut Requester| r.role.push('x'),
        |r: &mut Requester| r.database.push('x'),
        |r: &mut Requester| r.target.push('x'),
        |r: &mut Requester| r.person.issuer.push('x'),
        |r: &mut Requester| r.actors.reverse(),
    ] {
        let mut changed = requester();
        change(&mut changed);
        others.push(with(changed, &same, &Operation::default()));
    }
    for other in others {
        assert_ne!(other, *base.binding());
    }
    let mut cut = shown("SELECT $1", "x");
    cut.parameters[0].value = Value::Truncated(1 << 30);
    let error = Held::new(requester(), cut, &operation, vec![], 1, TTL, None).unwrap_err();
    assert_eq!(error.index, 1);
}

#[tokio::test(start_paused = true)]
async fn nobody_involved_can_approve() {
    let (approvals, sink) = registry();
    let ticket = approvals.request(held("DROP TABLE a")).await.unwrap();
    for involved in ["dba", "agent", "runner"] {
        let answer = approver(involved, &["approvers"]);
        for result in [
            approvals.approve(ticket.id(), &answer, None).await,
            approvals.deny(ticket.id(), &answer, None).await,
        ] {
            assert_eq!(result, Err(RefusedAnswer::Involved));
        }
    }
    let outsider = approver("eve", &["others"]);
    assert_eq!(
        approvals.approve(ticket.id(), &outsider, None).await,
        Err(RefusedAnswer::NotInGroup)
    );
    assert!(approvals.view(ticket.id(), &outsider).await.is_err());
    let mut delegated = approver("fay", &["approvers"]);
    delegated.actors = vec![person("bot")];
    assert_eq!(
        approvals.approve(ticket.id(), &delegated, None).await,
        Err(RefusedAnswer::Delegated)
    );
    // The same subject of another issuer is somebody else.
    let mut namesake = approver("dba", &["approvers"]);
    namesake.person.issuer = "static".into();
    assert!(
        approvals
            .approve(ticket.id(), &namesake, None)
            .await
            .is_ok()
    );
    assert_eq!(sink.count(State::Granted), 1);
}

#[tokio::test(start_paused = true)]
async fn two_approvers_are_two_people() {
    let (approvals, sink) = registry();
    let held = held_by(requester(), "DROP TABLE a", &["security", "privacy"], 2);
    let binding = held.binding().clone();
    let ticket = approvals.request(held).await.unwrap();
    let both = approver("fay", &["security", "privacy"]);
    for _ in 0..2 {
        let decided = approvals.approve(ticket.id(), &both, None).await.unwrap();
        assert_eq!((decided.state, decided.missing), (State::Requested, 1));
    }
    let configured = approver("kim", &["approvers"]);
    assert_eq!(
        approvals.approve(ticket.id(), &configured, None).await,
        Err(RefusedAnswer::NotInGroup)
    );
    assert!(approvals.take_grant(&binding).is_none());
    let second = approver("kim", &["privacy"]);
    let decided = approvals.approve(ticket.id(), &second, None).await.unwrap();
    assert_eq!((decided.state, decided.missing), (State::Granted, 0));
    assert!(approvals.take_grant(&binding).is_some());
    assert_eq!(sink.count(State::Granted), 2);
}

#[tokio::test(start_paused = true)]
async fn stricter_terms_do_not_join() {
    let (approvals, _) = registry();
    let first = approvals.request(held("DROP TABLE a")).await.unwrap();
    first.keep();
    let fay = approver("fay", &["approvers"]);
    approvals.approve(first.id(), &fay, None).await.unwrap();
    let strict = held_by(requester(), "DROP TABLE a", &[], 2);
    let second = approvals.request(strict).await.unwrap();
    assert!(!second.joined());
    assert!(
        approvals
            .take_grant(held("DROP TABLE a").binding())
            .is_none()
    );
}

#[tokio::test(start_paused = true)]
async fn time_ends_it() {
    let (approvals, sink) = registry();
    let fay = approver("fay", &["approvers"]);
    let ticket = approvals.request(held("DROP TABLE a")).await.unwrap();
    let granted = approvals.request(held("DROP TABLE b")).await.unwrap();
    granted.keep();
    approvals.approve(granted.id(), &fay, None).await.unwrap();
    let in_hand = approvals
        .take_grant(held("DROP TABLE b").binding())
        .unwrap();
    assert!(matches!(
        approvals.wait(&ticket, TTL * 2).await,
        Outcome::Expired
    ));
    assert_eq!(
        approvals.approve(ticket.id(), &fay, None).await,
        Err(RefusedAnswer::Over(State::Expired))
    );
    assert_eq!(in_hand.release().await.unwrap_err(), NotReleased::Expired);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(approvals.open(), 0);
    assert_eq!(sink.count(State::Expired), 2);
    assert_eq!(sink.count(State::Released), 0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_cancels_unless_it_has_a_ticket() {
    let (approvals, sink) = registry();
    let gone = approvals.request(held("DROP TABLE a")).await.unwrap();
    // Dropped in the middle of the wait.
    let waited = tokio::time::timeout(Duration::from_secs(1), approvals.wait(&gone, WAIT)).await;
    assert!(waited.is_err());
    let id = gone.id();
    drop(gone);
    assert_eq!(approvals.open(), 0);
    let fay = approver("fay", &["approvers"]);
    assert_eq!(
        approvals.approve(id, &fay, None).await,
        Err(RefusedAnswer::Over(State::Cancelled))
    );
    let kept = approvals.request(held("DROP TABLE b")).await.unwrap();
    kept.keep();
    drop(kept);
    assert_eq!(approvals.open(), 1);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(sink.count(State::Cancelled), 1);
}

#[tokio::test(start_paused = true)]
async fn denial_reaches_the_waiting_session() {
    let (approvals, _) = registry();
    let ticket = approvals.request(held("DROP TABLE a")).await.unwrap();
    let fay = approver("fay", &["approvers"]);
    let comment = Some("not on a Friday".to_owned());
    approvals.deny(ticket.id(), &fay, comment).await.unwrap();
    let Outcome::Denied { comment } = approvals.wait(&ticket, WAIT).await else {
        panic!("not denied")
    };
    assert_eq!(comment.as_deref(), Some("not on a Friday"));
}

#[tokio::test(start_paused = true)]
async fn numbers_are_bounded() {
    let (approvals, _) = registry();
    let mut tickets = Vec::new();
    for number in 0..3 {
        let text = format!("DROP TABLE t{number}");
        tickets.push(approvals.request(held(&text)).await.unwrap());
    }
    assert_eq!(
        approvals.request(held("DROP TABLE z")).await.unwrap_err(),
        RefusedRequest::TooManyOfYours(3)
    );
    for number in 0..3 {
        let mut other = requester();
        other.person = person(&format!("other{number}"));
        let held = held_by(other, "DROP TABLE z", &[], 1);
        tickets.push(approvals.request(held).await.unwrap());
    }
    let mut other = requester();
    other.person = person("last");
    let last = held_by(other, "DROP TABLE z", &[], 1);
    assert_eq!(
        approvals.request(last).await.unwrap_err(),
        RefusedRequest::TooMany(6)
    );
    tickets.clear();
    assert_eq!(approvals.open(), 0);
    for number in 0..2000 {
        drop(
            approvals
                .request(held(&format!("SELECT {number}")))
                .await
                .unwrap(),
        );
    }
    assert!(approvals.inner_size() <= 600, "ended ones are forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_broken_log_lets_nothing_through() {
    let (approvals, sink) = registry();
    let fay = approver("fay", &["approvers"]);
    let ticket = approvals.request(held("DROP TABLE a")).await.unwrap();
    let second = approvals.request(held("DROP TABLE b")).await.unwrap();
    approvals.approve(second.id(), &fay, None).await.unwrap();
    *sink.broken.lock().unwrap() = true;
    assert!(matches!(
        approvals.request(held("DROP TABLE c")).await,
        Err(RefusedRequest::NotRecorded(_))
    ));
    assert!(approvals.view(ticket.id(), &fay).await.is_err());
    assert!(approvals.approve(ticket.id(), &fay, None).await.is_err());
    let binding = held("DROP TABLE b").binding().clone();
    let grant = approvals.take_grant(&binding).unwrap();
    assert!(grant.release().await.is_err());
    assert!(approvals.take_grant(&binding).is_none());
    assert!(matches!(
        approvals.wait(&ticket, Duration::from_millis(1)).await,
        Outcome::Pending
    ));
    approvals.deny(ticket.id(), &fay, None).await.unwrap();
    assert_eq!(approvals.open(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_reach_for_one_grant_and_one_gets_it() {
    let mut rounds = 0;
    for _ in 0..30 {
        let (approvals, sink) = registry();
        let first = approvals.request(held("DROP TABLE a")).await.unwrap();
        first.keep();
        let mut tasks = Vec::new();
        for number in 0..24 {
            let approvals = approvals.clone();
            tasks.push(tokio::spawn(async move {
                let grant = if number % 2 == 0 {
                    let Ok(ticket) = approvals.request(held("DROP TABLE a")).await else {
                        return 0;
                    };
                    match approvals.wait(&ticket, Duration::from_millis(200)).await {
                        Outcome::Granted(grant) if ticket.joined() => Some(grant),
                        _ => None,
                    }
                } else {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    approvals.take_grant(held("DROP TABLE a").binding())
                };
                match grant {
                    // Some put it back, so that it changes hands.
                    Some(grant) if number % 3 == 0 => {
                        drop(grant);
                        0
                    }
                    Some(grant) => usize::from(grant.release().await.is_ok()),
                    None => 0,
                }
            }));
        }
        let fay = approver("fay", &["approvers"]);
        let kim = approver("kim", &["approvers"]);
        let id = first.id();
        let _ = tokio::join!(
            approvals.approve(id, &fay, None),
            approvals.approve(id, &kim, None)
        );
        let mut released = 0;
        for task in tasks {
            released += task.await.unwrap();
        }
        assert!(released <= 1, "released {released} times");
        assert_eq!(sink.count(State::Released), released);
        assert_eq!(sink.count(State::Granted), 1);
        rounds += released;
    }
    assert!(rounds > 0, "nobody ever got it");
}
