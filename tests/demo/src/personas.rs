//! Who plays in the story, and their tokens.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;

use chaperone_test_support::Result;
use chaperone_test_support::chaperone::ChaperoneOptions;
use chaperone_test_support::error::Context as _;

/// Someone with an identity of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Persona {
    /// As the story calls them, and the suffix of `CHAPERONE_TOKEN_`.
    pub name: &'static str,
    /// `sub`.
    pub subject: &'static str,
    /// The backend role that they ask for; empty when they do not use the database.
    pub role: &'static str,
    /// Their groups.
    pub groups: &'static [&'static str],
    /// Purpose of use; empty for none.
    pub purpose: &'static str,
}

impl Persona {
    /// An AI agent that summarises care for someone else.
    pub const AGENT: Persona = Persona {
        name: "agent",
        subject: "agent-7",
        role: "agent_ro",
        groups: &["agents"],
        purpose: "quality-review",
    };
    /// A physician who treats patients.
    pub const CLINICIAN: Persona = Persona {
        name: "clinician",
        subject: "dr-cleo",
        role: "clinician",
        groups: &["clinicians"],
        purpose: "treatment",
    };
    /// The database administrator, who requests risky commands.
    pub const DBA: Persona = Persona {
        name: "dba",
        subject: "dba-gus",
        role: "dba",
        groups: &["dbas", "approvers"],
        purpose: "operations",
    };
    /// The person on call, who approves them.
    pub const APPROVER: Persona = Persona {
        name: "approver",
        subject: "oncall-fay",
        role: "",
        groups: &["approvers"],
        purpose: "",
    };
}

/// Everyone.
pub const PERSONAS: [Persona; 4] = [
    Persona::AGENT,
    Persona::CLINICIAN,
    Persona::DBA,
    Persona::APPROVER,
];

/// A token for each persona.
#[derive(Debug)]
pub struct Tokens {
    tokens: Vec<(&'static str, String)>,
}

impl Tokens {
    /// Makes a fresh token for everyone.
    ///
    /// # Errors
    /// There is no randomness to be had.
    pub fn issue() -> Result<Self> {
        let mut tokens = Vec::new();
        for persona in PERSONAS {
            tokens.push((persona.name, random_token()?));
        }
        Ok(Tokens { tokens })
    }

    /// The persona's token.
    #[must_use]
    pub fn of(&self, who: Persona) -> &str {
        let found = self.tokens.iter().find(|(name, _)| *name == who.name);
        found.map_or("", |(_, token)| token)
    }

    /// Tells the proxy whom to believe.
    #[must_use]
    pub fn configure(&self, mut options: ChaperoneOptions) -> ChaperoneOptions {
        for persona in PERSONAS {
            let token = self.of(persona);
            options = options.identity(persona.subject, token, persona.groups, persona.purpose);
        }
        options
    }
}

fn random_token() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
