use std::{sync::Arc, time::Duration};

use chaperone_contract::{Operation, Value};
use serde_json::json;

use super::*;
use crate::approval::{
    Event, EventSink, Held, NotRecorded, Options, Parameter, Person, Requester, Shown, Strength,
    Ticket,
};

struct Parts {
    ready: bool,
}

impl EventSink for Parts {
    fn record<'a>(
        &'a self,
        _: &'a Event,
    ) -> BoxFuture<'a, Result<Option<chaperone_audit_log::RecordRef>, NotRecorded>> {
        Box::pin(async { Ok(None) })
    }
}

impl ApproverAuth for Parts {
    fn authenticate<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Approver, AuthFailed>> {
        Box::pin(async move {
            let (subject, group) = token.split_once('/').ok_or(AuthFailed::Refused)?;
            Ok(Approver {
                person: person(subject),
                actors: Vec::new(),
                groups: vec![group.to_owned()],
                strength: Strength::default(),
            })
        })
    }
}

impl Probe for Parts {
    fn name(&self) -> &'static str {
        "log"
    }

    fn check(&self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { self.ready.then_some(()).ok_or_else(|| "disk full".into()) })
    }
}

impl Reports for Parts {
    fn policies(&self) -> PolicyReport {
        PolicyReport {
            digest: Some("ab".into()),
            ..PolicyReport::default()
        }
    }

    fn log(&self) -> LogFigures {
        LogFigures::default()
    }
}

fn person(subject: &str) -> Person {
    Person {
        issuer: "static".into(),
        subject: subject.into(),
    }
}

async fn start(ready: bool) -> (Server, Approvals) {
    let parts = Arc::new(Parts { ready });
    let options = Options {
        groups: vec!["approvers".into()],
        ..Options::default()
    };
    let approvals = Approvals::new(options, parts.clone());
    let admin = Admin {
        approvals: approvals.clone(),
        auth: parts.clone(),
        probes: vec![parts.clone()],
        reports: parts,
        metrics: Arc::new(Metrics::new()),
    };
    let address = "127.0.0.1:0".parse().unwrap();
    (
        Server::start(address, None, admin).await.unwrap(),
        approvals,
    )
}

async fn hold(approvals: &Approvals) -> Ticket {
    let shown = Shown {
        text: "UPDATE patients SET name = $1 -- \u{1b}[2J".into(),
        parameters: vec![Parameter {
            type_name: "text".into(),
            value: Value::Text("CANARY".into()),
        }],
        policy: "risky-commands".into(),
        code: "unfiltered".into(),
        reason: "every row changes".into(),
        objects: vec!["table public.patients: update".into()],
        purpose: Some("operations".into()),
        run: None,
    };
    let requester = Requester {
        person: person("dba"),
        actors: Vec::new(),
        role: "dba".into(),
        target: "clinic".into(),
        database: "clinic".into(),
    };
    let ttl = Duration::from_secs(60);
    let held = Held::new(
        requester,
        shown,
        &Operation::default(),
        vec![],
        1,
        ttl,
        None,
    )
    .unwrap();
    approvals.request(held).await.unwrap()
}

async fn call(
    server: &Server,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> (u16, String) {
    let url = format!("http://{}{path}", server.address());
    let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = client().request(method, url).body(body.to_owned());
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    assert!(
        answer
            .headers()
            .get("access-control-allow-origin")
            .is_none()
    );
    (answer.status().as_u16(), answer.text().await.unwrap())
}

fn client() -> reqwest::Client {
    let tls = crate::command::approvals::tls(None).unwrap();
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .build()
        .unwrap()
}

const FAY: Option<&str> = Some("fay/approvers");

#[tokio::test]
async fn health_needs_no_token_and_says_what_is_wrong() {
    let (server, approvals) = start(true).await;
    let _ticket = hold(&approvals).await;
    assert_eq!(call(&server, "GET", "/healthz", None, "").await.0, 200);
    assert_eq!(call(&server, "GET", "/readyz", None, "").await.0, 200);
    let (status, text) = call(&server, "GET", "/metrics", None, "").await;
    assert_eq!(status, 200);
    assert!(text.contains("chaperone_approvals_open 1"), "{text}");
    assert!(!text.contains("CANARY") && !text.contains("dba"));
    let (server, _) = start(false).await;
    let (status, text) = call(&server, "GET", "/readyz", None, "").await;
    assert_eq!(status, 503);
    assert!(text.contains("disk full"), "{text}");
    assert_eq!(call(&server, "GET", "/healthz", None, "").await.0, 200);
}

#[tokio::test]
async fn an_approver_sees_all_and_answers_once() {
    let (server, approvals) = start(true).await;
    let ticket = hold(&approvals).await;
    let path = format!("/v1/approvals/{}", ticket.id());
    let (_, list) = call(&server, "GET", "/v1/approvals", FAY, "").await;
    assert!(list.contains(&ticket.id().to_string()) && !list.contains("CANARY"));
    let (_, text) = call(&server, "GET", &path, FAY, "").await;
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["state"], "seen");
    assert_eq!(
        shown["shown"]["parameters"],
        json!([{"type": "text", "kind": "text", "value": "CANARY"}])
    );
    let approve = format!("{path}/approve");
    let own = call(&server, "POST", &approve, Some("dba/approvers"), "").await;
    assert!(own.0 == 403 && own.1.contains("involved"), "{own:?}");
    let other = call(&server, "POST", &approve, Some("eve/agents"), "").await;
    assert!(
        other.0 == 403 && other.1.contains("not-in-group"),
        "{other:?}"
    );
    let bad = call(&server, "POST", &approve, FAY, "{\"x\": 1}").await;
    assert!(bad.0 == 400 && bad.1.contains("bad-body"), "{bad:?}");
    let good = call(&server, "POST", &approve, FAY, "{\"reason\": \"ok\"}").await;
    assert!(good.0 == 200 && good.1.contains("granted"), "{good:?}");
    let again = call(&server, "POST", &approve, FAY, "").await;
    assert!(again.0 == 409 && again.1.contains("over"), "{again:?}");
}

