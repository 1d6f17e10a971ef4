//! What is wrong with a configuration, where, and how to mend it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::locate::{self, Step};

/// The first thing wrong with a configuration. Holds no secret: values appear only where they are
/// names, addresses or paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration file.
    pub file: PathBuf,
    /// Line and column, counted from 1; `None` when the file itself cannot be read.
    pub position: Option<(usize, usize)>,
    /// The key, such as `targets[0].tls.mode`.
    pub key: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub mend: String,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        if let Some(key) = &self.key {
            write!(f, ": {key}")?;
        }
        write!(f, ": {}", self.message)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

impl ConfigError {
    pub(super) fn file(file: &Path, error: &std::io::Error) -> Self {
        ConfigError {
            file: file.to_owned(),
            position: None,
            key: None,
            message: format!("cannot be read: {error}"),
            mend: "name a readable TOML file with --config".to_owned(),
        }
    }

    pub(super) fn toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let span = error.span().unwrap_or(0..0);
        let message = error.message().trim().replace('\n', ", ");
        // Our own values say how to mend them after a semicolon.
        let (message, mend) = match message.split_once("; ") {
            Some((message, mend)) => (message.to_owned(), mend.to_owned()),
            None => {
                let mend = mend(&message);
                (message, mend)
            }
        };
        ConfigError {
            file: file.to_owned(),
            position: Some(locate::position(text, span.start)),
            key: locate::key_at(text, &span),
            message,
            mend,
        }
    }
}

/// What to do about serde's and the parser's own messages.
fn mend(message: &str) -> String {
    if message.starts_with("unknown field") {
        "remove the key or correct its name; docs/operators.md lists all keys"
    } else if message.starts_with("missing field") {
        "add the key; docs/operators.md says what it means"
    } else if ["invalid type", "invalid value", "unknown variant"]
        .iter()
        .any(|known| message.starts_with(known))
    {
        "write a value of the kind that docs/operators.md gives for this key"
    } else if message.starts_with("duplicate") {
        "keep one of them"
    } else if message.starts_with("invalid socket address") {
        "write an IP address and a port, such as \"127.0.0.1:6432\""
    } else {
        "correct the TOML here"
    }
    .to_owned()
}

/// Something wrong with a value that is well-formed by itself.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) key: Vec<Step>,
    pub(super) message: String,
    pub(super) mend: String,
}

impl Fault {
    pub(super) fn new(key: Vec<Step>, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Fault {
            key,
            message: message.into(),
            mend: mend.into(),
        }
    }

    pub(super) fn locate(self, file: &Path, text: &str) -> ConfigError {
        let span: Range<usize> = locate::span_of(text, &self.key).unwrap_or(0..0);
        ConfigError {
            file: file.to_owned(),
            position: Some(locate::position(text, span.start)),
            key: Some(locate::show(&self.key)),
            message: self.message,
            mend: self.mend,
        }
    }
}
