//! The subcommands, one file each.

pub mod approvals;
pub mod audit;
pub mod policy;
pub mod serve;
