//! One error for everything that can go wrong around a test.

/// What went wrong and where.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Something that the tests need is not installed.
    #[error("{what} not found; {mend}")]
    Missing {
        /// What is missing.
        what: String,
        /// How to get it.
        mend: String,
    },
    /// A program that was started ended badly.
    #[error("{program} failed ({status}):\n{output}")]
    Program {
        /// Its name.
        program: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// Something did not happen in time.
    #[error("gave up after {seconds} s waiting for {what}\n{output}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// For how long.
        seconds: u64,
        /// What is known about the delay.
        output: String,
    },
    /// Whoever started this wants it to end.
    #[error("interrupted by signal {signal}")]
    Interrupted {
        /// Its number.
        signal: u8,
    },
    /// A certificate or key could not be made.
    #[error("certificate: {0}")]
    Certificate(String),
}

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an I/O error what was being done.
pub trait Context<T> {
    /// Names the attempt.
    ///
    /// # Errors
    /// The original error, with `what`.
    fn context(self, what: impl Into<String>) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what.into(),
            source,
        })
    }
}
