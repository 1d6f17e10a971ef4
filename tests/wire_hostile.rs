//! How connections begin, are cancelled, and are abused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use chaperone_test_support::wire::frontend::*;
use chaperone_test_support::wire::rig::{DATABASE, ROLE, Rig, TOKEN};
use chaperone_test_support::wire::{Step, Transcript, VERSION_3_0, VERSION_3_2, Wire};

const USUAL: [(&str, &str); 2] = [("user", ROLE), ("database", DATABASE)];

fn rig() -> MutexGuard<'static, Rig> {
    Rig::take(env!("CARGO_BIN_EXE_chaperone"))
}

fn clear(rig: &Rig) -> Wire {
    Wire::connect(rig.open.port()).unwrap()
}

fn tls(rig: &Rig) -> Wire {
    clear(rig).tls(&rig.open.ca_file()).unwrap()
}

/// The proxy still serves.
fn alive(rig: &Rig) {
    let said = rig.open().ask(&query("SELECT 1"));
    assert_eq!(said.all("DataRow"), ["DataRow '1'"], "{said}");
}

/// The session ends with one error of this SQLSTATE.
fn ends_with(said: &Transcript, sqlstate: &str) {
    assert_eq!(said.sqlstates(), [sqlstate], "{said}");
    assert_eq!(said.0.last().unwrap(), "END", "{said}");
    assert!(said.all("ErrorResponse S=FATAL").len() == 1, "{said}");
}

#[test]
fn login_is_as_the_server_s_own() {
    let rig = rig();
    let extended = [
        &USUAL[..],
        &[
            ("application_name", "it"),
            ("TimeZone", "Asia/Tokyo"),
            (
                "options",
                r"-c work_mem=7MB --extra-float-digits=2 -c DateStyle=German,\ DMY",
            ),
        ],
    ]
    .concat();
    for parameters in [&USUAL[..], &extended] {
        for version in [VERSION_3_0, 0x0003_0002] {
            let mut direct = Wire::connect(rig.postgres.port()).unwrap();
            let mut proxied = tls(&rig);
            let mut said = direct.login(version, parameters, TOKEN).unwrap();
            // A server of 3.0 says so; Chaperone speaks 3.2 itself.
            said.0
                .retain(|line| line != "NegotiateProtocolVersion 30000");
            assert_eq!(said, proxied.login(version, parameters, TOKEN).unwrap());
            assert_eq!(
                proxied.key.1.len(),
                if version == VERSION_3_0 { 4 } else { 32 }
            );
            for text in [
                "SHOW work_mem",
                "SHOW extra_float_digits",
                "SHOW DateStyle",
                "SET work_mem = '9MB'",
                "SHOW work_mem",
                "RESET work_mem",
                "SHOW work_mem",
                "SHOW TimeZone",
                "SHOW application_name",
                "RESET ALL",
                "SHOW TimeZone",
            ] {
                assert_eq!(
                    direct.ask(&query(text)),
                    proxied.ask(&query(text)),
                    "{text}"
                );
            }
        }
    }
}

#[test]
fn later_protocols_are_negotiated() {
    let rig = rig();
    let options = [&USUAL[..], &[("_pq_.something", "1")]].concat();
    for (version, parameters, answer, key) in [
        (VERSION_3_0, &USUAL[..], None, 4),
        (VERSION_3_0 + 1, &USUAL, Some("30000"), 4),
        (VERSION_3_2, &USUAL, None, 32),
        (0x0003_270f, &USUAL, Some("30002"), 32),
        (VERSION_3_0, &options, Some("30000 _pq_.something"), 4),
        (VERSION_3_2, &options, Some("30002 _pq_.something"), 32),
    ] {
        let mut wire = tls(&rig);
        let said = wire.login(version, parameters, TOKEN).unwrap();
        let answer: Vec<_> = answer
            .map(|agreed| format!("NegotiateProtocolVersion {agreed}"))
            .into_iter()
            .collect();
        assert_eq!(said.all("NegotiateProtocolVersion"), answer, "{said}");
        assert_eq!(wire.key.1.len(), key, "{said}");
        // The rest is as the server's own, which speaks 3.0 or 3.2.
        let mut direct = Wire::connect(rig.postgres.port()).unwrap();
        let own = direct.login(version, parameters, TOKEN).unwrap();
        let rest = |said: &Transcript| -> Vec<String> {
            let lines = said.0.iter().cloned();
            lines
                .filter(|line| !line.starts_with("Negotiate"))
                .collect()
        };
        assert_eq!(rest(&own), rest(&said));
        // The key is good for what it is there for, and only as a whole.
        let (pid, secret) = wire.key.clone();
        wire.send(&query("SELECT pg_sleep(30)")).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let ask = |secret: &[u8]| {
            let mut canceller = clear(&rig);
            canceller.send(&cancel_request(pid, secret)).unwrap();
            assert_eq!(canceller.play(&[Step::End]).0, ["END"]);
        };
        ask(&secret[..secret.len() - 1]);
        ask(&[&secret[..], &[0]].concat());
        let said = wire.play(&[Step::Quiet]);
        assert!(said.0.is_empty(), "{said}");
        ask(&secret);
        assert_eq!(wire.play(&[Step::Ready(1)]).sqlstates(), ["57014"]);
    }
    for version in [0x0002_0000, 0x0004_0000] {
        let said = tls(&rig).login(version, &USUAL, TOKEN).unwrap();
        assert_eq!(said.all("ErrorResponse").len(), 1, "{said}");
        assert_eq!(said.0.last().unwrap(), "END");
    }
    alive(&rig);
}

