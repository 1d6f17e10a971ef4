//! A real issuer, and every way in which a token can be wrong.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chaperone_test_support::issuer::{AUDIENCE, Issuer, SigningKey};
use ring::hmac;
use serde_json::{Value, json};
use sha3::{Digest as _, Sha3_256};
use tempfile::TempDir;

use super::provider::Timing;
use super::{AuthError, Authenticator, Identity};
use crate::config;

const QUICK: Timing = Timing {
    refresh: Duration::from_secs(600),
    pause: Duration::ZERO,
    stale: Duration::from_secs(600),
    request: Duration::from_secs(2),
};

struct Scene {
    issuer: Issuer,
    authenticator: Authenticator,
    _folder: TempDir,
}

impl Scene {
    fn new(key: SigningKey, timing: Timing, extra: &str) -> Self {
        let issuer = Issuer::start_on("127.0.0.1:0", key).expect("an issuer");
        let folder = tempfile::tempdir().expect("a folder");
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, issuer.ca_pem()).expect("written");
        let text = format!(
            "[[providers]]\nissuer = {:?}\naudience = \"chaperone\"\nca = {ca:?}\n{extra}",
            issuer.url()
        );
        let config: config::Identity = toml::from_str(&text).expect("a configuration");
        Scene {
            issuer,
            authenticator: Authenticator::with_timing(&config, timing).expect("set up"),
            _folder: folder,
        }
    }

    fn usual() -> Self {
        Self::new(SigningKey::es256("key-1").expect("a key"), QUICK, "")
    }

    fn token(&self, header: Value, claims: Value) -> String {
        let token = self.issuer.token_with_header("dr-cleo", &header, &claims);
        token.expect("a token")
    }

    async fn ask(&self, token: &str) -> Result<Identity, AuthError> {
        let answer = self.authenticator.authenticate(token).await;
        if let Err(error) = &answer {
            let said = format!("{error} {error:?}");
            assert!(token.len() < 20 || !said.contains(token), "{said}");
            assert!(
                error
                    .code()
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            );
        }
        answer
    }

    async fn code(&self, header: Value, claims: Value) -> &'static str {
        let answer = self.ask(&self.token(header, claims)).await;
        answer.map_or_else(|error| error.code(), |_| "accepted")
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

#[tokio::test]
async fn a_good_token_says_who_asks() {
    let scene = Scene::new(
        SigningKey::es256("k").expect("a key"),
        QUICK,
        "groups_claim = \"realm.roles\"\npurpose_claim = \"https://x.example/purpose\"\nleeway = \"0s\"",
    );
    let end = now() + 60;
    let token = scene.token(
        json!({"typ": "at+jwt"}),
        json!({
            "aud": ["other", AUDIENCE],
            "exp": end,
            "nbf": now() - 5,
            "realm": {"roles": ["clinicians", "night"]},
            "https://x.example/purpose": "treatment",
            "run": "run-1",
            "act": {"sub": "agent-7", "act": {"sub": "broker", "iss": "https://b.example"}},
            "acr": "2",
            "amr": ["pwd", "otp"],
        }),
    );
    let who = scene.ask(&token).await.expect("accepted");
    assert_eq!(
        (who.subject.as_str(), who.issuer.as_str()),
        ("dr-cleo", scene.issuer.url())
    );
    assert_eq!(who.groups, ["clinicians", "night"]);
    assert_eq!(who.purpose.as_deref(), Some("treatment"));
    assert_eq!(who.run.as_deref(), Some("run-1"));
    assert_eq!(who.expires_at, Some(end));
    assert_eq!(who.acr.as_deref(), Some("2"));
    assert_eq!(who.amr, ["pwd", "otp"]);
    assert_eq!(who.token_digest, <[u8; 32]>::from(Sha3_256::digest(&token)));
    assert_eq!(who.static_name, None);
    let session = who.session("clinic", "ro", "192.0.2.1");
    assert_eq!(session.actors[0].subject, "agent-7");
    assert_eq!(session.actors[1].issuer, "https://b.example");
    assert_eq!(
        (session.target.as_str(), session.principal.as_str()),
        ("clinic", "ro")
    );
    assert_eq!(
        session.claim("realm.roles").as_deref(),
        Some("[\"clinicians\",\"night\"]")
    );
}

