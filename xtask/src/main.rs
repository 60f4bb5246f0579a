//! Builds, tests and demonstrates podtrace: `cargo xtask help`.

fn main() {}