#[test]
fn nobody_gets_in_without_tls() {
    let rig = rig();
    let said = clear(&rig).login(VERSION_3_0, &USUAL, TOKEN).unwrap();
    ends_with(&said, "28000");
    let mut wire = clear(&rig);
    wire.send(&ssl_request()).unwrap();
    assert_eq!(wire.byte().unwrap(), Some(b'S'));
    // The handshake is all that may come now.
    let said = wire.play(&[Step::Send(startup(VERSION_3_0, &USUAL)), Step::End]);
    assert!(said.all("Authentication").is_empty(), "{said}");
    // Bytes behind SSLRequest in clear are an attempt to be taken for what comes inside of TLS.
    let mut wire = clear(&rig);
    wire.send(&[ssl_request(), startup(VERSION_3_0, &USUAL)].concat())
        .unwrap();
    assert!(
        wire.byte()
            .unwrap()
            .is_none_or(|byte| byte == b'S' || byte == b'E')
    );
    assert!(wire.handshake(&rig.open.ca_file()).is_err());
    alive(&rig);
}

/// TLS 1.1 and older are answered with an alert, 1.2 and 1.3 with a session.
#[test]
fn old_versions_of_tls_are_refused() {
    let rig = rig();
    for (minor, refused) in [(1, true), (2, true), (3, false)] {
        let mut wire = clear(&rig);
        wire.send(&ssl_request()).unwrap();
        assert_eq!(wire.byte().unwrap(), Some(b'S'));
        wire.send(&client_hello(minor)).unwrap();
        // An alert, or a handshake.
        let answer = if refused { 21 } else { 22 };
        assert_eq!(wire.byte().unwrap(), Some(answer), "3.{minor}");
    }
    alive(&rig);
}

/// A ClientHello (RFC 5246, 7.4.1.2) for TLS 1.(`minor` - 1) at most.
fn client_hello(minor: u8) -> Vec<u8> {
    // supported_groups, ec_point_formats, signature_algorithms, extended_master_secret.
    let extensions: [u8; 30] = [
        0, 10, 0, 6, 0, 4, 0, 23, 0, 24, 0, 11, 0, 2, 1, 0, 0, 13, 0, 6, 0, 4, 4, 3, 8, 4, 0, 23,
        0, 0,
    ];
    let ciphers = [0xc0, 0x2b, 0xc0, 0x2f, 0xc0, 0x09, 0xc0, 0x13];
    let body = [
        &[3, minor][..],
        &[7; 32],
        &[0, 0, 8],
        &ciphers,
        &[1, 0, 0, 30],
        &extensions,
    ]
    .concat();
    let length = u8::try_from(body.len()).unwrap();
    let handshake = [&[1, 0, 0, length][..], &body].concat();
    [&[22, 3, 1, 0, length + 4][..], &handshake].concat()
}

#[test]
fn requests_before_start_up() {
    let rig = rig();
    let mut wire = clear(&rig);
    wire.send(&gssenc_request()).unwrap();
    assert_eq!(wire.byte().unwrap(), Some(b'N'));
    let mut wire = wire.tls(&rig.open.ca_file()).unwrap();
    let said = wire.login(VERSION_3_0, &USUAL, TOKEN).unwrap();
    assert_eq!(said.0.last().unwrap(), "ReadyForQuery I", "{said}");
    // A second SSLRequest, inside of TLS, is no start-up message.
    let said = tls(&rig).play(&[Step::Send(ssl_request()), Step::End]);
    assert_eq!(said.0.last().unwrap(), "END", "{said}");
    assert!(said.all("Authentication").is_empty(), "{said}");
    alive(&rig);
}

