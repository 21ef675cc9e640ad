//! The suite that every store has to pass: functions over `&Store`, run on each kind of store.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a failure is a failed test, in its helpers too"
)]

mod attack;
mod crash;
mod rotation;
mod sample;
mod usual;

use std::path::PathBuf;
use zixt_storage::Store;

/// A store in a folder of its own.
struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.sqlite");
        Self { _folder: folder, path }
    }

    async fn open(&self) -> Store {
        Store::open(&self.path).await.unwrap()
    }
}

/// Runs each function of the suite as a test on SQLite.
macro_rules! on_sqlite {
    ($($module:ident :: $test:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $test() {
                let place = super::Place::new();
                let store = place.open().await;
                super::$module::$test(&store).await;
                store.close().await.unwrap();
            })*
        }
    };
}

on_sqlite!(
    usual::an_empty_store_is_a_new_ledger,
    usual::a_height_comes_back_as_it_went_in,
    usual::a_state_comes_back_as_it_was,
    usual::a_height_is_stored_once,
    usual::a_staged_height_is_nothing_until_it_is_committed,
    usual::a_mailbox_holds_what_the_ledger_says,
    usual::a_removed_member_has_a_last_entry,
    usual::proofs_find_their_nodes,
    usual::acknowledgements_only_grow,
    usual::a_key_package_is_handed_out_once,
    usual::concurrent_claims_never_share,
    usual::names_and_settings,
);

#[tokio::test]
async fn the_log_does_not_grow_without_an_end() {
    let place = Place::new();
    let store = place.open().await;
    usual::the_log_does_not_grow_without_an_end(&store, &place.path.with_extension("sqlite-wal")).await;
    store.close().await.unwrap();
}
