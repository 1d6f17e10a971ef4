//! PostgreSQL's wire protocol, version 3: start-up, relay, masks, cancel.
//!
//! Data walks through in one direction: connection → identity → session → statement → facts →
//! decision → (approval) → intent record → backend → columns → masks → outcome record → client.
//! Every message sent upstream that is answered has an entry in the queue of expected replies
//! ([`queue`]), every row that leaves has a plan ([`mask`]), and every byte that leaves has waited
//! for its record ([`outbox`]).

mod budget;
mod cancel;
mod changes;
mod connection;
mod decide;
mod disclosure;
mod listener;
mod lookout;
mod mask;
mod meaning;
pub mod measure;
mod names;
mod outbox;
mod parameters;
mod portal;
mod protocol;
mod queue;
mod quiet;
mod refusal;
mod reply;
mod report;
mod run;
mod session;
mod shared;
mod sockets;
mod start_settings;
mod startup;
mod stream;
mod upstream;
mod workers;

pub(crate) use decide::{Decider, Ground, Statement, decider};
pub(crate) use mask::survives;
pub(crate) use refusal::denial_sqlstate;
pub(crate) use startup::Parameters;
pub(crate) use upstream::{Endpoint, Login, UpstreamError, connect};

pub use budget::Budgets;
pub use cancel::Cancels;
pub use connection::{Admission, Admit, NotAdmitted};
pub use listener::Listener;
pub use shared::{ActiveSet, SessionRules, Shared, TargetOptions};
