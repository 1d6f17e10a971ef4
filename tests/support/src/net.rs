//! Free loopback ports.

use std::net::{Ipv4Addr, TcpListener};

use crate::error::{Context as _, Result};

/// A loopback port that was free a moment ago. Whoever uses it must be ready to try another one.
///
/// # Errors
/// No port can be bound at all.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind a loopback port")?;
    Ok(listener.local_addr().context("read the port")?.port())
}
