//! zixt-types
