//! What stands in the log of one statement of each kind.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/guest.rs"]
mod guest;
#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::path::Path;

use chaperone_test_support::Chaperone;
use chaperone_test_support::wire::frontend::{
    bind, cancel_request, copy_data, copy_done, execute, parse, query, sync,
};
use chaperone_test_support::wire::{Step, Transcript, VERSION_3_0, Wire};
use serde_json::Value;
use ward::{APPROVER, CHAPERONE, DATABASE, DBA, POSTGRES};

/// Stands for data: in texts, parameters, results, errors and COPY.
const CANARY: &str = "Zebulon-Canary-4711";

fn start() -> Chaperone {
    let whims = guest::build("whims", "whims", include_str!("common/whims.rs"));
    let options = Chaperone::options(CHAPERONE)
        .policy("whims", whims, "")
        .incomplete_facts(&["whims"])
        .toml("[approvals]\nwait = \"120s\"\ngroups = [\"approvers\"]");
    ward::people(options, &POSTGRES).start().unwrap()
}

fn connect(proxy: &Chaperone) -> Wire {
    let wire = Wire::connect(proxy.port()).unwrap();
    let mut wire = wire.tls(&proxy.ca_file()).unwrap();
    let said = wire
        .login(VERSION_3_0, &[("user", "dba"), ("database", DATABASE)], DBA)
        .unwrap();
    assert!(said.sqlstates().is_empty(), "{said}");
    wire
}

/// One record as `audit show --json --key` prints it.
#[derive(Debug)]
struct Record(Value);

impl Record {
    fn seq(&self) -> u64 {
        self.0["seq"].as_u64().unwrap()
    }

    fn is(&self, kind: &str) -> bool {
        self.0["kind"] == kind
    }

    fn refers_to(&self, role: &str, other: &Record) -> bool {
        let Some(named) = self.0["refs"][role].as_str() else {
            return false;
        };
        named.rsplit('/').next() == Some(other.seq().to_string().as_str())
    }

    fn text(&self) -> String {
        self.0["sealed"].to_string()
    }

    fn body(&self, key: &str) -> String {
        match &self.0["body"][key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        }
    }
}

/// The whole log.
struct Trail(Vec<Record>);

impl Trail {
    fn of(proxy: &Chaperone) -> Trail {
        let key = proxy.auditor_key();
        let arguments = ["--json", "--key", &key.to_string_lossy()];
        let shown = ward::audit(proxy, "show", &arguments);
        let lines = shown.lines().filter(|line| !line.is_empty());
        Trail(
            lines
                .map(|line| Record(serde_json::from_str(line).unwrap()))
                .collect(),
        )
    }

    fn all<'a>(&'a self, kind: &'a str, role: &'a str, of: &'a Record) -> Vec<&'a Record> {
        let records = self.0.iter();
        records
            .filter(|record| record.is(kind) && record.refers_to(role, of))
            .collect()
    }

    /// The operation whose text holds the mark.
    fn operation(&self, mark: &str) -> &Record {
        let mut found = self
            .0
            .iter()
            .filter(|record| record.is("operation") && record.text().contains(mark));
        let first = found
            .next()
            .unwrap_or_else(|| panic!("no operation {mark}"));
        assert!(found.next().is_none(), "more than one operation {mark}");
        first
    }

    /// The verdict on the operation, and how each run on its grounds ended.
    fn story(&self, mark: &str) -> String {
        let operation = self.operation(mark);
        let mut story = Vec::new();
        for decision in self.all("decision", "operation", operation) {
            assert!(decision.seq() > operation.seq());
            let mut told = vec![decision.body("verdict")];
            for execution in self.all("execution", "decision", decision) {
                told.push(format!("execution {}", ending(execution)));
            }
            for intent in self.all("intent", "decision", decision) {
                let outcomes = self.all("outcome", "intent", intent);
                assert!(!outcomes.is_empty(), "{mark}: {intent:?}");
                assert!(decision.seq() < intent.seq() && intent.seq() < outcomes[0].seq());
                let endings: Vec<String> = outcomes.iter().map(|one| ending(one)).collect();
                told.push(format!("intent {}", endings.join(" then ")));
            }
            story.push(told.join(" "));
        }
        story.join(", ")
    }

    /// The intent of what was held names its release, which came first.
    fn refers_to_releases(&self) {
        let released: Vec<_> = self
            .0
            .iter()
            .filter(|record| record.is("approval") && record.body("state") == "released")
            .collect();
        assert_eq!(released.len(), 1);
        let intents = self.all("intent", "approval", released[0]);
        assert_eq!(intents.len(), 1);
        assert!(released[0].seq() < intents[0].seq());
    }