#[test]
fn a_start_up_in_pieces() {
    let rig = rig();
    let mut wire = tls(&rig);
    for byte in startup(VERSION_3_0, &USUAL) {
        wire.send(&[byte]).unwrap();
    }
    wire.play(&[Step::Until(b'R')]);
    for byte in password(TOKEN) {
        wire.send(&[byte]).unwrap();
    }
    let said = wire.play(&[Step::Ready(1)]);
    assert_eq!(said.0.last().unwrap(), "ReadyForQuery I", "{said}");
    for byte in [query("SELECT 1"), run("SELECT 2", &[]), sync()].concat() {
        wire.send(&[byte]).unwrap();
    }
    let said = wire.play(&[Step::Ready(2)]);
    assert_eq!(said.all("DataRow"), ["DataRow '1'", "DataRow '2'"]);
}

#[test]
fn logins_that_are_refused() {
    let rig = rig();
    let login = |parameters: &[(&str, &str)], token: &str| {
        tls(&rig).login(VERSION_3_0, parameters, token).unwrap()
    };
    let said = login(&USUAL, "wrong");
    assert!(["28000", "28P01"].contains(&said.sqlstates()[0]), "{said}");
    let said = login(&[("user", "postgres"), ("database", DATABASE)], TOKEN);
    assert_eq!(said.sqlstates().len(), 1, "{said}");
    let said = login(&[("user", ROLE), ("database", "postgres")], TOKEN);
    assert_eq!(said.sqlstates().len(), 1, "{said}");
    let said = login(&[("database", DATABASE)], TOKEN);
    assert_eq!(said.sqlstates().len(), 1, "{said}");
    for kind in ["true", "on", "1", "database"] {
        let said = login(&[&USUAL[..], &[("replication", kind)]].concat(), TOKEN);
        assert_eq!(said.sqlstates().len(), 1, "{kind} {said}");
        assert_eq!(said.0.last().unwrap(), "END", "{kind} {said}");
    }
    alive(&rig);
}

#[test]
fn start_up_packets_that_are_none() {
    let rig = rig();
    let endless = [
        &[0, 0, 0x27, 0x10][..],
        &VERSION_3_0.to_be_bytes(),
        &[b'x'; 9000],
    ]
    .concat();
    for bytes in [
        &[0, 0, 0, 0][..],
        &[0, 0, 0, 4],
        &[0, 0, 0, 7, 1, 2, 3],
        &[0xff, 0xff, 0xff, 0xff],
        &[0x80, 0, 0, 0],
        &[0, 1, 0, 0],
        &[0, 0, 0, 9, 0, 3, 0, 0, b'x'],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        &endless,
    ] {
        for mut wire in [clear(&rig), tls(&rig)] {
            if wire.send(bytes).is_err() {
                continue;
            }
            if bytes.len() == endless.len() {
                // Incomplete: nothing is said, and nothing else waits for it.
                continue;
            }
            let said = wire.play(&[Step::End]);
            assert_eq!(
                said.0.last().map(String::as_str),
                Some("END"),
                "{} {said}",
                bytes.escape_ascii()
            );
            assert!(said.all("Authentication").is_empty(), "{said}");
        }
    }
    alive(&rig);
}

#[test]
fn function_calls_are_refused() {
    let rig = rig();
    let steps = [
        Step::Send(
            [
                query("BEGIN"),
                function_call(999_999, &[]),
                query("SELECT 1"),
                query("ROLLBACK"),
                function_call(999_999, &[]),
                query("SELECT 1"),
            ]
            .concat(),
        ),
        Step::Ready(6),
        Step::Quiet,
    ];
    let direct = rig.direct().play(&steps);
    let proxied = rig.ruled().play(&steps);
    // What the server says of a function that does not exist.
    assert_eq!(direct.without_error_texts(), proxied.without_error_texts());
    let said = rig.ruled().ask(&function_call(2026, &[]));
    assert_eq!(said.sqlstates(), ["0A000"], "{said}");
}

