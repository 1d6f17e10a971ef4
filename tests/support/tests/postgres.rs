//! The launcher and the seed against the real thing.

use std::time::Duration;

use chaperone_test_support::{Auth, Postgres, clinic};

#[test]
fn a_server_with_tls_checks_passwords_and_leaves_nothing() {
    let postgres = Postgres::options().tls().start().unwrap();
    let folder = postgres.socket_folder().to_owned();
    clinic::seed(&postgres).unwrap();

    let patients = postgres
        .value("clinic", "SELECT count(*) FROM patients")
        .unwrap();
    assert_eq!(patients, clinic::PATIENTS.to_string());
    let unlabelled = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 \
        AND coalesce(col_description(c.oid, a.attnum), '') !~ '@label\\([a-z-]+\\)'";
    assert_eq!(postgres.value("clinic", unlabelled).unwrap(), "0");

    let ca = folder.join("ca.pem");
    std::fs::write(&ca, postgres.ca().unwrap().pem()).unwrap();
    let agent = postgres
        .over_tcp("clinic", "agent_ro")
        .with("sslmode", "verify-full")
        .with("sslrootcert", &ca.to_string_lossy());
    assert!(!agent.clone().password("wrong").run("SELECT 1").unwrap().ok);
    let agent = agent.password(&clinic::role_password("agent_ro"));
    assert_eq!(
        agent
            .value("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            .unwrap(),
        "t"
    );
    assert!(!agent.run("DROP TABLE import_2019").unwrap().ok);

    drop(postgres);
    assert!(!folder.exists());
}

#[test]
fn the_seed_is_the_same_each_time() {
    let digest = |postgres: &Postgres| {
        clinic::seed(postgres).unwrap();
        let all = "SELECT md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))) FROM ";
        ["patients", "notes", "claims", "encounters"].map(|table| {
            postgres
                .value("clinic", &format!("{all}{table} t"))
                .unwrap()
        })
    };
    let first = Postgres::options().auth(Auth::Trust).start().unwrap();
    let second = Postgres::options().auth(Auth::Trust).start().unwrap();
    assert_eq!(digest(&first), digest(&second));
}

#[test]
fn a_psql_session_stays_open() {
    let postgres = Postgres::start().unwrap();
    let mut session = postgres
        .superuser("postgres")
        .argument("-At")
        .session()
        .unwrap();
    let patience = Duration::from_secs(20);
    assert_eq!(
        session
            .run("SET application_name = 'x';", patience)
            .unwrap(),
        "SET\n"
    );
    assert_eq!(
        session.run("SHOW application_name;", patience).unwrap(),
        "x\n"
    );
    let refused = session.run("SELECT 1/0;", patience).unwrap();
    assert!(refused.contains("22012"), "{refused}");
    session.send("SELECT pg_sleep(60);").unwrap();
    let late = session.wait(Duration::from_millis(300)).unwrap_err();
    assert!(late.to_string().contains("waiting"), "{late}");
}

#[test]
fn a_killed_test_process_leaves_no_server() {
    // The child is this test binary running `helper_that_hangs`.
    let mut helper = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "helper_that_hangs", "--nocapture"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut folder = String::new();
    let mut lines = std::io::BufReader::new(helper.stdout.take().unwrap());
    while !folder.contains("folder=") {
        folder.clear();
        assert!(std::io::BufRead::read_line(&mut lines, &mut folder).unwrap() > 0);
    }
    let (_, rest) = folder.trim().split_once("folder=").unwrap();
    let folder = std::path::PathBuf::from(rest);
    assert!(folder.exists());
    helper.kill().unwrap();
    helper.wait().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while folder.exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!folder.exists());
}

#[test]
#[ignore = "started by another test"]
fn helper_that_hangs() {
    let postgres = Postgres::start().unwrap();
    println!("folder={}", postgres.socket_folder().display());
    std::thread::sleep(Duration::from_secs(600));
}
