//! Protected values go in and out by every way there is, and stay out of everything that the proxy
//! writes for operators: output, metrics, admin answers without a token, clear parts of the log.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::path::Path;

use chaperone_test_support::chaperone::{Chaperone, ChaperoneOptions};
use chaperone_test_support::http;
use chaperone_test_support::{Postgres, policies};
use tokio_postgres::types::{ToSql, Type};
use ward::{AGENT, CHAPERONE, DATABASE, DBA, DOCTOR};

/// Every value that has to stay secret contains this, whole or as digits.
const CANARY: &str = "Quetzalcoatl";
const NUMBER: i64 = 918_273_645_546_372;

const TABLE: &str = "
    CREATE TABLE canaries (
        id integer PRIMARY KEY, name text UNIQUE, ssn text CHECK (ssn <> 'QuetzalcoatlCheck'),
        code bigint, weight integer NOT NULL);
    COMMENT ON COLUMN canaries.id IS '@label(clear)';
    COMMENT ON COLUMN canaries.name IS '@label(name)';
    COMMENT ON COLUMN canaries.ssn IS '@label(ssn)';
    COMMENT ON COLUMN canaries.code IS '@label(ssn)';
    COMMENT ON COLUMN canaries.weight IS '@label(clear)';
    INSERT INTO canaries VALUES (1, 'QuetzalcoatlRow', 'QuetzalcoatlSsn', 918273645546372, 1);
    CREATE TABLE loud (id integer, name text);
    COMMENT ON COLUMN loud.id IS '@label(clear)';
    COMMENT ON COLUMN loud.name IS '@label(name)';
    CREATE FUNCTION speak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE NOTICE 'notice about %', NEW.name;
        RAISE WARNING 'warning about %', NEW.name USING DETAIL = NEW.name, HINT = NEW.name;
        IF NEW.id < 0 THEN
            RAISE EXCEPTION 'error about %', NEW.name USING DETAIL = NEW.name, HINT = NEW.name;
        END IF;
        RETURN NEW; END $$;
    CREATE TRIGGER speak BEFORE INSERT ON loud FOR EACH ROW EXECUTE FUNCTION speak();
    GRANT ALL ON canaries, loud TO agent_ro, clinician, dba;";

/// Statements that a client may send, each with the canary somewhere.
const STATEMENTS: &[&str] = &[
    "SELECT 'QuetzalcoatlLiteral'",
    "SELECT 1 AS \"QuetzalcoatlAlias\"",
    "SELECT * FROM canaries",
    "SELECT * FROM canaries WHERE name = 'QuetzalcoatlRow'",
    "SELECT 1 /* QuetzalcoatlComment */",
    "SELECT 'QuetzalcoatlCast'::integer",
    "SELECT name::integer FROM canaries",
    "SELECT code / 0 FROM canaries WHERE code = 918273645546372",
    "SELECT 918273645546372 + 1",
    "INSERT INTO canaries VALUES (2, 'QuetzalcoatlRow', 'x', 918273645546372, 1)",
    "INSERT INTO canaries VALUES (3, 'QuetzalcoatlNew', 'QuetzalcoatlCheck', 1, 1)",
    "INSERT INTO canaries VALUES (4, 'QuetzalcoatlNew', 'QuetzalcoatlNull', 1, NULL)",
    "INSERT INTO canaries VALUES (5, 'QuetzalcoatlKept', 'QuetzalcoatlKept', 1, 1)",
    "INSERT INTO canaries VALUES (6, 'QuetzalcoatlBack', 'y', 1, 1) RETURNING name",
    "UPDATE canaries SET ssn = 'QuetzalcoatlCheck' WHERE name = 'QuetzalcoatlRow'",
    "INSERT INTO loud VALUES (1, 'QuetzalcoatlNotice')",
    "INSERT INTO loud VALUES (-1, 'QuetzalcoatlRaise')",
    "DO $$ BEGIN RAISE NOTICE 'QuetzalcoatlDo'; END $$",
    "DO $$ BEGIN RAISE EXCEPTION 'QuetzalcoatlDo'; END $$",
    "SELEC 'QuetzalcoatlSyntax'",
    "SELECT 'QuetzalcoatlUnterminated",
    "SELECT QuetzalcoatlColumn FROM canaries",
    "SELECT * FROM QuetzalcoatlTable",
    "SELECT QuetzalcoatlFunction('QuetzalcoatlArgument')",
    "DROP TABLE QuetzalcoatlTable",
    "CREATE TABLE t (a text DEFAULT 'QuetzalcoatlDefault')",
    "ALTER ROLE billing PASSWORD 'QuetzalcoatlPassword'",
    "SET application_name = 'QuetzalcoatlSet'",
    "SET quetzal.value = 'QuetzalcoatlCustom'",
    "SET client_encoding = 'QuetzalcoatlEncoding'",
    "PREPARE QuetzalcoatlPrepared AS SELECT 1",
    "EXECUTE QuetzalcoatlPrepared",
    "BEGIN; SAVEPOINT QuetzalcoatlSavepoint; ROLLBACK TO QuetzalcoatlSavepoint; COMMIT",
    "BEGIN; DECLARE QuetzalcoatlCursor CURSOR FOR SELECT name FROM canaries; FETCH QuetzalcoatlCursor; COMMIT",
    "LISTEN QuetzalcoatlChannel",
    "NOTIFY QuetzalcoatlChannel, 'QuetzalcoatlPayload'",
    "EXPLAIN SELECT * FROM canaries WHERE name = 'QuetzalcoatlExplain'",
    "COPY canaries TO STDOUT",
    "COPY (SELECT 'QuetzalcoatlCopy') TO STDOUT",
    "COPY canaries FROM STDIN",
    "SELECT 1; SELECT 'QuetzalcoatlSecond'; SELECT 'QuetzalcoatlThird'::date",
];

