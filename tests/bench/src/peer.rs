//! What stands between pgbench and PostgreSQL: nothing, PgBouncer, a bare relay, Chaperone.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use chaperone_test_support::chaperone::Chaperone;
use chaperone_test_support::error::{Context as _, Error};
use chaperone_test_support::guard::Guarded;
use chaperone_test_support::net::free_port;
use chaperone_test_support::{Account, Postgres, Result, policies};

const TOKEN: &str = "bench-token-0123456789abcdef0123456789";

/// A column of the result's table.
#[derive(Debug)]
pub struct Peer {
    pub name: String,
    port: u16,
    /// Further words of the connection string.
    extra: String,
    process: Option<u32>,
    _running: Option<Running>,
}

/// A way to run Chaperone.
#[derive(Debug)]
pub struct Variant {
    pub name: &'static str,
    /// Example policies and their settings.
    pub modules: &'static [(&'static str, &'static str)],
    pub tls: bool,
    /// The log is on disk, not in memory.
    pub disk: bool,
}

#[derive(Debug)]
#[allow(dead_code, reason = "held so that they run, ended when dropped")]
enum Running {
    Program(Guarded),
    Chaperone(Box<Chaperone>),
}

impl Peer {
    /// PostgreSQL itself, over TCP.
    #[must_use]
    pub fn direct(postgres: &Postgres) -> Self {
        Peer {
            name: "direct".to_owned(),
            port: postgres.port(),
            extra: "sslmode=disable".to_owned(),
            process: None,
            _running: None,
        }
    }

    /// PgBouncer in session mode, to PostgreSQL's Unix socket as Chaperone does it.
    ///
    /// # Errors
    /// It is not installed or does not start.
    pub fn pgbouncer(postgres: &Postgres, scratch: &Path) -> Result<Self> {
        let port = free_port()?;
        let folder = scratch.join("pgbouncer");
        fs::create_dir_all(&folder).context("make a folder")?;
        let config = format!(
            "[databases]\nbench = host={} port={} dbname=bench user=bench\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = any\npool_mode = session\nmax_client_conn = 500\ndefault_pool_size = 150\n\
             server_reset_query =\nlog_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n",
            postgres.socket_folder().display(),
            postgres.port()
        );
        let file = folder.join("pgbouncer.ini");
        fs::write(&file, config).context("write pgbouncer.ini")?;
        let account = Account::for_server()?;
        account.own(&folder)?;
        let mut command = account.command(Path::new("pgbouncer"));
        command.arg(&file);
        Self::program("PgBouncer", command, port, &folder.join("log"))
    }

    /// This program again, as a relay that reads nothing.
    ///
    /// # Errors
    /// It does not start.
    pub fn relay(postgres: &Postgres, scratch: &Path) -> Result<Self> {
        let port = free_port()?;
        let socket = postgres
            .socket_folder()
            .join(format!(".s.PGSQL.{}", postgres.port()));
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.arg("relay").arg(port.to_string()).arg(socket);
        Self::program("relay", command, port, &scratch.join("relay.log"))
    }

    fn program(name: &'static str, command: Command, port: u16, log: &Path) -> Result<Self> {
        let mut running = Guarded::spawn(command, "TERM", log)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if running.ended().is_some() || Instant::now() > deadline {
                return Err(Error::Program {
                    program: name.to_owned(),
                    status: "does not listen".to_owned(),
                    output: fs::read_to_string(log).unwrap_or_default(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Peer {
            name: name.to_owned(),
            port,
            extra: "sslmode=disable".to_owned(),
            process: Some(running.id()),
            _running: Some(Running::Program(running)),
        })
    }

    /// Chaperone with its log in `folder`, shown as `name`.
    ///
    /// # Errors
    /// The policies do not build, or it does not start.
    pub fn chaperone(
        name: String,
        variant: &Variant,
        postgres: &Postgres,
        binary: &Path,
        folder: &Path,
    ) -> Result<Self> {
        let mut options = Chaperone::options(binary)
            .folder(folder)
            .log("warn")
            .identity("bench", TOKEN, &["bench"], "benchmark");
        if !variant.tls {
            options = options.plaintext();
        }
        for (module, settings) in variant.modules {
            options = options.policy(module, policies::example(module)?, settings);
            if *module == "allow-all" {
                options = options.incomplete_facts(&[module]);
            }
        }
        let proxy = options.toml(&target(postgres)).start()?;
        let mut extra = format!("password={TOKEN} ");
        let _ = if variant.tls {
            write!(
                extra,
                "sslmode=verify-full sslrootcert={}",
                proxy.ca_file().display()
            )
        } else {
            write!(extra, "sslmode=disable")
        };
        Ok(Peer {
            name,
            port: proxy.port(),
            extra,
            process: Some(proxy.process_id()),
            _running: Some(Running::Chaperone(Box::new(proxy))),
        })
    }

    /// A libpq connection string.
    #[must_use]
    pub fn conninfo(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=bench dbname=bench {}",
            self.port, self.extra
        )
    }

    /// CPU seconds of the proxy so far, user and system, of all its threads.
    #[must_use]
    pub fn cpu(&self) -> Option<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process?)).ok()?;
        // The second field, the program's name in parentheses, may hold spaces (proc(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks: f64 =
            fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
        // USER_HZ is 100 on every Linux that runs Rust.
        Some(ticks / 100.0)
    }
}

fn target(postgres: &Postgres) -> String {
    format!(
        "[[targets]]\nname = \"bench\"\nhost = {:?}\nport = {}\n\
         [targets.labels]\n\
         \"public.pgbench_accounts\" = \"clear\"\n\"public.pgbench_branches\" = \"clear\"\n\
         \"public.pgbench_tellers\" = \"clear\"\n\"public.pgbench_history\" = \"clear\"\n\
         \"public.wide_clear\" = \"clear\"\n\
         \"public.wide\" = {{ id = \"clear\", ssn = \"ssn\", name = \"name\", ward = \"clear\" }}\n\
         [[targets.roles]]\nrole = \"bench\"\ngroups = [\"bench\"]\n",
        postgres.socket_folder(),
        postgres.port(),
    )
}