#[tokio::test]
async fn rsa_signatures_are_checked_too() {
    let scene = Scene::new(SigningKey::rs256("r").expect("a key"), QUICK, "");
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
    assert_eq!(
        scene.code(json!({"alg": "RS512"}), json!({})).await,
        "algorithm-not-accepted"
    );
    let mut token = scene.token(json!({}), json!({}));
    token.replace_range(token.len() - 20..token.len() - 16, "AAAA");
    assert_eq!(scene.ask(&token).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn weak_rsa_keys_count_for_nothing() {
    let weak = SigningKey::rs256_of("w", 1024).expect("a key");
    let scene = Scene::new(weak, QUICK, "");
    assert_eq!(scene.code(json!({}), json!({})).await, "key-unknown");
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let scene = Scene::usual();
    let hour = 3600;
    for (claims, code) in [
        (json!({}), "accepted"),
        (json!({"exp": now() - 31}), "token-expired"),
        (json!({"exp": now() - 10}), "accepted"), // within the leeway
        (json!({"exp": null}), "claim-malformed"),
        (json!({"exp": "tomorrow"}), "claim-malformed"),
        (json!({"exp": -1}), "claim-malformed"),
        (json!({"exp": 1e300}), "claim-malformed"),
        (json!({"nbf": now() + hour}), "token-not-yet-valid"),
        (json!({"nbf": "x"}), "claim-malformed"),
        (json!({"iat": now() + hour}), "token-issued-in-future"),
        (json!({"iat": null}), "accepted"),
        (json!({"aud": "other"}), "audience-wrong"),
        (json!({"aud": ["other", "chaperone2"]}), "audience-wrong"),
        (json!({"aud": null}), "audience-wrong"),
        (json!({"aud": 7}), "claim-malformed"),
        (json!({"iss": "https://evil.example"}), "issuer-unknown"),
        (
            json!({"iss": format!("{}/", scene.issuer.url())}),
            "issuer-unknown",
        ),
        (json!({"iss": null}), "claim-malformed"),
        (json!({"sub": null}), "claim-malformed"),
        (json!({"sub": ""}), "claim-malformed"),
        (json!({"groups": [1]}), "claim-malformed"),
        (json!({"groups": "one"}), "accepted"),
        (json!({"groups": ["a\u{1b}[2J"]}), "claim-malformed"),
        (json!({"sub": "dr\ncleo"}), "claim-malformed"),
        (json!({"run": "r\u{0}"}), "claim-malformed"),
        (json!({"act": {"sub": ""}}), "claim-malformed"),
        (json!({"purpose": ["a"]}), "claim-malformed"),
        (json!({"act": "agent"}), "claim-malformed"),
    ] {
        assert_eq!(
            scene.code(json!({}), claims.clone()).await,
            code,
            "{claims}"
        );
    }
}

#[tokio::test]
async fn headers_that_do_not_hold_are_refused() {
    let scene = Scene::usual();
    for (header, code) in [
        (json!({"typ": null}), "accepted"),
        (json!({"typ": "application/at+jwt"}), "accepted"),
        (json!({"typ": "logout+jwt"}), "type-not-accepted"),
        (json!({"typ": 1}), "token-malformed"),
        (json!({"alg": "none"}), "algorithm-not-accepted"),
        (json!({"alg": "HS256"}), "algorithm-not-accepted"),
        (json!({"alg": "ES384"}), "algorithm-not-accepted"),
        (json!({"alg": "RS256"}), "signature-invalid"),
        (json!({"alg": null}), "token-malformed"),
        (json!({"kid": null}), "accepted"),
        (json!({"kid": "key-2"}), "key-unknown"),
        (json!({"crit": ["exp"], "exp": 1}), "token-malformed"),
        // A key that the token brings along counts for nothing.
        (
            json!({"kid": "mine", "jwk": {"kty": "oct", "k": "AA"}, "jku": "https://evil.example"}),
            "key-unknown",
        ),
    ] {
        assert_eq!(
            scene.code(header.clone(), json!({})).await,
            code,
            "{header}"
        );
    }
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let key = SigningKey::es256("key-1").expect("a key");
    let public = key.public().to_string();
    let scene = Scene::new(key, QUICK, "");
    let good = scene.token(json!({}), json!({}));
    let parts: Vec<&str> = good.split('.').collect();
    let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());

    let other = encode(json!({
        "iss": scene.issuer.url(), "sub": "root", "aud": AUDIENCE, "exp": now() + 60,
    }));
    let tampered = format!("{}.{other}.{}", parts[0], parts[2]);
    assert_eq!(scene.ask(&tampered).await, Err(AuthError::Signature));

    let stranger = Scene::usual();
    let foreign = stranger.token(json!({}), json!({"iss": scene.issuer.url()}));
    assert_eq!(scene.ask(&foreign).await, Err(AuthError::Signature));

    let none = format!("{}.{}.", encode(json!({"alg": "none"})), parts[1]);
    assert_eq!(
        scene.ask(&none).await.unwrap_err().code(),
        "algorithm-not-accepted"
    );

    // The public key as the secret of an HMAC.
    let signed = format!(
        "{}.{}",
        encode(json!({"alg": "HS256", "kid": "key-1"})),
        parts[1]
    );
    let tag = hmac::sign(
        &hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()),
        signed.as_bytes(),
    );
    let confused = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(tag));
    assert_eq!(
        scene.ask(&confused).await.unwrap_err().code(),
        "algorithm-not-accepted"
    );

    for (garbage, code) in [
        (String::new(), "token-unknown"),
        ("hunter2".to_owned(), "token-unknown"),
        ("..".to_owned(), "token-malformed"),
        ("a.b.c".to_owned(), "token-malformed"),
        (format!("{good}.x"), "token-unknown"),
        (
            format!("{}=.{}.{}", parts[0], parts[1], parts[2]),
            "token-malformed",
        ),
        (format!("{}.{}.", parts[0], parts[1]), "signature-invalid"),
        (format!("{good}\n"), "token-malformed"),
        ("x".repeat(1 << 20), "token-too-long"),
    ] {
        assert_eq!(scene.ask(&garbage).await.unwrap_err().code(), code);
    }
    assert!(scene.ask(&good).await.is_ok());
}

