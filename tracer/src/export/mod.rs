//! Exports: each output format is a sink of the report.
