//! podtrace follows real packets from pod to pod across two Kubernetes nodes.
//!
//! Data flows one way: kernel → decode → correlate → diagnose → export. The pure modules (decode,
//! correlate, expect, diagnose) take values and return values; the same code serves live traces,
//! replays and tests.

pub mod model;
pub mod netns;
pub mod report;
