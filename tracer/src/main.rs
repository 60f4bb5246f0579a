//! The `podtrace` command; everything is in the library.

fn main() -> std::process::ExitCode {
    tracer::cli::main()
}
