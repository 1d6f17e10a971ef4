//! Whole files, right and wrong.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

const EXAMPLE: &str = include_str!("../../../docs/chaperone.toml");

/// A folder with every file that the example names.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Folder(tempfile::tempdir().unwrap());
        let pair = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        folder.put("server.crt", pair.cert.pem());
        folder.put("server.key", pair.signing_key.serialize_pem());
        folder.put("ca.pem", pair.cert.pem());
        folder.put("auditor.pub", "a key");
        folder.put("mask.key", [7; 32]);
        folder.put("agent_ro.password", "open sesame\n");
        folder.put("clinic_app.password", "p\u{e4}ss");
        fs::create_dir(folder.path("policies")).unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn put(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.path(name), contents).unwrap();
    }

    fn load(&self, text: &str) -> Result<Config, String> {
        self.put("chaperone.toml", text);
        Config::load(&self.path("chaperone.toml")).map_err(|error| {
            let folder = format!("{}/", self.0.path().display());
            error.to_string().replace(&folder, "")
        })
    }
}

#[test]
fn the_example_loads() {
    let folder = Folder::new();
    let config = folder.load(EXAMPLE).unwrap();
    assert_eq!(config.digest, <[u8; 32]>::from(Sha3_256::digest(EXAMPLE)));
    assert_eq!(config.listen.address, "0.0.0.0:6432".parse().unwrap());
    let tls = config.listen.tls.as_ref().unwrap();
    assert_eq!(tls.key, folder.path("server.key"));
    assert_eq!(config.audit.recipients, [folder.path("auditor.pub")]);
    assert_eq!(config.audit.segment_bytes, 64 << 20);
    assert_eq!(config.policies.directory, folder.path("policies"));
    assert_eq!(
        config.policies.settings["clinical-access"]["grants"][1]["groups"][0],
        "clinicians"
    );
    assert_eq!(config.policies.limits.deadline, Duration::from_millis(50));
    assert_eq!(config.session.absolute_timeout, Duration::from_secs(28_800));
    assert!(config.session.may_set("datestyle") && !config.session.may_set("role"));
    assert_eq!(config.statement.buffer, 65_536);
    assert_eq!(config.approvals.wait, Duration::from_secs(30));
    assert_eq!(config.masking.key.as_ref().unwrap().expose(), [7; 32]);
    let provider = &config.identity.providers[0];
    assert_eq!(provider.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
    assert_eq!(provider.ca.as_ref(), Some(&folder.path("ca.pem")));
    let machine = &config.identity.statics[0];
    assert_eq!(machine.expires, Some(1_798_761_600));
    assert_eq!(machine.token_sha3, <[u8; 32]>::from(Sha3_256::digest("")));
    let target = config.target("clinic").unwrap();
    assert_eq!((target.port, target.database.as_str()), (5432, "clinic"));
    assert_eq!(target.tls.mode, Some(TlsMode::VerifyFull));
    assert_eq!(target.roles[0].login, "agent_ro");
    assert_eq!(target.roles[1].login, "clinic_app");
    let password = |number: usize| target.roles[number].password.as_ref().unwrap().expose_str();
    assert_eq!(password(0), Some("open sesame"));
    assert_eq!(password(1), Some("p\u{e4}ss"));
    assert_eq!(target.labels["public.staff"], LabelSpec::Clear);
    let LabelSpec::Columns(columns) = &target.labels["public.patients"] else {
        panic!("patients have columns");
    };
    assert!(columns["id"].is_empty());
    assert_eq!(columns["ssn"], ["ssn"]);
    assert_eq!(columns["notes"], ["free-text", "mrn"]);
    assert_eq!(target.functions["public.staff_count"], FunctionSpec::Clear);
    assert!(config.target("other").is_none());

    let shown = format!("{config:?}");
    assert!(!shown.contains("sesame") && !shown.contains("[7, 7"));
}

/// What the example's comments call defaults are the defaults.
#[test]
fn the_example_shows_the_defaults() {
    let folder = Folder::new();
    let plain = folder.load(EXAMPLE).unwrap();
    let mut changed = 0;
    let spelled: Vec<String> = EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.contains(" = ") && !rest.starts_with("settings") => {
                changed += 1;
                rest.to_owned()
            }
            _ => line.to_owned(),
        })
        .collect();
    assert!(changed > 15, "{changed}");
    let spelled = folder.load(&spelled.join("\n")).unwrap();
    let compare = |mut config: Config| {
        config.digest = [0; 32];
        format!("{config:#?}")
    };
    assert_eq!(compare(plain), compare(spelled));
}

