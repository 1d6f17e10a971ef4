//! Everything that has to run before the story: PostgreSQL, issuer, policies, Chaperone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use chaperone_test_support::chaperone::{self, Chaperone, ChaperoneOptions};
use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::psql::{Psql, PsqlOutput};
use chaperone_test_support::{Postgres, Result, clinic, policies};

use crate::interrupt::Interrupt;
use crate::personas::{PERSONAS, Persona, Tokens};
use crate::show::Show;

/// How long approvals wait: short while the story is played, long for trying by hand.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// A held statement waits 5 s and its ticket is good for 7 s.
    Story,
    /// A held statement waits 30 s and its ticket is good for 15 min.
    ByHand,
}

/// The running demo.
#[derive(Debug)]
pub struct Stage {
    /// The backend.
    pub postgres: Postgres,
    /// The proxy.
    pub chaperone: Chaperone,
    /// A valid token for every persona.
    pub tokens: Tokens,
    /// The proxy's program.
    pub binary: PathBuf,
    /// Of [`folder`].
    pub folder: PathBuf,
    /// Whether to go on.
    pub interrupt: Interrupt,
}

/// The example policies that the clinic runs with, and their settings.
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

/// The policy that step 5 edits.
pub const HOUSE_RULES: &str = "house-rules";

/// In the run's folder.
const PERSONAS_FOLDER: &str = "personas";

/// In the demo's folder.
const ENVIRONMENT: &str = "env.sh";

const HOUSE_RULES_SOURCE: &str = include_str!("../house-rules/src/lib.rs");
const HOUSE_RULES_MANIFEST: &str = include_str!("../house-rules/manifest.toml");

impl Stage {
    /// Builds and starts everything.
    ///
    /// # Errors
    /// The first part that does not start, in its own words; or that it is to end.
    pub fn set(show: &Show, pace: Pace, interrupt: &Interrupt) -> Result<Self> {
        let binary = beside("chaperone")?;
        let folder = folder();
        let run = folder.join("run");
        if run.exists() {
            fs::remove_dir_all(&run).context(format!("clear {}", run.display()))?;
        }
        fs::create_dir_all(&run).context(format!("make {}", run.display()))?;

        let begin = |what: &str| {
            interrupt.check()?;
            show.progress(what);
            Ok(())
        };
        begin("starting a throwaway PostgreSQL")?;
        let postgres = Postgres::start()?;
        begin(&format!(
            "seeding the clinic: {} invented patients",
            clinic::PATIENTS
        ))?;
        clinic::seed(&postgres)?;
        begin("starting an OIDC issuer")?;
        let tokens = Tokens::issue()?;
        tokens.write_personas(&run.join(PERSONAS_FOLDER))?;

        let mut modules = Vec::new();
        for (name, settings) in POLICIES {
            begin(&format!(
                "building the policy {name} from source (the first build takes a minute or two)"
            ))?;
            modules.push((
                name,
                build_policy(
                    &binary,
                    &policies::workspace().join("example-policies").join(name),
                    &run,
                )?,
                settings,
            ));
        }
        begin("building the policy that step 5 will change")?;
        write_house_rules(&folder, HOUSE_RULES_SOURCE)?;
        let built = build_policy(&binary, &folder.join(HOUSE_RULES), &run)?;
        modules.push((HOUSE_RULES, built, ""));

        begin("starting chaperone serve")?;
        let chaperone = options(&binary, &run, &postgres, &tokens, &modules, pace).start()?;
        interrupt.check()?;
        Ok(Stage {
            postgres,
            chaperone,
            tokens,
            binary,
            folder,
            interrupt: interrupt.clone(),
        })
    }

    /// psql through the proxy as `who`.
    #[must_use]
    pub fn psql(&self, who: Persona) -> Psql {
        self.chaperone
            .psql(clinic::DATABASE, who.role, self.tokens.of(who))
            .argument("--set=VERBOSITY=verbose")
            .argument("--set=SHOW_CONTEXT=never")
    }

