//! The modules that decide together.

use std::collections::HashSet;
use std::sync::Arc;

use chaperone_contract::{Context, Limits, Operation, Session, Transform, Verdict};
use sha3::{Digest as _, Sha3_256};

use crate::Digest;
use crate::column::Column;
use crate::compose::{self, Answer, OutputRule, Voice, denial};
use crate::error::SetError;
use crate::failure::{Failure, FailureCode};
use crate::input::Input;
use crate::module::{Module, Reads};

/// What the configuration says about a set as a whole.
#[derive(Clone, Debug, Default)]
pub struct SetOptions {
    /// Names of modules without which nothing is allowed.
    pub required: Vec<String>,
    /// Names of modules whose "allow" or "require approval" counts for operations whose facts are
    /// incomplete. The others are asked as well, and may still deny.
    pub incomplete_facts: Vec<String>,
}

/// One immutable set of modules. A statement sees one set from its verdict to its last row.
#[derive(Debug)]
pub struct PolicySet {
    modules: Vec<Arc<Module>>,
    options: SetOptions,
    missing: Vec<String>,
    reads: Reads,
    digest: Digest,
}

/// What holds for one operation: the modules' answers and what the host made of them.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// Allow, require approval or deny; never abstain.
    pub verdict: Verdict,
    /// The strictest limits.
    pub limits: Limits,
    /// One for each of the operation's outputs; all null unless the verdict lets it pass.
    pub outputs: Vec<OutputRule>,
    /// What each module answered, in the order of [`PolicySet::modules`]. Empty when the set
    /// refuses everything.
    pub answers: Vec<Answer>,
    /// Where the host was stricter than the modules; see [`crate::tightened`].
    pub tightened: Vec<&'static str>,
    /// Which changing inputs the modules could read. The ruling holds for every execution of the
    /// same operation in the same session under the same set in which these are equal; with
    /// [`Reads::empty`], for all of them.
    pub reads: Reads,
    /// The set that ruled.
    pub set: Digest,
}

impl Ruling {
    /// The failure of each module that failed, by index.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Failure)> {
        self.answers
            .iter()
            .enumerate()
            .filter_map(|(module, answer)| match answer {
                Answer::Failed(failure) => Some((module, failure)),
                _ => None,
            })
    }
}

impl PolicySet {
    /// Puts modules together, in the order of their names.
    ///
    /// # Errors
    /// When two modules have the same name. A required module that is missing is no error: the
    /// set stands, and refuses everything.
    pub fn new(mut modules: Vec<Arc<Module>>, options: SetOptions) -> Result<Self, SetError> {
        modules.sort_by(|a, b| a.name().cmp(b.name()));
        for pair in modules.windows(2) {
            if let [first, second] = pair
                && first.name() == second.name()
            {
                return Err(SetError::Duplicate {
                    name: first.name().to_owned(),
                    first: first.file().to_owned(),
                    second: second.file().to_owned(),
                });
            }
        }
        let present: HashSet<&str> = modules.iter().map(|module| module.name()).collect();
        let missing = options
            .required
            .iter()
            .filter(|name| !present.contains(name.as_str()))
            .cloned()
            .collect();
        let reads = modules
            .iter()
            .fold(Reads::empty(), |all, module| all | module.reads());
        let digest = digest(&modules);
        Ok(PolicySet {
            modules,
            options,
            missing,
            reads,
            digest,
        })
    }

    /// SHA3-256 over name, version, file digest and settings digest of every module.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The modules, ordered by name.
    #[must_use]
    pub fn modules(&self) -> &[Arc<Module>] {
        &self.modules
    }

    /// Required modules that are not there. The set refuses everything while there are any.
    #[must_use]
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Which changing inputs any of the modules can read.
    #[must_use]
    pub fn reads(&self) -> Reads {
        self.reads
    }

    /// Asks every module that speaks the operation's protocol and combines what they say.
    /// Takes microseconds as a rule, and the deadline for each module at most.
    #[must_use]
    pub fn decide(
        &self,
        session: &Arc<Session>,
        operation: &Arc<Operation>,
        context: &Context,
    ) -> Ruling {
        if !self.missing.is_empty() {
            return self.refuse(operation);
        }
        let input = Arc::new(Input::new(
            session,
            operation,
            context,
            self.reads.contains(Reads::PARAMETERS),
        ));
        let mut reads = Reads::empty();
        let answers: Vec<Answer> = self
            .modules
            .iter()
            .map(|module| {
                if !module.speaks(&operation.protocol) {
                    return Answer::Skipped;
                }
                reads |= module.reads();
                match module.evaluate(&input) {
                    Ok(decision) => Answer::Decided(decision),
                    Err(failure) => {
                        tracing::warn!(
                            module = module.name(),
                            code = failure.code.as_str(),
                            "a policy failed; the operation is denied: {}",
                            failure.message
                        );
                        // A time-out may not happen again: it is the host's failure, no verdict.
                        reads |= Reads::all();
                        Answer::Failed(failure)
                    }
                }
            })
            .collect();
        let voices: Vec<Voice<'_>> = self
            .modules
            .iter()
            .zip(&answers)
            .map(|(module, answer)| Voice {
                name: module.name(),
                answer,
                may_guess: self
                    .options
                    .incomplete_facts
                    .iter()
                    .any(|name| name == module.name()),
            })
            .collect();
        let verdict = compose::verdict(operation, &voices);
        let (mut outputs, tightened) = compose::outputs(operation, &voices);
        if let Verdict::Deny(_) = verdict {
            outputs = withhold_all(operation);
        }
        let limits = compose::limits(&voices);
        Ruling {
            verdict,
            limits,
            outputs,
            tightened,
            reads,
            set: self.digest,
            answers,
        }
    }

    /// Lets a module rewrite columns; `module` is [`OutputRule::module`].
    ///
    /// # Errors
    /// When the module fails, or returns something other than what it was asked for.
    pub fn rewrite(
        &self,
        module: usize,
        rows: u32,
        columns: Vec<Column>,
    ) -> Result<Vec<Column>, Failure> {
        match self.modules.get(module) {
            Some(module) => module.rewrite(rows, columns),
            None => Err(Failure::new(
                FailureCode::BadAnswer,
                "there is no such module in the set",
            )),
        }
    }

    fn refuse(&self, operation: &Operation) -> Ruling {
        Ruling {
            verdict: compose::deny(
                denial::REQUIRED_MISSING,
                format!("required policies are missing: {}", self.missing.join(", ")),
                "the operator has to put them back into the policy directory",
            ),
            limits: Limits::default(),
            outputs: withhold_all(operation),
            answers: Vec::new(),
            tightened: Vec::new(),
            reads: Reads::empty(),
            set: self.digest,
        }
    }
}

fn withhold_all(operation: &Operation) -> Vec<OutputRule> {
    let withheld = OutputRule {
        transform: Transform::Null,
        module: None,
        tightened: None,
    };
    vec![withheld; operation.outputs.len()]
}

fn digest(modules: &[Arc<Module>]) -> Digest {
    let mut hash = Sha3_256::new();
    hash.update(b"chaperone policy set 1\n");
    for module in modules {
        for part in [module.name(), module.version()] {
            // Lengths first: ("ab", "c") and ("a", "bc") are different sets.
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.update(module.digest().as_bytes());
        hash.update(module.settings_digest().as_bytes());
    }
    Digest::new(hash.finalize().into())
}
