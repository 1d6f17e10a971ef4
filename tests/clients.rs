//! PostgreSQL's own client programs, to the server and through a proxy that lets everything pass:
//! what they print, dump and restore must be the same.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use chaperone_test_support::{Auth, Chaperone, Postgres, Psql, policies};

const TOKEN: &str = "token-of-the-client-tests";
const ROLE: &str = "app";
/// Databases, and targets of the same names.
const DATABASES: [&str; 3] = ["wire", "source", "restored"];

/// For client programs that were built without TLS.
const WITHOUT_TLS: &str = "CHAPERONE_TEST_WITHOUT_TLS";

fn speak_tls() -> bool {
    std::env::var_os(WITHOUT_TLS).is_none()
}

struct House {
    postgres: Postgres,
    proxy: Chaperone,
}

impl House {
    /// One test has it at a time; the databases are new for each.
    fn take() -> MutexGuard<'static, House> {
        static HOUSE: LazyLock<Mutex<House>> = LazyLock::new(|| Mutex::new(House::start()));
        let house = HOUSE.lock().unwrap_or_else(PoisonError::into_inner);
        house.reset();
        house
    }

    fn reset(&self) {
        for database in DATABASES {
            let make = format!(
                "DROP DATABASE IF EXISTS {database} WITH (FORCE);\n\
                 CREATE DATABASE {database} OWNER {ROLE};\n"
            );
            self.postgres.script("postgres", &make).unwrap();
        }
    }

    fn start() -> House {
        let postgres = Postgres::options().auth(Auth::Trust).start().unwrap();
        let role = format!("CREATE ROLE {ROLE} LOGIN");
        postgres.script("postgres", &role).unwrap();
        let mut options = Chaperone::options(env!("CARGO_BIN_EXE_chaperone"))
            .folder(postgres.socket_folder().join("clients"))
            .log("warn")
            .incomplete_facts(&["allow-all"])
            .identity("client", TOKEN, &["clients"], "testing")
            .policy("allow-all", policies::example("allow-all").unwrap(), "")
            // Many clients on few processors are no reason to fail.
            .toml("[policies.limits]\ndeadline = \"10s\"\n");
        for database in DATABASES {
            options = options.target(&postgres, database, &[(ROLE, &["clients"])], "");
        }
        if !speak_tls() {
            options = options.plaintext();
        }
        let proxy = options.start().unwrap();
        House { postgres, proxy }
    }

    fn direct(&self, database: &str) -> Psql {
        self.postgres.over_tcp(database, ROLE)
    }

    fn proxied(&self, database: &str) -> Psql {
        if speak_tls() {
            return self.proxy.psql(database, ROLE, TOKEN);
        }
        let port = self.proxy.port().to_string();
        let at = [
            ("host", "127.0.0.1"),
            ("port", &port),
            ("dbname", database),
            ("user", ROLE),
            ("sslmode", "disable"),
        ];
        Psql::new(&at).password(TOKEN)
    }
}

