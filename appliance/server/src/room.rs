//! Memory for the bodies of requests and answers, of all connections together. Whoever takes it and waits takes it from
//! others: so strangers, small requests and large ones each have a room of their own, and a device's share of each is
//! bounded.
//!
//! A client that reads its stream may stop and ask for something first. Lines of streams wait for that, so they have
//! another room than answers, which wait for nothing but being read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use zixt_types::Hash;

/// A body above this is large. What is below is bounded by the number of connections too.
pub(crate) const LARGE_BYTES: usize = 1024 * 1024;
/// Administrators' requests.
const ADMIN_KIB: usize = 1024;
/// A request of who has no device yet: the largest holds three keys of a device, the invitation's, and two signatures
/// (26.9 kB in base64 with ML-DSA-87).
pub(crate) const ENROL_BYTES_MAX: usize = 32 * 1024;
/// Connections whose key is no device's yet. They enrol, or go away.
pub(crate) const STRANGERS_MAX: usize = 64;
/// Strangers' requests: all that may be connected find room, so that none of them stands in another's way, or a member's.
const STRANGERS_KIB: usize = STRANGERS_MAX * ENROL_BYTES_MAX / 1024;
/// Requests to the web listener: its connections have no keys, so a network has a share.
const WEB_KIB: usize = 16 * 1024;
/// What one network may take of that: as much as 128 enrolments, for many people may be behind one address.
const WEB_KIB_EACH: usize = 4 * 1024;
/// Small requests: sixteen of the longest, thousands of messages.
const SMALL_KIB: usize = 16 * 1024;
/// What one device may take of that with all its connections: the longest, or eight messages.
const SMALL_KIB_EACH: usize = LARGE_BYTES / 1024;
/// Large requests: three of the largest.
const LARGE_KIB: usize = 72 * 1024;
/// Large answers: the key packages of the largest group, or four of the largest commits.
const ANSWERS_KIB: usize = 40 * 1024;
/// Large lines of streams: three of the largest commits, each as it is stored, as it is sent, and copied once.
const LINES_KIB: usize = 84 * 1024;

/// The rooms of a server.
#[derive(Debug)]
pub(crate) struct Rooms {
    pub(crate) admin: Room,
    pub(crate) strangers: Room,
    pub(crate) web: Room,
    pub(crate) small: Room,
    pub(crate) large: Room,
    pub(crate) answers: Room,
    pub(crate) lines: Room,
    /// A body that is parsed is in memory twice, with escapes in it three times: of the large ones, one at a time is.
    pub(crate) parsing: Semaphore,
}

impl Default for Rooms {
    fn default() -> Self {
        Self {
            admin: Room::new(ADMIN_KIB, 1),
            strangers: Room::new(STRANGERS_KIB, 1),
            web: Room::new(WEB_KIB, WEB_KIB_EACH),
            small: Room::new(SMALL_KIB, SMALL_KIB_EACH),
            large: Room::new(LARGE_KIB, 1),
            // A device that lost its connection comes back before the end of the old one is noticed.
            answers: Room::new(ANSWERS_KIB, 2),
            lines: Room::new(LINES_KIB, 2),
            parsing: Semaphore::new(1),
        }
    }
}

/// So much memory. A device has a number of turns in it, or a share of it.
#[derive(Debug)]
pub(crate) struct Room {
    kib: usize,
    free: Arc<Semaphore>,
    /// Of each device: how many bodies it may have here, or how many KiB.
    turns: Turns,
}

/// So many of something for each key.
#[derive(Debug)]
pub(crate) struct Turns {
    each: usize,
    /// Of the keys that have or await one.
    of: Mutex<HashMap<Hash, Arc<Semaphore>>>,
}

/// A part of a room, given back on drop.
#[derive(Debug)]
pub(crate) struct Held {
    free: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
    /// What is left of the device's share, if it has one.
    share: Option<Arc<Semaphore>>,
    /// What it holds of its share, or the turn that it has.
    turn: Option<OwnedSemaphorePermit>,
}

/// The room has no more, or the device's share of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl Room {
    fn new(kib: usize, each: usize) -> Self {
        Self { kib, free: Arc::new(Semaphore::new(kib)), turns: Turns::new(each) }
    }

    /// Nothing yet, to grow.
    pub(crate) fn enter(&self) -> Held {
        Held { free: Arc::clone(&self.free), permit: None, share: None, turn: None }
    }

    /// Nothing yet, to grow, in one of the device's turns.
    pub(crate) fn enter_in_turn(&self, who: Hash) -> Result<Held, Full> {
        let turn = self.turns.of(who).try_acquire_owned().map_err(|_| Full)?;
        Ok(Held { turn: Some(turn), ..self.enter() })
    }

    /// Nothing yet, to grow as far as the device's share goes.
    pub(crate) fn enter_with_share(&self, who: Hash) -> Held {
        Held { share: Some(self.turns.of(who)), ..self.enter() }
    }

    /// Waits for room, behind whoever came before, and for one of the device's turns.
    pub(crate) async fn wait(&self, who: Hash, bytes: u64) -> Option<Held> {
        let turn = self.turns.of(who).acquire_owned().await.ok()?;
        // The largest answer has to fit, whatever the figures above say.
        let kib = usize::try_from(bytes.div_ceil(1024)).unwrap_or(usize::MAX).min(self.kib);
        let permit = Arc::clone(&self.free).acquire_many_owned(u32::try_from(kib).ok()?).await.ok()?;
        Some(Held { permit: Some(permit), turn: Some(turn), ..self.enter() })
    }
}

