//! `chaperone explain` against a real PostgreSQL and the example policies: what it says is what the
//! proxy then does.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

use std::fs;
use std::path::Path;
use std::process::Output;

use chaperone_test_support::{Chaperone, Postgres, chaperone::ChaperoneOptions, clinic, policies};
use serde_json::{Value, json};

const TOKEN: &str = "agent-7's token, long enough";

fn options(postgres: &Postgres) -> ChaperoneOptions {
    let mut options = with_policies(Chaperone::options(env!("CARGO_BIN_EXE_chaperone")));
    options = options.target(
        postgres,
        clinic::DATABASE,
        &[
            ("agent_ro", &["agents"]),
            ("clinician", &["clinicians"]),
            ("dba", &["dbas"]),
        ],
        "",
    );
    options.identity("agent-7", TOKEN, &["agents"], "quality-review")
}

fn with_policies(mut options: ChaperoneOptions) -> ChaperoneOptions {
    for (name, settings) in [
        (
            "clinical-access",
            include_str!("demo/settings/clinical-access.toml"),
        ),
        (
            "phi-masking",
            include_str!("demo/settings/phi-masking.toml"),
        ),
        (
            "risky-commands",
            include_str!("demo/settings/risky-commands.toml"),
        ),
    ] {
        options = options.policy(name, policies::example(name).unwrap(), settings);
    }
    options
}

/// A clinic behind a running proxy.
struct House {
    postgres: Postgres,
    proxy: Chaperone,
}

impl House {
    fn start() -> Self {
        let postgres = Postgres::options()
            .setting("log_statement", "all")
            .start()
            .unwrap();
        clinic::seed(&postgres).unwrap();
        let proxy = options(&postgres).start().unwrap();
        for (name, subject, groups, purpose) in [
            ("osei", "dr-osei", ["clinicians"], Some("treatment")),
            ("root", "root", ["dbas"], None),
        ] {
            let persona = json!({"subject": subject, "groups": groups, "purpose": purpose});
            let file = proxy.folder().join(format!("{name}.json"));
            fs::write(file, persona.to_string()).unwrap();
        }
        House { postgres, proxy }
    }

    fn explain(&self, arguments: &[&str]) -> Output {
        let config = self.proxy.config();
        explain(&self.proxy, &config, arguments)
    }

    fn json(&self, sql: &str, persona: &str) -> Value {
        let persona = if persona == "agent-7" {
            persona.to_owned()
        } else {
            let file = self.proxy.folder().join(format!("{persona}.json"));
            file.to_string_lossy().into_owned()
        };
        let output = self.explain(&[sql, "--as", &persona, "--json"]);
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn one(&self, sql: &str, persona: &str) -> Value {
        self.json(sql, persona)["statements"][0].take()
    }
}

fn explain(proxy: &Chaperone, config: &Path, arguments: &[&str]) -> Output {
    proxy
        .command(&["explain"])
        .args(arguments)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap()
}

fn column<'v>(statement: &'v Value, name: &str) -> &'v Value {
    let outputs = statement["outputs"].as_array().unwrap();
    outputs
        .iter()
        .find(|output| output["column"] == name)
        .unwrap_or_else(|| panic!("no column {name}: {statement:#}"))
}

#[test]
fn what_it_says_is_what_the_proxy_does() {
    let house = House::start();
    masks(&house);
    denials_and_approvals(&house);
    host_rules(&house);
    people(&house);
    nothing_runs(&house);
    errors(&house);
}

