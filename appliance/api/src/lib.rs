//! zixt-api
