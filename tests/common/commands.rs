//! Which test runs which of the commands that the pages show.

/// What becomes of a command that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// This test runs it as it stands, but for names that stand for something, and ports.
    By(&'static str),
    /// No test of this workspace does, for this reason.
    Not(&'static str),
}

use Way::{By, Not};

/// Every command that is shown, by page.
pub const COMMANDS: &[(&str, Way, &[&str])] = &[
    (
        "README.md",
        Not("`make test` runs the tests, and plays the story last"),
        &["make demo", "make test"],
    ),
    (
        "README.md",
        By("docs::make_lists_its_targets"),
        &["make help"],
    ),
    (
        "CONTRIBUTING.md",
        Not("`make test` does it itself, in parts"),
        &[
            "make test",
            "make check",
            "cargo test -p chaperone-sql",
            "make demo CHECK=1",
        ],
    ),
    (
        "CONTRIBUTING.md",
        Not("the attacks and their judge come from outside of the repository"),
        &[r#"make leakcheck ONLY="alias view""#],
    ),
    (
        "CONTRIBUTING.md",
        Not("a measurement, for a release build on a quiet machine"),
        &[
            r#"make bench ONLY="prepared wide""#,
            "make soak SECONDS=60 CLIENTS=20",
        ],
    ),
    (
        "CONTRIBUTING.md",
        Not("minutes to hours, and its suites come from package registries"),
        &[r#"make fidelity ONLY="pipeline drivers""#],
    ),
    (
        "docs/fidelity.md",
        Not("minutes to hours, and its suites come from package registries"),
        &[
            "make fidelity",
            r#"make fidelity TLS=1 ONLY="pipeline drivers""#,
            "make fidelity ONLY=psycopg PSYCOPG=../psycopg",
        ],
    ),
    (
        "docs/fidelity.md",
        Not("`make test` does it, with TLS=1"),
        &["make fidelity ONLY=regression SCHEDULE=tests/fidelity/slice PROXIED=1"],
    ),
    (
        "docs/performance.md",
        Not("a measurement, for a release build on a quiet machine"),
        &[
            "cargo bench -p chaperone-sql",
            "cargo bench -p chaperone-policy-host",
            "cargo bench -p chaperone-audit-log",
            "cargo bench -p chaperone --bench masks",
        ],
    ),
    (
        "docs/approvers.md",
        By("docs_run::what_approvers_are_shown_works"),
        &[
            "export CHAPERONE_ADMIN_URL=https://chaperone.example:6433",
            "export CHAPERONE_TOKEN=...",
            "chaperone approvals list --ca ca.pem",
            "chaperone approvals show 0198c3",
            "chaperone approvals approve 0198c3",
            r#"chaperone approvals deny 0198c3 --reason "not before the backup""#,
        ],
    ),
    (
        "docs/auditors.md",
        By("docs_run::what_auditors_are_shown_works"),
        &[
            "chaperone audit keygen auditor",
            "chaperone audit verify audit",
            r#"chaperone audit verify audit --expect-head "$HEAD""#,
            r#"chaperone audit trace audit "$REQUEST""#,
            r#"chaperone audit trace audit "$REQUEST" --key auditor.key"#,
            "chaperone audit show audit --kind decision --since 2026-01-01",
            "chaperone audit show audit --json --key auditor.key",
            r#"grep -ah '"kind":"session-start"' audit/*/*.seg"#,
            "chaperone audit digest audit value.txt --key auditor.key",
        ],
    ),
    (
        "docs/policy-authors.md",
        Not("tests/prerequisites.sh does it where it is missing"),
        &["rustup target add wasm32-unknown-unknown"],
    ),
    (
        "docs/policy-authors.md",
        By("guide::ten_minutes"),
        &[
            "chaperone policy new ward-rules",
            "cd ward-rules",
            "cargo test",
            "chaperone policy build . -o policies",
            "chaperone check --config chaperone.toml",
            "chaperone policy inspect policies/ward_rules.wasm",
            r#"chaperone explain "SELECT name, phone FROM patients" --as agent-7"#,
        ],
    ),
    (
        "docs/operators.md",
        By("operators::what_operators_are_shown_works"),
        &[
            "chaperone audit keygen auditor",
            "chaperone policy build DIR -o policies",
            "chaperone check --config chaperone.toml",
            "chaperone serve --config chaperone.toml",
            "psql \"host=localhost port=6432 dbname=clinic user=agent_ro sslmode=verify-full \
             sslrootcert=ca.pem\"",
            "ALTER SYSTEM SET password_encryption = 'scram-sha-256';",
            "SELECT pg_reload_conf();",
            r"\password agent_ro",
            "TOKEN=$(openssl rand -hex 32)",
            r#"printf %s "$TOKEN" | openssl dgst -sha3-256"#,
            "COMMENT ON TABLE public.staff IS 'Who works here. @label(clear)';",
            "COMMENT ON COLUMN public.patients.ssn IS '@label(ssn)';",
            "COMMENT ON COLUMN public.patients.notes IS 'Dictated. @label(free-text, mrn)';",
        ],
    ),
    (
        "docs/chaperone.toml",
        By("operators::what_operators_are_shown_works"),
        &[
            "head -c 32 /dev/urandom > mask.key",
            r#"printf %s "$TOKEN" | openssl dgst -sha3-256"#,
        ],
    ),
    (
        "policy-sdk/README.md",
        Not("it opens a browser"),
        &["cargo doc -p policy-sdk --open"],
    ),
    (
        "policy-sdk/README.md",
        By("docs_run::what_the_sdk_shows_works"),
        &[
            "chaperone policy build DIR -o POLICY-DIRECTORY",
            "cargo build --lib --target wasm32-unknown-unknown --profile policy \
             --config PATH-TO/policy-sdk/module.toml",
        ],
    ),
];
