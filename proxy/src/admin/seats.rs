//! How many callers there are at once, and who has to go when there are too many.
//!
//! A new caller is let in as long as anybody does nothing: of the address with most connections,
//! the one that has done nothing for longest goes. So a flood drives out itself, and whoever asks
//! something is answered.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// All seats.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Counts up with whatever happens.
    now: u64,
    taken: HashMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    peer: IpAddr,
    /// Since when nothing is done for this one; `None` while it waits for an answer.
    idle_since: Option<u64>,
    leave: Arc<Notify>,
}

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            table: Arc::default(),
        }
    }

    /// A seat, somebody else's if need be; `None` when everybody waits for an answer.
    pub(super) fn take(&self, peer: IpAddr) -> Option<Seat> {
        let mut table = lock(&self.table);
        if table.taken.len() >= self.most {
            let idle = table.most_dispensable()?;
            let gone = table.taken.remove(&idle)?;
            gone.leave.notify_one();
        }
        table.now += 1;
        let (id, leave) = (table.now, Arc::new(Notify::new()));
        let taken = Taken {
            peer,
            idle_since: Some(id),
            leave: Arc::clone(&leave),
        };
        table.taken.insert(id, taken);
        drop(table);
        Some(Seat {
            id,
            leave,
            table: Arc::clone(&self.table),
        })
    }
}

impl Table {
    fn most_dispensable(&self) -> Option<u64> {
        let mut of_peer: HashMap<IpAddr, usize> = HashMap::new();
        for taken in self.taken.values() {
            *of_peer.entry(taken.peer).or_default() += 1;
        }
        let rank = |taken: &Taken| of_peer.get(&taken.peer).copied().unwrap_or_default();
        let idle = self.taken.iter().filter_map(|(&id, taken)| {
            let since = taken.idle_since?;
            Some((rank(taken), std::cmp::Reverse(since), id))
        });
        idle.max().map(|(_, _, id)| id)
    }

    fn set_idle(&mut self, id: u64, idle: bool) {
        self.now += 1;
        let now = self.now;
        if let Some(taken) = self.taken.get_mut(&id) {
            taken.idle_since = idle.then_some(now);
        }
    }
}

/// One connection's place. Free when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    id: u64,
    leave: Arc<Notify>,
    table: Arc<Mutex<Table>>,
}

impl Seat {
    /// Resolves when somebody else needs it.
    pub(super) async fn wanted(&self) {
        self.leave.notified().await;
    }

    /// Nobody else gets it until the guard is dropped.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        lock(&self.table).set_idle(self.id, false);
        Busy(Arc::clone(self))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.table).taken.remove(&self.id);
    }
}

/// A request is being answered.
#[derive(Debug)]
pub(super) struct Busy(Arc<Seat>);

impl Drop for Busy {
    fn drop(&mut self) {
        lock(&self.0.table).set_idle(self.0.id, true);
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn peer(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn told_to_go(seat: &Seat) -> bool {
        !lock(&seat.table).taken.contains_key(&seat.id)
    }

    #[tokio::test]
    async fn the_one_that_does_nothing_for_longest_goes() {
        let seats = Seats::new(3);
        let [a, b, c] = [1, 2, 3].map(|_| Arc::new(seats.take(peer(1)).unwrap()));
        drop(a.busy());
        let d = seats.take(peer(1)).unwrap();
        b.wanted().await;
        assert!(told_to_go(&b) && !told_to_go(&a) && !told_to_go(&c) && !told_to_go(&d));
        let working = (a.busy(), c.busy());
        let e = seats.take(peer(1)).unwrap();
        assert!(told_to_go(&d));
        drop(e);
        let f = Arc::new(seats.take(peer(1)).unwrap());
        let busy = f.busy();
        assert!(seats.take(peer(1)).is_none(), "everybody is being answered");
        drop((busy, working));
        assert!(seats.take(peer(1)).is_some());
    }

    #[test]
    fn a_flood_drives_out_itself() {
        let seats = Seats::new(8);
        let guest = seats.take(peer(1)).unwrap();
        let flood: Vec<Seat> = (0..100).filter_map(|_| seats.take(peer(2))).collect();
        assert_eq!(flood.len(), 100);
        assert!(!told_to_go(&guest));
        assert_eq!(flood.iter().filter(|seat| !told_to_go(seat)).count(), 7);
        drop(flood);
        assert_eq!(lock(&seats.table).taken.len(), 1);
    }
}
