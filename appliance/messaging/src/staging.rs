//! Where mls-rs writes: memory, from which [`crate::state`] takes what has to be stored. Nothing here lasts.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mls_rs_core::group::{EpochRecord, GroupState, GroupStateStorage};
use mls_rs_core::key_package::{KeyPackageData, KeyPackageStorage};
use zeroize::Zeroizing;

/// Past epochs whose keys are kept for messages that arrive late. Each one kept is an epoch that a thief of the state
/// can still read what was not yet received of: more would weaken forward secrecy, fewer lose messages that cross a
/// few quick commits.
pub const PAST_EPOCHS_MAX: usize = 3;

type Shared<T> = Arc<Zeroizing<T>>;

/// The staged state of one group. Clones share it, as mls-rs expects of a storage.
#[derive(Clone, Default)]
pub(crate) struct Staging(Arc<Mutex<Staged>>);

/// A copy is cheap: the bytes are shared.
#[derive(Clone, Default)]
pub(crate) struct Staged {
    /// The group without its tree.
    pub(crate) state: Shared<Vec<u8>>,
    /// Past epochs, oldest first, without gaps.
    pub(crate) epochs: VecDeque<(u64, Shared<Vec<u8>>)>,
    /// Whether `epochs` changed since [`Staging::taken`].
    pub(crate) epochs_changed: bool,
}

impl Staging {
    pub(crate) fn new(state: &[u8], epochs: impl IntoIterator<Item = (u64, Zeroizing<Vec<u8>>)>) -> Self {
        let epochs = epochs.into_iter().map(|(id, data)| (id, Arc::new(data))).collect();
        let state = Arc::new(Zeroizing::new(state.to_vec()));
        Self(Arc::new(Mutex::new(Staged { state, epochs, epochs_changed: false })))
    }

    pub(crate) fn snapshot(&self) -> Staged {
        self.lock().clone()
    }

    pub(crate) fn restore(&self, staged: Staged) {
        *self.lock() = staged;
    }

    /// The caller has sealed the epochs.
    pub(crate) fn taken(&self) {
        self.lock().epochs_changed = false;
    }

    fn lock(&self) -> MutexGuard<'_, Staged> {
        // No code panics while it holds the lock, and a half-written value would be restored by the caller.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GroupStateStorage for Staging {
    type Error = Infallible;

    fn state(&self, _: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        Ok(Some((*self.lock().state).clone()))
    }

    fn epoch(&self, _: &[u8], epoch_id: u64) -> Result<Option<Zeroizing<Vec<u8>>>, Infallible> {
        let staged = self.lock();
        Ok(staged.epochs.iter().find(|(id, _)| *id == epoch_id).map(|(_, data)| (**data).clone()))
    }

    fn write(
        &mut self,
        state: GroupState,
        inserts: Vec<EpochRecord>,
        updates: Vec<EpochRecord>,
    ) -> Result<(), Infallible> {
        let mut staged = self.lock();
        staged.epochs_changed |= !inserts.is_empty() || !updates.is_empty();
        staged.state = Arc::new(state.data);
        staged.epochs.extend(inserts.into_iter().map(|epoch| (epoch.id, Arc::new(epoch.data))));
        for update in updates {
            // An epoch that is no longer kept needs no update.
            if let Some((_, data)) = staged.epochs.iter_mut().find(|(id, _)| *id == update.id) {
                *data = Arc::new(update.data);
            }
        }
        while staged.epochs.len() > PAST_EPOCHS_MAX {
            staged.epochs.pop_front();
        }
        Ok(())
    }

    fn max_epoch_id(&self, _: &[u8]) -> Result<Option<u64>, Infallible> {
        Ok(self.lock().epochs.back().map(|(id, _)| *id))
    }
}

/// The private parts of key packages, on their way out (generation) or in (joining).
#[derive(Clone, Default)]
pub(crate) struct KeyPackages(Arc<Mutex<HashMap<Vec<u8>, KeyPackageData>>>);

impl KeyPackages {
    fn lock(&self) -> MutexGuard<'_, HashMap<Vec<u8>, KeyPackageData>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out everything.
    pub(crate) fn take(&self) -> HashMap<Vec<u8>, KeyPackageData> {
        std::mem::take(&mut *self.lock())
    }
}

impl KeyPackageStorage for KeyPackages {
    type Error = Infallible;

    fn delete(&mut self, id: &[u8]) -> Result<(), Infallible> {
        self.lock().remove(id);
        Ok(())
    }

    fn insert(&mut self, id: Vec<u8>, package: KeyPackageData) -> Result<(), Infallible> {
        self.lock().insert(id, package);
        Ok(())
    }

    fn get(&self, id: &[u8]) -> Result<Option<KeyPackageData>, Infallible> {
        Ok(self.lock().get(id).cloned())
    }
}