impl Turns {
    pub(crate) fn new(each: usize) -> Self {
        Self { each, of: Mutex::default() }
    }

    /// To be acquired owned: what is held is what keeps it in mind.
    pub(crate) fn of(&self, who: Hash) -> Arc<Semaphore> {
        // A panic while it was locked cannot leave anything wrong behind: turns are there or absent.
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        of.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(of.entry(who).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}

impl Held {
    /// Takes room as bytes come, so that whoever only announces them takes none.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Full> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = bytes.div_ceil(1024).saturating_sub(held);
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| Full)?;
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_many_owned(missing).map_err(|_| Full);
        // Both or neither: the first is given back if the second is not there.
        let of_share = self.share.as_ref().map(take).transpose()?;
        let of_room = take(&self.free)?;
        add(&mut self.permit, of_room);
        if let Some(of_share) = of_share {
            add(&mut self.turn, of_share);
        }
        Ok(())
    }
}

fn add(held: &mut Option<OwnedSemaphorePermit>, more: OwnedSemaphorePermit) {
    match held {
        Some(held) => held.merge(more),
        None => *held = Some(more),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(number: u8) -> Hash {
        Hash([number; 48])
    }

    #[test]
    fn room_is_taken_as_bytes_come_and_given_back() {
        let room = Room::new(10, 1);
        let (mut one, mut two) = (room.enter(), room.enter());
        one.grow_to(1).unwrap();
        one.grow_to(6 * 1024).unwrap();
        two.grow_to(4 * 1024).unwrap();
        assert_eq!(two.grow_to(4 * 1024 + 1), Err(Full));
        // What was there before still is.
        assert_eq!(room.free.available_permits(), 0);
        drop(one);
        two.grow_to(10 * 1024).unwrap();
        drop(two);
        assert_eq!(room.free.available_permits(), 10);
    }

    #[test]
    fn a_device_takes_no_more_than_its_share() {
        let room = Room::new(10, 4);
        let (mut one, mut two) = (room.enter_with_share(device(1)), room.enter_with_share(device(1)));
        one.grow_to(1024).unwrap();
        two.grow_to(3 * 1024).unwrap();
        assert_eq!(one.grow_to(2 * 1024), Err(Full));
        // What it could not get, it did not take from others.
        assert_eq!(room.free.available_permits(), 6);
        let mut other = room.enter_with_share(device(2));
        other.grow_to(4 * 1024).unwrap();
        drop(two);
        one.grow_to(4 * 1024).unwrap();
        let mut third = room.enter_with_share(device(3));
        assert_eq!(third.grow_to(3 * 1024), Err(Full), "the room is full");
        third.grow_to(2 * 1024).unwrap();
        drop((one, other, third));
        room.enter_with_share(device(4));
        assert_eq!(room.free.available_permits(), 10);
        assert_eq!(room.turns.of.lock().unwrap().len(), 1, "nobody is remembered");
    }

    #[test]
    fn all_strangers_find_room_at_the_same_time() {
        let rooms = Rooms::default();
        let mut all: Vec<Held> = Vec::new();
        for number in 0..STRANGERS_MAX {
            let mut held = rooms.strangers.enter_in_turn(device(u8::try_from(number).unwrap())).unwrap();
            held.grow_to(ENROL_BYTES_MAX).unwrap();
            all.push(held);
        }
    }

    #[test]
    fn a_device_has_one_large_request_at_a_time() {
        let room = Room::new(10, 1);
        let held = room.enter_in_turn(device(1)).unwrap();
        assert_eq!(room.enter_in_turn(device(1)).unwrap_err(), Full);
        let other = room.enter_in_turn(device(2)).unwrap();
        drop(held);
        let held = room.enter_in_turn(device(1)).unwrap();
        drop((held, other));
        room.enter_in_turn(device(3)).unwrap();
        assert_eq!(room.turns.of.lock().unwrap().len(), 1, "nobody is remembered");
    }

    #[tokio::test]
    async fn answers_wait_for_room_and_for_the_devices_own_last_one() {
        let room = Arc::new(Room::new(10, 1));
        let first = room.wait(device(1), 4 * 1024).await.unwrap();
        let waits = |who: u8, bytes: u64| {
            let room = Arc::clone(&room);
            tokio::spawn(async move { room.wait(device(who), bytes).await.unwrap() })
        };
        // The device's own second one waits, and others do not wait for that.
        let mut second = waits(1, 1);
        tokio::task::yield_now().await;
        let other = waits(2, 6 * 1024).await.unwrap();
        assert!(!second.is_finished());
        drop(first);
        (&mut second).await.unwrap();
        // More than there is, is all that there is.
        let mut huge = waits(3, u64::MAX);
        tokio::task::yield_now().await;
        assert!(!huge.is_finished());
        drop(other);
        let huge = (&mut huge).await.unwrap();
        assert_eq!(room.free.available_permits(), 0);
        drop(huge);
        assert_eq!(room.free.available_permits(), 10);
    }
}
