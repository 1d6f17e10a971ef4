//! What the operators' page shows, done from an empty folder to a session of psql, with the example
//! of a configuration.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chaperone_test_support::guard::Guarded;
use chaperone_test_support::net::free_port;
use chaperone_test_support::policies::{target_folder, workspace};
use chaperone_test_support::tls::write_private;
use chaperone_test_support::{Ca, Issuer, Postgres, http};
use serde_json::json;

use crate::pages::{self, Shown};
use crate::run;
use crate::ward::{self, CHAPERONE};

const TEST: &str = "operators::what_operators_are_shown_works";

/// The tables and functions that the page and the configuration speak of.
const TABLES: &str = "
    CREATE TABLE staff (id integer, name text);
    CREATE TABLE patients (id integer, name text, ssn text, notes text);
    INSERT INTO staff VALUES (1, 'Ada Example');
    INSERT INTO patients SELECT n, 'Bo Example', '900-00-000' || n, 'invented' FROM generate_series(1, 7) n;
    CREATE FUNCTION staff_count() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM public.staff';
    GRANT SELECT ON staff, patients TO agent_ro, clinic_app;";

#[test]
fn what_operators_are_shown_works() {
    let mut shown = Shown::to("docs/operators.md", TEST);
    let mut in_file = Shown::to("docs/chaperone.toml", TEST);
    let ca = Ca::new().unwrap();
    let postgres = database(&ca, &mut shown);
    let issuer = Issuer::start().unwrap();
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();

    // 1. The folder; first the token that the configuration has the digest of.
    let make = shown.take("TOKEN=");
    let digest = shown.take("printf ");
    assert_eq!(in_file.take("printf "), digest, "one page as the other");
    let said = run(folder, &format!("{make}\necho $TOKEN\n{digest}"), &[]);
    let token = said.lines().next().unwrap().to_owned();
    let digest = said.trim().rsplit(' ').next().unwrap();
    assert_eq!((token.len(), digest.len()), (64, 64), "{said}");
    let key = pages::shell(folder, CHAPERONE, &in_file.take("head "), &[]);
    assert!(key.status.success(), "{}", ward::words(&key));
    in_file.all_ran();
    ca.issue_loopback()
        .unwrap()
        .write(folder, "server")
        .unwrap();
    let authorities = format!("{}{}", ca.pem(), issuer.ca_pem());
    fs::write(folder.join("ca.pem"), authorities).unwrap();
    for role in ["agent_ro", "clinic_app"] {
        write_private(&folder.join(format!("{role}.password")), &password(role)).unwrap();
    }
    fs::create_dir(folder.join("policies")).unwrap();
    let ports = [free_port().unwrap(), free_port().unwrap()];
    configure(folder, ports, postgres.port(), issuer.url(), digest);

    // 2. and 3. A key and a module, without which it would not start.
    run(folder, &shown.take("chaperone audit keygen"), &[]);
    let check = shown.take("chaperone check");
    let early = pages::shell(folder, CHAPERONE, &check, &[]);
    assert!(!early.status.success() && ward::words(&early).contains("policies"));
    let example = workspace().join("example-policies/clinical-access");
    let build = shown.take("chaperone policy build");
    let build = build.replace("DIR", example.to_str().unwrap());
    let target = target_folder();
    run(
        folder,
        &build,
        &[("CARGO_TARGET_DIR", target.to_str().unwrap())],
    );

    // 4. and 5.
    run(folder, &check, &[]);
    let serve = format!("exec {}", shown.take("chaperone serve"));
    let serve = pages::shell_command(folder, CHAPERONE, &serve);
    let log = folder.join("log");
    let mut proxy = Guarded::spawn(serve, "TERM", &log).unwrap();
    let admin = ([127, 0, 0, 1], ports[1]).into();
    let said = || fs::read_to_string(&log).unwrap();
    ward::wait_for("the proxy", || {
        assert!(proxy.ended().is_none(), "{}", said());
        http::get(admin, "/readyz").is_ok_and(|answer| answer.status == 200)
    });

    // 6. As a static identity, who may only compute, and as an agent with a provider's token.
    let psql = shown.take("psql ");
    let psql = psql.replace("port=6432", &format!("port={}", ports[0]));
    let [one, denied] = ["SELECT 40 + 2;", "SELECT id FROM patients;"]
        .map(|sql| typed(folder, &format!("{psql} -At"), &token, sql));
    assert_eq!(one.trim(), "42", "{}", said());
    assert!(
        denied.contains("ERROR:  ") && !denied.contains("invented"),
        "{denied}"
    );
    let claims = json!({"groups": ["agents"], "purpose": "quality-review"});
    let agent = issuer.token("agent-7", &claims).unwrap();
    let counted = "SELECT max(id), count(*) FROM patients;";
    assert_eq!(
        typed(folder, &format!("{psql} -At"), &agent, counted).trim(),
        "7|7"
    );
    let secret = typed(folder, &psql, &agent, "SELECT ssn FROM patients;");
    assert!(!secret.contains("900-00"), "{secret}");
    let nobody = typed(folder, &psql, "no token", "SELECT 1;");
    assert!(nobody.contains("FATAL:  "), "{nobody}");
    shown.all_ran();
}

