//! Who is told of the last entries, in memory: the stream of a device that is up to date asks no index.

use crate::{Mailbox, Position};
use std::collections::VecDeque;
use zixt_types::Member;

/// Names of recipients that are kept, over all entries.
const RECIPIENTS_MAX: usize = 16_384;

/// The last entries of the ledger, without a gap.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: VecDeque<Told>,
    recipients: usize,
}

/// An entry and who is told of it.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) position: Position,
    pub(crate) recipients: Vec<Member>,
    /// What its envelope takes, as `entries.envelope_bytes` says.
    pub(crate) envelope_bytes: u64,
}

impl Recent {
    /// Adds the entry that follows the last one.
    pub(crate) fn push(&mut self, told: Told) {
        let follows = self.entries.back().is_none_or(|last| last.position.0 + 1 == told.position.0);
        if !follows {
            *self = Self::default();
        }
        self.recipients += told.recipients.len() + 1;
        self.entries.push_back(told);
        while self.recipients > RECIPIENTS_MAX && self.entries.len() > 1 {
            let first = self.entries.pop_front();
            self.recipients -= first.map_or(0, |first| first.recipients.len() + 1);
        }
    }

    /// What `member` is told after `after`, at most `limit` entries and about `bytes_max` bytes; `None` if that reaches
    /// further back.
    pub(crate) fn since(
        &self,
        member: &Member,
        after: Position,
        limit: usize,
        bytes_max: u64,
    ) -> Option<Mailbox> {
        let first = self.entries.front()?.position.0;
        let last = self.entries.back()?.position;
        let skip = usize::try_from(after.0.checked_add(1)?.checked_sub(first)?).ok()?;
        let mine = self.entries.iter().skip(skip).filter(|told| told.recipients.contains(member));
        let mut mailbox = Mailbox { positions: Vec::new(), envelope_bytes: 0, upto: last.max(after) };
        for told in mine {
            let bytes = mailbox.envelope_bytes.saturating_add(told.envelope_bytes);
            let full = mailbox.positions.len() >= limit || bytes > bytes_max;
            if full && let Some(last) = mailbox.positions.last() {
                mailbox.upto = *last;
                break;
            }
            mailbox.positions.push(told.position);
            mailbox.envelope_bytes = bytes;
        }
        Some(mailbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zixt_types::{AccountId, DeviceId};

    fn member(number: u8) -> Member {
        Member { account: AccountId([number; 16]), device: DeviceId([number; 16]) }
    }

    proptest! {
        /// Read page by page from anywhere, it is what a list of everything says.
        #[test]
        fn pages_are_complete_and_in_order(
            first in 1u64..50,
            told in prop::collection::vec(prop::collection::vec(0u8..4, 0..4), 1..40),
            who in 0u8..4,
            start in 0u64..90,
            limit in 1usize..5,
            bytes_max in 0u64..40,
        ) {
            let mut recent = Recent::default();
            let mut all = Vec::new();
            for (position, who_is_told) in (first..).zip(&told) {
                let recipients: Vec<Member> = who_is_told.iter().copied().map(member).collect();
                if recipients.contains(&member(who)) && position > start {
                    all.push(Position(position));
                }
                recent.push(Told { position: Position(position), recipients, envelope_bytes: 10 });
            }
            let end = first + told.len() as u64 - 1;
            let (mut after, mut read) = (Position(start), Vec::new());
            if start + 1 < first {
                prop_assert_eq!(recent.since(&member(who), after, limit, bytes_max), None);
                return Ok(());
            }
            while after.0 < end {
                let places = recent.since(&member(who), after, limit, bytes_max).unwrap();
                prop_assert!(places.upto > after && places.positions.len() <= limit);
                prop_assert!(places.positions.iter().all(|at| *at > after && *at <= places.upto));
                read.extend(places.positions);
                after = places.upto;
            }
            prop_assert_eq!(read, all);
        }
    }

    #[test]
    fn it_is_bounded_and_has_no_gaps() {
        let mut recent = Recent::default();
        let told = |position, recipients| Told {
            position: Position(position),
            recipients: vec![member(1); recipients],
            envelope_bytes: 0,
        };
        for position in 1..=100 {
            recent.push(told(position, 1_000));
        }
        assert!(recent.recipients <= RECIPIENTS_MAX && recent.entries.len() == 16);
        assert_eq!(recent.since(&member(1), Position(83), 9, 0), None);
        assert!(recent.since(&member(1), Position(84), 9, 0).is_some());
        recent.push(told(200, RECIPIENTS_MAX));
        assert_eq!(recent.since(&member(1), Position(100), 9, 0), None);
        assert_eq!(recent.since(&member(1), Position(199), 9, 0).unwrap().positions, [Position(200)]);
        // Whoever asks may name any position.
        assert_eq!(recent.since(&member(1), Position(u64::MAX), 9, 0), None);
    }
}
