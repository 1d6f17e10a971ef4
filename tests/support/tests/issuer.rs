//! The issuer as a program.

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chaperone_test_support::guard::Guarded;
use serde_json::{Value, json};

const PROGRAM: &str = env!("CARGO_BIN_EXE_oidc-issuer");

#[test]
fn every_persona_gets_a_token() {
    let folder = tempfile::tempdir().expect("a folder");
    let personas = folder.path().join("personas.json");
    let text = json!({
        "agent": {"sub": "agent-7", "groups": ["agents"], "run": "run-1"},
        "fay": {"aud": ["other", "chaperone"]},
    });
    std::fs::write(&personas, text.to_string()).expect("written");
    let out = folder.path().join("out");
    let mut command = Command::new(PROGRAM);
    command.arg("--personas").arg(&personas);
    command.arg("--dir").arg(&out);
    let log = folder.path().join("log");
    let _issuer = Guarded::spawn(command, "TERM", &log).expect("started");

    let file = |name: &str| std::fs::read_to_string(out.join(name));
    let started = Instant::now();
    let url = loop {
        match file("issuer-url") {
            Ok(url) if !url.is_empty() => break url,
            _ if started.elapsed() > Duration::from_secs(20) => {
                panic!("{}", std::fs::read_to_string(&log).unwrap_or_default())
            }
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    assert!(
        file("issuer-ca.pem")
            .expect("there")
            .contains("CERTIFICATE")
    );

    let claims = |name: &str| {
        let token = file(&format!("{name}.token")).expect("there");
        let payload = token.split('.').nth(1).expect("three parts").to_owned();
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).expect("base64url");
        serde_json::from_slice::<Value>(&payload).expect("JSON")
    };
    let agent = claims("agent");
    assert_eq!(agent["iss"], url.trim());
    assert_eq!(agent["sub"], "agent-7");
    assert_eq!(agent["aud"], "chaperone");
    assert_eq!(agent["groups"], json!(["agents"]));
    assert_eq!(agent["run"], "run-1");
    assert!(agent["exp"].as_u64() > agent["iat"].as_u64());
    assert_eq!(claims("fay")["sub"], "fay");
    assert_eq!(claims("fay")["aud"], json!(["other", "chaperone"]));

    let token = std::fs::metadata(out.join("agent.token")).expect("there");
    assert_eq!(token.permissions().mode() & 0o777, 0o600);
}

#[test]
fn wrong_arguments_end_it_with_its_usage() {
    for arguments in [&[][..], &["--dir"], &["--dir", "x"], &["--port", "1"]] {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).stdin(Stdio::null());
        let output = command.output().expect("started");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("usage: oidc-issuer"), "{said}");
    }
    let output = Command::new(PROGRAM)
        .args(["--dir", "/nonexistent", "--personas", "/nonexistent/p.json"])
        .output()
        .expect("started");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/p.json"));
}