    /// `chaperone approvals ...` as `who`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn approvals(&self, who: Persona, arguments: &[&str]) -> Result<PsqlOutput> {
        let mut command = Command::new(&self.binary);
        command
            .arg("approvals")
            .args(arguments)
            .env("CHAPERONE_ADMIN_URL", self.admin_url())
            .env("CHAPERONE_ADMIN_TOKEN", self.tokens.of(who));
        Ok(command
            .output()
            .context("start chaperone approvals")?
            .into())
    }

    /// `chaperone audit ...`.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn audit(&self, action: &str, folder: &Path) -> Result<PsqlOutput> {
        let mut command = Command::new(&self.binary);
        command.args(["audit", action]).arg(folder);
        Ok(command.output().context("start chaperone audit")?.into())
    }

    /// Where the admin API answers.
    #[must_use]
    pub fn admin_url(&self) -> String {
        format!("http://{}", self.chaperone.admin())
    }

    /// Files for `chaperone explain --as`.
    #[must_use]
    pub fn personas_folder(&self) -> PathBuf {
        self.folder.join("run").join(PERSONAS_FOLDER)
    }

    /// Changes the source of the house rules, builds them and drops the module in.
    ///
    /// # Errors
    /// The text to change is not there, or the policy does not build.
    pub fn edit_house_rules(&self, from: &str, to: &str) -> Result<()> {
        let file = self.folder.join(HOUSE_RULES).join("src/lib.rs");
        let source = fs::read_to_string(&file).context(format!("read {}", file.display()))?;
        if !source.contains(from) {
            return Err(Error::Missing {
                what: format!("{from:?} in {}", file.display()),
                mend: "start the demo again; it restores the file".to_owned(),
            });
        }
        write_house_rules(&self.folder, &source.replace(from, to))?;
        let to = self.chaperone.policy_folder();
        build_policy(&self.binary, &self.folder.join(HOUSE_RULES), &to)?;
        Ok(())
    }

    /// Starts Chaperone again with the waits of `pace`; the log goes on in the same folder.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(mut self, pace: Pace) -> Result<Self> {
        self.chaperone.stop();
        let run = self.folder.join("run");
        let options = options(&self.binary, &run, &self.postgres, &self.tokens, &[], pace);
        self.chaperone = options.start()?;
        Ok(self)
    }

    /// The file for scripts: everything needed to play along.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_environment(&self) -> Result<PathBuf> {
        let mut text = String::from("# Source this file in a shell while the demo is up.\n");
        let mut put = |name: &str, value: &str| {
            text.push_str(&format!(
                "export {name}='{}'\n",
                value.replace('\'', "'\\''")
            ));
        };
        put("CHAPERONE_BIN", &self.binary.to_string_lossy());
        put("CHAPERONE_HOST", "127.0.0.1");
        put("CHAPERONE_PORT", &self.chaperone.port().to_string());
        put("CHAPERONE_DATABASE", clinic::DATABASE);
        put("CHAPERONE_CA", &self.chaperone.ca_file().to_string_lossy());
        put(
            "CHAPERONE_CONFIG",
            &self.chaperone.config().to_string_lossy(),
        );
        for persona in PERSONAS {
            let name = persona.name.to_uppercase();
            put(&format!("CHAPERONE_TOKEN_{name}"), self.tokens.of(persona));
            put(&format!("CHAPERONE_ROLE_{name}"), persona.role);
            let file = self.personas_folder().join(persona.file_name());
            put(
                &format!("CHAPERONE_PERSONA_{name}"),
                &file.to_string_lossy(),
            );
        }
        put("CHAPERONE_ADMIN_URL", &self.admin_url());
        put("CHAPERONE_ADMIN_TOKEN", self.tokens.of(Persona::APPROVER));
        put("CHAPERONE_ISSUER", self.tokens.issuer());
        put(
            "CHAPERONE_POLICY_DIR",
            &self.chaperone.policy_folder().to_string_lossy(),
        );
        put(
            "CHAPERONE_LOG_DIR",
            &self.chaperone.audit_folder().to_string_lossy(),
        );
        put(
            "CHAPERONE_AUDIT_KEY",
            &self.chaperone.auditor_key().to_string_lossy(),
        );
        put(
            "CHAPERONE_AUDIT_PUBLIC_KEY",
            &self.folder.join("run/auditor.pub").to_string_lossy(),
        );
        put(
            "CHAPERONE_HOUSE_RULES",
            &self.folder.join(HOUSE_RULES).to_string_lossy(),
        );
        put(
            "CHAPERONE_DIRECT",
            &self.postgres.superuser(clinic::DATABASE).conninfo(),
        );
        let path = self.environment_file();
        chaperone_test_support::tls::write_private(&path, &text)?;
        Ok(path)
    }

    /// Ends everything and removes what it left: keys, passwords, log, the edited policy.
    pub fn clear(self) {
        let folder = self.folder.clone();
        drop(self);
        sweep(&folder);
    }

    /// Where [`Stage::write_environment`] writes.
    #[must_use]
    pub fn environment_file(&self) -> PathBuf {
        self.folder.join(ENVIRONMENT)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // Before its database, so that sessions end in order.
        self.chaperone.stop();
        // What it names is gone.
        let _ = fs::remove_file(self.environment_file());
    }
}

