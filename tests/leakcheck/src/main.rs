//! `make leakcheck`: the judge in the masking folder against Chaperone.
//!
//! Starts a PostgreSQL whose superuser needs no password, Chaperone with labels as `schema.sql`
//! says, and the judge. Ends with the judge's status, its last line printed last.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use chaperone_test_support::chaperone::Chaperone;
use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::{Auth, Postgres, Result, policies};

/// The callers, each mapped to the backend role of the same name.
const CALLERS: [&str; 4] = ["agent", "agent_ddl", "agent_repl", "agent_super"];

/// The labels that the comments in `schema.sql` give. Columns that are not listed are unlabelled
/// and count as PHI; relations that are not listed are refused.
const LABELS: &str = r#"
"public.patients" = { id = "clear", mrn = "mrn", name = "name", ssn = "ssn", dob = "date", phone = "phone", email = "email", address = "address", zip = "zip", name_search = "name" }
"public.staff" = "clear"
"public.diagnoses" = "clear"
"public.encounters" = { id = "clear", patient_id = "clear", staff_id = "clear", admitted_at = "date", discharged_at = "date", ward = "clear" }
"public.encounters_p1" = { id = "clear", patient_id = "clear", staff_id = "clear", admitted_at = "date", discharged_at = "date", ward = "clear" }
"public.encounters_p2" = { id = "clear", patient_id = "clear", staff_id = "clear", admitted_at = "date", discharged_at = "date", ward = "clear" }
"public.notes" = { id = "clear", patient_id = "clear", author_id = "clear", body = "free-text" }
"public.claims" = { id = "clear", patient_mrn = "mrn", member_no = "member-number", amount = "clear", status = "clear" }
"public.claims_archive" = { id = "clear", patient_mrn = "mrn", member_no = "member-number", amount = "clear", status = "clear" }
"public.intake" = { id = "clear", doc = "document", tags = "document" }
"#;

/// Functions of the schema that are declared clear there.
const FUNCTIONS: &str = r#"
"public.staff_count" = "clear"
"#;

struct Options {
    chaperone: PathBuf,
    masking: PathBuf,
    judge: Vec<String>,
    direct: bool,
}

fn main() -> ExitCode {
    let options = match Options::read() {
        Ok(options) => options,
        Err(usage) => {
            eprintln!("{usage}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("leakcheck: {error}");
            ExitCode::from(2)
        }
    }
}

impl Options {
    fn read() -> std::result::Result<Self, String> {
        const USAGE: &str = "usage: leakcheck --masking DIR [--cases FILE] [--controls FILE] \
            [--json FILE] [--direct] [--only ID-OR-GROUP ...]\n  \
            --direct  without Chaperone: every attack should leak (checks the judge)";
        let mut masking = None;
        let mut judge = Vec::new();
        let mut direct = false;
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--masking" => masking = arguments.next().map(PathBuf::from),
                "--cases" | "--controls" | "--json" => {
                    judge.push(argument);
                    judge.push(arguments.next().ok_or(USAGE)?);
                }
                "--direct" => direct = true,
                "--only" => {
                    judge.push(argument);
                    judge.extend(arguments.by_ref());
                }
                _ => return Err(format!("unknown argument {argument}\n{USAGE}")),
            }
        }
        let chaperone = std::env::current_exe()
            .map_err(|error| error.to_string())?
            .with_file_name("chaperone");
        let masking = masking.ok_or(USAGE)?;
        Ok(Options {
            chaperone,
            masking,
            judge,
            direct,
        })
    }
}

fn run(options: &Options) -> Result<u8> {
    let script = options.masking.join("leakcheck.py");
    if !script.is_file() {
        return Err(Error::Missing {
            what: script.display().to_string(),
            mend: "name the folder with leakcheck.py and schema.sql: make leakcheck MASKING=DIR"
                .to_owned(),
        });
    }
    say("starting PostgreSQL");
    let postgres = Postgres::options()
        .auth(Auth::Trust)
        .setting("wal_level", "logical")
        .setting("shared_preload_libraries", "pg_stat_statements")
        .setting("max_prepared_transactions", "10")
        // Some attacks read what a commit wrote to the write-ahead log.
        .setting("synchronous_commit", "on")
        .setting("full_page_writes", "on")
        .start()?;
    let mut judge = Command::new("python3");
    judge
        .arg(&script)
        .args(["--admin", &format!("127.0.0.1:{}", postgres.port())]);

    let _proxy = if options.direct {
        None
    } else {
        let proxy = start_proxy(&options.chaperone, &postgres)?;
        judge.args(["--proxy", &format!("127.0.0.1:{}", proxy.port()), "--tls"]);
        for caller in CALLERS {
            judge.args(["--password", &format!("{caller}={}", token(caller))]);
        }
        Some(proxy)
    };
    judge.args(&options.judge);
    say("the judge replays its cases; a case takes about a second");
    follow(&mut judge)
}

fn start_proxy(binary: &Path, postgres: &Postgres) -> Result<Chaperone> {
    let mut options = Chaperone::options(binary).log("warn").required(&[
        "clinical-access",
        "phi-masking",
        "risky-commands",
    ]);
    for (name, settings) in POLICIES {
        say(&format!("building {name}"));
        options = options.policy(name, policies::example(name)?, settings);
    }
    for caller in CALLERS {
        options = options.identity(caller, &token(caller), &[caller, "agents"], "operations");
    }
    options = options.toml(&target(postgres));
    say("starting chaperone");
    options.start()
}

const POLICIES: [(&str, &str); 3] = [
    (
        "clinical-access",
        include_str!("../settings/clinical-access.toml"),
    ),
    ("phi-masking", include_str!("../settings/phi-masking.toml")),
    (
        "risky-commands",
        include_str!("../settings/risky-commands.toml"),
    ),
];

fn target(postgres: &Postgres) -> String {
    let roles: String = CALLERS
        .iter()
        .map(|role| format!("[[targets.roles]]\nrole = {role:?}\ngroups = [{role:?}]\n"))
        .collect();
    format!(
        "[approvals]\nwait = \"5s\"\n\
         [[targets]]\nname = \"hospital\"\nhost = {:?}\nport = {}\n\
         [targets.labels]\n{LABELS}[targets.functions]\n{FUNCTIONS}{roles}",
        postgres.socket_folder(),
        postgres.port(),
    )
}

fn token(caller: &str) -> String {
    format!("leakcheck-token-of-{caller}-0123456789abcdef")
}

/// Shows the judge's lines as they come and returns its status.
fn follow(judge: &mut Command) -> Result<u8> {
    let mut child = judge
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("start python3")?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines() {
            println!("{}", line.context("read from the judge")?);
        }
    }
    let status = child.wait().context("wait for the judge")?;
    Ok(status
        .code()
        .and_then(|code| u8::try_from(code).ok())
        .unwrap_or(2))
}

fn say(what: &str) {
    eprintln!("leakcheck: {what}");
}
