//! The admin API among callers that mean no good.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops where something is not as it should be"
)]

#[path = "common/ward.rs"]
mod ward;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chaperone_test_support::{Chaperone, http};
use ward::{AGENT, APPROVER, CHAPERONE, DATABASE, DBA, PATIENCE, POSTGRES};

fn start() -> Chaperone {
    let options = ward::clinical(Chaperone::options(CHAPERONE))
        .toml("[approvals]\nwait = \"120s\"\ngroups = [\"approvers\"]");
    ward::people(options, &POSTGRES).start().unwrap()
}

/// What the server says until it closes; `None` when it does not within 20 seconds.
fn until_closed(stream: &mut TcpStream) -> Option<String> {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        _ => Some(String::from_utf8_lossy(&said).into_owned()),
    }
}

/// One byte a second: each arrives, the head never does.
fn drips(address: SocketAddr, start: &str) -> bool {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(start.as_bytes()).unwrap();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_secs(1));
        if stream.write_all(b"x").is_err() {
            return true;
        }
    }
    false
}

#[test]
fn who_does_not_finish_a_request_is_dropped() {
    let proxy = start();
    let address = proxy.admin();
    let silent = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        until_closed(&mut stream).is_some()
    });
    // After an answered request as before the first.
    let kept = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        until_closed(&mut stream).is_some_and(|said| said.contains("200 OK"))
    });
    let slow = std::thread::spawn(move || drips(address, "GET /healthz HTTP/1.1\r\nX-Slow: "));
    // Whoever has a token is given no more time for a body.
    let head = format!(
        "POST /v1/approvals/{}/approve HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {APPROVER}\r\n\
         Content-Length: 1000\r\n\r\n",
        "0".repeat(32)
    );
    let body = std::thread::spawn(move || drips(address, &head));
    for (what, dropped) in [
        ("silent", silent),
        ("kept alive", kept),
        ("slow head", slow),
        ("slow body", body),
    ] {
        assert!(dropped.join().unwrap(), "{what} was not dropped");
    }
}

#[test]
fn long_bodies_and_heads_are_refused() {
    let proxy = start();
    let path = format!("/v1/approvals/{}/deny", "0".repeat(32));
    let body = format!("{{\"reason\": \"{}\"}}", "x".repeat(17 << 10));
    let answer = http::request(proxy.admin(), "POST", &path, Some(APPROVER), Some(&body)).unwrap();
    assert_eq!(answer.status, 413);
    let shorter = format!("{{\"reason\": \"{}\"}}", "x".repeat(15 << 10));
    let answer = http::request(proxy.admin(), "POST", &path, Some(APPROVER), Some(&shorter));
    assert_eq!(answer.unwrap().status, 404);
    let mut stream = TcpStream::connect(proxy.admin()).unwrap();
    let head = format!("GET / HTTP/1.1\r\nX-Long: {}\r\n\r\n", "x".repeat(1 << 20));
    // It may close before it has read everything.
    let _ = stream.write_all(head.as_bytes());
    let said = until_closed(&mut stream).expect("it waits for more");
    assert!(said.is_empty() || said.contains(" 431 "), "{said}");
    assert_eq!(http::get(proxy.admin(), "/healthz").unwrap().status, 200);
}

/// Opens connections that say nothing or half a request, and keeps them as long as they are let.
fn flood(address: SocketAddr, stop: &AtomicBool, opened: &AtomicUsize) {
    let mut held = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
            if held.len() % 2 == 0 {
                let _ = stream.write_all(b"GET /v1/approvals HTTP/1.1\r\nHost:");
            }
            opened.fetch_add(1, Ordering::Relaxed);
            held.push(stream);
        }
        // Descriptors are ours to run out of, too.
        if held.len() > 300 {
            held.drain(..150);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_flood_stops_neither_approvers_nor_statements() {
    let proxy = start();
    let ddl = "SET ROLE clinic_owner; CREATE TABLE import_flood (id integer, line text);
               COMMENT ON TABLE import_flood IS '@label(clear)';
               INSERT INTO import_flood VALUES (0, 'x');";
    POSTGRES.script(DATABASE, ddl).unwrap();
    let (stop, opened) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = proxy.admin();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| flood(address, &stop, &opened));
        }
        ward::wait_for("the flood", || opened.load(Ordering::Relaxed) > 600);
        let mut dba = proxy.psql(DATABASE, "dba", DBA).session().unwrap();
        dba.send("UPDATE import_flood SET id = id + 1;").unwrap();
        let agent = proxy.psql(DATABASE, "agent_ro", AGENT);
        for _ in 0..10 {
            let said = agent.run("SELECT name FROM rooms WHERE id = 1").unwrap();
            assert!(said.ok, "{}", said.text());
        }
        let began = Instant::now();
        let mut held = Vec::new();
        ward::wait_for("the request", || {
            let listed = ward::approvals(&proxy, APPROVER, &["list"]);
            held = ward::ids(&ward::words(&listed));
            !held.is_empty()
        });
        ward::wait_for("the approval", || {
            let output = ward::approvals(&proxy, APPROVER, &["approve", &held[0]]);
            output.status.success()
        });
        let took = began.elapsed();
        assert!(took < Duration::from_secs(30), "it took {took:?}");
        let said = dba.wait(PATIENCE).unwrap();
        assert!(said.contains("UPDATE 1"), "{said}");
        stop.store(true, Ordering::Relaxed);
    });
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.process_id()));
    let open = open.unwrap().count();
    assert!(open < 400, "{open} descriptors are open");
}
