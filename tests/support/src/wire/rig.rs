//! PostgreSQL, and the proxy in front of it twice: once letting everything through, once with
//! policies that refuse and mask.
//!
//! The database `wire` has `item` and `big`, which anybody may use, `forbidden`, which the second
//! proxy refuses although the server would not, and `patient`, whose columns it masks.

#![allow(
    clippy::unwrap_used,
    reason = "a rig that does not work is a failed test"
)]

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::{Step, Transcript, VERSION_3_0, Wire, frontend};
use crate::chaperone::ChaperoneOptions;
use crate::error::Result;
use crate::{Auth, Chaperone, Postgres, policies};

/// The database, and the target of both proxies.
pub const DATABASE: &str = "wire";
/// The role of every session.
pub const ROLE: &str = "app";
/// The token that gets in.
pub const TOKEN: &str = "token-of-the-wire-tests";

const PARAMETERS: [(&str, &str); 2] = [("user", ROLE), ("database", DATABASE)];

/// How long a server may take to come back after one of its processes was killed.
const RECOVERY: Duration = Duration::from_secs(60);

/// What the tables hold, for the configuration.
pub const LABELS: &str = "\"public.item\" = \"clear\"\n\"public.big\" = \"clear\"\n\
    \"public.forbidden\" = \"clear\"\n\
    \"public.patient\" = { id = \"clear\", name = \"name\", born = \"date\", ssn = \"ssn\" }\n\
    \"public.ward\" = \"clear\"\n\
    \"public.stay\" = { ward = \"clear\", ssn = \"ssn\" }\n\"public.chart\" = { ssn = \"ssn\" }\n\
    [targets.functions]\n\"public.say\" = \"clear\"\n";

const SCHEMA: &str = "
    CREATE ROLE app LOGIN;
    CREATE DATABASE wire OWNER app;
    \\connect wire
    SET ROLE app;
    CREATE TABLE public.item (id int PRIMARY KEY, body text);
    CREATE TABLE public.forbidden (id int PRIMARY KEY, v text);
    CREATE TABLE public.big AS
        SELECT i AS id, repeat(md5(i::text), 32) AS body FROM generate_series(1, 12000) i;
    CREATE TABLE public.patient (id int PRIMARY KEY, name text, born date, ssn text);
    CREATE FUNCTION public.say(what text) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RAISE NOTICE 'first %', what; RAISE WARNING 'second' USING HINT = 'h'; RETURN 1; END $$;
    CREATE FUNCTION public.blurt(what text) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION USING ERRCODE = '42703', MESSAGE = what; END $$;
    CREATE FUNCTION public.look_up(what text) RETURNS int LANGUAGE plpgsql AS $$
        BEGIN EXECUTE format('SELECT %I', what); RETURN 1; END $$;
    CREATE TABLE public.ward (id int PRIMARY KEY);
    CREATE TABLE public.stay (
        ward int REFERENCES public.ward ON DELETE CASCADE,
        ssn text UNIQUE, CONSTRAINT later UNIQUE (ssn) DEFERRABLE INITIALLY DEFERRED);
    CREATE TABLE public.chart (ssn text);
    ALTER TABLE public.chart ADD FOREIGN KEY (ssn) REFERENCES public.stay (ssn);
    INSERT INTO public.ward VALUES (1);
    INSERT INTO public.stay VALUES (1, '900-11-2233');
    INSERT INTO public.chart VALUES ('900-11-2233');
    INSERT INTO public.forbidden VALUES (1, 'one');
    INSERT INTO public.patient VALUES
        (1, 'Testperson Alpha', '1931-04-05', '900-11-2233'), (2, NULL, NULL, NULL);
";

const RESET: &str = "TRUNCATE public.item; \
    INSERT INTO public.item SELECT i, 'item ' || i FROM generate_series(1, 5) i;";

/// A policy's time is the clock's, also while other programs have the processors: more of it than a
/// test of the wire could miss.
const LIMITS: &str = "[policies.limits]\ndeadline = \"5s\"";