    fn states(&self, mark: &str) -> Vec<String> {
        let operation = self.operation(mark);
        let mut states = Vec::new();
        for decision in self.all("decision", "operation", operation) {
            for approval in self.all("approval", "decision", decision) {
                states.push(approval.body("state"));
            }
        }
        states
    }
}

fn ending(record: &Record) -> String {
    let code = match record.0["body"]["code"].as_str() {
        Some(code) => format!("({code})"),
        None => String::new(),
    };
    format!("{}{code} {}", record.body("status"), record.body("rows"))
}

/// Runs statements, each with a mark in its text.
struct Player {
    wire: Wire,
}

impl Player {
    fn text(mark: &str, sql: &str) -> String {
        // Inside, since comments around a statement are no part of it.
        let (verb, rest) = sql.split_once(' ').unwrap();
        format!(
            "{verb} /* kind:{mark}; */ {}",
            rest.replace("CANARY", CANARY)
        )
    }

    fn run(&mut self, mark: &str, sql: &str) -> Transcript {
        self.wire.ask(&query(&Self::text(mark, sql)))
    }

    #[track_caller]
    fn good(&mut self, mark: &str, sql: &str) {
        let said = self.run(mark, sql);
        assert!(said.sqlstates().is_empty(), "{mark}: {said}");
    }

    #[track_caller]
    fn bad(&mut self, mark: &str, sql: &str, code: &str) {
        let said = self.run(mark, sql);
        assert_eq!(said.sqlstates(), [code], "{mark}: {said}");
    }
}

/// What the log tells of each kind: the verdict, then each run with its end and the rows that left.
/// `intent` stands for an intent before the run and an outcome behind it, which everything with an
/// effect must have; `execution` for the one record of a read.
const STORIES: [(&str, &str); 39] = [
    ("create", "allow intent ok 0"),
    ("grant", "allow intent ok 0"),
    ("insert", "allow intent ok 0"),
    ("update", "allow intent ok 0"),
    ("merge", "allow intent ok 0"),
    ("delete", "allow intent ok 0"),
    ("returning", "allow intent ok 1"),
    ("select", "allow execution ok 3"),
    ("duplicate", "allow intent failed(23505) 0"),
    ("divide", "allow execution failed(22012) 0"),
    ("denied", "deny"),
    ("begin", "allow execution ok 0"),
    ("savepoint", "allow execution ok 0"),
    ("within", "allow intent ok 0"),
    ("rollback-to", "allow execution ok 0"),
    ("release", "allow execution ok 0"),
    ("commit", "allow intent ok 0"),
    ("begin-again", "allow execution ok 0"),
    ("rollback", "allow execution ok 0"),
    ("set", "allow intent ok 0"),
    ("show", "allow execution ok 1"),
    ("listen", "allow intent ok 0"),
    ("notify", "allow intent ok 0"),
    ("unlisten", "allow intent ok 0"),
    ("copy-in", "allow intent ok 0"),
    ("copy-out", "allow execution ok 2"),
    // Each run of a name refers to what was decided about its text.
    ("prepared", "allow execution ok 1 execution ok 1"),
    (
        "portal",
        "allow execution ok 1 execution ok 1 execution ok 1",
    ),
    ("begin-cursor", "allow execution ok 0"),
    // The second run is the FETCH.
    ("declare", "allow execution ok 0 execution ok 2"),
    ("close", "allow intent ok 0"),
    ("commit-cursor", "allow intent ok 0"),
    // The second run is the EXECUTE.
    ("prepare", "allow intent ok 0 intent ok 1"),
    ("deallocate", "allow intent ok 0"),
    ("cancelled", "allow intent cancelled(57014) 0"),
    ("held-approved", "require-approval intent ok 0"),
    ("held-denied", "require-approval"),
    ("begin-read", "allow execution ok 0"),
    ("commit-read", "allow execution ok 0"),
];

fn files_hold(folder: &Path, word: &str) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return files_hold(&path, word);
        }
        let bytes = fs::read(path).unwrap();
        bytes
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    })
}

fn held(proxy: &Chaperone) -> String {
    let mut ids = Vec::new();
    ward::wait_for("the held statement", || {
        let listed = ward::approvals(proxy, APPROVER, &["list"]);
        ids = ward::ids(&ward::words(&listed));
        !ids.is_empty()
    });
    ids.remove(0)
}

