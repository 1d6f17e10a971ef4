//! `chaperone approvals`: what waits, what exactly will run, yes or no.

use std::{fmt::Write as _, path::PathBuf, sync::Arc, time::Duration};

use reqwest::{Client, Method};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use serde_json::{Value, json};

/// Where the admin API is, and who calls.
#[derive(Debug, clap::Args)]
pub struct Connection {
    /// Address of the admin API; otherwise CHAPERONE_ADMIN_URL, or http://127.0.0.1:6433
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// File with your token; otherwise CHAPERONE_ADMIN_TOKEN or CHAPERONE_TOKEN is used
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file with the authority that signed the admin API's certificate
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Look at held statements and answer them.
#[derive(Debug, clap::Subcommand)]
pub enum ApprovalsCommand {
    /// List what waits for an answer that you may give
    List {
        #[command(flatten)]
        #[allow(
            missing_docs,
            reason = "a comment would replace what the help says of the command"
        )]
        connection: Connection,
    },
    /// Show exactly what will run, in full
    Show {
        /// The request, or the beginning of its id if that is unique
        id: String,
        #[command(flatten)]
        #[allow(
            missing_docs,
            reason = "a comment would replace what the help says of the command"
        )]
        connection: Connection,
    },
    /// Let it run, once
    Approve {
        /// The request, or the beginning of its id if that is unique
        id: String,
        /// A word for the record
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        #[allow(
            missing_docs,
            reason = "a comment would replace what the help says of the command"
        )]
        connection: Connection,
    },
    /// Refuse it
    Deny {
        /// The request, or the beginning of its id if that is unique
        id: String,
        /// A word to the requester
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        #[allow(
            missing_docs,
            reason = "a comment would replace what the help says of the command"
        )]
        connection: Connection,
    },
}

/// What went wrong, and how to mend it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CommandError(String);

fn failed(message: impl Into<String>) -> CommandError {
    CommandError(message.into())
}

/// Does it and returns what to print.
pub async fn run(command: ApprovalsCommand) -> Result<String, CommandError> {
    match command {
        ApprovalsCommand::List { connection } => {
            let api = Api::new(&connection)?;
            let answer = api.call(Method::GET, "/v1/approvals", None).await?;
            Ok(table(&answer))
        }
        ApprovalsCommand::Show { id, connection } => {
            let api = Api::new(&connection)?;
            let id = api.full_id(&id).await?;
            let path = format!("/v1/approvals/{id}");
            Ok(page(&api.call(Method::GET, &path, None).await?))
        }
        ApprovalsCommand::Approve {
            id,
            reason,
            connection,
        } => answer(&connection, &id, "approve", reason).await,
        ApprovalsCommand::Deny {
            id,
            reason,
            connection,
        } => answer(&connection, &id, "deny", reason).await,
    }
}

async fn answer(
    connection: &Connection,
    id: &str,
    verb: &str,
    reason: Option<String>,
) -> Result<String, CommandError> {
    let api = Api::new(connection)?;
    let id = api.full_id(id).await?;
    let path = format!("/v1/approvals/{id}/{verb}");
    let body = json!({ "reason": reason });
    let answer = api.call(Method::POST, &path, Some(body)).await?;
    Ok(match (text(&answer, "state"), number(&answer, "missing")) {
        (state, 0) => format!("{id} is {state}.\n"),
        (_, missing) => format!("{id}: your yes counts; {missing} more must approve.\n"),
    })
}

struct Api {
    client: Client,
    base: String,
    token: String,
}

