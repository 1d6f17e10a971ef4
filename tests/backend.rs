//! How Chaperone logs in to the backend, and what it refuses to say to one that it cannot trust.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

use std::fmt::Write as _;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::postgres::PostgresOptions;
use chaperone_test_support::psql::PsqlOutput;
use chaperone_test_support::relay::Meddling;
use chaperone_test_support::wire::{Step, VERSION_3_0, VERSION_3_2, Wire, frontend};
use chaperone_test_support::{Ca, Chaperone, Postgres, Psql, Relay, policies};

const CHAPERONE: &str = env!("CARGO_BIN_EXE_chaperone");
const TOKEN: &str = "token-of-the-backend-tests";
const ROLE: &str = "ward_reader";
const PASSWORD: &str = "pAssword-of-the-ward-reader";

/// Good certificates and SCRAM.
static PROTECTED: LazyLock<Postgres> = LazyLock::new(|| with_role(Postgres::options().tls(), ""));

fn with_role(options: PostgresOptions, before: &str) -> Postgres {
    let postgres = options.start().unwrap();
    let sql = format!("{before} CREATE ROLE {ROLE} LOGIN PASSWORD '{PASSWORD}';");
    postgres.script("postgres", &sql).unwrap();
    postgres
}

/// A backend as the configuration has it.
struct Target<'a> {
    host: &'a str,
    port: u16,
    ca: Option<&'a Ca>,
    password: bool,
}

impl Target<'_> {
    fn proxy(&self) -> Chaperone {
        self.options().start().unwrap()
    }

    fn options(&self) -> ChaperoneOptions {
        let Target { host, port, .. } = self;
        let mut toml =
            format!("[[targets]]\nname = \"postgres\"\nhost = {host:?}\nport = {port}\n");
        toml.push_str(match self.ca {
            Some(_) => "[targets.tls]\nmode = \"verify-full\"\nca = \"backend.pem\"\n",
            None => "[targets.tls]\nmode = \"disable\"\n",
        });
        let _ = writeln!(
            toml,
            "[[targets.roles]]\nrole = \"reader\"\nlogin = {ROLE:?}\ngroups = [\"readers\"]"
        );
        if self.password {
            toml.push_str("password_file = \"password\"\n");
        }
        Chaperone::options(CHAPERONE)
            .toml(&toml)
            .file("password", PASSWORD)
            .file("backend.pem", self.ca.map(Ca::pem).unwrap_or_default())
            .identity("reader", TOKEN, &["readers"], "")
            .incomplete_facts(&["allow-all"])
            .policy("allow-all", policies::example("allow-all").unwrap(), "")
    }
}

fn over_tcp(port: u16, ca: Option<&Ca>) -> Chaperone {
    let host = "127.0.0.1";
    let password = true;
    Target {
        host,
        port,
        ca,
        password,
    }
    .proxy()
}

fn over_socket(postgres: &Postgres, password: bool) -> Chaperone {
    let host = postgres.socket_folder().to_string_lossy();
    Target {
        host: &host,
        port: postgres.port(),
        ca: None,
        password,
    }
    .proxy()
}

fn caller(proxy: &Chaperone) -> Psql {
    proxy
        .psql("postgres", "reader", TOKEN)
        .argument("--set=VERBOSITY=verbose")
}

#[track_caller]
fn let_in(proxy: &Chaperone) {
    let who = caller(proxy).value("SELECT session_user").unwrap();
    assert_eq!(who, ROLE);
}

/// The log-in fails; the client hears `told`, the operator `logged`, and neither a secret.
#[track_caller]
fn refused(proxy: &Chaperone, told: &str, logged: &str) -> PsqlOutput {
    let said = caller(proxy).run("SELECT session_user").unwrap();
    assert!(!said.ok, "{}", said.text());
    assert!(said.stderr.contains(told), "no {told} in {}", said.stderr);
    let log = proxy.output();
    assert!(log.contains(logged), "no {logged} in {log}");
    for text in [&said.stderr, &log] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    assert!(!said.stderr.contains(ROLE), "{}", said.stderr);
    said
}

