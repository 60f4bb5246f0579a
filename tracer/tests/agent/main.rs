//! Agents and collectors: what is refused, what breaks, what is counted. All over loopback, with a
//! node that makes its events up; [`lab`] has real ones.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests fail the test")]

#[path = "../common/mod.rs"]
mod common;
mod gone;
mod hostile;
mod lab;
mod many;
mod questions;
mod synthetic;
mod trust;
