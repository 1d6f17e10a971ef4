//! The routes.

use std::time::Duration;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequestParts, Path, Request, State},
    http::{HeaderValue, StatusCode, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chaperone_contract::Value;
use serde::Deserialize;
use serde_json::{Value as Json_, json};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Admin, AuthFailed};
use crate::approval::{
    Approver, Decided, NotRecorded, Parameter, Person, RefusedAnswer, Shown, Summary,
};

/// Longest body, in bytes.
const BODY: usize = 16 << 10;
/// Longest request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest probe.
const PROBE: Duration = Duration::from_secs(2);

pub(super) fn router(admin: Admin) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/v1/approvals", get(list))
        .route("/v1/approvals/{id}", get(show))
        .route("/v1/approvals/{id}/approve", post(approve))
        .route("/v1/approvals/{id}/deny", post(deny))
        .route("/v1/policies", get(policies))
        .route("/v1/status", get(status))
        .fallback(async || {
            Failure::new(StatusCode::NOT_FOUND, "not-found", "there is no such path")
        })
        .method_not_allowed_fallback(async || {
            let message = "this path does not take that method";
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "method", message)
        })
        .layer(DefaultBodyLimit::max(BODY))
        .layer(middleware::from_fn(bounded))
        .with_state(admin)
}

/// Ends what takes too long; nothing may be kept by a cache.
async fn bounded(request: Request, next: Next) -> Response {
    let mut response = match timeout(PATIENCE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "timeout",
            "this took too long",
        )
        .hint("look at the request's state before trying again")
        .into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let sniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, sniff);
    response
}

struct Failure {
    status: StatusCode,
    code: &'static str,
    message: String,
    hint: Option<&'static str>,
}

impl Failure {
    fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self {
            status,
            code,
            message: message.to_string(),
            hint: None,
        }
    }

    fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = json!({"code": self.code, "message": self.message, "hint": self.hint});
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

impl From<RefusedAnswer> for Failure {
    fn from(refused: RefusedAnswer) -> Self {
        let (status, code, hint) = match refused {
            RefusedAnswer::Unknown => (
                StatusCode::NOT_FOUND,
                "unknown",
                "`chaperone approvals list` shows the open ones",
            ),
            RefusedAnswer::NotInGroup => (
                StatusCode::FORBIDDEN,
                "not-in-group",
                "a member of the groups that the policy or [approvals].groups names must answer",
            ),
            RefusedAnswer::Involved => (
                StatusCode::FORBIDDEN,
                "involved",
                "ask somebody else who is on call",
            ),
            RefusedAnswer::Delegated => (
                StatusCode::FORBIDDEN,
                "delegated",
                "use a token of your own, without an `act` claim",
            ),
            RefusedAnswer::Over(_) => (
                StatusCode::CONFLICT,
                "over",
                "the requester must send the statement again",
            ),
            RefusedAnswer::NotRecorded(NotRecorded) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "not-recorded",
                "see /readyz and the disk of [audit].directory",
            ),
        };
        Self::new(status, code, refused).hint(hint)
    }
}

/// An authenticated caller.
struct Caller(Approver);

impl FromRequestParts<Admin> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Failure> {
        let missing = || {
            Failure::new(
                StatusCode::UNAUTHORIZED,
                "no-token",
                "a bearer token is needed",
            )
            .hint("send `Authorization: Bearer TOKEN`")
        };
        let value = parts
            .headers
            .get(header::AUTHORIZATION)
            .ok_or_else(missing)?;
        let value = value.to_str().map_err(|_| missing())?;
        let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(missing());
        }
        match admin.auth.authenticate(token).await {
            Ok(approver) => Ok(Self(approver)),
            Err(error @ AuthFailed::Refused) => {
                Err(
                    Failure::new(StatusCode::UNAUTHORIZED, "token-refused", error)
                        .hint("get a new token; it may have expired"),
                )
            }
            Err(error @ AuthFailed::Unavailable) => Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "provider-unreachable",
                error,
            )
            .hint("try again when the provider answers")),
        }
    }
}

/// A caller in one of the configured approver groups.
struct Operator;

