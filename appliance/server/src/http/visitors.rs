//! Connections that nobody vouches for: those whose handshake is not over, and those whose key is no device's yet.
//!
//! Anybody can open as many as they like and leave them idle, so nobody waits for another's to end. When there are too
//! many, one has to go: the oldest of the address that has most of them. Whoever does what they came for is done in
//! milliseconds, and loses their place only to somebody who opens hundreds within that time from the same address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// Places for visitors.
#[derive(Debug)]
pub(super) struct Visitors {
    max: usize,
    present: Mutex<Present>,
}

#[derive(Debug, Default)]
struct Present {
    /// In the order in which they came.
    visits: Vec<Visit>,
    next: u64,
}

#[derive(Debug)]
struct Visit {
    number: u64,
    from: IpAddr,
    shown_out: CancellationToken,
}

/// A place, free again on drop.
#[derive(Debug)]
pub(super) struct Place {
    visitors: Arc<Visitors>,
    number: u64,
    shown_out: CancellationToken,
}

impl Visitors {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, present: Mutex::default() })
    }

    /// Gives a place to whoever comes from there, if need be another's.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Place {
        let mut present = self.present();
        let number = present.next;
        present.next += 1;
        let shown_out = CancellationToken::new();
        present.visits.push(Visit { number, from: site(from), shown_out: shown_out.clone() });
        if present.visits.len() > self.max {
            present.show_one_out();
        }
        Place { visitors: Arc::clone(self), number, shown_out }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        // A panic while it was locked cannot leave anything wrong behind: visits are there or absent.
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Present {
    fn show_one_out(&mut self) {
        let mut each: HashMap<IpAddr, usize> = HashMap::new();
        for visit in &self.visits {
            *each.entry(visit.from).or_default() += 1;
        }
        let most = each.values().copied().max();
        let oldest = self.visits.iter().position(|visit| each.get(&visit.from).copied() == most);
        if let Some(oldest) = oldest {
            self.visits.remove(oldest).shown_out.cancel();
        }
    }
}

impl Place {
    /// Returns when somebody else needs the place.
    pub(super) async fn shown_out(&self) {
        self.shown_out.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.visitors.present().visits.retain(|visit| visit.number != self.number);
    }
}

/// What belongs to one machine: an address, or the 64 bits in front of those that a machine of IPv6 gives itself.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(places: &[Place]) -> Vec<usize> {
        let gone = places.iter().enumerate().filter(|(_, place)| place.shown_out.is_cancelled());
        gone.map(|(index, _)| index).collect()
    }

    #[test]
    fn the_oldest_of_who_has_most_goes() {
        let visitors = Visitors::new(5);
        let [crowd, one, other] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap());
        let mut places: Vec<Place> =
            [one, crowd, crowd, crowd, other].into_iter().map(|from| visitors.enter(from)).collect();
        assert_eq!(gone(&places), [0; 0]);
        // Of three from one address the first, although somebody else's is older.
        places.push(visitors.enter(other));
        assert_eq!(gone(&places), [1]);
        // Whoever comes from the crowd takes the crowd's place.
        places.push(visitors.enter(crowd));
        assert_eq!(gone(&places), [1, 2]);
        // Whoever left is not counted.
        places.truncate(5);
        places.push(visitors.enter(one));
        places.push(visitors.enter(other));
        assert_eq!(gone(&places), [1, 2]);
        drop(places);
        assert!(visitors.present().visits.is_empty());
    }

    #[test]
    fn alone_one_takes_ones_own_oldest() {
        let visitors = Visitors::new(3);
        let places: Vec<Place> = (0..10).map(|_| visitors.enter("192.0.2.1".parse().unwrap())).collect();
        assert_eq!(gone(&places), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_machine_of_ipv6_is_one_whatever_it_calls_itself() {
        let site = |text: &str| site(text.parse().unwrap());
        assert_eq!(site("2001:db8:1:2::1"), site("2001:db8:1:2:ffff::7"));
        assert_ne!(site("2001:db8:1:2::1"), site("2001:db8:1:3::1"));
        assert_eq!(site("::ffff:192.0.2.1"), site("192.0.2.1"));
        assert_ne!(site("192.0.2.1"), site("192.0.2.2"));
    }
}