impl Api {
    fn new(connection: &Connection) -> Result<Self, CommandError> {
        let admin = connection
            .admin
            .clone()
            .or_else(|| std::env::var("CHAPERONE_ADMIN_URL").ok())
            .unwrap_or_else(|| "http://127.0.0.1:6433".to_owned());
        let base = admin.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&base)
            .map_err(|_| failed(format!("--admin {}: not a URL", escape(&base))))?;
        let host = url.host_str().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let local = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback());
        if url.scheme() != "https" && !(url.scheme() == "http" && local) {
            return Err(failed(
                "--admin must begin with https:// (http:// only for a loopback address): the \
                 token would travel in clear",
            ));
        }
        let client = Client::builder()
            .tls_backend_preconfigured(tls(connection.ca.as_ref())?)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .build()
            .map_err(|error| failed(format!("the HTTP client cannot be set up: {error}")))?;
        Ok(Self {
            client,
            base,
            token: token(connection)?,
        })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<Value, CommandError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.map_err(|error| {
            failed(format!(
                "{} does not answer: {error}; is `chaperone serve` up, and are --admin and --ca \
                 right?",
                self.base
            ))
        })?;
        let status = answer.status();
        let body: Value = answer
            .json()
            .await
            .map_err(|_| failed(format!("{} answered {status}, and not in JSON", self.base)))?;
        if status.is_success() {
            return Ok(body);
        }
        let mut message = escape(&text(&body, "message"));
        if let Some(hint) = body.get("hint").and_then(Value::as_str) {
            let _ = write!(message, "\nhint: {}", escape(hint));
        }
        Err(failed(message))
    }

    /// A whole id is taken as it is, so that an answer to one that is over says so.
    async fn full_id(&self, prefix: &str) -> Result<uuid::Uuid, CommandError> {
        if let Ok(id) = uuid::Uuid::try_parse(prefix) {
            return Ok(id);
        }
        let list = self.call(Method::GET, "/v1/approvals", None).await?;
        let prefix = prefix.to_ascii_lowercase();
        let mut found = items(&list, "approvals")
            .filter_map(|item| item.get("id")?.as_str())
            .filter(|id| !prefix.is_empty() && id.starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(id), None) => {
                uuid::Uuid::try_parse(id).map_err(|_| failed("the server sent an id that is none"))
            }
            (None, _) => Err(failed(
                "no open request begins with that; `chaperone approvals list` shows them",
            )),
            (Some(_), Some(_)) => Err(failed(
                "several open requests begin with that; give more of the id",
            )),
        }
    }
}

fn token(connection: &Connection) -> Result<String, CommandError> {
    let token = match &connection.token_file {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| failed(format!("--token-file {}: {error}", file.display())))?,
        None => std::env::var("CHAPERONE_ADMIN_TOKEN")
            .or_else(|_| std::env::var("CHAPERONE_TOKEN"))
            .map_err(|_| failed("no token: give --token-file FILE or set CHAPERONE_TOKEN"))?,
    };
    let token = token.trim().to_owned();
    if token.is_empty() {
        return Err(failed("the token is empty"));
    }
    Ok(token)
}