#[test]
fn an_md5_question_is_not_answered() {
    let before = "SET password_encryption = 'md5';";
    let postgres = with_role(Postgres::options().hba("local all ward_reader md5"), before);
    let proxy = over_socket(&postgres, true);
    let said = refused(&proxy, "SCRAM-SHA-256", "MD5");
    assert!(
        said.stderr
            .contains("password_encryption = 'scram-sha-256'")
    );
    // The server waited for a password and got none: a wrong one it would have logged.
    let log = postgres.log();
    assert!(!log.contains("password authentication failed"), "{log}");
    // What the message says to do is what mends it.
    let again = format!("ALTER ROLE {ROLE} PASSWORD '{PASSWORD}';");
    postgres.script("postgres", &again).unwrap();
    let_in(&proxy);
}

#[test]
fn a_clear_text_password_is_not_given() {
    let postgres = with_role(
        Postgres::options()
            .tls()
            .hba("local all ward_reader password\nhost all ward_reader all password"),
        "",
    );
    for proxy in [
        over_socket(&postgres, true),
        over_tcp(postgres.port(), None),
        over_tcp(postgres.port(), postgres.ca()),
    ] {
        refused(&proxy, "SCRAM-SHA-256", "the password in clear");
    }
}

#[test]
fn a_backend_that_does_not_ask_is_trusted_only_where_it_can_be_no_other() {
    let postgres = with_role(
        Postgres::options()
            .tls()
            .hba("local all ward_reader trust\nhost all ward_reader all trust"),
        "",
    );
    let_in(&over_socket(&postgres, false));
    let_in(&over_socket(&postgres, true));
    let loopback = Target {
        host: "127.0.0.1",
        port: postgres.port(),
        ca: None,
        password: false,
    };
    let_in(&loopback.proxy());
    let impostor = over_tcp(postgres.port(), None);
    refused(&impostor, "SCRAM-SHA-256", "as an impostor would");
    for password in [true, false] {
        let network = Target {
            ca: postgres.ca(),
            password,
            ..loopback
        };
        refused(&network.proxy(), "SCRAM-SHA-256", "over the network");
    }
}

#[test]
fn without_a_password_a_question_has_no_answer() {
    let loopback = Target {
        host: "127.0.0.1",
        port: PROTECTED.port(),
        ca: PROTECTED.ca(),
        password: false,
    };
    refused(
        &loopback.proxy(),
        "does not let Chaperone in",
        "no password_file",
    );
}

#[test]
fn a_protected_connection_shows_nothing() {
    let relay = Relay::listening_in(PROTECTED.port()).unwrap();
    let proxy = over_tcp(relay.port(), PROTECTED.ca());
    let_in(&proxy);
    let state = "SELECT ssl, version FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()";
    let state = caller(&proxy).value(state).unwrap();
    assert!(state.starts_with("t|TLSv1."), "{state}");
    shows_nothing(&relay);
    assert!(relay.heard().len() > 1000, "the relay was not used");
}

