//! The policy directory: which modules are in force, and how a changed one comes into force.
//!
//! The directory's `*.wasm` files are the truth, told by their digests; file system events only
//! say when to look. A file is read when its content has been the same for [`Options::settle`], so
//! slow copies, editors that write in place, renames and swapped symlinks all end in one load. The
//! whole set is swapped at once.
//!
//! Access never widens by accident:
//! - a changed file that is not a working module changes nothing: the last good one goes on;
//! - a module whose file disappears goes on until the process restarts, unless it is required:
//!   then the set refuses every statement until it is back;
//! - at start-up a broken module, a missing required one or an empty directory is an error.

mod archive;
mod directory;
mod watch;

pub use archive::Archive;
pub(crate) use archive::write_atomically;
pub use directory::{Failed, Options, PolicyEvent, Status};
pub use watch::{OpenError, Policies};

#[cfg(test)]
mod tests;
