//! What an SQL statement does: PostgreSQL's own grammar, a catalog model, facts and lineage.
//!
//! [`analyze`] turns a text into [`Facts`], one per statement: what is touched and how, which
//! fields each output column derives from, and every way in which a field's value could show
//! without being in an output. What is not understood is a *gap* or [`Lineage::Unknown`], never
//! silently clear. [`classify`] tells what kind of statement each is, without a catalog.
//!
//! The catalog comes from the session's own connection ([`Snapshot`]) or, for tests, from DDL
//! ([`Catalog::from_ddl`]). No tokio, no wasm, no I/O.
//!
//! [`Lineage::Unknown`]: chaperone_contract::Lineage::Unknown

mod analyze;
mod builtin;
mod builtin_data;
mod calls;
mod cast;
mod catalog;
mod classify;
mod column_names;
mod command;
mod ddl;
mod dml;
mod domains;
mod error;
mod evaluated;
mod expression;
mod from;
mod guard;
mod joins;
mod json;
mod label;
mod names;
mod objects;
mod select;
mod snapshot;
mod statement;
mod system;
mod system_data;
mod table_functions;
mod tags;
mod value;
mod with;
mod write_effects;

pub use crate::analyze::{Column, Effects, Facts, Options, Trust, analyze};
pub use crate::catalog::{
    Cast, Catalog, Column as CatalogColumn, Function, OnWrite, Operator, Referenced, Relation,
    RelationKind, SessionView, TypeRef,
};
pub use crate::classify::{Classified, CopyTarget, Kind, classify};
pub use crate::ddl::DdlError;
pub use crate::error::ParseError;
pub use crate::guard::Limits;
pub use crate::label::Labelling;
pub use crate::snapshot::{Snapshot, SnapshotError};