fn wild() -> ChaperoneOptions {
    Chaperone::options(CHAPERONE)
        .incomplete_facts(&["allow-all"])
        .policy("allow-all", policies::example("allow-all").unwrap(), "")
        .toml("[statement]\nmax_bytes = \"64KiB\"")
}

async fn sing(proxy: &Chaperone, role: &str, token: &str) -> String {
    let mut heard = String::new();
    for statement in STATEMENTS {
        // What an endless COPY reads comes after the statement.
        let text = format!("{statement};\n7\tQuetzalcoatlData\tQuetzalcoatlBad\tx\t1\n\\.\n");
        let psql = proxy.psql(DATABASE, role, token);
        let once = psql
            .argument("--set=VERBOSITY=verbose")
            .run(statement)
            .unwrap();
        heard.push_str(&once.text());
        if statement.contains("STDIN") {
            let output = proxy.psql(DATABASE, role, token).script(&text).unwrap();
            heard.push_str(&output.text());
        }
    }
    let session = proxy.client(DATABASE, role, token).await.unwrap();
    let client = &session.client;
    let value = format!("{CANARY}Parameter");
    let mut hear = |what: Result<String, tokio_postgres::Error>| match what {
        Ok(text) => heard.push_str(&text),
        Err(error) => heard.push_str(&format!("{error:?}\n")),
    };
    let rows = client
        .query(
            "SELECT name FROM canaries WHERE name = $1 OR code = $2",
            &[&value, &NUMBER],
        )
        .await;
    hear(rows.map(|rows| format!("{} rows\n", rows.len())));
    // Rooms are no patients: policies allow this to some, so the value gets into a record.
    let room = client
        .query("SELECT ward FROM rooms WHERE name = $1", &[&value])
        .await;
    hear(room.map(|rows| format!("{} rooms\n", rows.len())));
    let typed: &[(&(dyn ToSql + Sync), Type)] = &[(&value, Type::TEXT), (&NUMBER, Type::INT8)];
    let echo = client.query_typed("SELECT $1, $2", typed);
    hear(echo.await.map(|rows| rows[0].get::<_, String>(0)));
    let cast = client.query_typed("SELECT $1::text::integer", &typed[..1]);
    hear(cast.await.map(|_| String::new()));
    let insert = "INSERT INTO canaries VALUES ($1, $2, $2, $3, 1)";
    for id in [50_i32, 51] {
        let done = client.execute(insert, &[&id, &value, &NUMBER]).await;
        hear(done.map(|rows| format!("{rows} inserted\n")));
    }
    let long = format!("SELECT '{}'", CANARY.repeat(8_000));
    hear(client.batch_execute(&long).await.map(|()| String::new()));
    let deep = format!(
        "SELECT {}'{CANARY}'{}",
        "(".repeat(20_000),
        ")".repeat(20_000)
    );
    hear(client.batch_execute(&deep).await.map(|()| String::new()));
    for message in session.messages.lock().unwrap().iter() {
        heard.push_str(message);
    }
    heard
}

/// Logins that fail, with the canary as token, role or database, or in a start-up parameter.
fn knock(proxy: &Chaperone) {
    let wrong = [
        (DATABASE, "agent_ro", "QuetzalcoatlToken"),
        (
            DATABASE,
            "agent_ro",
            "eyJhbGciOiJFUzI1NiJ9.UXVldHphbGNvYXRs.QuetzalcoatlSignature",
        ),
        (DATABASE, "QuetzalcoatlRole", AGENT),
        ("QuetzalcoatlDatabase", "agent_ro", AGENT),
    ];
    for (database, role, token) in wrong {
        let output = proxy.psql(database, role, token).run("SELECT 1").unwrap();
        assert!(!output.ok);
    }
    let psql = proxy.psql(DATABASE, "agent_ro", AGENT);
    let named = psql
        .clone()
        .with("application_name", "QuetzalcoatlApplication");
    let _ = named.run("SELECT 1").unwrap();
    let options = psql.with("options", "-c quetzal.x=QuetzalcoatlOption");
    let _ = options.run("SELECT 1").unwrap();
}

