//! The parts of a JWT (RFC 7519) in compact form (RFC 7515, section 3.1), and its claims.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chaperone_contract::{Actor, claim_at};
use serde_json::{Map, Value};

use super::AuthError;

/// Longer delegation chains are refused.
const MOST_ACTORS: usize = 16;

/// A JWT, nothing of it verified.
pub(super) struct Token<'a> {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    pub(super) claims: Map<String, Value>,
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, AuthError> {
        let (signed, signature) = text
            .rsplit_once('.')
            .ok_or(AuthError::Malformed("it has no parts"))?;
        let (header, payload) = signed
            .split_once('.')
            .ok_or(AuthError::Malformed("it has too few parts"))?;
        if payload.contains('.') {
            return Err(AuthError::Malformed("it has too many parts"));
        }
        let header = object(header)?;
        // No extension is understood here (RFC 7515, section 4.1.11).
        if header.contains_key("crit") {
            return Err(AuthError::Malformed("its header has critical extensions"));
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(AuthError::Malformed("a header parameter is not text")),
        };
        let kind = text("typ")?;
        let accepted = ["jwt", "at+jwt", "application/at+jwt"];
        if kind.is_some_and(|kind| !accepted.iter().any(|it| kind.eq_ignore_ascii_case(it))) {
            return Err(AuthError::Type);
        }
        Ok(Token {
            algorithm: text("alg")?.ok_or(AuthError::Malformed("its header has no alg"))?,
            key_id: text("kid")?,
            claims: object(payload)?,
            signed: signed.as_bytes(),
            signature: BASE64_URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| AuthError::Malformed("its signature is not base64url"))?,
        })
    }
}

fn object(part: &str) -> Result<Map<String, Value>, AuthError> {
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| AuthError::Malformed("a part is not base64url"))?;
    serde_json::from_slice(&bytes).map_err(|_| AuthError::Malformed("a part is not a JSON object"))
}

/// A text claim; an empty one counts as absent.
pub(super) fn text(
    claims: &Map<String, Value>,
    path: &str,
    name: &'static str,
) -> Result<Option<String>, AuthError> {
    match claim_at(claims, path) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) if is_plain(text) => Ok(Some(text.clone())),
        Some(_) => Err(AuthError::Claim(name)),
    }
}

/// A claim with a text or a list of texts.
pub(super) fn texts(
    claims: &Map<String, Value>,
    path: &str,
    name: &'static str,
) -> Result<Vec<String>, AuthError> {
    let items = match claim_at(claims, path) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items.as_slice(),
        Some(item) => std::slice::from_ref(item),
    };
    items
        .iter()
        .filter(|item| item.as_str() != Some(""))
        .map(|item| match item {
            Value::String(text) if is_plain(text) => Ok(text.clone()),
            _ => Err(AuthError::Claim(name)),
        })
        .collect()
}

/// Names end up in logs and on terminals: no control characters.
fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// A NumericDate (RFC 7519, section 2): Unix seconds, possibly with a fraction.
pub(super) fn date(
    claims: &Map<String, Value>,
    name: &'static str,
) -> Result<Option<f64>, AuthError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_f64() {
            Some(seconds) if (0.0..1e15).contains(&seconds) => Ok(Some(seconds)),
            _ => Err(AuthError::Claim(name)),
        },
    }
}

