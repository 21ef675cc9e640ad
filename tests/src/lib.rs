//! zixt-tests
