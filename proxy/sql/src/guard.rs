//! The one door to the parser: bounds on what goes in, and on how deep we follow what comes out.
//!
//! The C parser keeps its own stack on the heap (bison, at most 10,000 levels) and frees its
//! trees by memory context, so neither recurses. Everything that *walks* a tree does, and goes
//! through [`Depth::enter`] first.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pg_raw_parse::ParseResult;

use crate::error::ParseError;

/// Bounds on what is looked at.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of text.
    pub max_bytes: usize,
    /// Levels of nesting, views included.
    pub max_depth: usize,
    /// Expressions, queries and columns looked at, views included.
    pub max_nodes: usize,
    /// Statements in one text.
    pub max_statements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_bytes: 1 << 20,
            max_depth: 128,
            max_nodes: 200_000,
            max_statements: 1_000,
        }
    }
}

/// Parses `text` within the limits.
///
/// # Errors
/// When it is too long, has a NUL in it, or is not in PostgreSQL's grammar.
pub(crate) fn parse(text: &str, limits: &Limits) -> Result<ParseResult, ParseError> {
    if text.len() > limits.max_bytes {
        return Err(ParseError::TooLong {
            bytes: text.len(),
            limit: limits.max_bytes,
        });
    }
    if let Some(position) = text.bytes().position(|byte| byte == 0) {
        return Err(ParseError::Nul { position });
    }
    let tree = pg_raw_parse::parse(text).map_err(|error| ParseError::Syntax {
        position: locate(text, &error.to_string()),
    })?;
    if tree.len() > limits.max_statements {
        return Err(ParseError::TooMany {
            limit: limits.max_statements,
        });
    }
    Ok(tree)
}

/// The library does not hand out the cursor position, so it is found again through the token that
/// the message quotes, where that token is there only once. The message goes no further.
fn locate(text: &str, message: &str) -> Option<usize> {
    if message.ends_with("at end of input") {
        return Some(text.len());
    }
    let (_, token) = message.split_once("at or near \"")?;
    let token = token.strip_suffix('"')?;
    let position = text.find(token)?;
    (text.rfind(token) == Some(position)).then_some(position)
}

/// Runs `work`, and turns a panic of the parser's accessors (they insist on UTF-8) into an error.
/// The panic's message is theirs and has no text of the statement in it.
pub(crate) fn contained<T>(work: impl FnOnce() -> Result<T, ParseError>) -> Result<T, ParseError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(ParseError::Unreadable { position: None }))
}

/// Why a walk stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Too many levels.
    Deep,
    /// Too many nodes.
    Large,
}

impl Stop {
    pub(crate) fn at(self, position: usize, limits: &Limits) -> ParseError {
        match self {
            Stop::Deep => ParseError::TooDeep {
                position,
                limit: limits.max_depth,
            },
            Stop::Large => ParseError::TooLarge {
                position,
                limit: limits.max_nodes,
            },
        }
    }
}

/// How deep and how far a walk has come. Every function that calls itself through the tree holds
/// one [`Level`] while it runs.
#[derive(Debug)]
pub(crate) struct Depth {
    level: Cell<usize>,
    left: Cell<usize>,
    max: usize,
}

impl Depth {
    pub(crate) fn new(limits: &Limits) -> Self {
        Depth {
            level: Cell::new(0),
            left: Cell::new(limits.max_nodes),
            max: limits.max_depth,
        }
    }

    /// One level down, for as long as the result lives.
    pub(crate) fn enter(self: &std::rc::Rc<Self>) -> Result<Level, Stop> {
        self.spend(1)?;
        if self.level.get() >= self.max {
            return Err(Stop::Deep);
        }
        self.level.set(self.level.get() + 1);
        Ok(Level(std::rc::Rc::clone(self)))
    }

    /// Counts `nodes` more.
    pub(crate) fn spend(&self, nodes: usize) -> Result<(), Stop> {
        match self.left.get().checked_sub(nodes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => {
                // Whoever cannot stop here stops at the next step.
                self.left.set(0);
                Err(Stop::Large)
            }
        }
    }
}

/// One level of a walk; dropping it is the way up.
#[derive(Debug)]
pub(crate) struct Level(std::rc::Rc<Depth>);

impl Drop for Level {
    fn drop(&mut self) {
        self.0.level.set(self.0.level.get().saturating_sub(1));
    }
}
