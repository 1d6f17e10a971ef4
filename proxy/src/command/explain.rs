//! `chaperone explain`: what would happen to a statement, and why. Runs nothing.
//!
//! Facts, host rules, policies and masks are those that sessions meet; only the connection is its
//! own, and only the catalog is read on it.

mod catalog;
mod persona;
mod report;

use std::sync::Arc;

use chaperone_contract::{self as contract, Context, Lineage, Operation, Transform};
use chaperone_policy_host::{Answer, OutputRule, PolicySet, Reads, Ruling};
use chaperone_sql::{Facts, ParseError, analyze};

use self::report::{Approval, Field, Object, Output, Policy, Report, Statement, Verdict};
pub use self::{catalog::CatalogError, persona::PersonaError};
use crate::{
    command::serve::Source,
    config::{Config, ConfigError, Role, Target},
    identity::Identity,
    postgres::{self, Decider, Ground, decider},
    server::{self, StartError},
};

/// What to explain.
#[derive(Debug, clap::Args)]
pub struct ExplainArguments {
    /// The statement, or several with semicolons
    pub sql: String,
    /// Who asks: the name of a static identity, or a JSON file with subject, groups, purpose, ...
    #[arg(long = "as", value_name = "PERSONA")]
    pub persona: String,
    /// The target that it is sent to; needed where the configuration has several
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// The role to connect as; the first that PERSONA may use, where it is left out
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// Where the configuration is
    #[command(flatten)]
    pub source: Source,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Why nothing can be explained.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Who asks, and for what.
    #[error(transparent)]
    Persona(#[from] PersonaError),
    /// Policies or keys.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The database.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Not SQL, or beyond a limit. The proxy refuses it in the same way.
    #[error("the proxy refuses it with SQLSTATE {}: {error}", error.sqlstate())]
    Parse {
        /// What is wrong, without a literal of it.
        #[from]
        error: ParseError,
    },
    /// The runtime does not start.
    #[error("the runtime does not start: {0}")]
    Runtime(std::io::Error),
}

/// Explains, and returns what is to be printed.
///
/// # Errors
/// [`ExplainError`] says what is missing and how to mend it.
pub fn run(arguments: &ExplainArguments) -> Result<String, ExplainError> {
    let config = Config::load(&arguments.source.config)?;
    let identity = persona::identity(&config, &arguments.persona)?;
    let target = persona::target(&config, arguments.target.as_deref())?;
    let role = persona::role(target, &identity, arguments.role.as_deref())?;
    let options = server::target_options(&config, target)?;
    let policies = server::preview_policies(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ExplainError::Runtime)?;
    let (catalog, view) = runtime.block_on(catalog::read(&options, role))?;
    let facts = analyze(
        &arguments.sql,
        &catalog,
        &view,
        &options.labelling,
        &options.options,
    )?;
    let explainer = Explainer {
        config: &config,
        set: policies.current(),
        session: Arc::new(identity.session(&target.name, &role.role, "127.0.0.1")),
        ground: Ground {
            catalog: Arc::new(catalog),
            view: Arc::new(view),
            labelling: Arc::new(options.labelling),
            generation: 0,
        },
    };
    let statements = facts.into_iter().map(|facts| explainer.statement(facts));
    let report = report(&identity, target, role, statements.collect());
    if arguments.json {
        let text = serde_json::to_string_pretty(&report).unwrap_or_default();
        return Ok(format!("{text}\n"));
    }
    Ok(report.text())
}

fn report(identity: &Identity, target: &Target, role: &Role, statements: Vec<Statement>) -> Report {
    Report {
        subject: identity.subject.clone(),
        issuer: identity.issuer.clone(),
        groups: identity.groups.clone(),
        purpose: identity.purpose.clone(),
        target: target.name.clone(),
        role: role.role.clone(),
        statements,
    }
}

struct Explainer<'c> {
    config: &'c Config,
    set: Arc<PolicySet>,
    session: Arc<contract::Session>,
    ground: Ground,
}