fn changes(player: &mut Player) {
    player.good(
        "create",
        "CREATE TABLE import_kinds (id integer PRIMARY KEY, line text)",
    );
    player.good("grant", "GRANT SELECT ON import_kinds TO agent_ro");
    player.good(
        "insert",
        "INSERT INTO import_kinds VALUES (1, 'CANARY'), (2, 'CANARY')",
    );
    player.good(
        "update",
        "UPDATE import_kinds SET line = 'CANARY-2' WHERE id = 1",
    );
    player.good(
        "merge",
        "MERGE INTO import_kinds AS t USING (VALUES (3, 'CANARY')) AS s (id, line) ON t.id = s.id
         WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.line)",
    );
    player.good(
        "delete",
        "DELETE FROM import_kinds WHERE line = 'CANARY' AND id = 2",
    );
    player.good(
        "returning",
        "INSERT INTO import_kinds VALUES (4, 'CANARY') RETURNING line",
    );
    player.good(
        "select",
        "SELECT line FROM import_kinds WHERE line LIKE 'CANARY%'",
    );
    player.bad(
        "duplicate",
        "INSERT INTO import_kinds VALUES (1, 'CANARY')",
        "23505",
    );
    player.bad(
        "divide",
        "SELECT 1 / (id - 1) FROM import_kinds WHERE line <> 'CANARY'",
        "22012",
    );
    player.bad("denied", "SELECT 'CANARY' AS whim_deny", "42501");
}

fn control(player: &mut Player) {
    player.good("begin", "BEGIN WORK");
    player.good("savepoint", "SAVEPOINT one");
    player.good("within", "INSERT INTO import_kinds VALUES (5, 'CANARY')");
    player.good("rollback-to", "ROLLBACK TO SAVEPOINT one");
    player.good("release", "RELEASE SAVEPOINT one");
    player.good("commit", "COMMIT WORK");
    player.good("begin-again", "BEGIN WORK");
    player.good("rollback", "ROLLBACK WORK");
    // One that only reads.
    player.good("begin-read", "BEGIN WORK");
    player.good("commit-read", "COMMIT WORK");
    player.good("set", "SET application_name = 'CANARY'");
    player.good("show", "SHOW application_name");
    player.good("listen", "LISTEN news");
    player.good("notify", "NOTIFY news, 'CANARY'");
    player.good("unlisten", "UNLISTEN news");
}

fn copies(player: &mut Player) {
    let text = Player::text("copy-in", "COPY import_kinds FROM STDIN");
    let data = format!("10\t{CANARY}\n11\t{CANARY}\n");
    let steps = [
        Step::Send(query(&text)),
        Step::Until(b'G'),
        Step::Send([copy_data(&data), copy_done()].concat()),
        Step::Ready(1),
    ];
    let said = player.wire.play(&steps);
    assert!(said.sqlstates().is_empty(), "{said}");
    player.good(
        "copy-out",
        "COPY (SELECT id, line FROM import_kinds WHERE id >= 10) TO STDOUT",
    );
}

fn named(player: &mut Player) {
    let text = Player::text(
        "prepared",
        "SELECT line FROM import_kinds WHERE line = $1 LIMIT 1",
    );
    let once = || [bind("", "p", &[Some(CANARY)], 0), execute("", 0), sync()].concat();
    let all = [parse("p", &text, &[]), sync(), once(), once()].concat();
    let said = player.wire.play(&[Step::Send(all), Step::Ready(3)]);
    assert_eq!(said.all("DataRow").len(), 2, "{said}");
    let text = Player::text(
        "portal",
        "SELECT id, 'CANARY' FROM import_kinds ORDER BY id LIMIT 3",
    );
    let parts = [
        parse("", &text, &[]),
        bind("q", "", &[], 0),
        execute("q", 1),
        execute("q", 1),
        execute("q", 0),
        sync(),
    ];
    let said = player.wire.ask(&parts.concat());
    assert_eq!(said.all("DataRow").len(), 3, "{said}");
    player.good("begin-cursor", "BEGIN WORK");
    player.good(
        "declare",
        "DECLARE c CURSOR FOR SELECT line FROM import_kinds WHERE id >= 10",
    );
    player.good("fetch", "FETCH ALL FROM c");
    player.good("close", "CLOSE c");
    player.good("commit-cursor", "COMMIT WORK");
    player.good(
        "prepare",
        "PREPARE s AS SELECT line FROM import_kinds WHERE id = 10",
    );
    player.good("execute", "EXECUTE s");
    player.good("deallocate", "DEALLOCATE s");
}