/// TLS with exactly the given authority; without one no certificate is accepted.
pub(crate) fn tls(ca: Option<&PathBuf>) -> Result<ClientConfig, CommandError> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = ca {
        let bad = |error: String| failed(format!("--ca {}: {error}", file.display()));
        let certificates = CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|e| bad(e.to_string()))?;
            roots.add(certificate).map_err(|e| bad(e.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("there is no certificate in it".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(format!("TLS cannot be set up: {error}")))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn text(value: &Value, key: &str) -> String {
    value
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or_default()
}

fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value
        .get(key)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Makes everything visible that could steer a terminal or hide text: control characters, and
/// those that turn the direction of writing or have no width. `newlines` stay where asked for.
fn visible(text: &str, newlines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hidden = c.is_control()
            || matches!(c,
                '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        match c {
            '\n' if newlines => out.push('\n'),
            // Otherwise a typed "\u{1b}" and a real one would look alike.
            '\\' => out.push_str("\\\\"),
            _ if hidden => {
                let _ = write!(out, "\\u{{{:x}}}", c as u32);
            }
            _ => out.push(c),
        }
    }
    out
}

fn escape(text: &str) -> String {
    visible(text, false)
}

fn who(value: &Value) -> String {
    let subject = escape(&text(value, "subject"));
    format!("{subject} ({})", escape(&text(value, "issuer")))
}

fn left(deadline: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let left = deadline.saturating_sub(now);
    format!("{}m{:02}s", left / 60, left % 60)
}

fn table(answer: &Value) -> String {
    let mut rows = vec![
        [
            "ID",
            "STATE",
            "REQUESTER",
            "COMMAND",
            "TARGET",
            "ROLE",
            "LEFT",
        ]
        .map(String::from),
    ];
    for item in items(answer, "approvals") {
        let subject = item.get("requester").map(|r| text(r, "subject"));
        rows.push([
            escape(&text(item, "id")),
            escape(&text(item, "state")),
            escape(&subject.unwrap_or_default()),
            escape(&text(item, "command")),
            escape(&text(item, "target")),
            escape(&text(item, "role")),
            left(number(item, "deadline")),
        ]);
    }
    if rows.len() == 1 {
        return "Nothing waits for you.\n".to_owned();
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, "{cell:width$}  ");
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn page(answer: &Value) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(out, "{name:<12}{value}");
        }
    };
    let none = Value::Null;
    let shown = answer.get("shown").unwrap_or(&none);
    let id = escape(&text(answer, "id"));
    line("request", id.clone());
    line("state", escape(&text(answer, "state")));
    line(
        "requester",
        answer.get("requester").map(who).unwrap_or_default(),
    );
    for actor in items(answer, "actors") {
        line("acting", who(actor));
    }
    line("purpose", escape(&text(shown, "purpose")));
    line("run", escape(&text(shown, "run")));
    line("target", escape(&text(answer, "target")));
    line("database", escape(&text(answer, "database")));
    line("role", escape(&text(answer, "role")));
    line("policy", escape(&text(shown, "policy")));
    line("code", escape(&text(shown, "reason_code")));
    line("reason", escape(&text(shown, "reason")));
    for object in items(shown, "objects").filter_map(Value::as_str) {
        line("object", escape(object));
    }
    for approved in items(answer, "approved_by") {
        line("approved by", who(approved));
    }
    line("needs", format!("{} more", number(answer, "missing")));
    line("time left", left(number(answer, "deadline")));
    if shown.is_null() {
        out.push_str("\nIt is over; its text is gone.\n");
        return out;
    }
    out.push_str("\nThis will run, once (\\\\ is one backslash, \\u{..} a hidden character):\n\n");
    for statement in visible(&text(shown, "text"), true).split('\n') {
        let _ = writeln!(out, "  | {statement}");
    }
    for (index, parameter) in items(shown, "parameters").enumerate() {
        let value = match parameter.get("value").and_then(Value::as_str) {
            Some(value) if text(parameter, "kind") == "binary" => format!("binary {value}"),
            Some(value) => format!("'{}'", escape(value)),
            None => "NULL".to_owned(),
        };
        let kind = escape(&text(parameter, "type"));
        let _ = writeln!(out, "  ${} {kind} = {value}", index + 1);
    }
    let _ = writeln!(
        out,
        "\nTo let it run:  chaperone approvals approve {id}\nTo refuse it:   chaperone approvals \
         deny {id} --reason '...'"
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        let nasty = "DROP\u{1b}[2J\u{9b}1A\r\nTABLE\u{202e} a\u{200b} \\u{1b}";
        let page = page(&json!({
            "id": "1", "state": "seen", "missing": 1,
            "requester": {"subject": nasty, "issuer": nasty},
            "shown": {"text": nasty, "reason": nasty, "objects": [nasty],
                "parameters": [{"type": nasty, "kind": "text", "value": nasty},
                    {"type": "int4", "kind": "null", "value": null}]},
        }));
        assert!(!page.chars().any(|c| c != '\n' && c.is_control()), "{page}");
        assert!(!page.contains('\u{202e}') && !page.contains('\u{200b}'));
        assert!(
            page.contains(
                "  | DROP\\u{1b}[2J\\u{9b}1A\\u{d}\n  | TABLE\\u{202e} a\\u{200b} \\\\u{1b}\n"
            ),
            "{page}"
        );
        assert!(page.contains("  $2 int4 = NULL"));
        assert!(page.contains("chaperone approvals approve 1"));
    }

    #[test]
    fn tokens_do_not_travel_in_clear() {
        for admin in [
            "http://10.0.0.1:6433",
            "ftp://127.0.0.1",
            "http://127.0.0.1.evil.example",
        ] {
            let connection = Connection {
                admin: Some(admin.into()),
                token_file: None,
                ca: None,
            };
            assert!(
                Api::new(&connection).is_err_and(|e| e.0.contains("https")),
                "{admin}"
            );
        }
    }
}