fn ask(proxy: &Chaperone) -> String {
    let mut said = String::new();
    for path in [
        "/metrics",
        "/readyz",
        "/healthz",
        "/v1/approvals",
        "/v1/policies",
        "/v1/status",
    ] {
        let answer = http::get(proxy.admin(), path).unwrap();
        said.push_str(&answer.body);
    }
    let wrong = Some("QuetzalcoatlBearer");
    for path in ["/v1/approvals", "/v1/approvals/QuetzalcoatlId"] {
        let answer = http::request(proxy.admin(), "GET", path, wrong, None).unwrap();
        assert_eq!(answer.status, 401, "{}", answer.body);
        said.push_str(&answer.body);
    }
    said
}

fn hold(what: &str, text: &str, secret: &str) {
    if let Some(at) = text.find(secret) {
        let from = text.floor_char_boundary(at.saturating_sub(300));
        let to = text.ceil_char_boundary((at + 120).min(text.len()));
        panic!("{what} shows {secret}: ...{}...", &text[from..to]);
    }
}

fn all_files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Stops the proxy and looks at everything that it has left.
fn search(mut proxy: Chaperone, admin: &str, tokens: &[&str]) {
    assert!(proxy.stop().unwrap().success());
    let number = NUMBER.to_string();
    // As it is, folded to lower case as identifiers are, in base64, and as a number.
    let mut secrets = vec![CANARY, "quetzalcoatl", "UXVldHphbGNvYXRs", &number];
    let hexadecimal: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    secrets.push(&hexadecimal);
    secrets.extend(tokens);
    let shown = ward::audit(&proxy, "show", &[]);
    let json = ward::audit(&proxy, "show", &["--json"]);
    let mut files = Vec::new();
    all_files(&proxy.audit_folder(), &mut files);
    assert!(!files.is_empty() && shown.lines().count() > 100);
    for secret in secrets {
        hold("the process's output", &proxy.output(), secret);
        hold("the admin API without a token", admin, secret);
        hold("audit show", &shown, secret);
        hold("audit show --json", &json, secret);
        for file in &files {
            let bytes = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
            hold(&file.display().to_string(), &bytes, secret);
        }
    }
    // The other way round: the auditor finds it, so it was there to be hidden.
    let key = proxy.auditor_key();
    let open = ward::audit(&proxy, "show", &["--json", "--key", &key.to_string_lossy()]);
    // Clients send some parameters in binary, which are shown in hexadecimal.
    for sealed in [
        "QuetzalcoatlLiteral",
        "QuetzalcoatlParameter",
        "QuetzalcoatlRaise",
    ] {
        let encoded: String = sealed.bytes().map(|byte| format!("{byte:02x}")).collect();
        let found = open.contains(sealed) || open.contains(&encoded);
        assert!(found, "the auditor does not find {sealed}");
    }
    ward::audit(&proxy, "verify", &[]);
}

fn hospital() -> Postgres {
    let postgres = ward::clinic();
    postgres.script(DATABASE, TABLE).unwrap();
    postgres
}

/// Nothing is masked, so values come back; the operator's side must not see them all the same.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_where_everything_is_allowed() {
    let postgres = hospital();
    let options = wild().log("chaperone=trace,info");
    let proxy = ward::people(options, &postgres).start().unwrap();
    knock(&proxy);
    let heard = sing(&proxy, "agent_ro", AGENT).await;
    for given in [
        "QuetzalcoatlLiteral",
        "QuetzalcoatlRow",
        "QuetzalcoatlParameter",
    ] {
        assert!(
            heard.contains(given),
            "the client did not get {given}: {heard}"
        );
    }
    let admin = ask(&proxy);
    search(proxy, &admin, &[AGENT]);
}

/// With the example policies: refusals and masks see the values too.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_leaks_where_policies_decide() {
    let postgres = hospital();
    let options = ward::clinical(Chaperone::options(CHAPERONE))
        .log("chaperone=trace,info")
        .toml("[approvals]\nwait = \"1s\"");
    let proxy = ward::people(options, &postgres).start().unwrap();
    knock(&proxy);
    for (role, token) in [("agent_ro", AGENT), ("clinician", DOCTOR), ("dba", DBA)] {
        let heard = sing(&proxy, role, token).await;
        assert!(heard.contains("42501"), "nothing was refused: {heard}");
        assert!(heard.contains("0 rooms"), "the rooms were refused: {heard}");
    }
    let admin = ask(&proxy);
    search(proxy, &admin, &[AGENT, DOCTOR, DBA]);
}
