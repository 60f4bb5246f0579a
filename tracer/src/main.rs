//! The `podtrace` command.

fn main() {}