fn cancelled(proxy: &Chaperone, player: &mut Player) {
    let text = Player::text("cancelled", "SELECT pg_sleep(600), 'CANARY'");
    player.wire.send(&query(&text)).unwrap();
    ward::wait_for("the sleeper", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%kind:cancelled;%' \
                   AND wait_event = 'PgSleep'";
        POSTGRES.value(DATABASE, sql).unwrap() != "0"
    });
    let (process, secret) = player.wire.key.clone();
    let other = Wire::connect(proxy.port()).unwrap();
    let mut other = other.tls(&proxy.ca_file()).unwrap();
    other.send(&cancel_request(process, &secret)).unwrap();
    let said = player.wire.play(&[Step::Ready(1)]);
    assert_eq!(said.sqlstates(), ["57014"], "{said}");
}

fn held_ones(proxy: &Chaperone, player: &mut Player) {
    for (mark, answer) in [("held-approved", "approve"), ("held-denied", "deny")] {
        let sql = "UPDATE import_kinds SET line = 'CANARY-whim_hold' WHERE id = 10";
        player.wire.send(&query(&Player::text(mark, sql))).unwrap();
        let id = held(proxy);
        let output = ward::approvals(proxy, APPROVER, &[answer, &id, "--reason", CANARY]);
        assert!(output.status.success(), "{}", ward::words(&output));
        let said = player.wire.play(&[Step::Ready(1)]);
        assert_eq!(said.sqlstates().is_empty(), answer == "approve", "{said}");
    }
}

#[test]
fn every_kind_of_statement_has_its_records() {
    let mut proxy = start();
    let mut player = Player {
        wire: connect(&proxy),
    };
    changes(&mut player);
    control(&mut player);
    copies(&mut player);
    named(&mut player);
    cancelled(&proxy, &mut player);
    held_ones(&proxy, &mut player);
    drop(player);
    assert!(proxy.stop().is_some_and(|status| status.success()));

    let verified = ward::audit(&proxy, "verify", &[]);
    assert!(verified.contains("OK"), "{verified}");
    let trail = Trail::of(&proxy);
    for (mark, expected) in STORIES {
        let story = trail.story(&format!("kind:{mark};"));
        assert_eq!(story, expected, "{mark}");
    }
    let states = |mark| trail.states(&format!("kind:{mark};"));
    assert_eq!(
        states("held-approved"),
        ["requested", "granted", "released"]
    );
    assert_eq!(states("held-denied"), ["requested", "denied"]);
    trail.refers_to_releases();
    assert!(!files_hold(&proxy.audit_folder(), CANARY));
    assert!(!proxy.output().contains(CANARY));
}

/// Clients that vanish while their statements wait: both are cancelled, but of the change nobody can
/// say whether it came first.
#[test]
fn of_what_a_vanished_client_left_no_more_is_claimed_than_is_known() {
    let table = "CREATE TABLE import_vanish (id integer); GRANT ALL ON import_vanish TO dba;
                 COMMENT ON TABLE import_vanish IS '@label(clear)';";
    POSTGRES.script(DATABASE, table).unwrap();
    let proxy = start();
    let mut holder = POSTGRES.superuser(DATABASE).session().unwrap();
    let lock = "BEGIN;\nLOCK TABLE import_vanish;";
    holder.run(lock, ward::PATIENCE).unwrap();
    let waiting = || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
                   AND query LIKE '%kind:vanish%'";
        POSTGRES.value(DATABASE, sql).unwrap()
    };
    let mut clients = [connect(&proxy), connect(&proxy)];
    let insert = Player::text("vanish-change", "INSERT INTO import_vanish VALUES (1)");
    let select = Player::text("vanish-read", "SELECT id FROM import_vanish");
    clients[0].send(&query(&insert)).unwrap();
    clients[1].send(&query(&select)).unwrap();
    ward::wait_for("both", || waiting() == "2");
    drop(clients);
    ward::wait_for("their cancellation", || waiting() == "0");
    let ended = || ward::audit(&proxy, "show", &["--json", "--kind", "session-end"]);
    ward::wait_for("the records", || {
        ended().matches("session-end").count() >= 2
    });
    let trail = Trail::of(&proxy);
    let story = |mark: &str| trail.story(&format!("kind:{mark};"));
    let unknown = "allow intent unknown(session-ended) 0";
    assert_eq!(story("vanish-change"), unknown);
    let cancelled = "allow execution cancelled(session-ended) 0";
    assert_eq!(story("vanish-read"), cancelled);
}