#[tokio::test]
async fn rotated_keys_are_found_and_withdrawn_ones_forgotten() {
    let scene = Scene::usual();
    let first = scene.token(json!({}), json!({}));
    assert!(scene.ask(&first).await.is_ok());
    scene
        .issuer
        .rotate(SigningKey::es256("key-2").expect("a key"), true);
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
    assert!(scene.ask(&first).await.is_ok());
    scene
        .issuer
        .rotate(SigningKey::es256("key-3").expect("a key"), false);
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
    assert_eq!(scene.ask(&first).await.unwrap_err().code(), "key-unknown");
}

#[tokio::test]
async fn rotated_keys_are_found_without_their_names() {
    let scene = Scene::usual();
    let first = scene.token(json!({"kid": null}), json!({}));
    assert!(scene.ask(&first).await.is_ok());
    let key = SigningKey::es256("key-2").expect("a key");
    scene.issuer.rotate(key, false);
    assert_eq!(
        scene.code(json!({"kid": null}), json!({})).await,
        "accepted"
    );
    assert_eq!(scene.ask(&first).await, Err(AuthError::Signature));
}

#[tokio::test]
async fn warm_up_reads_keys_ahead_of_logins() {
    let scene = Scene::usual();
    scene.authenticator.warm_up().await;
    let before = scene.issuer.requests();
    assert!(before > 0);
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
    assert_eq!(scene.issuer.requests(), before);
}

/// An authenticator whose provider accepts connections and says nothing; and that provider.
fn silent(timing: Timing) -> (Authenticator, std::net::TcpListener, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("non-blocking");
    let issuer = format!("https://{}", listener.local_addr().expect("an address"));
    let scene = Scene::usual();
    let token = scene.token(json!({}), json!({"iss": issuer}));
    let ca = scene._folder.path().join("ca.pem");
    let text = format!("[[providers]]\nissuer = {issuer:?}\naudience = \"x\"\nca = {ca:?}");
    let config: config::Identity = toml::from_str(&text).expect("a configuration");
    let authenticator = Authenticator::with_timing(&config, timing).expect("set up");
    (authenticator, listener, token)
}

