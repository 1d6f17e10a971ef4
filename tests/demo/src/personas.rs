//! Who plays in the story, and their tokens from a real issuer.

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
            let some = |text: &'static str| (!text.is_empty()).then_some(text);
            let claims = json!({
                "groups": persona.groups,
                "purpose": some(persona.purpose),
                "run": some(persona.run),
            });
            Ok((persona.name, issuer.token(persona.subject, &claims)?))
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
