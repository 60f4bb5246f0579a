//! Drop events that a healthy network emits, and the drops that a receiver means.
//!
//! The kernel frees much with a "drop reason" that nobody misses: clones, acknowledgements that
//! have done their work, queues of a socket that closes. Measured on 6.18; each entry says why.

use crate::model::{Body, DropInfo, L4, Packet, tcp_flags};

/// A drop that takes nothing from anybody.
struct Harmless {
    /// Reason, without prefix; `*` at the end matches any rest, alone anything.
    reason: &'static str,
    /// Function that freed the packet, matched likewise.
    function: &'static str,
    /// Why it is harmless.
    why: &'static str,
}

const HARMLESS: &[Harmless] = &[
    Harmless {
        reason: "NO_SOCKET",
        function: "ping_rcv",
        why: "the kernel looks for a datagram ICMP socket for every echo reply; ping uses a raw one",
    },
    Harmless {
        reason: "NO_SOCKET",
        function: "icmp*",
        why: "ICMP messages need no socket: the kernel answers them itself",
    },
    Harmless {
        reason: "*",
        function: "raw*",
        why: "raw sockets get clones, and filter out what they did not ask for",
    },
    Harmless { reason: "*", function: "packet_rcv*", why: "packet sockets (captures) get clones" },
    Harmless { reason: "*", function: "tpacket_rcv*", why: "packet sockets (captures) get clones" },
    Harmless {
        reason: "NOT_SPECIFIED",
        function: "tcp_rcv_state_process",
        why: "the acknowledgement that ends a handshake or a connection carries nothing further",
    },
    Harmless {
        reason: "NOT_SPECIFIED",
        function: "tcp_rcv_established",
        why: "an acknowledgement has done its work",
    },
    Harmless {
        reason: "QUEUE_PURGE",
        function: "*",
        why: "a queue is emptied because its socket or device goes away",
    },
    Harmless { reason: "*", function: "inet_sock_destruct", why: "a socket is closed" },
    Harmless { reason: "*", function: "inet6_sock_destruct", why: "a socket is closed" },
    Harmless { reason: "*", function: "skb_queue_purge_reason", why: "a queue is emptied" },
    Harmless { reason: "*", function: "__skb_queue_purge*", why: "a queue is emptied" },
    Harmless { reason: "*", function: "sk_stream_kill_queues", why: "a socket is closed" },
    Harmless { reason: "*", function: "tcp_write_queue_purge", why: "a socket is closed" },
    Harmless { reason: "*", function: "skb_rbtree_purge", why: "a socket is closed" },
    Harmless { reason: "CONSUMED", function: "*", why: "it was used up, not dropped" },
    Harmless { reason: "NOT_DROPPED_YET", function: "*", why: "it was used up, not dropped" },
    Harmless { reason: "SKB_CONSUMED", function: "*", why: "it was used up, not dropped" },
    Harmless { reason: "TCP_OLD_DATA", function: "*", why: "the receiver has these bytes already" },
    Harmless { reason: "TCP_OLD_SEQUENCE", function: "*", why: "the receiver is past it" },
    Harmless { reason: "TCP_OLD_ACK", function: "*", why: "acknowledged already" },
    Harmless { reason: "TCP_TOO_OLD_ACK", function: "*", why: "acknowledged long ago" },
    Harmless { reason: "TCP_ACK_UNSENT_DATA", function: "*", why: "answered with a new one" },
    Harmless {
        reason: "TCP_OFOMERGE",
        function: "*",
        why: "held already in the out-of-order queue",
    },
    Harmless { reason: "TCP_RFC7323_PAWS_ACK", function: "*", why: "an old acknowledgement" },
    Harmless { reason: "TCP_RESET", function: "*", why: "a reset has done its work" },
    Harmless { reason: "TCP_CLOSE", function: "*", why: "the connection is closed" },
    Harmless { reason: "TCP_FASTOPEN", function: "*", why: "the connection took its data over" },
    Harmless {
        reason: "*",
        function: "skb_release_data",
        why: "the pieces of a reassembled packet are freed with it, whatever became of it",
    },
    Harmless { reason: "DUP_FRAG", function: "*", why: "reassembly holds this fragment already" },
];

/// ICMP redirect (RFC 792) and ICMPv6 redirect (RFC 4861).
const REDIRECT: [u8; 2] = [5, 137];

/// Where hosts let go of neighbour discovery that they have dealt with, or that asks for somebody else.
const RESOLUTION: [&str; 3] = ["icmpv6_rcv", "ip6_mc_input", "ndisc_*"];

/// Why a drop event takes nothing from anybody; `None` when it may.
pub fn harmless(info: &DropInfo, packet: &Packet) -> Option<&'static str> {
    let dealt_with = RESOLUTION.iter().any(|function| matches(function, &info.function));
    if dealt_with && matches!(packet.body, Body::Neighbor(_)) {
        return Some("a question is dealt with, or was for somebody else");
    }
    if let Body::Ip(ip) = &packet.body {
        match ip.l4 {
            L4::IcmpError { kind, .. } if REDIRECT.contains(&kind) => {
                return Some("redirects are advice; netfilter discards them where it translates");
            }
            // A reset for a connection that is gone already: nothing was waiting for it.
            L4::Tcp { flags, .. } if flags & tcp_flags::RST != 0 && info.reason == "NO_SOCKET" => {
                return Some("a reset for a connection that no longer exists");
            }
            _ => {}
        }
    }
    HARMLESS
        .iter()
        .find(|h| matches(h.reason, &info.reason) && matches(h.function, &info.function))
        .map(|h| h.why)
}

/// Reasons with which the receiving host refuses a packet that did reach its interface.
const REFUSAL: &[&str] = &[
    "NO_SOCKET",
    "SOCKET_RCVBUFF",
    "SOCKET_BACKLOG",
    "SOCKET_FILTER",
    "PROTO_MEM",
    "*_CSUM",
    "TCP_MINTTL",
    "TCP_LISTEN_OVERFLOW",
    "TCP_MD5*",
    "TCP_AO*",
    "XFRM_POLICY",
    "NETFILTER_DROP",
    "OTHERHOST",
    "IP_*",
    "IPV6*",
    "PKT_TOO_SMALL",
    "UNHANDLED_PROTO",
    "NOMEM",
    "BPF_CGROUP_EGRESS",
    "XDP",
    "TC_INGRESS",
    "FRAG_REASM_TIMEOUT",
    "FRAG_TOO_FAR",
    "CPU_BACKLOG",
];

/// Whether a drop inside the receiver's namespace, after the packet had arrived there, means that
/// it was not accepted. Anything else is bookkeeping of the receiving socket.
pub(super) fn is_refusal(reason: &str) -> bool {
    REFUSAL.iter().any(|pattern| matches(pattern, reason))
}

/// Matches a name against a pattern with at most one `*`, at its beginning or its end.
fn matches(pattern: &str, name: &str) -> bool {
    if let Some(start) = pattern.strip_suffix('*') {
        name.starts_with(start)
    } else if let Some(end) = pattern.strip_prefix('*') {
        name.ends_with(end)
    } else {
        pattern == name
    }
}