#[tokio::test]
async fn a_login_that_was_given_up_counts_as_an_attempt() {
    let timing = Timing {
        pause: Duration::from_secs(600),
        ..QUICK
    };
    let (authenticator, listener, token) = silent(timing);
    let login = authenticator.authenticate(&token);
    let given_up = tokio::time::timeout(Duration::from_millis(300), login).await;
    assert!(given_up.is_err());
    assert!(listener.accept().is_ok());
    let next = authenticator.authenticate(&token);
    let next = tokio::time::timeout(Duration::from_millis(300), next).await;
    let next = next.expect("answered at once").unwrap_err();
    assert_eq!(next.code(), "provider-unreachable");
    assert!(listener.accept().is_err(), "it was asked again");
}

#[tokio::test]
async fn unknown_keys_do_not_flood_the_provider() {
    let timing = Timing {
        pause: Duration::from_secs(600),
        ..QUICK
    };
    let scene = Scene::new(SigningKey::es256("k").expect("a key"), timing, "");
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
    let before = scene.issuer.requests();
    for n in 0..20 {
        let code = scene.code(json!({"kid": format!("k{n}")}), json!({})).await;
        assert_eq!(code, "key-unknown");
    }
    assert_eq!(scene.issuer.requests(), before);
}

#[tokio::test]
async fn known_keys_outlive_an_outage() {
    let timing = Timing {
        refresh: Duration::ZERO,
        ..QUICK
    };
    let scene = Scene::new(SigningKey::es256("k").expect("a key"), timing, "");
    scene.issuer.set_reachable(false);
    let refused = scene
        .ask(&scene.token(json!({}), json!({})))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "provider-unreachable");
    assert!(refused.is_temporary());
    assert!(
        refused
            .to_string()
            .starts_with("identity provider unreachable")
    );
    scene.issuer.set_reachable(true);
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
    scene.issuer.set_reachable(false);
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
}

#[tokio::test]
async fn stale_keys_are_not_trusted_for_ever() {
    let timing = Timing {
        refresh: Duration::ZERO,
        stale: Duration::from_millis(300),
        ..QUICK
    };
    let scene = Scene::new(SigningKey::es256("k").expect("a key"), timing, "");
    assert_eq!(scene.code(json!({}), json!({})).await, "accepted");
    scene.issuer.set_reachable(false);
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(
        scene.code(json!({}), json!({})).await,
        "provider-unreachable"
    );
}

#[tokio::test]
async fn another_authority_is_not_trusted() {
    let scene = Scene::usual();
    let other = Scene::usual();
    let ca = other._folder.path().join("ca.pem");
    let text = format!(
        "[[providers]]\nissuer = {:?}\naudience = \"chaperone\"\nca = {ca:?}",
        scene.issuer.url()
    );
    let config: config::Identity = toml::from_str(&text).expect("a configuration");
    let authenticator = Authenticator::with_timing(&config, QUICK).expect("set up");
    let answer = authenticator
        .authenticate(&scene.token(json!({}), json!({})))
        .await;
    assert_eq!(answer.unwrap_err().code(), "provider-unreachable");
}

#[tokio::test]
async fn static_identities_need_no_provider() {
    let digest = |token: &str| {
        Sha3_256::digest(token)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let text = format!(
        "[[static]]\nname = \"batch\"\ntoken_sha3 = {:?}\ngroups = [\"etl\"]\npurpose = \"operations\"\nexpires = \"2100-01-01T00:00:00Z\"\n\
         [[static]]\nname = \"old\"\ntoken_sha3 = {:?}\nexpires = 2020-01-01T00:00:00Z\n",
        digest("the-token"),
        digest("the-old-token"),
    );
    let config: config::Identity = toml::from_str(&text).expect("a configuration");
    let authenticator = Authenticator::with_timing(&config, QUICK).expect("set up");
    let who = authenticator
        .authenticate("the-token")
        .await
        .expect("accepted");
    assert_eq!(
        (who.subject.as_str(), who.issuer.as_str()),
        ("batch", "static")
    );
    assert_eq!(who.static_name.as_deref(), Some("batch"));
    assert_eq!(who.groups, ["etl"]);
    assert_eq!(who.expires_at, Some(4_102_444_800));
    assert_eq!(
        authenticator.authenticate("the-old-token").await,
        Err(AuthError::Expired)
    );
    for wrong in ["", "the-token ", "batch", "a.b.c", &digest("the-token")] {
        assert_eq!(
            authenticator.authenticate(wrong).await,
            Err(AuthError::Unknown)
        );
    }
}
