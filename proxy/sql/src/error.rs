//! Why a text could not be understood at all.

use thiserror::Error;

/// What a text was refused for before any fact could be told. Never quotes the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Not PostgreSQL's grammar.
    #[error("syntax error{}; check the statement against PostgreSQL's grammar", at(*position))]
    Syntax {
        /// Byte offset into the text, where it can be told.
        position: Option<usize>,
    },
    /// A NUL byte, which PostgreSQL's protocol cannot carry inside a text.
    #[error("the text has a NUL byte at byte {position}; send it without")]
    Nul {
        /// Byte offset into the text.
        position: usize,
    },
    /// More bytes than allowed.
    #[error("the text is {bytes} bytes long, more than the {limit} allowed; send it in parts")]
    TooLong {
        /// How long it is.
        bytes: usize,
        /// How long it may be.
        limit: usize,
    },
    /// Nested deeper than allowed.
    #[error(
        "the statement that starts at byte {position} is nested deeper than {limit} levels; \
         rewrite it with fewer levels of parentheses, operators or subqueries"
    )]
    TooDeep {
        /// Byte offset of the statement.
        position: usize,
        /// How deep it may be.
        limit: usize,
    },
    /// More parts than allowed.
    #[error(
        "the statement that starts at byte {position} has more than {limit} parts; send it in parts"
    )]
    TooLarge {
        /// Byte offset of the statement.
        position: usize,
        /// How many parts it may have.
        limit: usize,
    },
    /// More statements in one text than allowed.
    #[error("the text has more than {limit} statements; send them one by one")]
    TooMany {
        /// How many there may be.
        limit: usize,
    },
    /// The parser itself failed; treated as not understood.
    #[error("the text could not be read{}; it is refused", at(*position))]
    Unreadable {
        /// Byte offset of the statement, where it can be told.
        position: Option<usize>,
    },
}

fn at(position: Option<usize>) -> String {
    position.map_or_else(String::new, |at| format!(" at byte {at}"))
}

impl ParseError {
    /// Byte offset into the text that the error is about.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        match self {
            ParseError::Syntax { position } | ParseError::Unreadable { position } => *position,
            ParseError::Nul { position }
            | ParseError::TooDeep { position, .. }
            | ParseError::TooLarge { position, .. } => Some(*position),
            ParseError::TooLong { limit, .. } => Some(*limit),
            ParseError::TooMany { .. } => None,
        }
    }

    /// The SQLSTATE that PostgreSQL would use.
    #[must_use]
    pub fn sqlstate(&self) -> &'static str {
        match self {
            ParseError::Syntax { .. } => "42601",
            ParseError::Nul { .. } => "22021",
            ParseError::TooDeep { .. } => "54001",
            ParseError::TooLong { .. }
            | ParseError::TooLarge { .. }
            | ParseError::TooMany { .. } => "54000",
            ParseError::Unreadable { .. } => "0A000",
        }
    }
}
