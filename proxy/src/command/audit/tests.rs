use super::*;
use chaperone_audit_log::{
    Code, Log, LogOptions, Name,
    payload::{self, Payload},
};
use clap::Parser;

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    command: AuditCommand,
}

fn output(words: &[&str]) -> (bool, String) {
    let line = Line::parse_from([&["audit"], words].concat());
    let mut out = Vec::new();
    let well = dispatch(line.command, &mut out).unwrap();
    (well, String::from_utf8(out).unwrap())
}

struct Story {
    dir: tempfile::TempDir,
    key: PathBuf,
    request: Uuid,
}

fn add<P: Payload>(log: &Log, clear: &P, sealed: Option<&P::Sealed>, request: Uuid) -> RecordRef {
    log.reference(log.append(clear, sealed, Some(request)).unwrap())
}

/// Two requests that share a session: one ran, the other was only asked.
fn story() -> Story {
    let dir = tempfile::tempdir().unwrap();
    let (key, _) = PrivateKey::generate("auditor")
        .unwrap()
        .write(dir.path())
        .unwrap();
    let public = PrivateKey::read(&key).unwrap().public();
    let log = Log::open(
        &dir.path().join("log"),
        LogOptions::new(vec![public]),
        |_| {},
    )
    .unwrap();
    let (request, other) = (Uuid::now_v7(), Uuid::now_v7());
    let set = payload::PolicySet {
        digest: Digest::of(b"set"),
        modules: Vec::new(),
        cause: Code::from_words("start"),
        failures: Vec::new(),
        missing: Vec::new(),
    };
    let set = log.reference(log.append(&set, None, None).unwrap());
    let denied = payload::LoginDenied {
        code: Code::from_words("bad-token"),
        client_address: Name::new("127.0.0.1"),
    };
    let session = add(&log, &denied, None, request);
    let mut decisions = Vec::new();
    for request in [request, other] {
        let operation = payload::Operation {
            session,
            facts_of: None,
            protocol: Code::from_words("postgresql"),
            command: Code::from_words("SELECT"),
            actions: Vec::new(),
            text: log.blinder().of(b"text"),
            text_bytes: 4,
            objects: Vec::new(),
            facts: log.blinder().of(b"facts"),
            gaps: 0,
            catalog_generation: 1,
        };
        let sealed = payload::OperationSealed {
            text: "SELECT 'CANARY-5150'\u{1b}[31m".to_owned(),
            facts: None,
        };
        let operation = add(&log, &operation, Some(&sealed), request);
        let decision = payload::Decision {
            session,
            operation,
            policy_set: set,
            memo_of: None,
            modules: Vec::new(),
            verdict: payload::VerdictCode::Allow,
            code: None,
            limits: payload::LimitCodes::default(),
            masks: Vec::new(),
            tightened: Vec::new(),
            received_at: 0,
            in_transaction: false,
        };
        decisions.push(add(&log, &decision, None, request));
    }
    let intent = payload::Intent {
        decision: decisions[0],
        approval: None,
        ordinal: 1,
        portal: None,
        read_only: true,
        in_transaction: false,
        parameter_count: 0,
        parameters: None,
    };
    add(&log, &intent, None, request);
    log.close(&Code::from_words("test")).unwrap();
    Story { dir, key, request }
}

#[test]
fn a_request_is_followed_and_nothing_is_open_without_the_key() {
    let story = story();
    let dir = story.dir.path().join("log");
    let (dir, key) = (dir.to_str().unwrap(), story.key.to_str().unwrap());
    let request = story.request.to_string();
    let (well, text) = output(&["trace", dir, &request]);
    assert!(well && !text.contains("CANARY"), "{text}");
    for kind in ["policy-set", "operation", "decision", "intent"] {
        assert_eq!(text.matches(&format!("Z {kind}")).count(), 1, "{text}");
    }
    let (_, text) = output(&["trace", dir, &request, "--key", key]);
    assert!(text.contains("CANARY-5150"), "{text}");
    assert!(!text.contains('\u{1b}'), "no terminal is steered");
    let (well, text) = output(&["trace", dir, &Uuid::now_v7().to_string()]);
    assert!(!well && text.is_empty(), "{text}");

    let (_, text) = output(&["show", dir, "--kind", "operation"]);
    assert_eq!(text.matches("Z operation").count(), 2, "{text}");
    assert!(!text.contains("CANARY"), "{text}");
    let (_, text) = output(&["show", dir, "--json", "--key", key]);
    assert_eq!(text.matches("CANARY").count(), 2, "{text}");
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let (_, text) = output(&["show", dir, "--since", "9000-01-01"]);
    assert!(text.is_empty());
}

#[test]
fn a_value_is_found_by_its_digest() {
    let story = story();
    let dir = story.dir.path().join("log");
    let (dir, key) = (dir.to_str().unwrap(), story.key.to_str().unwrap());
    let file = story.dir.path().join("value");
    let found = |value: &str| {
        std::fs::write(&file, value).unwrap();
        output(&["digest", dir, file.to_str().unwrap(), "--key", key])
    };
    let (well, text) = found("text");
    assert!(well, "{text}");
    assert_eq!(text.matches(" operation\n").count(), 2, "{text}");
    assert_eq!(text.lines().count(), 4, "{text}");
    let (well, text) = found("other text");
    assert!(!well && text.lines().count() == 2, "{text}");
    // A key that opens nothing makes no digests.
    let (foreign, _) = PrivateKey::generate("foreign")
        .unwrap()
        .write(story.dir.path())
        .unwrap();
    let foreign = foreign.to_str().unwrap();
    let words = [
        "audit",
        "digest",
        dir,
        file.to_str().unwrap(),
        "--key",
        foreign,
    ];
    let error = dispatch(Line::parse_from(words).command, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("opens no run"), "{error}");
}

#[test]
fn verify_says_what_it_found() {
    let story = story();
    let dir = story.dir.path().join("log");
    let dir = dir.to_str().unwrap();
    let (well, text) = output(&["verify", dir]);
    assert!(well && text.contains("\nOK: "), "{text}");
    let (_, json) = output(&["verify", dir, "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let head = json["head"]["hash"].as_str().unwrap();
    assert!(output(&["verify", dir, "--expect-head", head]).0);
    let other = "0".repeat(64);
    assert!(!output(&["verify", dir, "--expect-head", &other]).0);
    assert!(output(&["verify", dir, "--expect-at-least", "3"]).0);
    assert!(!output(&["verify", dir, "--expect-at-least", "1000"]).0);

    let run = json["runs"][0]["head"]["log"].as_str().unwrap();
    let segment = Path::new(dir).join(run).join("000001.seg");
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (well, text) = output(&["verify", dir]);
    assert!(!well, "{text}");
    assert!(text.contains("000001.seg, offset"), "{text}");
    assert!(!output(&["show", dir]).0);
}

#[test]
fn keys_are_made_where_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (index, words) in [&["keygen"][..], &["keygen", "--output"]]
        .iter()
        .enumerate()
    {
        let path = dir.path().join(format!("auditor-{index}"));
        let words = [words, &[path.to_str().unwrap()][..]].concat();
        assert!(output(&words).0);
        assert!(PrivateKey::read(&path.with_extension("key")).is_ok());
        assert!(path.with_extension("pub").exists());
    }
}

#[test]
fn an_empty_directory_is_no_clean_log() {
    let dir = tempfile::tempdir().unwrap();
    let (well, text) = output(&["verify", dir.path().to_str().unwrap()]);
    assert!(!well && text.contains("NOT OK"), "{text}");
}
