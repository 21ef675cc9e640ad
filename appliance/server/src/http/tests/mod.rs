//! Every endpoint through the router, with everything behind it but TLS and the custody daemon.

mod audit;
mod bad_input;
mod directory;
mod people;
mod rotation;
mod story;
mod trouble;
