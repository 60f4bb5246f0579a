#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod iptables;
mod kube_proxy;
mod nft;