/// Types into a session of psql, which `command` opens, and gives what it shows.
fn typed(folder: &Path, command: &str, password: &str, text: &str) -> String {
    let mut psql = pages::shell_command(folder, CHAPERONE, command);
    psql.env("PGPASSWORD", password).env("HOME", folder);
    input(&mut psql, text)
}

fn input(command: &mut Command, text: &str) -> String {
    command.stdin(Stdio::piped());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // One that is refused reads nothing.
    let _ = pipe.write_all(text.as_bytes());
    drop(pipe);
    ward::words(&child.wait_with_output().unwrap())
}

fn password(role: &str) -> String {
    format!("backend-secret-of-{role}")
}

/// A database with TLS that stored its passwords as MD5, mended and labelled as the page says.
fn database(ca: &Ca, shown: &mut Shown) -> Postgres {
    let postgres = Postgres::options()
        .certificate(ca.issue_loopback().unwrap())
        .setting("password_encryption", "md5")
        .start()
        .unwrap();
    let roles = "CREATE ROLE agent_ro LOGIN PASSWORD 'old'; CREATE ROLE clinic_app LOGIN;";
    postgres.script("postgres", roles).unwrap();
    postgres
        .script("postgres", "CREATE DATABASE clinic")
        .unwrap();
    postgres.script("clinic", TABLES).unwrap();
    let stored = || {
        let sql = "SELECT left(rolpassword, 13) FROM pg_authid WHERE rolname = 'agent_ro'";
        postgres.value("postgres", sql).unwrap()
    };
    assert!(stored().starts_with("md5"), "{}", stored());

    for start in ["ALTER ", "SELECT "] {
        postgres.script("postgres", &shown.take(start)).unwrap();
    }
    // Without a terminal psql asks its input for the password, twice.
    let superuser = postgres.superuser("postgres").command();
    let mut psql = Command::new("setsid");
    psql.arg("--wait")
        .arg(superuser.get_program())
        .args(superuser.get_args());
    let new = password("agent_ro");
    let text = format!("{}\n{new}\n{new}\n", shown.take("\\password"));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // The server reads its settings again some time after it was told to.
        let said = input(&mut psql, &text);
        if stored() == "SCRAM-SHA-256" {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    let other = format!(
        "ALTER ROLE clinic_app PASSWORD '{}'",
        password("clinic_app")
    );
    postgres.script("postgres", &other).unwrap();
    for _ in 0..3 {
        postgres.script("clinic", &shown.take("COMMENT ")).unwrap();
    }
    postgres
}

/// The whole example, with only these differences: ports and addresses, the provider, the digest of
/// our token and a time that does not come.
fn configure(folder: &Path, ports: [u16; 2], database: u16, issuer: &str, digest: &str) {
    let mut text = fs::read_to_string(workspace().join("docs/chaperone.toml")).unwrap();
    let old = "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a";
    for (from, to) in [
        ("0.0.0.0:6432", format!("127.0.0.1:{}", ports[0])),
        ("127.0.0.1:6433", format!("127.0.0.1:{}", ports[1])),
        ("\"10.0.0.5\"", "\"127.0.0.1\"".to_owned()),
        ("# port = 5432", format!("port = {database}")),
        ("https://id.example.org", issuer.to_owned()),
        (old, digest.to_owned()),
        ("2027-01-01", "2999-01-01".to_owned()),
    ] {
        assert!(text.contains(from), "{from} is not in the example");
        text = text.replace(from, &to);
    }
    fs::write(folder.join("chaperone.toml"), text).unwrap();
}
