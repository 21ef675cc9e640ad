//! The client as a library: everything that a face (command line, terminal, later a web page) needs.
pub mod store;
