//! podtrace follows real packets from pod to pod across two Kubernetes nodes.
//!
//! Data flows one way: kernel → decode → correlate → diagnose → export, with [`record`] in between. The pure modules (decode,
//! correlate, expect, diagnose) take values and return values; the same code serves live traces,
//! replays and tests. Where a node is ends at [`node`].

pub mod agent;
pub mod analysis;
pub mod causes;
pub mod cli;
pub mod correlate;
pub mod decode;
pub mod diagnose;
pub mod endpoint;
pub mod expect;
pub mod export;
pub mod facts;
pub mod inventory;
pub mod kernel;
pub mod lab;
pub mod model;
pub mod netns;
pub mod node;
pub mod privacy;
pub mod probe;
pub mod record;
pub mod report;
pub mod service;
pub mod session;
pub mod tui;