/// What was heard begins with SSLRequest, and whatever follows is TLS.
#[track_caller]
fn shows_nothing(relay: &Relay) {
    let heard = relay.heard();
    assert_eq!(heard[..8], [0, 0, 0, 8, 4, 210, 22, 47]);
    assert!(heard[8..].first().is_none_or(|&kind| kind == 0x16));
    for word in [ROLE, "user", "database", "session_user", "application_name"] {
        let found = heard
            .windows(word.len())
            .any(|part| part == word.as_bytes());
        assert!(!found, "{word} in clear");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_request_is_protected_as_well() {
    let (relay, proxy) = tokio::task::block_in_place(|| {
        let relay = Relay::listening_in(PROTECTED.port()).unwrap();
        let proxy = over_tcp(relay.port(), PROTECTED.ca());
        (relay, proxy)
    });
    let session = proxy.client("postgres", "reader", TOKEN).await.unwrap();
    let token = session.client.cancel_token();
    let sleeping = session.client.batch_execute("SELECT pg_sleep(600)");
    let cancelling = async {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                       AND query LIKE 'SELECT pg_sleep%'";
        while PROTECTED.value("postgres", running).unwrap() == "0" {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        token.cancel_query(proxy.tls()).await.unwrap();
    };
    let (ended, ()) = tokio::join!(sleeping, cancelling);
    assert_eq!(ended.unwrap_err().code().unwrap().code(), "57014");
    shows_nothing(&relay);
    drop(session);
    tokio::task::block_in_place(|| drop((proxy, relay)));
}

/// Somebody holds a certificate that is as good as the backend's own, and passes everything on. The
/// log-in is bound to the channel, so it does not succeed through another one.
#[test]
fn the_log_in_is_bound_to_the_channel() {
    let ca = PROTECTED.ca().unwrap();
    let other = ca.issue_loopback().unwrap();
    let (told, logged) = ("does not let Chaperone in", "SQLSTATE 28000");
    let between = |meddling| Relay::impostor(PROTECTED.port(), ca, &other, meddling).unwrap();
    let relay = between(Meddling::None);
    // It does pass everything on: a client that does not bind gets in through it.
    let unbound = Psql::new(&[("host", "127.0.0.1"), ("port", &relay.port().to_string())])
        .with("user", ROLE)
        .with("dbname", "postgres")
        .with("sslmode", "require")
        .with("channel_binding", "disable")
        .password(PASSWORD);
    assert_eq!(unbound.value("SELECT session_user").unwrap(), ROLE);
    refused(&over_tcp(relay.port(), Some(ca)), told, logged);
    let noticed = |what| assert!(PROTECTED.log().contains(what), "{}", PROTECTED.log());
    noticed("channel binding check failed");
    // Taking the offer away is noticed by the server.
    let relay = between(Meddling::HidesBinding);
    assert_eq!(
        unbound
            .with("port", &relay.port().to_string())
            .value("SELECT session_user")
            .unwrap(),
        ROLE
    );
    refused(&over_tcp(relay.port(), Some(ca)), told, "SQLSTATE");
    noticed("thinks the server does not");
}

#[test]
fn a_certificate_that_is_not_right_ends_it() {
    let ca = Ca::new().unwrap();
    let other = Ca::new().unwrap();
    let told = "cannot be protected by TLS";
    let cases = [
        (ca.issue(&["db.example"]).unwrap(), "not valid for name"),
        (ca.issue_expired(&["127.0.0.1"]).unwrap(), "expired"),
        (
            other.issue(&["127.0.0.1"]).unwrap(),
            "an authority that is not in tls.ca",
        ),
    ];
    for (certificate, logged) in cases {
        let postgres = with_role(Postgres::options().certificate(certificate), "");
        let relay = Relay::listening_in(postgres.port()).unwrap();
        let proxy = over_tcp(relay.port(), Some(&ca));
        refused(&proxy, told, logged);
        shows_nothing(&relay);
    }
}

#[test]
fn a_backend_without_tls_hears_only_the_request_for_it() {
    let postgres = with_role(Postgres::options(), "");
    let relay = Relay::listening_in(postgres.port()).unwrap();
    let proxy = over_tcp(relay.port(), Some(&Ca::new().unwrap()));
    refused(&proxy, "cannot be protected by TLS", "offers no TLS");
    assert_eq!(relay.heard(), [0, 0, 0, 8, 4, 210, 22, 47]);
}

#[test]
fn a_backend_that_says_nothing_is_given_up() {
    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    for ca in [None, Some(Ca::new().unwrap())] {
        let proxy = over_tcp(port, ca.as_ref());
        refused(&proxy, "backend is not reachable", "took longer than");
    }
}

/// A backend of protocol 3.2 has cancel keys of up to 256 bytes. The relay gives out such ones.
#[test]
fn long_cancel_keys_come_back_as_they_were_given() {
    let key = |length: u8| -> Vec<u8> { (0..=255).cycle().take(usize::from(length) + 1).collect() };
    for (length, good) in [(2, false), (3, true), (31, true), (255, true)] {
        let secret = key(length);
        let given = [
            b"K",
            &frame(&[&7u32.to_be_bytes()[..], &secret].concat())[..],
        ]
        .concat();
        let postgres = with_role(Postgres::options().hba("host all all all trust"), "");
        let relay = Relay::altering(postgres.port(), move || {
            let given = given.clone();
            move |message: &[u8]| match message.first() {
                Some(b'K') => given.clone(),
                _ => message.to_vec(),
            }
        });
        let relay = relay.unwrap();
        let proxy = Target {
            host: "127.0.0.1",
            port: relay.port(),
            ca: None,
            password: false,
        }
        .proxy();
        if !good {
            refused(
                &proxy,
                "backend is not reachable",
                "does not speak the protocol",
            );
            continue;
        }
        let mut wire = caller_of(&proxy, VERSION_3_2);
        let (pid, ours) = wire.key.clone();
        assert_eq!((pid, ours.len()), (7, 32));
        wire.send(&frontend::query("SELECT pg_sleep(2)")).unwrap();
        wait_until("the statement runs", || heard(&relay, b"pg_sleep"));
        let mut canceller = Wire::connect(proxy.port()).unwrap();
        canceller
            .send(&frontend::cancel_request(pid, &ours))
            .unwrap();
        let request = frontend::cancel_request(pid, &secret);
        wait_until("the backend is asked to cancel", || heard(&relay, &request));
        // No backend has that key, so the statement runs to its end.
        let said = wire.play(&[Step::Ready(1)]);
        assert_eq!(said.all("DataRow"), ["DataRow ''"], "{said}");
    }
}

/// TCP asks a side that says nothing whether it is there: on both connections of a session.
#[test]
fn peers_that_say_nothing_are_probed() {
    let postgres = with_role(Postgres::options().hba("host all all all trust"), "");
    let relay = Relay::listening_in(postgres.port()).unwrap();
    let proxy = Target {
        host: "127.0.0.1",
        port: relay.port(),
        ca: None,
        password: false,
    }
    .options()
    .toml("[session]\npeer_timeout = \"30s\"")
    .start()
    .unwrap();
    let mut wire = caller_of(&proxy, VERSION_3_0);
    wire.ask(&frontend::query("SELECT 1"));
    let ours = |end: u16, other: bool| -> Vec<u64> {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let of = |line: &str| keepalive(line, end, other);
        table.lines().filter_map(of).collect()
    };
    // In hundredths of a second: less than the silence before the first probe, which is half of the
    // time that a peer has.
    for (side, end, other) in [
        ("client", proxy.port(), false),
        ("backend", relay.port(), true),
    ] {
        wait_until(side, || {
            let timers = ours(end, other);
            timers.len() == 1 && timers.iter().all(|left| (1..=1500).contains(left))
        });
    }
}

/// Hundredths of a second until the keepalive timer of an established connection fires, by its line in
/// `/proc/net/tcp`, if it is one whose own port is `port`, or whose peer's (`other`).
fn keepalive(line: &str, port: u16, other: bool) -> Option<u64> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let address = fields.get(if other { 2 } else { 1 })?;
    let end = u16::from_str_radix(address.split_once(':')?.1, 16).ok()?;
    let established = *fields.get(3)? == "01";
    let (timer, left) = fields.get(5)?.split_once(':')?;
    let kept = timer == "02";
    (end == port && established && kept).then(|| u64::from_str_radix(left, 16).unwrap())
}

fn caller_of(proxy: &Chaperone, version: u32) -> Wire {
    let mut wire = Wire::connect(proxy.port())
        .unwrap()
        .tls(&proxy.ca_file())
        .unwrap();
    let parameters = [("user", "reader"), ("database", "postgres")];
    let said = wire.login(version, &parameters, TOKEN).unwrap();
    assert_eq!(said.0.last().unwrap(), "ReadyForQuery I", "{said}");
    wire
}

fn frame(body: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..],
        body,
    ]
    .concat()
}

fn heard(relay: &Relay, what: &[u8]) -> bool {
    relay.heard().windows(what.len()).any(|part| part == what)
}

#[track_caller]
fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
