//! Policies change while statements run: nothing is lost, nothing is refused, nothing widens.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/gate.rs"]
mod gate;
#[path = "common/guest.rs"]
mod guest;
#[path = "../proxy/policy-host/tests/support/guest.rs"]
mod handmade;
#[path = "common/ward.rs"]
mod ward;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use std::{fs, thread};

use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::{Chaperone, PsqlSession};
use ward::{AGENT, CHAPERONE, DATABASE, DBA, PATIENCE, POSTGRES};

/// Its answer is the name of the variant that masked it.
const PROBE: &str = "SELECT name FROM staff WHERE id = 1";
const RELOADS: u32 = 1_000;

fn gated() -> ChaperoneOptions {
    let options = Chaperone::options(CHAPERONE).policy("gate", gate::build("A"), "");
    ward::people(options, &POSTGRES)
}

fn session(proxy: &Chaperone) -> PsqlSession {
    let psql = proxy.psql(DATABASE, "agent_ro", AGENT).argument("-qAt");
    psql.session().unwrap()
}

fn probe(session: &mut PsqlSession) -> String {
    let said = session.run(&format!("{PROBE};"), PATIENCE).unwrap();
    said.trim().to_owned()
}

fn wait_for_answer(session: &mut PsqlSession, expected: &str) {
    ward::wait_for(expected, || probe(session).contains(expected));
}

#[derive(Default)]
struct Tally {
    a: AtomicU64,
    b: AtomicU64,
    stop: AtomicBool,
}

impl Tally {
    fn count(&self, answer: &str) {
        match answer {
            "A" => &self.a,
            "B" => &self.b,
            other => panic!("an answer of no policy: {other}"),
        }
        .fetch_add(1, Ordering::Relaxed);
    }
}

