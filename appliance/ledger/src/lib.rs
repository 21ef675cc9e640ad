//! zixt-ledger
