//! zixt-storage