/// The smallest useful file, as tests and the demo write theirs.
#[test]
fn a_small_file_loads() {
    let folder = Folder::new();
    let config = folder
        .load(
            r#"
[listen]
address = "127.0.0.1:6432"
danger_plaintext_on_loopback = true
[audit]
directory = "audit"
recipients = ["auditor.pub"]
[policies]
directory = "policies"
required = []
[approvals]
wait = "8s"
ttl = "10s"
groups = ["approvers"]
[policies.settings.risky-commands]
definitions = "approval"
since = 2026-01-01
[[identity.static]]
name = "agent"
token_sha3 = "a7ffc6f8bf1ed76651c14756a061d662f580ff4de43b49fa82d80a4b80f8434a"
groups = ["agent", "agents"]
purpose = "operations"
[[targets]]
name = "hospital"
host = "/run/postgresql"
port = 5433
[targets.labels]
[targets.functions]
"public.staff_count" = "derived"
[[targets.roles]]
role = "agent"
groups = ["agent"]
"#,
        )
        .unwrap();
    assert!(config.admin.is_none() && config.listen.tls.is_none());
    assert_eq!(
        config.policies.settings["risky-commands"]["since"],
        "2026-01-01"
    );
    assert!(config.masking.key.is_none());
    let target = &config.targets[0];
    assert_eq!(target.tls.mode, Some(TlsMode::Disable));
    assert_eq!(target.host, Host::Socket("/run/postgresql".into()));
    assert!(target.roles[0].password.is_none());
}

fn caller(issuer: &str, subject: &str, groups: &[&str]) -> crate::identity::Identity {
    crate::identity::Identity {
        subject: subject.to_owned(),
        issuer: issuer.to_owned(),
        actors: Vec::new(),
        groups: groups.iter().map(|&group| group.to_owned()).collect(),
        purpose: None,
        run: None,
        claims: serde_json::Map::new(),
        authenticated_at: 0,
        expires_at: None,
        token_digest: [0; 32],
        acr: None,
        amr: Vec::new(),
        static_name: (issuer == "static").then(|| subject.to_owned()),
    }
}

#[test]
fn roles_are_granted_by_group_subject_and_name() {
    let config = Folder::new().load(EXAMPLE).unwrap();
    let target = &config.targets[0];
    let issuer = "https://id.example.org";
    let login = |caller: &crate::identity::Identity, role: &str| {
        let role = target.role_for(caller, role);
        role.map(|role| role.login.clone())
    };
    let agent = caller(issuer, "a", &["x", "agents"]);
    assert_eq!(login(&agent, "agent_ro").as_deref(), Some("agent_ro"));
    assert_eq!(login(&agent, "clinician"), None);
    assert_eq!(login(&agent, "clinic_app"), None);
    assert_eq!(login(&agent, "AGENT_RO"), None);
    let doctor = caller(issuer, "dr-osei", &[]);
    assert_eq!(login(&doctor, "clinician").as_deref(), Some("clinic_app"));
    assert_eq!(login(&caller("static", "dr-osei", &[]), "clinician"), None);
    assert_eq!(
        login(&caller("https://id", "dr-osei", &[]), "clinician"),
        None
    );
    let export = caller("static", "nightly-export", &[]);
    assert_eq!(login(&export, "agent_ro").as_deref(), Some("agent_ro"));
    assert_eq!(
        login(&caller(issuer, "nightly-export", &[]), "agent_ro"),
        None
    );
}

