//! The server, and Chaperone before it or not.

use std::process::Command;

use chaperone_test_support::chaperone::Chaperone;
use chaperone_test_support::error::Context as _;
use chaperone_test_support::postgres::SUPERUSER;
use chaperone_test_support::{Auth, Postgres, Result, policies};

const TOKEN: &str = "fidelity-token-0123456789abcdef0123456789";
/// Databases that the suites connect to.
const DATABASES: [&str; 5] = [
    "postgres",
    "regression",
    "isolation_regression",
    "testdb",
    "asyncpg_intro_test",
];

/// How the suite's clients reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Proxied,
}

impl Way {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Way::Direct => "direct",
            Way::Proxied => "proxied",
        }
    }
}

/// A fresh server for one run of one suite.
#[derive(Debug)]
pub struct Stage {
    postgres: Postgres,
    proxy: Option<Chaperone>,
    tls: bool,
}

impl Stage {
    /// # Errors
    /// PostgreSQL or Chaperone does not start.
    pub fn start(way: Way, tls: bool) -> Result<Self> {
        // The server asks for a password as Chaperone does: drivers' suites look at that.
        let asks = format!("host all {SUPERUSER} 127.0.0.1/32 password\n");
        let postgres = Postgres::options()
            .auth(Auth::Trust)
            .hba(&asks)
            .setting("max_prepared_transactions", "10")
            .setting("synchronous_commit", "on")
            .setting("full_page_writes", "on")
            .setting("autovacuum", "on")
            .setting("shared_buffers", "128MB")
            .start()?;
        let password = format!("ALTER ROLE {SUPERUSER} PASSWORD '{TOKEN}'");
        postgres.script("postgres", &password)?;
        let proxy = match way {
            Way::Direct => None,
            Way::Proxied => Some(start_proxy(&postgres, tls)?),
        };
        Ok(Stage {
            postgres,
            proxy,
            tls,
        })
    }

    /// The port that the suite's clients use, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.proxy
            .as_ref()
            .map_or(self.postgres.port(), Chaperone::port)
    }

    /// Whether the suite's clients speak TLS.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls && self.proxy.is_some()
    }

    /// Sets what libpq reads from the environment.
    pub fn environment(&self, command: &mut Command) {
        command.env("PGPASSWORD", TOKEN);
        match &self.proxy {
            Some(proxy) if self.tls => {
                command.env("PGSSLMODE", "verify-full");
                command.env("PGSSLROOTCERT", proxy.ca_file());
            }
            _ => {
                command.env("PGSSLMODE", "disable");
                command.env_remove("PGSSLROOTCERT");
            }
        }
    }

    /// What Chaperone has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.proxy
            .as_ref()
            .map_or_else(String::new, Chaperone::output)
    }

    /// The same as a connection string.
    #[must_use]
    pub fn conninfo(&self, database: &str) -> String {
        format!(
            "host=127.0.0.1 port={} user={SUPERUSER} dbname={database}",
            self.port()
        )
    }
}

fn start_proxy(postgres: &Postgres, tls: bool) -> Result<Chaperone> {
    let binary = std::env::current_exe()
        .context("find this program")?
        .with_file_name("chaperone");
    let mut options = Chaperone::options(binary)
        // Beside the server's data, in memory where there is some: the suites make tens of
        // thousands of changes, and each waits for its record.
        .folder(postgres.socket_folder().join("chaperone"))
        .log("warn")
        .identity("suite", TOKEN, &["suite"], "test")
        .policy("allow-all", policies::example("allow-all")?, "")
        .incomplete_facts(&["allow-all"])
        // Twenty clients at once on few processors are no reason to fail.
        .toml("[statement]\nmax_bytes = \"16MiB\"\n[policies.limits]\ndeadline = \"10s\"\n");
    if !tls {
        options = options.plaintext();
    }
    for database in DATABASES {
        options = options.toml(&format!(
            "[[targets]]\nname = {database:?}\nhost = {:?}\nport = {}\n\
             [[targets.roles]]\nrole = {SUPERUSER:?}\ngroups = [\"suite\"]\n",
            postgres.socket_folder(),
            postgres.port()
        ));
    }
    options.start()
}