fn masks(house: &House) {
    let sql = "SELECT id, name AS who, ssn, birth_date AS born, upper(name) AS loud, 'a;b' AS c \
               FROM patients WHERE id = 7";
    let statement = house.one(sql, "agent-7");
    assert_eq!(statement["verdict"]["outcome"], "allow", "{statement:#}");
    let expected = [
        ("id", "as it is", "host: known-to-be-clear"),
        ("who", "\"[name]\"", "phi-masking"),
        ("ssn", "NULL", "phi-masking"),
        ("born", "the year", "phi-masking"),
        ("loud", "NULL", "phi-masking"),
        ("c", "as it is", "host: known-to-be-clear"),
    ];
    for (name, shown, by) in expected {
        let output = column(&statement, name);
        assert_eq!(
            (&output["shown"], &output["by"]),
            (&json!(shown), &json!(by)),
            "{name}"
        );
    }
    let loud = column(&statement, "loud");
    assert_eq!(loud["lineage"], "derived");
    assert_eq!(loud["from"], json!(["public.patients.name"]));
    assert_eq!(loud["labels"], json!(["name"]));
    let row = house
        .proxy
        .psql(clinic::DATABASE, "agent_ro", TOKEN)
        .value(sql)
        .unwrap();
    let cells: Vec<&str> = row.trim().split('|').collect();
    let [id, who, ssn, born, loud, constant] = cells.as_slice() else {
        panic!("{row}");
    };
    assert_eq!(
        (*id, *who, *ssn, *loud, *constant),
        ("7", "[name]", "", "", "a;b")
    );
    assert!(born.ends_with("-01-01"), "{born}");

    // Facts as the policies see them.
    assert_eq!(statement["read_only"], true);
    assert_eq!(statement["filtered"], true);
    assert_eq!(statement["gaps"], json!([]));
    assert_eq!(statement["objects"][0]["name"], "public.patients");
    assert_eq!(statement["objects"][0]["actions"], json!(["read"]));
    let fields = statement["fields"].as_array().unwrap();
    let id = fields
        .iter()
        .find(|f| f["name"] == "public.patients.id")
        .unwrap();
    assert_eq!(id["usages"], json!(["output", "equality"]));
    assert_eq!(statement["functions"], json!(["pg_catalog.upper"]));

    // Limits are those of the ruling, with the policy that sets them.
    let bulk = house.one("SELECT name FROM patients", "agent-7");
    assert_eq!(bulk["limits"]["max_rows"], 500);
    let risky = bulk["policies"]
        .as_array()
        .unwrap()
        .iter()
        .find(|policy| policy["name"] == "risky-commands")
        .unwrap();
    assert_eq!(risky["limits"]["max_rows"], 500);

    // A view is followed to its base columns.
    let view = house.one("SELECT how FROM patient_contacts", "agent-7");
    assert_eq!(
        column(&view, "how")["from"],
        json!(["public.patients.phone"])
    );
    assert_eq!(column(&view, "how")["shown"], "NULL");
}

fn denials_and_approvals(house: &House) {
    let statement = house.one("SELECT amount FROM claims WHERE id = 1", "agent-7");
    assert_eq!(statement["verdict"]["outcome"], "deny");
    assert_eq!(statement["verdict"]["sqlstate"], "42501");
    assert_eq!(column(&statement, "amount")["shown"], "nothing");
    let said = statement["policies"][0].clone();
    assert_eq!(said["name"], "clinical-access");
    assert_eq!(said["verdict"]["outcome"], "deny");
    assert_eq!(said["verdict"]["code"], statement["verdict"]["code"]);

    let held = house.one("DROP TABLE import_2019", "root");
    assert_eq!(held["verdict"]["outcome"], "hold", "{held:#}");
    assert_eq!(held["verdict"]["approval"]["groups"], json!(["approvers"]));

    // What Chaperone itself does not understand yet is a gap.
    let cursor = house.one("DECLARE c CURSOR FOR SELECT name FROM patients", "osei");
    assert_eq!(cursor["verdict"]["sqlstate"], "0A000");
    assert!(cursor["gaps"][0].as_str().unwrap().contains("cursor"));
}

fn host_rules(house: &House) {
    let all = house.json("BEGIN; SET ROLE dba; EXECUTE x", "agent-7");
    let verdict = |index: usize| &all["statements"][index]["verdict"];
    assert_eq!(verdict(0)["outcome"], "allow");
    assert_eq!(verdict(0)["code"], "transaction-control");
    assert_eq!(verdict(1)["outcome"], "deny");
    assert_eq!(verdict(1)["code"], "role-change");
    assert_eq!(verdict(2)["outcome"], "by name");
}