impl Explainer<'_> {
    fn statement(&self, facts: Facts) -> Statement {
        let parameters = facts.parameters;
        let width_known = facts.width_known;
        let statement = postgres::Statement::new(facts, self.ground.clone());
        let operation = &statement.operation;
        let mut all = described(operation);
        match decider(&statement, &self.config.session.settings) {
            Decider::Host(code) => {
                all.verdict = Verdict {
                    outcome: "allow",
                    code: Some(code.to_owned()),
                    message: Some("by Chaperone's own rules; no policy is asked".to_owned()),
                    ..Verdict::default()
                };
            }
            Decider::Refused(refusal) => {
                all.verdict = Verdict {
                    outcome: "deny",
                    sqlstate: Some(refusal.sqlstate),
                    code: Some(refusal.code),
                    message: Some(refusal.message),
                    hint: refusal.hint,
                    ..Verdict::default()
                };
            }
            Decider::Named => {
                all.verdict = Verdict {
                    outcome: "by name",
                    message: Some(
                        "what was prepared or declared under the name decides".to_owned(),
                    ),
                    hint: Some("explain that statement".to_owned()),
                    ..Verdict::default()
                };
            }
            Decider::Policies => {
                let context = Context {
                    parameters: Vec::new(),
                    received_at: persona::now(),
                    in_transaction: false,
                };
                let ruling = self.set.decide(&self.session, operation, &context);
                self.ruled(&mut all, operation, &ruling);
                if parameters > 0 && ruling.reads.contains(Reads::PARAMETERS) {
                    all.notes.push(
                        "policies can read the bind values, which are not known here; the verdict \
                         may differ with them"
                            .to_owned(),
                    );
                }
                if !width_known && operation.gaps.is_empty() {
                    all.notes.push(
                        "how many columns the answer has cannot be told; its rows are withheld"
                            .to_owned(),
                    );
                }
            }
        }
        all
    }

    fn ruled(&self, all: &mut Statement, operation: &Operation, ruling: &Ruling) {
        all.verdict = verdict(&ruling.verdict);
        all.limits = ruling.limits.clone();
        let modules = self.set.modules().iter();
        all.policies = modules
            .zip(&ruling.answers)
            .map(|(module, answer)| Policy {
                name: module.name().to_owned(),
                version: module.version().to_owned(),
                verdict: answered(answer),
                limits: match answer {
                    Answer::Decided(decision) => decision.limits.clone(),
                    Answer::Skipped | Answer::Failed(_) => contract::Limits::default(),
                },
            })
            .collect();
        let denied = matches!(ruling.verdict, contract::Verdict::Deny(_));
        let rules = ruling.outputs.iter().zip(&operation.outputs);
        for ((rule, field), output) in rules.zip(&mut all.outputs) {
            if denied {
                "nothing".clone_into(&mut output.shown);
                "the denial".clone_into(&mut output.by);
            } else {
                let clear = operation.output_labels(field).is_clear();
                (output.shown, output.by) = self.shown(rule, field, clear);
            }
        }
    }

    /// What leaves of an output, and who says so.
    fn shown(
        &self,
        rule: &OutputRule,
        field: &contract::OutputField,
        clear: bool,
    ) -> (String, String) {
        let by = match (rule.module, rule.tightened) {
            (Some(module), _) => self
                .set
                .modules()
                .get(module)
                .map_or_else(String::new, |module| module.name().to_owned()),
            (None, Some(code)) => format!("host: {code}"),
            (None, None) if clear => "host: known-to-be-clear".to_owned(),
            (None, None) => "host".to_owned(),
        };
        let keyed = self.config.masking.key.is_some();
        if rule.transform == Transform::KeyedHash && !keyed {
            return ("NULL".to_owned(), format!("{by}; host: no-keyed-hash-key"));
        }
        let typed = !field.type_name.is_empty();
        let transform = &rule.transform;
        if typed && !postgres::survives(transform, &field.lineage, &field.type_name, keyed) {
            let by = format!("{by}; host: {} does not fit", transform_text(transform));
            return ("NULL".to_owned(), by);
        }
        (transform_text(transform), by)
    }
}

