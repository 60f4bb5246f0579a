//! What the privileged tests share.

#![expect(clippy::panic, reason = "a test that cannot prepare itself has failed")]
#![expect(dead_code, reason = "each test file uses its part")]

pub mod attached;
pub mod clsact;
pub mod loopback;
pub mod tmux;
pub mod trace;
pub mod traffic;

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

use tracer::lab::{Lab, LabConfig, Up};

/// Whether tests that change this machine's network state shall run: with `PODTRACE_PRIVILEGED=1`,
/// and then being root is a must. Otherwise says that the test is skipped.
pub fn privileged() -> bool {
    if std::env::var_os("PODTRACE_PRIVILEGED").is_none_or(|value| value != "1") {
        eprintln!("SKIP: needs root and PODTRACE_PRIVILEGED=1");
        return false;
    }
    assert!(nix::unistd::geteuid().is_root(), "PODTRACE_PRIVILEGED=1 needs root");
    true
}

/// Whether this kernel is of this version or later.
pub fn kernel_at_least(major: u8, minor: u8) -> bool {
    match aya::util::KernelVersion::current() {
        Ok(kernel) => kernel >= aya::util::KernelVersion::new(major, minor, 0),
        Err(error) => panic!("the kernel's version: {error}"),
    }
}

/// How a test brings a lab up: the program under test serves in it.
pub fn up(force: bool) -> Up {
    Up { force, program: Some(trace::PODTRACE.into()) }
}

/// A lab for one test, gone when the test ends, however it ends.
pub struct TestLab(Lab);

impl TestLab {
    /// Brings up a lab with a name of its own and otherwise default parameters, changed by `change`.
    pub fn up(change: impl FnOnce(&mut LabConfig)) -> Self {
        let mut config = LabConfig { name: unique_name(), ..LabConfig::default() };
        change(&mut config);
        match Lab::up_with(&config, &up(false)) {
            Ok((lab, _)) => Self(lab),
            Err(error) => panic!("{error}: {:?}", std::error::Error::source(&error)),
        }
    }
}

impl Deref for TestLab {
    type Target = Lab;

    fn deref(&self) -> &Lab {
        &self.0
    }
}

impl Drop for TestLab {
    fn drop(&mut self) {
        if let Err(error) = Lab::down(&self.0.config().name) {
            eprintln!("cannot remove a test's lab: {error}");
        }
    }
}

/// A lab name that no other test, in this process or another, has.
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // `cargo xtask test` looks for what its run has left behind.
    let run = std::env::var("PODTRACE_TEST_RUN").unwrap_or_else(|_| "test".into());
    format!("{run}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
