//! Command line: arguments, commands, exit status.

pub mod inspect;