#[test]
fn messages_that_are_none() {
    let rig = rig();
    let raw =
        |kind: u8, length: u32, body: &[u8]| [&[kind], &length.to_be_bytes()[..], body].concat();
    let many = [
        message(b'?', b"x"),
        message(b'\0', b""),
        message(b'p', b"x\0"),
        message(b'Q', b"SELECT 1"),
        message(b'Q', b"SELECT 1\0SELECT 2\0"),
        message(b'Q', b""),
        message(b'P', b"name"),
        message(b'P', b"a\0SELECT 1\0\xff\xff"),
        message(b'B', b"\0\0\0\x01"),
        message(b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff\0\0"),
        message(b'B', b"\0\0\0\0\0\x01\xff\xff\xff\xf0\0\0"),
        message(b'B', b"\0\0\xff\xff"),
        message(b'D', b"X\0"),
        message(b'D', b""),
        message(b'E', b"\0\0"),
        message(b'C', b"Q\0"),
        message(b'C', b"S"),
        message(b'S', b"x"),
        message(b'H', b"x"),
        raw(b'Q', 0, b""),
        raw(b'Q', 3, b""),
        raw(b'Q', 0xffff_ffff, b""),
        raw(b'Q', 0x8000_0000, b""),
        raw(b'S', 0x7fff_ffff, b""),
        raw(b'!', 0x7fff_ffff, b""),
        // The type is enough to know, and nobody waits for what is announced.
        raw(b'?', 80, b""),
        raw(0, 1 << 20, b""),
        raw(b'S', 20_000, b""),
        raw(b'D', 1 << 20, b"S"),
    ];
    for bytes in many {
        let mut wire = rig.open();
        let extended = b"PBDECH".contains(&bytes[0]);
        let end = if extended { sync() } else { Vec::new() };
        let said = wire.play(&[
            Step::Send([parse("", "SELECT 1", &[]), bytes.clone(), end].concat()),
            Step::Until(b'E'),
        ]);
        assert_eq!(
            said.all("ErrorResponse").len(),
            1,
            "{} {said}",
            bytes.escape_ascii()
        );
        assert_eq!(
            said.sqlstates(),
            ["08P01"],
            "{} {said}",
            bytes.escape_ascii()
        );
        // It ends, or it goes on in step; it does not hang.
        let after = wire.play(&[Step::Quiet]);
        let last = after.0.last().map(String::as_str);
        assert!(
            matches!(last, Some("END" | "ReadyForQuery I")),
            "{} {after}",
            bytes.escape_ascii()
        );
    }
    alive(&rig);
}

#[test]
fn statements_that_are_too_long() {
    let rig = rig();
    let long = format!("SELECT '{}'", "x".repeat(3 << 20));
    let mut wire = rig.open();
    let said = wire.play(&[
        Step::Send([query(&long), query("SELECT 1")].concat()),
        Step::Ready(2),
        Step::Quiet,
    ]);
    assert_eq!(said.sqlstates(), ["54000"], "{said}");
    assert_eq!(said.all("DataRow"), ["DataRow '1'"]);
    let insert = run("INSERT INTO item VALUES (10, 'x')", &[]);
    let said = wire.play(&[
        Step::Send(
            [
                insert,
                parse("", &long, &[]),
                run("SELECT 1", &[]),
                sync(),
                run("SELECT 2", &[]),
                sync(),
            ]
            .concat(),
        ),
        Step::Ready(2),
        Step::Quiet,
    ]);
    assert_eq!(said.sqlstates(), ["54000"], "{said}");
    assert_eq!(said.all("DataRow"), ["DataRow '2'"]);
    assert!(!rig.items().contains("10"));
    let deep = format!("SELECT {}1{}", "(".repeat(100_000), ")".repeat(100_000));
    let said = wire.ask(&query(&deep));
    assert_eq!(said.sqlstates().len(), 1);
    // As deep as is followed, and deeper.
    for depth in [100, 127, 128, 1_000] {
        let sum = format!("SELECT 1{}", "+1".repeat(depth));
        for mut wire in [rig.open(), rig.ruled()] {
            let said = wire.ask(&query(&sum));
            assert_eq!(said.all("ReadyForQuery").len(), 1, "{depth}: {said}");
        }
    }
    // A parameter may be longer than a statement.
    let value = "y".repeat(3 << 20);
    let said = wire.ask(&[run("SELECT length($1)", &[Some(&value)]), sync()].concat());
    assert_eq!(said.all("DataRow"), ["DataRow '3145728'"], "{said}");
    alive(&rig);
}

#[test]
fn cancel() {
    let rig = rig();
    let cancel = |pid: u32, secret: &[u8], over_tls: bool| {
        let mut wire = if over_tls { tls(&rig) } else { clear(&rig) };
        let said = wire.play(&[Step::Send(cancel_request(pid, secret)), Step::End]);
        assert_eq!(said.0, ["END"]);
        assert!(!wire.cut, "no close_notify");
    };
    let mut wire = rig.open();
    let said = wire.ask(&query("SELECT pg_backend_pid()"));
    let (pid, secret) = wire.key.clone();
    assert_eq!(said.all("DataRow"), [format!("DataRow '{pid}'")]);
    for over_tls in [false, true] {
        wire.send(&query("SELECT pg_sleep(30)")).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        let start = Instant::now();
        cancel(pid, &secret, over_tls);
        let said = wire.play(&[Step::Ready(1)]);
        assert!(start.elapsed() < Duration::from_secs(10));
        assert_eq!(said.sqlstates(), ["57014"], "{said}");
    }
    // Another key, another process: nothing happens.
    wire.send(&query("SELECT pg_sleep(0.6)")).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let wrong: Vec<u8> = secret.iter().map(|byte| byte ^ 0x55).collect();
    cancel(pid, &wrong, false);
    cancel(pid + 1, &secret, false);
    cancel(pid, b"", false);
    let said = wire.play(&[Step::Ready(1)]);
    assert!(said.sqlstates().is_empty(), "{said}");
    // In an extended pipeline the rest is skipped.
    wire.send(
        &[
            run("SELECT pg_sleep(30)", &[]),
            run("SELECT 1", &[]),
            sync(),
            query("SELECT 2"),
        ]
        .concat(),
    )
    .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    cancel(pid, &secret, false);
    let said = wire.play(&[Step::Ready(2), Step::Quiet]);
    assert_eq!(said.sqlstates(), ["57014"], "{said}");
    assert_eq!(said.all("DataRow"), ["DataRow '2'"], "{said}");
}

#[test]
fn a_late_cancel_hits_nothing() {
    let rig = rig();
    let mut wire = rig.open();
    let (pid, secret) = wire.key.clone();
    for round in 0..20 {
        let said = wire.ask(&query("SELECT 1"));
        assert!(said.sqlstates().is_empty(), "{round} {said}");
        let mut canceller = clear(&rig);
        canceller.send(&cancel_request(pid, &secret)).unwrap();
        // The answer is the end of the connection, by which the cancel has done what it will do.
        assert_eq!(canceller.play(&[Step::End]).0, ["END"]);
        let said = wire.ask(&query("SELECT pg_sleep(0.02)"));
        assert!(said.sqlstates().is_empty(), "{round} {said}");
    }
}

#[test]
fn clients_that_vanish_end_their_backends() {
    let rig = rig();
    let backends = || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'";
        rig.postgres.value("wire", count).unwrap().trim().to_owned()
    };
    for part in [
        query("BEGIN"),
        query("COPY item FROM STDIN"),
        query("SELECT * FROM big"),
        query("SELECT pg_sleep(60)"),
        parse("", "SELECT 1", &[]),
        query("SELECT 1")[..7].to_vec(),
    ] {
        let mut wire = rig.open();
        wire.send(&part).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut wire = rig.open();
    wire.send(&terminate()).unwrap();
    assert_eq!(wire.play(&[Step::End]).0, ["END"]);
    // What runs is cancelled; by itself it would not notice for ten minutes.
    let sleeping = || {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";
        rig.postgres.value("wire", count).unwrap()
    };
    let mut wire = rig.open();
    wire.send(&query("SELECT pg_sleep(600)")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while sleeping() == "0" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(wire);
    let deadline = Instant::now() + Duration::from_secs(20);
    while backends() != "0" && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(backends(), "0");
}

#[test]
fn a_client_that_does_not_read_costs_little() {
    let mut rig = rig();
    let process = rig.open.process().id();
    let resident = || {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let ask = || query("SELECT id, body FROM big");
    // Warm, so that what is measured is what waits.
    rig.open().ask(&ask());
    let mut slow: Vec<Wire> = (0..4).map(|_| rig.open()).collect();
    let before = resident();
    for wire in &mut slow {
        wire.send(&ask()).unwrap();
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = resident().saturating_sub(before);
    assert!(
        grown < 16 * 1024,
        "four results of 12 MB each cost {grown} KiB"
    );
    // Others are served meanwhile, and in the end all of it arrives.
    alive(&rig);
    for wire in &mut slow {
        let said = wire.play(&[Step::Ready(1)]);
        assert_eq!(said.all("DataRow").len(), 12_000);
    }
    // Nor does one that sends without end while its answers wait.
    let mut wire = rig.open();
    let announced = [
        &[b'B'][..],
        &0x3fff_ffffu32.to_be_bytes(),
        &vec![0; 1 << 20],
    ]
    .concat();
    let before = resident();
    wire.send(&announced).unwrap();
    std::thread::sleep(Duration::from_millis(500));
    assert!(resident().saturating_sub(before) < 8 * 1024);
    alive(&rig);
}
