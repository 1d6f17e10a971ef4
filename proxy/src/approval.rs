//! Statements that wait for a person.
//!
//! A held statement is *requested*, perhaps *seen*, then *granted*, *denied*, *expired* or
//! *cancelled*; a granted one is *released* at most once. It is bound to who asks, in which role
//! and database, to the exact statement and parameters, and to the facts: whoever sends anything
//! else gets another request. Whatever widens access is recorded through the [`EventSink`] before
//! it takes effect; what narrows it (expiry, cancellation) takes effect at once.
//!
//! Text and parameters live in memory only, until the request ends.

mod event;
mod held;
mod person;
mod registry;
mod table;
mod ticket;

pub use event::{BoxFuture, Event, EventSink, NotRecorded, State};
pub use held::{Binding, BoundTo, Held, NotShowable, Parameter, Requester, Shown};
pub use person::{Approver, Person, Strength};
pub use registry::{Approvals, Decided, Options, RefusedAnswer, RefusedRequest, Summary, View};
pub use ticket::{Grant, NotReleased, Outcome, Released, Ticket};

#[cfg(test)]
mod tests;