fn people(house: &House) {
    let sql = "SELECT name, ssn FROM patients WHERE name = 'Secret Literal'";
    let clinician = house.json(sql, "osei");
    assert_eq!(clinician["role"], "clinician");
    let statement = &clinician["statements"][0];
    assert_eq!(column(statement, "name")["shown"], "as it is");
    assert_eq!(column(statement, "ssn")["shown"], "the last 4 characters");

    let persona = house.proxy.folder().join("osei.json");
    let output = house.explain(&[
        sql,
        "--as",
        &persona.to_string_lossy(),
        "--target",
        "clinic",
    ]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("caller     dr-osei, groups clinicians, purpose treatment\n"));
    let heading = text.lines().find(|l| l.starts_with("column")).unwrap();
    let row = text.lines().find(|l| l.starts_with("ssn ")).unwrap();
    assert_eq!(
        heading.find("shown").unwrap(),
        row.find("the last 4 characters").unwrap(),
        "{text}"
    );
    // The literal stands in the statement and nowhere else.
    assert_eq!(text.matches("Secret Literal").count(), 1, "{text}");
}

fn nothing_runs(house: &House) {
    let before = house
        .postgres
        .value("clinic", "SELECT count(*) FROM staff")
        .unwrap();
    let sql = "DELETE FROM staff; SELECT pg_sleep(60)";
    assert_eq!(
        house.json(sql, "root")["statements"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let after = house
        .postgres
        .value("clinic", "SELECT count(*) FROM staff")
        .unwrap();
    assert_eq!(before, after);
    let log = house.postgres.log();
    assert!(log.contains("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"));
    assert!(!log.contains("DELETE FROM staff"));
    assert!(!log.contains("pg_sleep(60)"));
}

fn errors(house: &House) {
    let said = |arguments: &[&str]| {
        let output = house.explain(arguments);
        assert!(!output.status.success());
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    };
    let error = said(&["SELECT 1", "--as", "nobody"]);
    assert!(error.contains("agent-7"), "{error}");
    let error = said(&["SELECT 1", "--as", "agent-7", "--role", "dba"]);
    assert!(error.contains("may not use role \"dba\""), "{error}");
    let error = said(&["SELECT 1", "--as", "agent-7", "--target", "x"]);
    assert!(error.contains("the configuration has clinic"), "{error}");
    let error = said(&["SELEC 'Secret Literal'", "--as", "agent-7"]);
    assert!(
        error.contains("42601") && !error.contains("Secret"),
        "{error}"
    );
    let file = house.proxy.folder().join("bad.json");
    fs::write(&file, r#"{"subject": "x", "group": []}"#).unwrap();
    let error = said(&["SELECT 1", "--as", &file.to_string_lossy()]);
    assert!(error.contains("unknown field `group`"), "{error}");
}

#[test]
fn the_catalog_is_read_over_tls_with_certificate_checks() {
    let postgres = Postgres::options().tls().start().unwrap();
    clinic::seed(&postgres).unwrap();
    let start = |ca: &str, password: &str| {
        let port = postgres.port();
        with_policies(Chaperone::options(env!("CARGO_BIN_EXE_chaperone")))
            .toml(&format!(
                "[[targets]]\nname = \"clinic\"\nhost = \"127.0.0.1\"\nport = {port}\n\
                 [targets.tls]\nmode = \"verify-full\"\nca = \"backend.pem\"\n\
                 [[targets.roles]]\nrole = \"agent\"\nlogin = \"agent_ro\"\n\
                 password_file = \"password\"\ngroups = [\"agents\"]\n"
            ))
            .file("backend.pem", ca)
            .file("password", password)
            .identity("agent-7", TOKEN, &["agents"], "quality-review")
            .start()
            .unwrap()
    };
    let right = postgres.ca().unwrap().pem();
    let password = clinic::role_password("agent_ro");
    let ask = |proxy: &Chaperone| {
        let arguments = ["SELECT name FROM staff", "--as", "agent-7"];
        explain(proxy, &proxy.config(), &arguments)
    };

    let output = ask(&start(&right, &password));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("verdict    allow"), "{text}");

    let other = chaperone_test_support::Ca::new().unwrap().pem();
    let output = ask(&start(&other, &password));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("certificate"), "{error}");

    let output = ask(&start(&right, "wrong"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("log-in agent_ro"), "{error}");
    assert!(!error.contains("wrong"), "{error}");
}