const ACCESS: &str = "grants = [
    { groups = [\"testers\"], objects = [\"public.item\", \"public.big\", \"public.patient\"], actions = [\"read\", \"create\", \"update\", \"delete\"] },
    { groups = [\"testers\"], objects = [\"pg_catalog.*\"], actions = [\"read\", \"execute\"] },
]";

/// Settings of `phi-masking`.
pub const MASKS: &str = "labels = { name = { default = \"fixed:[name]\" }, date = { default = \"year\" }, ssn = { default = \"keep-last:4\" } }";

/// Everything that runs.
#[derive(Debug)]
pub struct Rig {
    /// The server.
    pub postgres: Postgres,
    /// Lets everything through.
    pub open: Chaperone,
    /// Refuses `forbidden` and masks `patient`.
    pub ruled: Chaperone,
}

impl Rig {
    /// Starts everything; `binary` is the proxy's.
    ///
    /// # Errors
    /// Something does not start.
    pub fn start(binary: &str) -> Result<Self> {
        let postgres = Postgres::options().auth(Auth::Trust).start()?;
        postgres.script("postgres", SCHEMA)?;
        let allow = policies::example("allow-all")?;
        let proxy = |name: &str, may_guess: &[&str]| {
            Chaperone::options(binary)
                // The server's folder goes at the end, though a rig that is shared is not dropped.
                .folder(postgres.socket_folder().join(name))
                .incomplete_facts(may_guess)
                .toml(LIMITS)
                .target(&postgres, DATABASE, &[(ROLE, &["testers"])], LABELS)
                .identity("tester", TOKEN, &["testers"], "testing")
                .policy("allow-all", &allow, "")
        };
        let open = proxy("open", &["allow-all"]).start()?;
        let ruled = proxy("ruled", &[])
            .policy(
                "clinical-access",
                policies::example("clinical-access")?,
                ACCESS,
            )
            .policy("phi-masking", policies::example("phi-masking")?, MASKS)
            .required(&["clinical-access", "phi-masking"])
            .start()?;
        Ok(Self {
            postgres,
            open,
            ruled,
        })
    }

    /// The rig of this test binary, its tables as they were at the start. One test has it at a
    /// time, so that what a test leaves behind confuses no other.
    ///
    /// # Panics
    /// Something does not start.
    pub fn take(binary: &str) -> MutexGuard<'static, Self> {
        static RIG: OnceLock<Mutex<Rig>> = OnceLock::new();
        let rig = RIG.get_or_init(|| Mutex::new(Self::start(binary).unwrap()));
        let rig = rig.lock().unwrap_or_else(PoisonError::into_inner);
        rig.reset();
        rig
    }

    /// Puts `item` back to five rows.
    ///
    /// # Panics
    /// The server is gone.
    pub fn reset(&self) {
        let mut wire = self.recovered();
        let said = wire.ask(&frontend::query(RESET));
        assert!(said.sqlstates().is_empty(), "{said}");
    }

    /// A session with the server, which may be recovering from what a test did to it.
    fn recovered(&self) -> Wire {
        let until = Instant::now() + RECOVERY;
        loop {
            let mut wire = Wire::connect(self.postgres.port()).unwrap();
            let said = wire.login(VERSION_3_0, &PARAMETERS, TOKEN).unwrap();
            if said.0.last().is_some_and(|line| line == "ReadyForQuery I") {
                return wire;
            }
            assert!(Instant::now() < until, "{said}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The ids in `item`, as the server has them.
    ///
    /// # Panics
    /// The server is gone.
    #[must_use]
    pub fn items(&self) -> String {
        let ids = "SELECT string_agg(id::text, ' ' ORDER BY id) FROM public.item";
        let said = self.direct().ask(&frontend::query(ids));
        said.all("DataRow").concat()
    }

    /// A session with the server itself.
    ///
    /// # Panics
    /// It does not begin.
    #[must_use]
    pub fn direct(&self) -> Wire {
        let mut wire = Wire::connect(self.postgres.port()).unwrap();
        enter(&mut wire);
        wire
    }

    /// A session through the proxy that lets everything through.
    ///
    /// # Panics
    /// It does not begin.
    #[must_use]
    pub fn open(&self) -> Wire {
        Self::through(&self.open)
    }

    /// A session through the proxy that refuses and masks.
    ///
    /// # Panics
    /// It does not begin.
    #[must_use]
    pub fn ruled(&self) -> Wire {
        Self::through(&self.ruled)
    }

    /// A further proxy in front of this server, in which one policy allows everything and another
    /// masks; `labels` are further lines of the target's labels.
    ///
    /// # Panics
    /// A policy cannot be built.
    #[must_use]
    pub fn masking(&self, binary: &str, labels: &str) -> ChaperoneOptions {
        let (columns, functions) = LABELS.split_once("[targets.functions]").unwrap();
        let labels = format!("{columns}{labels}\n[targets.functions]{functions}");
        Chaperone::options(binary)
            .toml(LIMITS)
            .target(&self.postgres, DATABASE, &[(ROLE, &["testers"])], &labels)
            .identity("tester", TOKEN, &["testers"], "testing")
            .policy("allow-all", policies::example("allow-all").unwrap(), "")
            .policy(
                "phi-masking",
                policies::example("phi-masking").unwrap(),
                MASKS,
            )
    }

    /// A proxy of this server and its caller, without any policy yet.
    #[must_use]
    pub fn bare(&self, binary: impl Into<PathBuf>) -> ChaperoneOptions {
        Chaperone::options(binary)
            .target(&self.postgres, DATABASE, &[(ROLE, &["testers"])], LABELS)
            .identity("tester", TOKEN, &["testers"], "testing")
    }

    /// A session through any proxy in front of this server.
    ///
    /// # Panics
    /// It does not begin.
    #[must_use]
    pub fn through(proxy: &Chaperone) -> Wire {
        let wire = Wire::connect(proxy.port()).unwrap();
        let mut wire = wire.tls(&proxy.ca_file()).unwrap();
        enter(&mut wire);
        wire
    }

    /// Plays the steps on the server itself and through the proxy, and wants the same words.
    ///
    /// # Panics
    /// They differ.
    pub fn same(&self, steps: &[Step]) -> Transcript {
        let direct = self.direct().play(steps);
        self.reset();
        let proxied = self.open().play(steps);
        assert!(
            direct.without_positions() == proxied.without_positions(),
            "the server says\n{direct}\nthe proxy says\n{proxied}"
        );
        proxied
    }

    /// Plays `failing` on the server itself, and `refused`, in which the proxy refuses what fails
    /// there, through the proxy; wants the same words apart from the error's own, and the same
    /// rows in `item` afterwards. Returns what the proxy said.
    ///
    /// # Panics
    /// They differ.
    pub fn refused_as(&self, failing: &[Step], refused: &[Step]) -> Transcript {
        let direct = self.direct().play(failing);
        let left = self.items();
        self.reset();
        let proxied = self.ruled().play(refused);
        assert!(
            direct.without_error_texts() == proxied.without_error_texts(),
            "the server says\n{direct}\nthe proxy says\n{proxied}"
        );
        assert_eq!(left, self.items(), "what is in the table:\n{proxied}");
        let ours = proxied.all("ErrorResponse");
        assert!(
            ours.iter()
                .any(|line| line.contains("C=42501") && line.contains("outside")),
            "no refusal by the policy in\n{proxied}"
        );
        proxied
    }
}

fn enter(wire: &mut Wire) {
    let said = wire.login(VERSION_3_0, &PARAMETERS, TOKEN).unwrap();
    assert_eq!(
        said.0.last().map(String::as_str),
        Some("ReadyForQuery I"),
        "{said}"
    );
}
