//! What can go wrong at a node, as values that survive a network.

use std::io;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// An error of the operating system, or of anything else that went wrong at a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Cause {
    /// `errno`, where it was the kernel's.
    pub os: Option<i32>,
    /// In words.
    pub message: String,
}

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self { os: error.raw_os_error(), message: error.to_string() }
    }
}

impl From<Cause> for io::Error {
    fn from(cause: Cause) -> Self {
        match cause.os {
            Some(errno) => io::Error::from_raw_os_error(errno),
            None => io::Error::other(cause.message),
        }
    }
}

/// Why a node did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum NodeError {
    /// It does not answer, or does no more.
    #[error("{0}")]
    Unreachable(String),
    /// It answers, but will not: a limit, a credential, another version.
    #[error("{0}")]
    Refused(String),
    /// What it answered makes no sense.
    #[error("an answer that makes no sense: {0}")]
    Nonsense(String),
    /// A namespace that was not located before.
    #[error("network namespace {0} was never asked for")]
    Unknown(u32),
    /// A namespace does not open, or cannot be entered or read.
    #[error("cannot open network namespace {netns:?}: {cause}")]
    Netns {
        /// As it was named.
        netns: String,
        /// Why.
        cause: Cause,
    },
    /// Namespaces could not be searched for an address.
    #[error("cannot search the network namespaces for {ip}: {cause}")]
    Search {
        /// The address.
        ip: IpAddr,
        /// Why.
        cause: Cause,
    },
    /// No namespace has the address.
    #[error("no network namespace has the address {0}")]
    NoAddress(IpAddr),
    /// Several namespaces have the address.
    #[error("{ip} is an address in several network namespaces: {namespaces}")]
    Ambiguous {
        /// The address.
        ip: IpAddr,
        /// Where it is.
        namespaces: String,
    },
    /// The node behind a pod's namespace cannot be found.
    #[error("no visible namespace holds the other end of {interface} in {netns}, which has {ip}")]
    NoNode {
        /// The pod's address.
        ip: IpAddr,
        /// The pod's namespace.
        netns: String,
        /// Its interface.
        interface: String,
    },
    /// Nothing could be attached.
    #[error("{0}")]
    Capture(String),
}
