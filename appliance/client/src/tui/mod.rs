//! The terminal chat: a model, a pure update, a view, and [`run`], which alone touches terminal and client.

mod input;
mod model;
mod run;
#[cfg(test)]
mod testing;
mod translate;
mod update;
mod view;

pub use run::run;
pub use translate::members as roster_text;
pub use translate::named as title_text;
pub use view::clock;