#[tokio::test]
async fn everything_else_needs_a_token_of_an_approver() {
    let (server, approvals) = start(true).await;
    let ticket = hold(&approvals).await;
    let one = format!("/v1/approvals/{}", ticket.id());
    for (method, path) in [
        ("GET", "/v1/approvals".to_owned()),
        ("GET", one.clone()),
        ("POST", format!("{one}/approve")),
        ("POST", format!("{one}/deny")),
        ("GET", "/v1/policies".to_owned()),
        ("GET", "/v1/status".to_owned()),
    ] {
        for token in [None, Some("nonsense")] {
            let (status, text) = call(&server, method, &path, token, "").await;
            assert_eq!(status, 401, "{method} {path} {text}");
        }
        let (status, text) = call(&server, method, &path, Some("eve/agents"), "").await;
        assert!(!text.contains("CANARY"));
        // The list is empty for her, the rest is refused.
        assert!(
            status == 403 || text == "{\"approvals\":[]}",
            "{path} {text}"
        );
    }
    assert_eq!(call(&server, "GET", "/v1/policies", FAY, "").await.0, 200);
    assert_eq!(call(&server, "GET", "/v1/status", FAY, "").await.0, 200);
    assert_eq!(call(&server, "GET", "/v2", FAY, "").await.0, 404);
    assert_eq!(call(&server, "DELETE", &one, FAY, "").await.0, 405);
    let long = format!("{{\"reason\": \"{}\"}}", "x".repeat(20_000));
    let (status, _) = call(&server, "POST", &format!("{one}/deny"), FAY, &long).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn a_public_address_needs_tls() {
    let (_, approvals) = start(true).await;
    let parts = Arc::new(Parts { ready: true });
    let admin = Admin {
        approvals,
        auth: parts.clone(),
        probes: Vec::new(),
        reports: parts,
        metrics: Arc::new(Metrics::new()),
    };
    let error = Server::start("0.0.0.0:0".parse().unwrap(), None, admin)
        .await
        .unwrap_err();
    assert!(matches!(error, ServeError::NeedsTls(_)));
}

#[derive(clap::Parser)]
struct Line {
    #[command(subcommand)]
    command: crate::command::approvals::ApprovalsCommand,
}

#[tokio::test]
async fn the_command_line_works_over_tls() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![key.cert.der().clone()],
        rustls::pki_types::PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()).into(),
    )
    .unwrap();
    let (_plain, approvals) = start(true).await;
    let parts = Arc::new(Parts { ready: true });
    let admin = Admin {
        approvals: approvals.clone(),
        auth: parts.clone(),
        probes: Vec::new(),
        reports: parts,
        metrics: Arc::new(Metrics::new()),
    };
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::start(address, Some(Arc::new(tls)), admin)
        .await
        .unwrap();
    // A client that never speaks holds up nobody.
    let _silent = tokio::net::TcpStream::connect(server.address())
        .await
        .unwrap();
    let ticket = hold(&approvals).await;
    let id = ticket.id().to_string();
    let line = async |who: &str, words: &[&str], ca: Option<&std::path::Path>| {
        let token = folder.path().join("token");
        std::fs::write(&token, who).unwrap();
        let url = format!("https://{}", server.address());
        let mut all = vec!["approvals"];
        all.extend(words);
        all.extend(["--admin", &url, "--token-file", token.to_str().unwrap()]);
        if let Some(ca) = ca {
            all.extend(["--ca", ca.to_str().unwrap()]);
        }
        let line = <Line as clap::Parser>::try_parse_from(all).unwrap();
        crate::command::approvals::run(line.command).await
    };
    let fay = "fay/approvers";
    assert!(
        line(fay, &["list"], None).await.is_err(),
        "unknown authority"
    );
    let list = line(fay, &["list"], Some(&ca)).await.unwrap();
    assert!(list.contains(&id) && list.contains("dba"), "{list}");
    let page = line(fay, &["show", &id[..8]], Some(&ca)).await.unwrap();
    assert!(
        page.contains("$1 text = 'CANARY'") && page.contains("\\u{1b}[2J"),
        "{page}"
    );
    let own = line("dba/approvers", &["approve", &id], Some(&ca)).await;
    assert!(own.unwrap_err().to_string().contains("another person"));
    let yes = line(fay, &["approve", &id], Some(&ca)).await.unwrap();
    assert!(yes.contains("granted"), "{yes}");
    let late = line(fay, &["deny", &id, "--reason", "no"], Some(&ca)).await;
    assert!(late.unwrap_err().to_string().contains("granted already"));
    server.stop().await;
}