/// What does not depend on who asks.
fn described(operation: &Operation) -> Statement {
    let sql = operation.sql.clone().unwrap_or_default();
    let named = |index: &u32| {
        let used = operation.uses.get(*index as usize);
        used.map_or_else(|| "unknown".to_owned(), |used| field_name(operation, used))
    };
    Statement {
        text: operation.text.clone(),
        command: operation.command.clone(),
        verdict: Verdict::default(),
        policies: Vec::new(),
        limits: contract::Limits::default(),
        outputs: operation
            .outputs
            .iter()
            .map(|output| Output {
                column: output.name.clone(),
                type_name: output.type_name.clone(),
                lineage: match output.lineage {
                    Lineage::Constant => "constant",
                    Lineage::Exact(_) => "exact",
                    Lineage::Derived(_) => "derived",
                    Lineage::Unknown => "unknown",
                },
                from: output.lineage.uses().iter().map(named).collect(),
                labels: operation.output_labels(output).to_list(),
                shown: "as it is".to_owned(),
                by: "host".to_owned(),
            })
            .collect(),
        read_only: sql.is_read_only,
        filtered: sql.is_filtered,
        row_limit: sql.row_limit,
        objects: operation
            .objects
            .iter()
            .map(|object| Object {
                name: object.path.join("."),
                kind: object.kind.clone(),
                actions: names(object.actions.iter_names()),
                labels: object.labels.to_list(),
            })
            .collect(),
        fields: operation
            .uses
            .iter()
            .map(|used| Field {
                name: field_name(operation, used),
                labels: used.labels.to_list(),
                usages: names(used.usages.iter_names()),
            })
            .collect(),
        functions: sql.functions,
        gaps: operation.gaps.clone(),
        notes: Vec::new(),
    }
}

fn field_name(operation: &Operation, used: &contract::FieldUse) -> String {
    match operation.objects.get(used.object as usize) {
        Some(object) => format!("{}.{}", object.path.join("."), used.field),
        None => used.field.clone(),
    }
}

fn names<T>(flags: impl Iterator<Item = (&'static str, T)>) -> Vec<String> {
    flags
        .map(|(name, _)| name.to_ascii_lowercase().replace('_', " "))
        .collect()
}

fn answered(answer: &Answer) -> Verdict {
    match answer {
        Answer::Skipped => Verdict {
            outcome: "not asked",
            ..Verdict::default()
        },
        Answer::Failed(failure) => Verdict {
            outcome: "failed",
            code: Some(failure.code.as_str().to_owned()),
            message: Some(match &failure.reason {
                Some(reason) => format!("{}: {}", failure.message, reason.message),
                None => failure.message.clone(),
            }),
            ..Verdict::default()
        },
        Answer::Decided(decision) => Verdict {
            // The code belongs to the refusal as a whole.
            sqlstate: None,
            ..verdict(&decision.verdict)
        },
    }
}

fn verdict(verdict: &contract::Verdict) -> Verdict {
    let because = |outcome, reason: &contract::Reason| Verdict {
        outcome,
        code: Some(reason.code.clone()),
        message: Some(reason.message.clone()),
        hint: reason.hint.clone(),
        ..Verdict::default()
    };
    match verdict {
        contract::Verdict::Abstain => Verdict {
            outcome: "abstain",
            ..Verdict::default()
        },
        contract::Verdict::Allow => Verdict {
            outcome: "allow",
            ..Verdict::default()
        },
        contract::Verdict::Deny(reason) => Verdict {
            sqlstate: Some(postgres::denial_sqlstate(&reason.code)),
            ..because("deny", reason)
        },
        contract::Verdict::RequireApproval(approval) => Verdict {
            approval: Some(Approval {
                groups: approval.groups.clone(),
                approvers: approval.approvers,
                ttl_seconds: approval.ttl_seconds,
            }),
            ..because("hold", &approval.reason)
        },
    }
}

fn transform_text(transform: &Transform) -> String {
    match transform {
        Transform::Reveal => "as it is".to_owned(),
        Transform::KeepLast(count) => format!("the last {count} characters"),
        Transform::Year => "the year".to_owned(),
        Transform::Zip3 => "the first 3 digits of the ZIP code".to_owned(),
        Transform::KeyedHash => "a keyed hash".to_owned(),
        Transform::Custom(tag) => format!("rewritten by {tag}"),
        Transform::Fixed(text) => format!("{text:?}"),
        Transform::Null => "NULL".to_owned(),
    }
}