/// What to replace in the example, by what, and the error.
const BROKEN: &[(&str, &str, &str)] = &[
    (
        "[admin]",
        "[admin",
        "chaperone.toml:11:7: unclosed table, expected `]`; correct the TOML here",
    ),
    (
        "[listen]\n",
        "[listen]\nport = 1\n",
        "chaperone.toml:5:1: listen.port: unknown field `port`, expected one of `address`, `tls`, `danger_plaintext_on_loopback`, `workers`; remove the key or correct its name; docs/operators.md lists all keys",
    ),
    (
        "[statement]",
        "[statements]",
        "chaperone.toml:42:2: statements: unknown field `statements`, expected one of `listen`, `admin`, `audit`, `policies`, `session`, `statement`, `approvals`, `masking`, `identity`, `targets`, `log`; remove the key or correct its name; docs/operators.md lists all keys",
    ),
    (
        "address = \"0.0.0.0:6432\"",
        "",
        "chaperone.toml:4:1: listen: missing field `address`; add the key; docs/operators.md says what it means",
    ),
    (
        "0.0.0.0:6432",
        "localhost:6432",
        "chaperone.toml:5:11: listen.address: invalid socket address syntax; write an IP address and a port, such as \"127.0.0.1:6432\"",
    ),
    (
        "[listen.tls]",
        "[listen.tsl]",
        "chaperone.toml:7:9: listen.tsl: unknown field `tsl`, expected one of `address`, `tls`, `danger_plaintext_on_loopback`, `workers`; remove the key or correct its name; docs/operators.md lists all keys",
    ),
    (
        "[listen]\n",
        "[listen]\ndanger_plaintext_on_loopback = true\n",
        "chaperone.toml:5:32: listen.danger_plaintext_on_loopback: set together with listen.tls; keep one of them: remove this key, or [listen.tls]",
    ),
    (
        "127.0.0.1:6433",
        "10.0.0.1:6433",
        "chaperone.toml:12:11: admin.address: approvers' tokens would cross the network in clear; add [admin.tls] with certificate and key, or use 127.0.0.1 or [::1]",
    ),
    (
        "[\"auditor.pub\"]",
        "[]",
        "chaperone.toml:16:14: audit.recipients: nobody could read the sealed parts of the log; name at least one public key file, made by `chaperone audit keygen`",
    ),
    (
        "\"auditor.pub\"",
        "\"nobody.pub\"",
        "chaperone.toml:16:15: audit.recipients[0]: cannot read nobody.pub: No such file or directory (os error 2); make a key pair with `chaperone audit keygen` and name the public half",
    ),
    (
        "# segment_bytes = \"64MiB\"",
        "segment_bytes = 0",
        "chaperone.toml:17:17: audit.segment_bytes: a size of zero; write a larger one, such as \"64KiB\"",
    ),
    (
        "# memory = \"4MiB\"",
        "memory = \"4MB\"",
        "chaperone.toml:31:10: policies.limits.memory: \"4MB\" is not a size; write a number of bytes or one with B, KiB, MiB or GiB, such as \"4MiB\"",
    ),
    (
        "# deadline = \"50ms\"",
        "deadline = 50",
        "chaperone.toml:32:12: policies.limits.deadline: invalid type: integer `50`, expected a string; write a value of the kind that docs/operators.md gives for this key",
    ),
    (
        "# idle_timeout = \"15m\"",
        "idle_timeout = \"15\"",
        "chaperone.toml:36:16: session.idle_timeout: \"15\" is not a duration; write a number with ms, s, m, h or d, such as \"30s\"",
    ),
    (
        "# idle_timeout = \"15m\"",
        "idle_timeout = \"9h\"",
        "chaperone.toml:36:16: session.idle_timeout: longer than absolute_timeout; make it shorter, or absolute_timeout longer",
    ),
    (
        "# peer_timeout = \"60s\"",
        "peer_timeout = \"5s\"",
        "chaperone.toml:38:16: session.peer_timeout: shorter than the probes of TCP can tell, or longer than half a day; write \"6s\" to \"12h\"; \"60s\" is good",
    ),
    (
        "# catalog_age = \"1s\"",
        "catalog_age = \"2m\"",
        "chaperone.toml:39:15: session.catalog_age: what others make of the database's schema would be noticed too late; write at most \"1m\"; \"1s\" is good",
    ),
    (
        "# settings = [",
        "settings = [\"Role\", ",
        "chaperone.toml:40:13: session.settings[0]: \"Role\" would let callers change as whom their statements run; remove it, and grant roles under [[targets.roles]]",
    ),
    (
        "# max_bytes = \"1MiB\"",
        "max_bytes = true",
        "chaperone.toml:43:13: statement.max_bytes: not a size; write a number of bytes or a string such as \"4MiB\"",
    ),
    (
        "# level = \"info\"",
        "level = \"chaperone=loud\"",
        "chaperone.toml:56:9: log.level: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5; write error, warn, info, debug or trace, or a filter such as \"info,chaperone=debug\"",
    ),
    (
        "# format = \"text\"",
        "format = \"xml\"",
        "chaperone.toml:55:10: log.format: unknown variant `xml`, expected `text` or `json`; write a value of the kind that docs/operators.md gives for this key",
    ),
    (
        "directory = \"policies\"",
        "directory = \"modules\"",
        "chaperone.toml:20:13: policies.directory: modules is not a directory; make it and put policy modules (.wasm) into it",
    ),
    (
        "\"mask.key\"",
        "\"auditor.pub\"",
        "chaperone.toml:52:18: masking.keyed_hash_key: auditor.pub holds 5 bytes, too few; make one: head -c 32 /dev/urandom > mask.key",
    ),
    (
        "key = \"server.key\"",
        "key = \"server.crt\"",
        "chaperone.toml:9:7: listen.tls.key: server.crt holds no private key; name a file with a PRIVATE KEY block (PKCS#8, PKCS#1 or SEC1, not encrypted)",
    ),
    (
        "[policies.limits]",
        "[policies.settings]\nclinical = 5\n[policies.limits]",
        "chaperone.toml:31:12: policies.settings.clinical: invalid type: integer `5`, expected a map; write a value of the kind that docs/operators.md gives for this key",
    ),
    (
        "[policies.limits]",
        "[policies.settings.x]\nlimit = nan\n[policies.limits]",
        "chaperone.toml:30:1: policies.settings.x: inf and nan cannot be settings; write finite numbers",
    ),
    (
        "issuer = \"https:",
        "issuer = \"http:",
        "chaperone.toml:59:10: identity.providers[0].issuer: \"http://id.example.org\" is not an https URL without query and fragment; write the issuer exactly as in the `iss` of its tokens, such as \"https://id.example.org\"",
    ),
    (
        "# algorithms = [\"RS256\"",
        "algorithms = [\"HS256\"",
        "chaperone.toml:62:14: identity.providers[0].algorithms: \"HS256\" is not an accepted signature algorithm; use RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA (\"none\" and shared secrets are never accepted)",
    ),
    (
        "# leeway = \"30s\"",
        "leeway = \"1h\"",
        "chaperone.toml:66:10: identity.providers[0].leeway: more than five minutes keeps expired tokens alive; write at most \"5m\"",
    ),
    (
        "token_sha3 = \"a7ff",
        "token_sha3 = \"A-SECRET-a7ff",
        "chaperone.toml:71:14: identity.static[0].token_sha3: not 64 hexadecimal digits; write the SHA3-256 of the token: printf %s \"$TOKEN\" | openssl dgst -sha3-256",
    ),
    (
        "2027-01-01T00:00:00Z",
        "2027-01-01",
        "chaperone.toml:74:11: identity.static[0].expires: not a point in time; write date, time and offset, such as \"2027-01-01T00:00:00Z\"",
    ),
    (
        "# port = 5432",
        "port = 70000",
        "chaperone.toml:79:8: targets[0].port: invalid value: integer `70000`, expected u16; write a value of the kind that docs/operators.md gives for this key",
    ),
    (
        "[targets.tls]\nmode = \"verify-full\"\nca = \"ca.pem\"",
        "",
        "chaperone.toml:78:8: targets[0].host: reached over TCP without [targets.tls]; add [targets.tls] with mode = \"verify-full\" and ca = \"...\" (mode = \"disable\" on loopback)",
    ),
    (
        "mode = \"verify-full\"\nca = \"ca.pem\"",
        "mode = \"disable\"",
        "chaperone.toml:83:8: targets[0].tls.mode: results would come from 10.0.0.5 in clear; use mode = \"verify-full\" with ca; \"disable\" is for a Unix socket or loopback",
    ),
    (
        "mode = \"verify-full\"\nca = \"ca.pem\"",
        "mode = \"verify-full\"",
        "chaperone.toml:83:8: targets[0].tls.mode: the certificate would be checked against nothing; add ca = \"file.pem\" with the authority that signed the backend's certificate",
    ),
    (
        "mode = \"verify-full\"",
        "mode = \"verify-ca\"",
        "chaperone.toml:83:8: targets[0].tls.mode: unknown variant `verify-ca`, expected `verify-full` or `disable`; write a value of the kind that docs/operators.md gives for this key",
    ),
    (
        "groups = [\"agents\"]\nidentities = [\"nightly-export\"]",
        "",
        "chaperone.toml:87:8: targets[0].roles[0].role: nobody could use \"agent_ro\"; add groups, subjects (\"issuer#subject\") or identities (names under [[identity.static]])",
    ),
    (
        "identities = [\"nightly-export\"]",
        "identities = [\"daily\"]",
        "chaperone.toml:90:15: targets[0].roles[0].identities[0]: \"daily\" is no static identity; add it under [[identity.static]], or correct the name",
    ),
    (
        "https://id.example.org#dr-osei",
        "dr-osei",
        "chaperone.toml:97:13: targets[0].roles[1].subjects[0]: \"dr-osei\" names no issuer; write issuer#subject, such as \"https://id.example.org#agent-7\"",
    ),
    (
        "https://id.example.org#dr-osei",
        "https://other#dr-osei",
        "chaperone.toml:97:13: targets[0].roles[1].subjects[0]: \"https://other\" is the issuer of no provider; write it exactly as under [[identity.providers]], or add the provider",
    ),
    (
        "\"agent_ro.password\"",
        "\"none.password\"",
        "chaperone.toml:88:17: targets[0].roles[0].password_file: cannot read none.password: No such file or directory (os error 2); put the login's password into the file, on one line",
    ),
    (
        "\"public.staff\" =",
        "public.staff =",
        "chaperone.toml:100:1: targets[0].labels.public: names no schema; write schema and name in one pair of quotes: \"public.patients\" = ...",
    ),
    (
        "\"public.staff\" = \"clear\"",
        "\"public.staff\" = \"ssn\"",
        "chaperone.toml:100:18: targets[0].labels.\"public.staff\": \"ssn\" for a whole relation; write \"clear\", or labels by column: { id = \"clear\", ssn = \"ssn\" }",
    ),
    (
        "[\"free-text\", \"mrn\"]",
        "[\"free-text\", \"clear\"]",
        "chaperone.toml:101:21: targets[0].labels.\"public.patients\": \"clear\" is no label for column \"notes\"; use lower-case letters, digits and hyphens; \"clear\" stands alone, \"unknown\" is reserved",
    ),
    (
        "[\"free-text\", \"mrn\"]",
        "[]",
        "chaperone.toml:101:21: targets[0].labels.\"public.patients\": column \"notes\" has an empty list of labels; write \"clear\" if it is no PHI",
    ),
    (
        "\"public.staff_count\" = \"clear\"",
        "\"public.staff_count\" = \"safe\"",
        "chaperone.toml:104:24: targets[0].functions.\"public.staff_count\": unknown variant `safe`, expected `clear` or `derived`; write a value of the kind that docs/operators.md gives for this key",
    ),
];

#[test]
fn every_error_says_where_and_how_to_mend_it() {
    let folder = Folder::new();
    let mut wrong = String::new();
    for (from, to, expected) in BROKEN {
        assert_eq!(EXAMPLE.matches(from).count(), 1, "{from}");
        let error = folder.load(&EXAMPLE.replace(from, to)).unwrap_err();
        if error != *expected {
            wrong.push_str(&format!(
                "{from:?} -> {to:?}\n  is        {error}\n  should be {expected}\n"
            ));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
