//! The subcommands, one file each.

use clap::{Parser, Subcommand};

pub mod approvals;
pub mod audit;
pub mod explain;
pub mod policy;
pub mod serve;

/// A WebAssembly-policy programmable proxy for protected health information.
///
/// Chaperone stands between whoever asks (an AI agent's runtime, a service, a person) and
/// PostgreSQL. Policies in WebAssembly decide what runs, mask what comes back and hold what is
/// risky for a person; a tamper-evident log says who got what, when and why.
#[derive(Debug, Parser)]
#[command(name = "chaperone", version, max_term_width = 100)]
pub struct Arguments {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the proxy until SIGTERM, which drains it
    Serve(serve::Source),
    /// Check the configuration, keys and policies without starting anything
    Check(serve::Source),
    /// Show what would happen to a statement, and why; runs nothing
    ///
    /// Reads the catalog from the target as the role's log-in and asks the policies as a session
    /// would. Prints the verdict, what each policy says, what leaves of each column and which policy
    /// or rule of Chaperone says so, and the facts that policies see.
    Explain(explain::ExplainArguments),
    /// See and answer statements that wait for a person
    #[command(subcommand)]
    Approvals(approvals::ApprovalsCommand),
    /// Verify, read and trace the audit log, offline
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Build and inspect policy modules
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
}
