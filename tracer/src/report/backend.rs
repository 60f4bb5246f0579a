//! The backends of a service, a row each.

use serde::{Deserialize, Serialize};

use super::{Place, Status};

/// What became of packets to one backend of a service. Packets are counted as in
/// [`super::PacketCounts`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendReport {
    /// `B.b`, or the address when no pod is known for it.
    pub name: String,
    /// Address, with the port where packets go to one: `10.10.1.2:8080`.
    pub address: String,
    /// Node that it is on, or should be.
    pub node: String,
    /// Pod, where known.
    pub pod: Option<String>,
    /// What became of the packets that were sent to it.
    pub status: Status,
    /// Forward packets that were translated to it.
    pub sent: u64,
    /// Of those, the ones that reached it whole.
    pub delivered: u64,
    /// Reply packets from it that reached the source whole.
    pub replied: u64,
    /// Attempts of the probe that came to it; `null` without a probe, or where attempts are not told
    /// one by one.
    pub attempts: Option<u64>,
    /// Of those, the ones that were answered, refusals not counted.
    pub answered: Option<u64>,
    /// Of those, the ones that were refused.
    pub refused: Option<u64>,
    /// `area.cause`, where it fails.
    pub cause: Option<String>,
    /// Where packets to it, or answers from it, ended.
    pub r#where: Option<Place>,
}
