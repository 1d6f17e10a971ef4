//! What an author implements.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Approval, Cell, Column, Decision, Manifest, Operation, Reason, Session};

/// A policy: pure, without clock, randomness, network, files or memory of earlier calls.
///
/// The proxy calls [`Policy::configure`] once per load and keeps an image of the result; every
/// decision starts from that image.
pub trait Policy: Sized + Send + Sync + 'static {
    /// The settings of `[policies.settings.<name>]`, already checked against the manifest's JSON
    /// Schema. [`NoSettings`] where there are none.
    type Settings: DeserializeOwned + Default;

    /// Its name, what it is there for and which settings it takes.
    fn manifest() -> Manifest;

    /// Makes the policy from its settings. Whatever can be prepared is best prepared here.
    ///
    /// # Errors
    ///
    /// What is wrong with the settings and how to mend it; the module is not loaded.
    fn configure(settings: Self::Settings) -> Result<Self, String>;

    /// May this session do this, within which limits, and what of the answer is shown how?
    ///
    /// # Errors
    ///
    /// `Err(reason)` denies, as `Ok(reason.into())` does; `?` works in both directions.
    fn evaluate(
        &self,
        session: &Session<'_>,
        operation: &Operation<'_>,
    ) -> Result<Decision, Reason>;

    /// The values of one output that this policy gave a `Transform::Custom(tag)`: appends the
    /// replacement for `text` to `out`. NULLs are not asked about and stay NULL; bytes that are
    /// not UTF-8 become NULL. No row may depend on another.
    ///
    /// # Errors
    ///
    /// The statement fails before any row of the batch leaves. The message must carry no data.
    fn rewrite_text(&self, tag: &str, text: &str, out: &mut String) -> Result<Cell, String> {
        let _ = (tag, text, out);
        Err("this policy has no rewriter".into())
    }

    /// A batch of rows, column by column; by default each cell through [`Policy::rewrite_text`].
    ///
    /// # Errors
    ///
    /// As for [`Policy::rewrite_text`].
    fn rewrite(&self, rows: u32, columns: Vec<Column>) -> Result<Vec<Column>, String> {
        columns
            .into_iter()
            .map(|column| {
                column.map_text(rows, |text, out| self.rewrite_text(&column.tag, text, out))
            })
            .collect()
    }
}

/// For policies without settings; any key is an error.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// A denial, for `return Err(deny(..))` or `Ok(deny(..).into())`. `code` is a short constant that is
/// recorded in clear; `message` is for the caller.
#[must_use]
pub fn deny(code: impl Into<String>, message: impl Into<String>) -> Reason {
    Reason::new(code, message)
}

/// Holds the operation until a person lets it through: `Ok(require_approval(..).into())`.
#[must_use]
pub fn require_approval(code: impl Into<String>, message: impl Into<String>) -> Approval {
    Approval::new(Reason::new(code, message))
}