async fn load(proxy: &Chaperone, tally: &Tally, way: usize) {
    let session = proxy.client(DATABASE, "agent_ro", AGENT).await.unwrap();
    let client = &session.client;
    let prepared = client.prepare(PROBE).await.unwrap();
    while !tally.stop.load(Ordering::Relaxed) {
        match way % 3 {
            0 => {
                let rows = client.query(&prepared, &[]).await.unwrap();
                tally.count(rows[0].get(0));
            }
            1 => {
                let typed = client.query_typed(PROBE, &[]).await.unwrap();
                tally.count(typed[0].get(0));
            }
            _ => {
                let messages = client.simple_query(PROBE).await.unwrap();
                let row = messages.iter().find_map(|message| match message {
                    tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                tally.count(row.unwrap());
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[test]
fn a_thousand_reloads_lose_and_refuse_nothing() {
    let proxy = gated().start().unwrap();
    let variants = [("A", gate::build("A")), ("B", gate::build("B"))];
    let tally = Tally::default();
    thread::scope(|scope| {
        let (proxy, tally) = (&proxy, &tally);
        let clients = scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let all = (0..6).map(|way| load(proxy, tally, way));
            runtime.block_on(async {
                let mut all: Vec<_> = all.map(Box::pin).collect();
                std::future::poll_fn(|task| {
                    all.retain_mut(|one| one.as_mut().poll(task).is_pending());
                    if all.is_empty() {
                        std::task::Poll::Ready(())
                    } else {
                        std::task::Poll::Pending
                    }
                })
                .await;
            });
        });
        // Whatever fails below, the clients must end, or the scope never does.
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let stop = Stop(&tally.stop);
        let mut witness = session(proxy);
        for turn in 1..=RELOADS {
            // 25 in a row may coalesce, but the last of them has to take effect.
            let (name, module) = &variants[usize::from(turn % 2 == 1)];
            gate::drop_in(proxy, "gate", module);
            if turn % 25 == 0 {
                wait_for_answer(&mut witness, name);
            } else {
                thread::sleep(Duration::from_millis(u64::from(turn % 40)));
            }
            assert!(!clients.is_finished(), "the clients gave up");
        }
        drop(stop);
        clients.join().unwrap();
    });
    let (a, b) = (tally.a.into_inner(), tally.b.into_inner());
    assert!(a > 50 && b > 50, "too little load to tell: {a} and {b}");
    let loaded = gate::reloads(&proxy, "Ok");
    assert!(loaded >= 20, "{loaded} reloads");
    assert_eq!(gate::reloads(&proxy, "Failed"), 0);
    let records = ward::audit(&proxy, "show", &["--kind", "policy-set", "--json"]);
    let records = records.lines().filter(|line| !line.is_empty()).count();
    assert!(records > 20, "{records} policy-set records");
    ward::audit(&proxy, "verify", &[]);
}

/// What the process has in memory, in KiB.
fn resident(proxy: &Chaperone) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.process_id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// Eight modules at a time, each never seen before, while a session uses them.
#[test]
fn a_thousand_modules_leave_no_memory_behind() {
    const NAMES: [&str; 8] = ["m0", "m1", "m2", "m3", "m4", "m5", "m6", "m7"];
    const ROUNDS: u64 = 125;
    let folder = tempfile::tempdir().unwrap();
    let module = |name: &'static str, round: u64| {
        let guest = handmade::Guest {
            name,
            schema: format!("{{\"title\": \"{round}\"}}").leak(),
            ..handmade::Guest::default()
        };
        let file = folder.path().join(format!("{name}-{round}"));
        fs::write(&file, guest.module()).unwrap();
        file
    };
    let mut options = Chaperone::options(CHAPERONE);
    for name in NAMES {
        options = options.policy(name, module(name, 0), "");
    }
    let proxy = ward::people(options, &POSTGRES).start().unwrap();
    let psql = proxy.psql(DATABASE, "agent_ro", AGENT).argument("-qAt");
    let mut session = psql.session().unwrap();
    let mut warm = 0;
    for round in 1..=ROUNDS {
        let before = gate::reloads(&proxy, "Ok");
        for name in NAMES {
            gate::drop_in(&proxy, name, &module(name, round));
        }
        let loaded = before + NAMES.len() as u64;
        ward::wait_for("the modules", || gate::reloads(&proxy, "Ok") >= loaded);
        let said = session.run("SELECT 'alive' AS it;", PATIENCE).unwrap();
        assert!(said.contains("alive"), "{said}");
        if round == 15 {
            warm = resident(&proxy);
        }
    }
    let grown = resident(&proxy).saturating_sub(warm);
    println!("{warm} KiB when warm, {grown} KiB more at the end");
    // A compiled module takes some 100 KiB: one in four that stayed would show.
    assert!(grown < 24 << 10, "{grown} KiB more than {warm} KiB");
}

#[test]
fn an_open_session_follows_at_its_next_statement() {
    let proxy = gated().start().unwrap();
    let mut session = session(&proxy);
    let steps = format!("BEGIN;\nPREPARE probe AS SELECT 1;\n{PROBE};");
    let said = session.run(&steps, PATIENCE).unwrap();
    assert!(said.contains('A'), "{said}");
    gate::drop_in(&proxy, "gate", &gate::build("B"));
    wait_for_answer(&mut session, "B");
    gate::drop_in(&proxy, "gate", &gate::build("SHUT"));
    wait_for_answer(&mut session, "42501");
    let said = session.run("ROLLBACK;", PATIENCE).unwrap();
    assert!(!said.contains("ERROR"), "{said}");
    gate::drop_in(&proxy, "gate", &gate::build("A"));
    wait_for_answer(&mut session, "A");
}

#[test]
fn a_broken_module_never_replaces_a_working_one() {
    let proxy = gated().start().unwrap();
    let mut session = session(&proxy);
    let good = fs::read(gate::build("B")).unwrap();
    let half = &good[..good.len() / 2];
    let mut failed = 0;
    for broken in [b"not wasm at all".as_slice(), half, b""] {
        let file = proxy.folder().join("broken");
        fs::write(&file, broken).unwrap();
        gate::drop_in(&proxy, "gate", &file);
        ward::wait_for("the failure", || gate::reloads(&proxy, "Failed") > failed);
        failed = gate::reloads(&proxy, "Failed");
        assert_eq!(probe(&mut session), "A");
    }
    // A slow copy in place: half of it first.
    let place = proxy.policy_folder().join("gate.wasm");
    fs::write(&place, half).unwrap();
    for _ in 0..20 {
        assert_eq!(probe(&mut session), "A");
        thread::sleep(Duration::from_millis(50));
    }
    fs::write(&place, &good).unwrap();
    wait_for_answer(&mut session, "B");
    let records = ward::audit(&proxy, "show", &["--kind", "policy-set", "--json"]);
    assert!(records.contains("gate.wasm"), "the failure is not recorded");
    assert!(proxy.output().contains("gate.wasm"), "it is not logged");
    ward::audit(&proxy, "verify", &[]);
}

#[test]
fn without_a_required_module_nothing_runs() {
    let proxy = gated().required(&["gate"]).start().unwrap();
    let mut session = session(&proxy);
    assert_eq!(probe(&mut session), "A");
    let place = proxy.policy_folder().join("gate.wasm");
    fs::remove_file(&place).unwrap();
    wait_for_answer(&mut session, "42501");
    assert!(
        probe(&mut session).contains("gate"),
        "it does not say which"
    );
    gate::drop_in(&proxy, "gate", &gate::build("B"));
    wait_for_answer(&mut session, "B");
    let records = ward::audit(&proxy, "show", &["--kind", "policy-set", "--json"]);
    assert!(records.lines().count() >= 3, "{records}");
    ward::audit(&proxy, "verify", &[]);
}

#[test]
fn a_module_that_disappears_does_not_widen_access() {
    let risky = ward::RISKY.replace("\"approval\"", "\"deny\"");
    let options = ward::with_risky(Chaperone::options(CHAPERONE), &risky);
    let proxy = ward::people(options, &POSTGRES).start().unwrap();
    let psql = proxy.psql(DATABASE, "dba", DBA);
    let mut session = psql.session().unwrap();
    let change = "UPDATE import_2019 SET id = id + 1;";
    assert!(session.run(change, PATIENCE).unwrap().contains("42501"));
    fs::remove_file(proxy.policy_folder().join("risky-commands.wasm")).unwrap();
    ward::wait_for("the removal's record", || {
        let records = ward::audit(&proxy, "show", &["--kind", "policy-set", "--json"]);
        records.contains("removed")
    });
    let said = session.run(change, PATIENCE).unwrap();
    assert!(said.contains("42501"), "{said}");
}
