//! Drivers that others wrote, each with a script that prints what it sees of a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use chaperone_test_support::Result;
use chaperone_test_support::error::Context as _;
use chaperone_test_support::postgres::SUPERUSER;

use crate::stage::Stage;
use crate::suite::Outcome;

/// A script takes seconds; one that hangs has failed.
const PATIENCE: &str = "120";
/// So many lines that differ are shown.
const SHOWN: usize = 10;

/// Where the drivers are and their scripts.
#[derive(Clone, Debug)]
pub struct Drivers {
    /// What `tests/drivers/install.sh` has filled.
    pub installed: PathBuf,
    /// `tests/drivers`.
    pub scripts: PathBuf,
}

impl Drivers {
    /// Each driver's command, by its name.
    fn commands(&self) -> Vec<(&'static str, Vec<PathBuf>)> {
        let installed = |path: &str| self.installed.join(path);
        let script = |path: &str| self.scripts.join(path);
        let python = |name: &str| vec![installed("python/bin/python"), script(name)];
        vec![
            ("psycopg", python("psycopg_smoke.py")),
            ("asyncpg", python("asyncpg_smoke.py")),
            ("sqlalchemy", python("sqlalchemy_smoke.py")),
            (
                "node-postgres",
                vec!["node".into(), script("node_postgres.js")],
            ),
            (
                "pgjdbc",
                vec![
                    "java".into(),
                    "-cp".into(),
                    installed("java/usr/share/java/postgresql.jar"),
                    script("Jdbc.java"),
                ],
            ),
            (
                "tokio-postgres",
                vec![installed("rust/debug/tokio_postgres")],
            ),
            ("sqlx", vec![installed("rust/debug/sqlx")]),
        ]
    }

    /// Runs every script. What they print stays in `output`; where it differs from what they
    /// printed with the server itself, they have failed.
    ///
    /// # Errors
    /// A program is missing.
    pub fn run(&self, stage: &Stage, output: &Path) -> Result<BTreeMap<String, Outcome>> {
        let mut outcomes = BTreeMap::new();
        for (name, words) in self.commands() {
            let mut command = Command::new("timeout");
            stage.environment(&mut command);
            let run = command
                .arg(PATIENCE)
                .args(words)
                .env("PGHOST", "127.0.0.1")
                .env("PGPORT", stage.port().to_string())
                .env("PGUSER", SUPERUSER)
                .env("PGDATABASE", "postgres")
                .env("NODE_PATH", self.installed.join("node/node_modules"))
                .stdin(Stdio::null())
                .output()
                .context(format!("start the script of {name}"))?;
            let said = String::from_utf8_lossy(&run.stdout).into_owned();
            let file = format!("{name}.out");
            fs::write(output.join(&file), &said).context(format!("write {file}"))?;
            let direct = fs::read_to_string(output.join("../direct").join(&file));
            let differs = direct.map(|direct| differences(&direct, &said));
            let differs = differs.unwrap_or_default();
            let outcome = if run.status.success() && differs.is_empty() {
                Outcome::Passed
            } else {
                Outcome::Failed
            };
            eprintln!(
                "  {name}: {outcome:?}\n{differs}{}",
                String::from_utf8_lossy(&run.stderr)
            );
            outcomes.insert(name.to_owned(), outcome);
        }
        Ok(outcomes)
    }
}

fn differences(direct: &str, proxied: &str) -> String {
    let most = direct.lines().count().max(proxied.lines().count());
    let pairs = (0..most).map(|line| (direct.lines().nth(line), proxied.lines().nth(line)));
    let different = pairs.filter(|(one, other)| one != other).take(SHOWN);
    let shown = |line: Option<&str>| line.unwrap_or("(nothing)").to_owned();
    different
        .map(|(one, other)| format!("    - {}\n    + {}\n", shown(one), shown(other)))
        .collect()
}