/// The `act` chain (RFC 8693, section 4.1), nearest first.
pub(super) fn actors(claims: &Map<String, Value>, issuer: &str) -> Result<Vec<Actor>, AuthError> {
    let wrong = AuthError::Claim("act");
    let mut actors = Vec::new();
    let mut next = claims.get("act");
    while let Some(value) = next {
        let act = value.as_object().ok_or(wrong.clone())?;
        if actors.len() == MOST_ACTORS {
            return Err(wrong);
        }
        actors.push(Actor {
            subject: text(act, "sub", "act")?.ok_or(wrong.clone())?,
            issuer: text(act, "iss", "act")?.unwrap_or_else(|| issuer.to_owned()),
        });
        next = act.get("act");
    }
    Ok(actors)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn nothing_panics(text: String, header: String, payload: String) {
            let _ = Token::parse(&text);
            let encoded = |part: &str| BASE64_URL_SAFE_NO_PAD.encode(part);
            let _ = Token::parse(&format!("{}.{}.AA", encoded(&header), encoded(&payload)));
        }
    }

    #[test]
    fn delegation_is_nearest_first_and_bounded() {
        let claims = |value: Value| value.as_object().cloned().unwrap_or_default();
        let chain = claims(serde_json::json!({
            "act": {"sub": "agent", "act": {"sub": "service", "iss": "https://b"}}
        }));
        let found = actors(&chain, "https://a").expect("a chain");
        let found: Vec<_> = found
            .iter()
            .map(|a| (a.subject.as_str(), a.issuer.as_str()))
            .collect();
        assert_eq!(found, [("agent", "https://a"), ("service", "https://b")]);
        let mut deep = serde_json::json!({"sub": "x"});
        for _ in 0..MOST_ACTORS {
            deep = serde_json::json!({"sub": "x", "act": deep});
        }
        assert!(actors(&claims(serde_json::json!({"act": deep})), "").is_err());
        assert!(actors(&claims(serde_json::json!({"act": "agent"})), "").is_err());
        for actor in [
            "{}",
            r#"{"sub": ""}"#,
            r#"{"sub": "a\u001bb"}"#,
            r#"{"sub": ["a"]}"#,
        ] {
            let actor: Value = serde_json::from_str(actor).expect("JSON");
            assert!(actors(&claims(serde_json::json!({"act": actor})), "").is_err());
        }
    }

    #[test]
    fn texts_are_plain_and_never_guessed() {
        let claims = serde_json::json!({
            "none": null, "empty": "", "one": "a", "list": ["a", "", "b"], "mixed": ["a", 1],
            "number": 7, "control": "a\nb", "controls": ["a\u{1b}[2J"], "deep": {"x.y": ["c"]},
        });
        let claims = claims.as_object().expect("an object");
        let list = |path| texts(claims, path, "groups").map_err(|error| error.code());
        assert_eq!(list("none"), Ok(vec![]));
        assert_eq!(list("absent"), Ok(vec![]));
        assert_eq!(list("empty"), Ok(vec![]));
        assert_eq!(list("one"), Ok(vec!["a".to_owned()]));
        assert_eq!(list("list"), Ok(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(list("deep.x.y"), Ok(vec!["c".to_owned()]));
        for wrong in ["mixed", "number", "control", "controls", "deep"] {
            assert_eq!(list(wrong), Err("claim-malformed"), "{wrong}");
        }
        let one = |path| text(claims, path, "purpose").map_err(|error| error.code());
        assert_eq!(one("one"), Ok(Some("a".to_owned())));
        assert_eq!(one("empty"), Ok(None));
        assert_eq!(one("none"), Ok(None));
        for wrong in ["list", "number", "control", "deep"] {
            assert_eq!(one(wrong), Err("claim-malformed"), "{wrong}");
        }
    }

    #[test]
    fn headers() {
        let code = |header: &str| {
            let encoded = BASE64_URL_SAFE_NO_PAD.encode(header);
            Token::parse(&format!("{encoded}.e30.AA")).map_or_else(|error| error.code(), |_| "ok")
        };
        for (header, expected) in [
            (r#"{"alg":"RS256"}"#, "ok"),
            (r#"{"alg":"RS256","typ":"jwt","kid":"k"}"#, "ok"),
            (r#"{"alg":"RS256","typ":"AT+JWT"}"#, "ok"),
            (r#"{"alg":"RS256","typ":"application/at+jwt"}"#, "ok"),
            (r#"{"alg":"RS256","typ":"logout+jwt"}"#, "type-not-accepted"),
            (r#"{"alg":"RS256","typ":""}"#, "type-not-accepted"),
            (
                r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
                "token-malformed",
            ),
            (r#"{"alg":"RS256","crit":null}"#, "token-malformed"),
            (r#"{"alg":7}"#, "token-malformed"),
            ("{}", "token-malformed"),
            ("[]", "token-malformed"),
        ] {
            assert_eq!(code(header), expected, "{header}");
        }
    }
}
