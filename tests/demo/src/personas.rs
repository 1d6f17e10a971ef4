//! Who plays in the story, and their tokens from a real issuer.

use std::fs;
use std::path::Path;

use chaperone_test_support::error::Context as _;
use chaperone_test_support::{Issuer, Result};
use serde_json::json;

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
    /// The agent run.
    pub run: &'static str,
}

impl Persona {
    /// An AI agent that summarises care for someone else.
    pub const AGENT: Persona = Persona {
        name: "agent",
        subject: "agent-7",
        role: "agent_ro",
        groups: &["agents"],
        purpose: "quality-review",
        run: "run-2041",
    };
    /// A physician who treats patients.
    pub const CLINICIAN: Persona = Persona {
        name: "clinician",
        subject: "dr-cleo",
        role: "clinician",
        groups: &["clinicians"],
        purpose: "treatment",
        run: "",
    };
    /// The database administrator, who requests risky commands.
    pub const DBA: Persona = Persona {
        name: "dba",
        subject: "dba-gus",
        role: "dba",
        groups: &["dbas", "approvers"],
        purpose: "operations",
        run: "",
    };
    /// The person on call, who approves them.
    pub const APPROVER: Persona = Persona {
        name: "approver",
        subject: "oncall-fay",
        role: "",
        groups: &["approvers"],
        purpose: "",
        run: "",
    };
}

impl Persona {
    /// Of the file that stands for them with `chaperone explain --as`.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{}.json", self.name)
    }

    fn purpose(&self) -> Option<&'static str> {
        (!self.purpose.is_empty()).then_some(self.purpose)
    }

    fn run(&self) -> Option<&'static str> {
        (!self.run.is_empty()).then_some(self.run)
    }
}

/// Everyone.
pub const PERSONAS: [Persona; 4] = [
    Persona::AGENT,
    Persona::CLINICIAN,
    Persona::DBA,
    Persona::APPROVER,
];

/// The issuer and a token for each persona.
#[derive(Debug)]
pub struct Tokens {
    issuer: Issuer,
    tokens: Vec<(&'static str, String)>,
}

impl Tokens {
    /// Starts the issuer and has it sign a token for everyone.
    ///
    /// # Errors
    /// The issuer does not start.
    pub fn issue() -> Result<Self> {
        let issuer = Issuer::start()?;
        let token = |persona: &Persona| {
            let claims = json!({
                "groups": persona.groups,
                "purpose": persona.purpose(),
                "run": persona.run(),
            });
            let token = issuer.token(persona.subject, &claims)?;
            Ok((persona.name, token))
        };
        let tokens = PERSONAS.iter().map(token).collect::<Result<_>>()?;
        Ok(Tokens { issuer, tokens })
    }

    /// The persona's token.
    #[must_use]
    pub fn of(&self, who: Persona) -> &str {
        let mut tokens = self.tokens.iter();
        tokens
            .find(|(name, _)| *name == who.name)
            .map_or("", |(_, token)| token)
    }

    /// Writes a file for everyone, with what their token says, for `chaperone explain --as`.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write_personas(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).context(format!("make {}", folder.display()))?;
        for persona in PERSONAS {
            let text = json!({
                "subject": persona.subject,
                "issuer": self.issuer(),
                "groups": persona.groups,
                "purpose": persona.purpose(),
                "run": persona.run(),
            });
            let file = folder.join(persona.file_name());
            fs::write(&file, format!("{text:#}\n")).context(format!("write {}", file.display()))?;
        }
        Ok(())
    }

    /// The issuer's URL.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.issuer.url()
    }

    /// The authority of the issuer's certificate, PEM.
    #[must_use]
    pub fn issuer_ca(&self) -> &str {
        self.issuer.ca_pem()
    }

    /// What the configuration says about the issuer.
    #[must_use]
    pub fn provider_toml(&self) -> String {
        format!(
            "[[identity.providers]]\nissuer = {:?}\naudience = \"chaperone\"\nca = \"issuer-ca.pem\"\n",
            self.issuer()
        )
    }
}
