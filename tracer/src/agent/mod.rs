//! Nodes elsewhere: the agent that serves a node ([`server`]), and the collector's side of it
//! ([`client`]).
//!
//! Enters, at the agent: a [`Node`](crate::node::Node), in production the local one. Leaves, at the
//! collector: a [`Node`](crate::node::Node) that cannot be told from it. Between them gRPC over
//! HTTP/2 and TLS with certificates on both sides ([`tls`], [`pki`]); the messages are those of
//! [`crate::node::message`].
//!
//! Whoever is at the other end is not trusted with this side's memory, time or files: everything that
//! comes in has a bound, everything that is waited for has a limit, and a peer that breaks the
//! protocol is disconnected. Asynchronous code is in this module alone; what it shows to the outside
//! blocks.

pub mod address;
pub mod capabilities;
pub mod client;
pub mod limits;
mod payload;
pub mod pki;
#[allow(missing_docs, clippy::allow_attributes_without_reason, reason = "generated")]
mod proto;
pub mod server;
pub mod tls;

use tonic::metadata::MetadataMap;

use crate::node::message;

/// Metadata with the number of the protocol.
const PROTOCOL_KEY: &str = "podtrace-protocol";
/// Metadata with the version of podtrace.
const VERSION_KEY: &str = "podtrace-version";

/// What this side speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaks {
    /// [`message::PROTOCOL`].
    pub protocol: u32,
    /// Version of podtrace.
    pub version: String,
}

impl Default for Speaks {
    fn default() -> Self {
        Self { protocol: message::PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned() }
    }
}

impl Speaks {
    /// Tells the peer.
    fn tell(&self, metadata: &mut MetadataMap) {
        metadata.insert(PROTOCOL_KEY, self.protocol.into());
        if let Ok(version) = self.version.parse() {
            metadata.insert(VERSION_KEY, version);
        }
    }

    /// What `peer` has told must be what is spoken here; else says so in one line.
    fn check(&self, peer: &str, metadata: &MetadataMap) -> Result<(), String> {
        let text = |key| metadata.get(key).and_then(|value| value.to_str().ok());
        let protocol = text(PROTOCOL_KEY).and_then(|text| text.parse::<u32>().ok());
        let Some(protocol) = protocol else {
            return Err(format!("the {peer} does not speak podtrace's protocol"));
        };
        if protocol == self.protocol {
            return Ok(());
        }
        let version = text(VERSION_KEY).map_or_else(String::new, |v| format!(" (podtrace {v})"));
        Err(format!(
            "the {peer} speaks protocol {protocol}{}, this side {} (podtrace {}): use the same \
             version of podtrace on both",
            one_line(&version),
            self.protocol,
            self.version
        ))
    }
}

/// Text of a peer, fit for a message: one line, not long, nothing that a terminal would obey.
fn one_line(text: &str) -> String {
    const MOST: usize = 300;
    let mut line: String =
        text.chars().take(MOST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(MOST).is_some() {
        line.push('…');
    }
    line
}

/// FNV-1a, 64 bits: no protection against anybody, only a name.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_of_this_description() {
        let made_of = format!("agent.proto: {:016x}", fnv1a(include_bytes!("agent.proto")));
        let code = include_str!("proto.rs");
        assert!(code.contains(&made_of), "run cargo xtask generate");
    }

    #[test]
    fn other_versions_are_told_apart() {
        let here = Speaks::default();
        let mut metadata = MetadataMap::new();
        here.tell(&mut metadata);
        assert_eq!(here.check("agent", &metadata), Ok(()));
        let other = Speaks { protocol: here.protocol + 1, version: "9.9".into() };
        let error = other.check("agent", &metadata).unwrap_err();
        assert!(
            error.contains("protocol 1 (podtrace 0.1.0), this side 2 (podtrace 9.9)"),
            "{error}"
        );
        let error = here.check("agent", &MetadataMap::new()).unwrap_err();
        assert_eq!(error, "the agent does not speak podtrace's protocol");
    }

    #[test]
    fn what_peers_say_fits_on_a_line() {
        assert_eq!(one_line("a\n\x1b[31mb"), "a  [31mb");
        assert_eq!(one_line(&"ä".repeat(1000)).chars().count(), 301);
    }
}
