//! zixt-messaging