/// The server answers a change well and takes it back when its transaction fails at the end.
#[test]
fn what_was_taken_back_is_not_left_on_record_as_done() {
    let table = "CREATE TABLE import_late (id integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
                 GRANT ALL ON import_late TO dba; INSERT INTO import_late VALUES (1);
                 COMMENT ON TABLE import_late IS '@label(clear)';";
    POSTGRES.script(DATABASE, table).unwrap();
    let proxy = start();
    let mut wire = connect(&proxy);
    let insert = |mark: &str, id: u32| {
        let sql = Player::text(mark, &format!("INSERT INTO import_late VALUES ({id})"));
        [parse("", &sql, &[]), bind("", "", &[], 0), execute("", 0)].concat()
    };
    // At the Sync; by the statement behind it; at the end of a Query; by a COMMIT that is none.
    let said = wire.ask(&[insert("sync", 1), sync()].concat());
    assert_eq!(said.sqlstates(), ["23505"], "{said}");
    let fails = [
        parse("", "SELECT 1/0", &[]),
        bind("", "", &[], 0),
        execute("", 0),
    ]
    .concat();
    let said = wire.ask(&[insert("behind", 2), fails, sync()].concat());
    assert_eq!(said.sqlstates(), ["22012"], "{said}");
    let sql = Player::text("query", "INSERT INTO import_late VALUES (1)");
    assert_eq!(wire.ask(&query(&sql)).sqlstates(), ["23505"]);
    wire.ask(&query("BEGIN"));
    wire.ask(&query(&Player::text(
        "block",
        "INSERT INTO import_late VALUES (3)",
    )));
    wire.ask(&query("SELECT 1/0"));
    let said = wire.ask(&query("COMMIT /* kind:none; */ WORK"));
    assert!(
        said.to_string().contains("CommandComplete ROLLBACK"),
        "{said}"
    );
    // By a COMMIT that fails; by the end of a session, in a block and without one.
    wire.ask(&query("BEGIN"));
    wire.ask(&query(&Player::text(
        "deferred",
        "INSERT INTO import_late VALUES (1)",
    )));
    assert_eq!(wire.ask(&query("COMMIT")).sqlstates(), ["23505"]);
    let mut gone = connect(&proxy);
    gone.ask(&query("BEGIN"));
    gone.ask(&query(&Player::text(
        "gone",
        "INSERT INTO import_late VALUES (6)",
    )));
    drop(gone);
    // A savepoint in a chained block keeps what is before it.
    let chained = Player::text("chained", "INSERT INTO import_late VALUES (7)");
    let text = format!("BEGIN; COMMIT AND CHAIN; {chained}; SAVEPOINT s; SELECT 1/0");
    assert_eq!(wire.ask(&query(&text)).sqlstates(), ["22012"]);
    wire.ask(&query("ROLLBACK TO s"));
    wire.ask(&query("COMMIT"));
    // What lasts, in a batch and in a block.
    let said = wire.ask(&[insert("lasts", 4), sync()].concat());
    assert!(said.sqlstates().is_empty(), "{said}");
    wire.ask(&query("BEGIN"));
    wire.ask(&query(&Player::text(
        "kept",
        "INSERT INTO import_late VALUES (5)",
    )));
    wire.ask(&query("COMMIT"));
    wire.ask(&query("SELECT 1/0"));
    let ids = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM import_late";
    assert_eq!(POSTGRES.value(DATABASE, ids).unwrap(), "1 4 5 7");
    let ended = || ward::audit(&proxy, "show", &["--json", "--kind", "session-end"]);
    ward::wait_for("the record", || ended().contains("session-end"));
    ward::audit(&proxy, "verify", &[]);
    let trail = Trail::of(&proxy);
    for (mark, story) in [
        ("sync", "allow intent ok 0 then failed(23505) 0"),
        ("behind", "allow intent ok 0 then failed(22012) 0"),
        ("query", "allow intent failed(23505) 0"),
        ("block", "allow intent ok 0 then failed(25p02) 0"),
        ("deferred", "allow intent ok 0 then failed(23505) 0"),
        ("gone", "allow intent ok 0 then failed(session-ended) 0"),
        ("chained", "allow intent ok 0"),
        ("lasts", "allow intent ok 0"),
        ("kept", "allow intent ok 0"),
    ] {
        assert_eq!(trail.story(&format!("kind:{mark};")), story, "{mark}");
    }
}
