//! Command line: arguments, commands, exit status.
