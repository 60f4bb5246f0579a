//! What can go wrong with a lab.

use std::io;

/// Result of lab operations.
pub type Result<T> = std::result::Result<T, LabError>;

/// What can go wrong with a lab: each one line that says what to do. The cause, where there is
/// one, is the error's source.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Not root.
    #[error("the lab needs root: run it with sudo")]
    NotRoot,
    /// A parameter that no lab can be built from.
    #[error("{0}")]
    Config(String),
    /// A lab of this name runs with other parameters.
    #[error(
        "lab {name:?} is up with other parameters ({differences}): take it down first (podtrace lab down{flag}), or replace it with --force"
    )]
    Differs {
        /// The lab's name.
        name: String,
        /// `--name …` with a leading space, empty for the default lab.
        flag: String,
        /// Which parameters differ.
        differences: String,
    },
    /// There is no such lab, or it is not complete.
    #[error("lab {name:?} is not up: podtrace lab up{flag}")]
    NotUp {
        /// The lab's name.
        name: String,
        /// `--name …` with a leading space, empty for the default lab.
        flag: String,
    },
    /// No such namespace in the lab.
    #[error("{target:?} is nothing in the lab: use one of {known}")]
    Target {
        /// As given.
        target: String,
        /// What there is.
        known: String,
    },
    /// Another process holds the lab.
    #[error("lab {name:?} is being changed by another podtrace: try again when it has finished")]
    Busy {
        /// The lab's name.
        name: String,
    },
    /// Something that the lab needs is not installed.
    #[error("{program} is not installed: apt-get install {package}, or {otherwise}")]
    Missing {
        /// Program that was looked for.
        program: String,
        /// Debian package that has it.
        package: String,
        /// What to do without.
        otherwise: String,
    },
    /// A program reported a failure.
    #[error("{program} in {netns} failed: {message}")]
    Program {
        /// Which.
        program: String,
        /// Namespace it ran in.
        netns: String,
        /// What it wrote to its standard error, on one line.
        message: String,
    },
    /// The lab was built but is not as it should be.
    #[error("lab {name:?} does not come up: {defects}")]
    Unhealthy {
        /// The lab's name.
        name: String,
        /// What is wrong.
        defects: String,
    },
    /// A fault that this lab or this machine cannot have.
    #[error("{fault} cannot be made here: {reason}")]
    Unavailable {
        /// The fault's name.
        fault: String,
        /// Why not.
        reason: String,
    },
    /// The lab is not as it was built, and nothing says how it came to be so.
    #[error("lab {name:?} is damaged ({defects}): podtrace lab mend{flag}")]
    Damaged {
        /// The lab's name.
        name: String,
        /// `--name …` with a leading space, empty for the default lab.
        flag: String,
        /// What is wrong.
        defects: String,
    },
    /// A system call or netlink request failed.
    #[error("cannot {action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// Attaches what was tried to a failure.
pub(super) trait Context<T> {
    /// `action` completes the sentence "cannot …".
    fn context<S: Into<String>>(self, action: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Cause>> Context<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, action: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| LabError::Io { action: action().into(), source: error.into().0 })
    }
}

/// What is behind an [`LabError::Io`]: netlink errors become the errno that they carry.
pub(super) struct Cause(io::Error);

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<nix::Error> for Cause {
    fn from(error: nix::Error) -> Self {
        Self(error.into())
    }
}

impl From<rtnetlink::Error> for Cause {
    fn from(error: rtnetlink::Error) -> Self {
        Self(match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other),
        })
    }
}