impl FromRequestParts<Admin> for Operator {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, Failure> {
        let Caller(caller) = Caller::from_request_parts(parts, admin).await?;
        if caller.is_in(admin.approvals.groups()) {
            Ok(Self)
        } else {
            Err(RefusedAnswer::NotInGroup.into())
        }
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    let mut reasons = Vec::new();
    for probe in &admin.probes {
        let problem = match timeout(PROBE, probe.check()).await {
            Ok(Ok(())) => continue,
            Ok(Err(problem)) => problem,
            Err(_) => "no answer in time".to_owned(),
        };
        reasons.push(json!({"probe": probe.name(), "problem": problem}));
    }
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({"ready": reasons.is_empty(), "reasons": reasons});
    (status, Json(body)).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let text = admin
        .metrics
        .encode(admin.reports.log(), admin.approvals.open());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn policies(_: Operator, State(admin): State<Admin>) -> Response {
    Json(admin.reports.policies()).into_response()
}

async fn status(_: Operator, State(admin): State<Admin>) -> Response {
    let log = admin.reports.log();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "policies": admin.reports.policies().digest,
        "approvals_open": admin.approvals.open(),
        "log": {"queued": log.queued, "records": log.records, "failed": log.failed},
    }))
    .into_response()
}

fn person(person: &Person) -> Json_ {
    json!({"issuer": person.issuer, "subject": person.subject})
}

fn summary(summary: &Summary) -> Json_ {
    let requester = &summary.binding.requester;
    json!({
        "id": summary.id,
        "state": summary.state,
        "missing": summary.missing,
        "command": summary.command,
        "requester": person(&requester.person),
        "actors": requester.actors.iter().map(person).collect::<Vec<_>>(),
        "role": requester.role,
        "target": requester.target,
        "database": requester.database,
        "groups": summary.groups,
        "approved_by": summary.approved_by.iter().map(person).collect::<Vec<_>>(),
        "requested_at": summary.requested_at,
        "deadline": summary.deadline,
    })
}

fn parameter(parameter: &Parameter) -> Json_ {
    let (kind, value) = match &parameter.value {
        Value::Null => ("null", Json_::Null),
        Value::Text(text) => ("text", json!(text)),
        Value::Binary(bytes) => ("binary", json!(chaperone_audit_log::hex_encode(bytes))),
        Value::Truncated(length) => ("truncated", json!(length)),
    };
    json!({"type": parameter.type_name, "kind": kind, "value": value})
}

fn shown(shown: &Shown) -> Json_ {
    json!({
        "text": shown.text,
        "parameters": shown.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "policy": shown.policy,
        "reason_code": shown.code,
        "reason": shown.reason,
        "objects": shown.objects,
        "purpose": shown.purpose,
        "run": shown.run,
    })
}

async fn list(Caller(caller): Caller, State(admin): State<Admin>) -> Response {
    let found: Vec<_> = admin.approvals.list(&caller).iter().map(summary).collect();
    Json(json!({"approvals": found})).into_response()
}

fn id(text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|_| {
        Failure::new(StatusCode::BAD_REQUEST, "bad-id", "the id is not a UUID")
            .hint("`chaperone approvals list` shows the ids")
    })
}

async fn show(
    Caller(caller): Caller,
    State(admin): State<Admin>,
    Path(text): Path<String>,
) -> Result<Response, Failure> {
    let view = admin.approvals.view(id(&text)?, &caller).await?;
    let mut body = summary(&view.summary);
    if let (Some(held), Some(body)) = (&view.shown, body.as_object_mut()) {
        body.insert("shown".to_owned(), shown(held));
    }
    Ok(Json(body).into_response())
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    #[serde(default)]
    reason: Option<String>,
}

fn answer(body: &Bytes) -> Result<Answer, Failure> {
    if body.is_empty() {
        return Ok(Answer::default());
    }
    // serde's own message could quote the body.
    serde_json::from_slice(body).map_err(|_| {
        let message = "the body is not what this path takes";
        Failure::new(StatusCode::BAD_REQUEST, "bad-body", message)
            .hint("send {\"reason\": \"...\"} or nothing")
    })
}

async fn approve(
    caller: Caller,
    state: State<Admin>,
    path: Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    decide(caller, state, path, body, true).await
}

async fn deny(
    caller: Caller,
    state: State<Admin>,
    path: Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    decide(caller, state, path, body, false).await
}

async fn decide(
    Caller(caller): Caller,
    State(admin): State<Admin>,
    Path(text): Path<String>,
    body: Bytes,
    yes: bool,
) -> Result<Response, Failure> {
    let (id, reason) = (id(&text)?, answer(&body)?.reason);
    // A task of its own: a client that hangs up must not leave an answer recorded but without effect.
    let answered = tokio::spawn(async move {
        if yes {
            admin.approvals.approve(id, &caller, reason).await
        } else {
            admin.approvals.deny(id, &caller, reason).await
        }
    });
    let Decided { state, missing } = answered.await.map_err(|_| {
        let message = "the answer was interrupted";
        Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "interrupted", message)
    })??;
    Ok(Json(json!({"id": id, "state": state, "missing": missing})).into_response())
}
