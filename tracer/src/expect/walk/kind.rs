//! Every kind of problem that state alone can tell.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::expect::firewall::Meaning;
use crate::model::Mac;

/// A route or rule that refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// Silently.
    Blackhole,
    /// With "host unreachable".
    Unreachable,
    /// With "administratively prohibited".
    Prohibit,
}

impl RefusalKind {
    /// As `ip route` prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Blackhole => "blackhole",
            Self::Unreachable => "unreachable",
            Self::Prohibit => "prohibit",
        }
    }
}

/// Whose address a neighbour entry should resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Neighborhood {
    /// The pod's gateway, asked by the pod.
    Gateway,
    /// The far tunnel device, set by flanneld.
    Vtep,
    /// The next hop of the tunnel packet, or of the packet itself without a tunnel.
    Underlay,
    /// The pod, asked by its node.
    Pod,
}

/// What is wrong. Interface names are those of the namespace in which the problem is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    // ---- pod
    /// The pod has no interface that leads to its node.
    PodInterfaceMissing,
    /// The pod's interface is down.
    PodInterfaceDown,
    /// No interface of the pod has the address it is known by.
    PodAddressMissing {
        /// The address.
        address: IpAddr,
    },
    /// The pod has no route to the other end.
    PodRouteMissing {
        /// The other end.
        dst: IpAddr,
        /// What its gateway would be, where the node's addresses tell.
        gateway: Option<IpAddr>,
    },
    /// The pod does not answer echo requests.
    IcmpIgnored {
        /// The parameter, as `sysctl` names it.
        sysctl: String,
    },
    /// Two have the same network address.
    DuplicateAddress {
        /// The address.
        address: IpAddr,
        /// Who else has it.
        other: String,
    },
    /// Two on one bridge have the same hardware address.
    DuplicateMac {
        /// The address.
        mac: Mac,
        /// Who else has it.
        other: String,
    },
    /// Nothing listens on the port, or not on this address.
    NoListener {
        /// IP protocol number.
        proto: u8,
        /// Port.
        port: u16,
        /// Where something does listen on the port.
        elsewhere: Option<IpAddr>,
    },

    // ---- bridge
    /// The node's end of the pod's pair is down.
    VethDown,
    /// The bridge that the pod should hang on is gone.
    BridgeMissing,
    /// The bridge is down.
    BridgeDown,
    /// The node does not have the address that the pod uses as gateway.
    GatewayAddressMissing {
        /// The pod's gateway.
        gateway: IpAddr,
        /// Prefix length that the pod has for it.
        prefix: u8,
        /// What the bridge has instead.
        has: Vec<IpNet>,
    },
    /// The node does not answer ARP for the gateway address.
    GatewayIgnoresArp {
        /// The parameter, as `sysctl` names it.
        sysctl: String,
        /// Its value.
        value: String,
    },
    /// The pod's veth is not a port of the bridge.
    PortDetached {
        /// The bridge.
        bridge: String,
    },
    /// The port does not forward (spanning tree).
    PortBlocking {
        /// Its state.
        state: String,
    },
    /// Both ports are isolated, so they exchange nothing.
    PortIsolated {
        /// The other port.
        other: String,
    },
    /// A packet that has to go back through the port it came by may not.
    HairpinOff,
    /// The bridge's forwarding database sends the pod's frames to another port.
    BridgeEntryWrong {
        /// The pod's hardware address.
        mac: Mac,
        /// The port that the entry names.
        has: String,
        /// The pod's port.
        expected: String,
    },

    // ---- forwarding and routes
    /// The node does not forward.
    ForwardingOff {
        /// The parameter that says so, as `sysctl` names it.
        sysctl: String,
    },
    /// No route.
    RouteMissing {
        /// Destination.
        dst: IpAddr,
        /// The route that should be there, as `ip route add` takes it, where known.
        expected: Option<String>,
    },
    /// A route refuses.
    RouteRefuses {
        /// Destination.
        dst: IpAddr,
        /// How.
        refusal: RefusalKind,
        /// The route, as `ip route del` takes it; `None`: a rule does.
        route: Option<String>,
        /// The rule, as `ip rule del` takes it, where a rule does.
        rule: Option<String>,
    },
    /// A route leads to another device than it should.
    RouteWrongDevice {
        /// Destination.
        dst: IpAddr,
        /// Device it leads to.
        has: String,
        /// Device it should lead to.
        expected: String,
        /// The route, as `ip route del` takes it.
        route: Option<String>,
        /// The route that should be there, as `ip route replace` takes it, where known.
        replace: Option<String>,
    },
    /// A policy rule leads to another table, and that to another device.
    RuleHijack {
        /// Destination.
        dst: IpAddr,
        /// Device it leads to.
        has: String,
        /// Device it should lead to.
        expected: String,
        /// The rule, as `ip rule del` takes it.
        rule: String,
    },
    /// The next hop does not answer, or is nobody on the path.
    GatewayDead {
        /// Destination.
        dst: IpAddr,
        /// Next hop.
        gateway: IpAddr,
        /// Device.
        device: String,
        /// Next hop that should be there, where known.
        expected: Option<IpAddr>,
    },
    /// The packet is sent back to where it came from.
    RouteLoop {
        /// Destination.
        dst: IpAddr,
        /// Device by which it goes back.
        device: String,
    },
    /// The packet comes in by an interface through which its source would not be answered.
    RpFilter {
        /// Source of the packet.
        src: IpAddr,
        /// Interface it comes in by.
        iif: String,
        /// Interface through which the way back leads; `None`: none does.
        back: Option<String>,
        /// `1` strict, `2` loose.
        mode: u8,
    },
    /// The packet's source is an address of the node that gets it.
    MartianSource {
        /// Source of the packet.
        src: IpAddr,
        /// Interface that has the address.
        holder: String,
    },
    /// The packet has fewer hops left than the path takes.
    TtlExceeded {
        /// TTL as it left the pod.
        ttl: u8,
    },

    // ---- netfilter
    /// A rule or a policy drops or rejects.
    Firewall {
        /// `nft`, `iptables-nft`, `iptables-legacy`.
        backend: String,
        /// `ip`, `ip6`, `inet`, `bridge`, `netdev`, `arp`.
        family: String,
        /// Table.
        table: String,
        /// Chain that has the rule, or the base chain whose policy it is.
        chain: String,
        /// Netfilter hook, upper case.
        hook: String,
        /// The rule, as its tool prints it; `None`: the chain's policy.
        rule: Option<String>,
        /// Handle of the rule, as `nft -a` prints it.
        handle: Option<u64>,
        /// Position of the rule in its chain, from 1.
        position: Option<u32>,
        /// Says so to the sender: how (`icmp-port-unreachable`).
        reject: Option<String>,
        /// The packet is the tunnel's.
        outer: bool,
        /// To where it sends the packet instead, where it does that.
        redirect: Option<String>,
        /// What it means in Kubernetes, where that is known.
        meaning: Option<Box<Meaning>>,
        /// What lets the packet pass, best first.
        remedy: Vec<String>,
    },
    /// A service address that no rule translates.
    Untranslated {
        /// Why, as far as rules tell.
        meaning: Box<Meaning>,
    },
    /// The source is translated on the way from pod to pod.
    Masquerade {
        /// Table of the rule.
        table: String,
        /// Chain of the rule.
        chain: String,
        /// The rule, as its tool prints it.
        rule: String,
    },
    /// The node has an address of the other node.
    UnderlayAddressTaken {
        /// With prefix length, as it is there.
        address: String,
        /// The interface that has it.
        device: String,
        /// The node whose it is.
        owner: String,
    },
    /// A pod's address is not translated where packets leave for somewhere outside.
    MasqueradeMissing {
        /// The address.
        src: IpAddr,
        /// The interface by which they leave.
        device: String,
    },
    /// The connection table is full, or close to it.
    ConntrackFull {
        /// Entries.
        count: u64,
        /// Most entries.
        max: u64,
    },

    // ---- neighbours
    /// No entry where nobody would answer.
    NeighborMissing {
        /// Address without entry.
        ip: IpAddr,
        /// Device.
        device: String,
        /// Whose address.
        whose: Neighborhood,
        /// What it should be, where known.
        mac: Option<Mac>,
    },
    /// Asked in vain.
    NeighborFailed {
        /// The address.
        ip: IpAddr,
        /// Device.
        device: String,
        /// Whose address.
        whose: Neighborhood,
        /// What it should be, where known.
        mac: Option<Mac>,
    },
    /// The entry names a hardware address that the holder of the network address does not have.
    NeighborWrongMac {
        /// The address.
        ip: IpAddr,
        /// Device.
        device: String,
        /// Whose address.
        whose: Neighborhood,
        /// Hardware address of the entry.
        has: Mac,
        /// That of the holder.
        real: Mac,
    },

    // ---- vxlan
    /// The node has no VXLAN device for the flow.
    VxlanMissing,
    /// The VXLAN device is down.
    VxlanDown,
    /// The VXLAN device sends from an address that the node does not have.
    VxlanLocalAddress {
        /// The address.
        local: IpAddr,
        /// The address it should be, where known.
        expected: Option<IpAddr>,
    },
    /// The VXLAN device lost the address that flanneld gives it.
    VxlanAddressMissing {
        /// The address, where known.
        expected: Option<IpNet>,
    },
    /// No forwarding entry for the far tunnel device.
    FdbMissing {
        /// Hardware address without entry.
        mac: Mac,
        /// Tunnel address that should be there, where known.
        expected: Option<IpAddr>,
    },
    /// The forwarding entry leads elsewhere than to the far node.
    FdbWrong {
        /// Hardware address.
        mac: Mac,
        /// Where it leads.
        dst: IpAddr,
        /// Where it should lead.
        expected: Option<IpAddr>,
    },
    /// The forwarding entry leads back to this node.
    FdbSelf {
        /// Hardware address.
        mac: Mac,
        /// The node's own address.
        dst: IpAddr,
        /// Where it should lead.
        expected: Option<IpAddr>,
    },
    /// Both nodes' tunnel devices have the same hardware address.
    VtepMacDuplicate {
        /// The address.
        mac: Mac,
        /// The other node.
        other: String,
    },
    /// The two ends use different network identifiers.
    VniMismatch {
        /// That of the sending node.
        near: u32,
        /// That of the receiving node.
        far: u32,
    },
    /// The two ends use different UDP ports.
    PortMismatch {
        /// That of the sending node.
        near: u16,
        /// That of the receiving node.
        far: u16,
    },
    /// The device learns addresses from what it receives; flannel's does not.
    VxlanLearning,

    // ---- sizes
    /// What the tunnel makes of the packet does not fit the device below.
    UnderlayMtu {
        /// Bytes that the tunnel packet can have.
        needed: u32,
        /// Bytes that fit.
        mtu: u32,
        /// The device.
        device: String,
        /// MTU that the tunnel device should have.
        tunnel_mtu: u32,
    },
    /// Pods send packets that do not fit the tunnel device.
    PodMtu {
        /// The pod's.
        pod: u32,
        /// That of the device which is to carry them.
        mtu: u32,
        /// The device.
        device: String,
    },
    /// The packet asked about does not fit and must not be fragmented.
    PacketTooBig {
        /// Its bytes.
        size: u32,
        /// Bytes that fit.
        mtu: u32,
        /// The device.
        device: String,
    },

    // ---- devices
    /// A device on the way to the other node is down or without carrier.
    LinkDown {
        /// Administratively up, but without carrier.
        carrier: bool,
    },
    /// A queueing discipline that holds packets back.
    Qdisc {
        /// As `tc qdisc show` prints it.
        qdisc: String,
        /// Packets that it dropped.
        drops: u64,
    },
    /// Somebody else's program sees the packets.
    ForeignProgram {
        /// `xdp`, `tc ingress`, `tc egress`.
        hook: String,
        /// Name or id.
        program: String,
    },
    /// An IPsec policy applies to the packet.
    XfrmPolicy {
        /// As `ip xfrm policy` prints it.
        policy: String,
        /// It blocks.
        blocks: bool,
    },
}
