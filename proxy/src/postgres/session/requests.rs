//! Ids of a session's requests.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::{Builder, Uuid};

/// Makes UUIDs of version 7: milliseconds, what is random about the session, a count. Unlike a
/// random one of its own for each statement, that asks the system for nothing.
pub(super) struct Requests {
    random: [u8; 6],
    count: u32,
}

impl Requests {
    pub(super) fn new() -> Self {
        let [.., a, b, c, d, e, f] = Uuid::now_v7().into_bytes();
        Self {
            random: [a, b, c, d, e, f],
            count: 0,
        }
    }

    /// The id of a new request.
    pub(super) fn next(&mut self) -> Uuid {
        self.count = self.count.wrapping_add(1);
        let [a, b, c, d, e, f] = self.random;
        let [g, h, i, j] = self.count.to_be_bytes();
        let millis = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .and_then(|time| u64::try_from(time.as_millis()).ok());
        let tail = [a, b, c, d, e, f, g, h, i, j];
        Builder::from_unix_timestamp_millis(millis.unwrap_or(0), &tail).into_uuid()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_of_version_7_in_order_and_no_two_are_the_same() {
        let mut sessions: Vec<Requests> = (0..100).map(|_| Requests::new()).collect();
        let mut seen = HashSet::new();
        for session in &mut sessions {
            let ids: Vec<Uuid> = (0..100).map(|_| session.next()).collect();
            assert!(ids.is_sorted());
            assert!(ids.iter().all(|id| id.get_version_num() == 7));
            assert!(ids.into_iter().all(|id| seen.insert(id)));
        }
    }
}
