//! Every endpoint through the router, with everything behind it but TLS and the custody daemon.

mod bad_input;
mod story;
mod trouble;