/// The demo's folder: `.demo`, which git ignores, or another that the environment names.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os("CHAPERONE_DEMO_FOLDER").map_or_else(
        || policies::workspace().join(".demo"),
        |named| std::path::absolute(&named).unwrap_or_else(|_| named.into()),
    )
}

/// Removes what a demo that is over has left in its folder.
pub fn sweep(folder: &Path) {
    for part in ["run", HOUSE_RULES] {
        let _ = fs::remove_dir_all(folder.join(part));
    }
    let _ = fs::remove_file(folder.join(ENVIRONMENT));
    // Goes only when it is empty.
    let _ = fs::remove_dir(folder);
}

fn options(
    binary: &Path,
    run: &Path,
    postgres: &Postgres,
    tokens: &Tokens,
    modules: &[(&str, PathBuf, &str)],
    pace: Pace,
) -> ChaperoneOptions {
    let (wait, ttl, seconds) = match pace {
        Pace::Story => ("5s", "7s", 7),
        Pace::ByHand => ("30s", "15m", 900),
    };
    let mut options = Chaperone::options(binary)
        .folder(run)
        .required(&["clinical-access", "phi-masking", "risky-commands"])
        .toml(&format!(
            "[approvals]\nwait = {wait:?}\nttl = {ttl:?}\ngroups = [\"approvers\"]\n{}",
            tokens.provider_toml()
        ))
        .file("issuer-ca.pem", tokens.issuer_ca().as_bytes());
    for (name, settings) in POLICIES {
        let settings = settings.replace("ttl_seconds = 900", &format!("ttl_seconds = {seconds}"));
        options = options.settings(name, &settings);
    }
    for (name, module, _) in modules {
        options = options.policy(name, module, "");
    }
    let roles: [(&str, &[&str]); 3] = [
        ("agent_ro", &["agents"]),
        ("clinician", &["clinicians"]),
        ("dba", &["dbas"]),
    ];
    options.target(postgres, clinic::DATABASE, &roles, "")
}

/// Writes the policy crate of step 5 with the SDK's real path.
fn write_house_rules(folder: &Path, source: &str) -> Result<()> {
    let home = folder.join(HOUSE_RULES);
    fs::create_dir_all(home.join("src")).context(format!("make {}", home.display()))?;
    let sdk = policies::workspace().join("policy-sdk");
    let manifest = HOUSE_RULES_MANIFEST.replace("@SDK@", &sdk.to_string_lossy());
    fs::write(home.join("Cargo.toml"), manifest).context("write the policy's Cargo.toml")?;
    // The same versions as everything else, so that nothing new has to be fetched or compiled.
    fs::copy(
        policies::workspace().join("Cargo.lock"),
        home.join("Cargo.lock"),
    )
    .context("copy Cargo.lock")?;
    fs::write(home.join("src/lib.rs"), source).context("write the policy's source")
}

/// `chaperone policy build`, to a file in `to`.
fn build_policy(binary: &Path, folder: &Path, to: &Path) -> Result<PathBuf> {
    let name = folder
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let output = to.join(format!("{name}.wasm"));
    // All policies share one build folder, so that the SDK is compiled once.
    chaperone::run(
        Command::new(binary)
            .args(["policy", "build"])
            .arg(folder)
            .arg("--output")
            .arg(&output)
            .env("CARGO_TARGET_DIR", policies::target_folder()),
    )?;
    Ok(output)
}

/// A program that cargo built into the same folder as this one.
fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let path = own.with_file_name(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::Missing {
        what: path.display().to_string(),
        mend: "run `make demo`, which builds it first".to_owned(),
    })
}