/// Runs a client program of PostgreSQL's, with where to connect as its database.
fn run(program: &str, at: &Psql, arguments: &[&str]) -> Output {
    Command::new(program)
        .env("PGPASSWORD", TOKEN)
        .env("PSQLRC", "/dev/null")
        .args(["-d", &at.conninfo()])
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn good(output: Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/clients")
        .join(name);
    path.to_str().unwrap().to_owned()
}

/// Makes what there is to look at and to dump.
fn load(at: &Psql) {
    let objects = file("objects.sql");
    good(run(
        "psql",
        at,
        &["-qXf", &objects, "-v", "ON_ERROR_STOP=1"],
    ));
}

/// Lines that differ, as far as they fit a screen.
fn differences(direct: &str, proxied: &str) -> String {
    let pairs = direct.lines().zip(proxied.lines());
    let different = pairs.filter(|(one, other)| one != other).take(20);
    different
        .map(|(one, other)| format!("- {one}\n+ {other}\n"))
        .collect()
}

#[test]
fn what_people_type_into_psql() {
    let house = House::take();
    let print = |at: &Psql| {
        house.reset();
        load(&house.proxied("wire"));
        // Standard error in its place among the output.
        let script = format!(
            "exec psql -Xa -d '{}' -f '{}' 2>&1",
            at.conninfo(),
            file("meta.psql")
        );
        let output = Command::new("sh")
            .args(["-c", &script])
            .env("PGPASSWORD", TOKEN)
            .stdin(Stdio::null())
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        // Of two sessions, processes and ports are two.
        let own = |line: &&str| {
            !line.contains("server process with PID") && !line.starts_with("You are now connected")
        };
        text.lines()
            .filter(own)
            .fold(String::new(), |all, line| all + line + "\n")
    };
    let direct = print(&house.direct("wire"));
    let proxied = print(&house.proxied("wire"));
    assert!(direct == proxied, "{}", differences(&direct, &proxied));
    assert!(direct.contains("division by zero"));
    assert!(direct.lines().count() > 500, "{direct}");
}

#[test]
fn a_dump_restores_to_the_same() {
    let house = House::take();
    load(&house.direct("source"));
    let dump = |at: &Psql| {
        good(run("pg_dump", at, &[]))
            .lines()
            .filter(|line| !key(line))
            .fold(String::new(), |all, line| all + line + "\n")
    };
    let before = dump(&house.direct("source"));
    let through = dump(&house.proxied("source"));
    assert!(before == through, "{}", differences(&before, &through));

    let folder = tempfile::tempdir().unwrap();
    let (one, many) = (folder.path().join("one"), folder.path().join("many"));
    let (one, many) = (one.to_str().unwrap(), many.to_str().unwrap());
    good(run(
        "pg_dump",
        &house.proxied("source"),
        &["-Fc", "-f", one],
    ));
    good(run(
        "pg_dump",
        &house.proxied("source"),
        &["-Fd", "-j2", "-f", many],
    ));
    good(run("pg_restore", &house.proxied("restored"), &[one]));
    let after = dump(&house.direct("restored"));
    assert!(before == after, "{}", differences(&before, &after));
    good(run(
        "pg_restore",
        &house.proxied("restored"),
        &["--clean", "-j2", many],
    ));
    let after = dump(&house.direct("restored"));
    assert!(before == after, "{}", differences(&before, &after));
    assert!(before.contains("CREATE POLICY everything"), "{before}");
}

/// A line of a dump that is another every time.
fn key(line: &str) -> bool {
    line.starts_with("\\restrict") || line.starts_with("\\unrestrict")
}

#[test]
fn pgbench_runs_and_the_sums_are_right() {
    let house = House::take();
    let at = house.proxied("wire");
    good(run("pgbench", &at, &["-i", "-q"]));
    for mode in ["simple", "extended", "prepared"] {
        for script in [&["-b", "tpcb-like"][..], &["-N"], &["-S"]] {
            let fixed = ["-n", "-c", "4", "-t", "25", "-M", mode];
            let said = good(run("pgbench", &at, &[&fixed[..], script].concat()));
            assert!(said.contains("actually processed: 100/100"), "{said}");
            assert!(said.contains("failed transactions: 0 "), "{said}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipeline");
    let pipeline = "\\set aid random(1, 100000)\n\\startpipeline\nBEGIN;\n\
        UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;\n\
        INSERT INTO pgbench_history (tid, bid, aid, delta, mtime) VALUES (1, 1, :aid, 1, now());\n\
        UPDATE pgbench_tellers SET tbalance = tbalance + 1 WHERE tid = 1;\n\
        UPDATE pgbench_branches SET bbalance = bbalance + 1 WHERE bid = 1;\n\
        END;\n\\endpipeline\n";
    fs::write(&path, pipeline).unwrap();
    let path = path.to_str().unwrap();
    for mode in ["extended", "prepared"] {
        let fixed = ["-n", "-c", "2", "-t", "25", "-M", mode, "-f", path];
        let said = good(run("pgbench", &at, &fixed));
        assert!(said.contains("failed transactions: 0 "), "{said}");
    }
    // `-N` leaves tellers and branches alone, so theirs are compared with its share left out.
    let sums = "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history), \
        (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches), \
        (SELECT count(*) FROM pgbench_history)";
    let value = house.postgres.value("wire", sums).unwrap();
    assert_eq!(value, "t|t|700");
}
