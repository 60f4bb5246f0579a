//! Is this packet of the flow? Both directions; plain, inside VXLAN, quoted by an ICMP error (also
//! inside VXLAN, and of the VXLAN packet itself), and address resolution along the path.
//!
//! `quick` answers for the packets that make up nearly all traffic (IPv4 and IPv6 without options,
//! VXLAN around IPv4) on header words that are at hand; `thorough` walks the rest, layer by layer.

use core::mem::MaybeUninit;

use tracer_common::{MAX_PAIRS, MAX_VXLAN_PORTS, matched};

use crate::{
    config::config,
    maps::{is_port, on_path, opposite},
};

// EtherTypes (include/uapi/linux/if_ether.h) in network byte order, as `skb->protocol` holds them.
pub const ETH_IP: u32 = 0x0800_u16.to_be() as u32;
pub const ETH_IPV6: u32 = 0x86dd_u16.to_be() as u32;
pub const ETH_ARP: u32 = 0x0806_u16.to_be() as u32;

pub const ETH_LEN: u32 = 14;
const IP_LEN: u32 = 20;
const IPV6_LEN: u32 = 40;
const UDP_LEN: u32 = 8;
const VXLAN_LEN: u32 = 8;
const ICMP_LEN: u32 = 8;

const PROTO_ICMP: u32 = 1;
const PROTO_TCP: u32 = 6;
const PROTO_UDP: u32 = 17;
const NEXT_FRAGMENT: u32 = 44;
const PROTO_ICMPV6: u32 = 58;

/// Neighbour solicitation and advertisement (RFC 4861).
const ND_SOLICIT: u32 = 135;
const ND_ADVERT: u32 = 136;

/// Loads N words, or leaves the function with `$otherwise`. Not zeroed first: that would be a call of
/// memset, a byte-by-byte loop.
macro_rules! load {
    ($source:expr, $at:expr, $n:literal else $otherwise:expr) => {{
        let mut words = MaybeUninit::<[u32; $n]>::uninit();
        if !$source.load($at, &mut words) {
            return $otherwise;
        }
        // SAFETY: `load` has written all of it.
        unsafe { words.assume_init() }
    }};
}

/// An IPv4 header without options and 8 bytes of what follows, as words in memory order.
pub type Head4 = [u32; 7];
/// An IPv6 header and 8 bytes of what follows.
pub type Head6 = [u32; 12];

/// Answer of a look at one layer, packed into a word. (As an enum, LLVM copies the fields that the
/// other variants leave undefined, and the verifier refuses to read them.)
///
/// 0: not of the flow. Below `BELOW`: of the flow, a `matched` constant. Else: look at another layer,
/// see [`below`].
pub type Step = u64;

/// Not of the flow.
pub const MISS: Step = 0;

const BELOW: u64 = 1 << 63;

/// Look at the layer whose network header stands at `at` (bytes) and has this EtherType (network
/// byte order; 0: an Ethernet header stands there first); a hit there means `as_`.
#[inline(always)]
fn below(at: u32, protocol: u32, as_: u32) -> Step {
    BELOW | (at as u64) << 32 | (protocol as u64) << 8 | as_ as u64
}

#[inline(always)]
pub fn is_below(step: Step) -> bool {
    step & BELOW != 0
}

/// Taken apart again: offset, EtherType, meaning.
#[inline(always)]
pub fn parts(step: Step) -> (u32, u32, u32) {
    ((step >> 32) as u32 & 0xffff, (step >> 8) as u32 & 0xffff, step as u32 & 0xff)
}

/// Where packet bytes come from.
pub trait Source {
    /// Copies `4 * N` bytes from `offset` (bytes); false when the packet has not that many.
    fn load<const N: usize>(&self, offset: u32, out: &mut MaybeUninit<[u32; N]>) -> bool;
}

/// Byte `index` of a word in memory order.
#[inline(always)]
fn byte(word: u32, index: u32) -> u32 {
    (word >> (8 * index)) & 0xff
}

#[inline(always)]
fn pair4(a: u32, b: u32) -> bool {
    // Known to the verifier, which removes one way or the other.
    if config!(many4) != 0 {
        return opposite(&[a, 0, 0, 0], &[b, 0, 0, 0]);
    }
    let pairs = config!(pairs4);
    let mut i = 0;
    while i < MAX_PAIRS {
        // Known to the verifier, which removes everything behind the last pair in use.
        if i as u32 >= pairs {
            return false;
        }
        let (x, y) = (config!(pair4[i][0]), config!(pair4[i][1]));
        if (a == x && b == y) || (a == y && b == x) {
            return true;
        }
        i += 1;
    }
    false
}

#[inline(always)]
fn same6(words: &[u32], at: usize, i: usize, side: usize) -> bool {
    words[at] == config!(pair6[i][side][0])
        && words[at + 1] == config!(pair6[i][side][1])
        && words[at + 2] == config!(pair6[i][side][2])
        && words[at + 3] == config!(pair6[i][side][3])
}

#[inline(always)]
fn pair6(head: &Head6) -> bool {
    if config!(many6) != 0 {
        return opposite(
            &[head[2], head[3], head[4], head[5]],
            &[head[6], head[7], head[8], head[9]],
        );
    }
    let pairs = config!(pairs6);
    let mut i = 0;
    while i < MAX_PAIRS {
        if i as u32 >= pairs {
            return false;
        }
        // The last word differs between almost any two addresses: look there first.
        let (s, d) = (head[5], head[9]);
        let (x, y) = (config!(pair6[i][0][3]), config!(pair6[i][1][3]));
        if s == x && d == y && same6(head, 2, i, 0) && same6(head, 6, i, 1) {
            return true;
        }
        if s == y && d == x && same6(head, 2, i, 1) && same6(head, 6, i, 0) {
            return true;
        }
        i += 1;
    }
    false
}

#[inline(always)]
pub fn is_vxlan_port(port: u32) -> bool {
    let mut i = 0;
    while i < MAX_VXLAN_PORTS {
        if (i as u32) < config!(vxlan_ports) && port == config!(vxlan_port[i]) {
            return true;
        }
        i += 1;
    }
    false
}

/// Protocol and port as asked for on the command line. ICMP errors about the flow always count;
/// A packet that shows no ports (later fragment, options) counts.
#[inline(always)]
fn wanted(proto: u32, icmp_error: bool, ports: u32, ports_known: bool) -> bool {
    let proto_wanted = config!(proto);
    if proto_wanted == 0 && config!(port) == 0 || icmp_error {
        return true;
    }
    if proto_wanted != 0
        && proto != proto_wanted
        && !(proto_wanted == PROTO_ICMP && proto == PROTO_ICMPV6)
    {
        return false;
    }
    let port = config!(port);
    if port == 0 {
        return true;
    }
    if proto != PROTO_TCP && proto != PROTO_UDP {
        return false;
    }
    let (source, destination) = (ports & 0xffff, ports >> 16);
    if !ports_known || source == port || destination == port {
        return true;
    }
    if config!(many_ports) != 0 {
        return is_port(source) || is_port(destination);
    }
    let behind = config!(port_behind);
    behind != 0 && (source == behind || destination == behind)
}

/// ICMP types that quote a packet (RFC 792).
#[inline(always)]
fn is_icmp_error(kind: u32) -> bool {
    kind == 3 || kind == 4 || kind == 5 || kind == 11 || kind == 12
}

/// One IPv4 layer. `at`: its offset; `as_`: what a hit here means.
#[inline(always)]
pub fn layer4(head: &Head4, at: u32, as_: u32) -> Step {
    let version_ihl = byte(head[0], 0);
    if version_ihl & 0xf0 != 0x40 {
        return MISS;
    }
    let plain = version_ihl == 0x45;
    let proto = byte(head[2], 1);
    // Offset bits of the fragment word; network byte order in the upper half of word 1.
    let later_fragment = (head[1] >> 16) & 0xff1f != 0;
    let l4 = plain && !later_fragment;
    if pair4(head[3], head[4]) {
        let icmp_error = proto == PROTO_ICMP && l4 && is_icmp_error(byte(head[5], 0));
        return if wanted(proto, icmp_error, head[5], l4) {
            (if icmp_error { matched::QUOTED } else { as_ }) as Step
        } else {
            MISS
        };
    }
    if !l4 {
        return MISS;
    }
    if proto == PROTO_UDP {
        // A tunnel within a tunnel is no pod-to-pod path; but an ICMP error may quote a tunnel.
        if as_ != matched::ENCAPSULATED && is_vxlan_port(head[5] >> 16) {
            let as_ = if as_ == matched::QUOTED { as_ } else { matched::ENCAPSULATED };
            return below(at + IP_LEN + UDP_LEN + VXLAN_LEN, 0, as_);
        }
    } else if proto == PROTO_ICMP && as_ != matched::QUOTED && is_icmp_error(byte(head[5], 0)) {
        return below(at + IP_LEN + ICMP_LEN, ETH_IP, matched::QUOTED);
    }
    MISS
}

/// Neighbour discovery between addresses on the path.
#[inline(always)]
fn neighbor6<S: Source>(source: &S, at: u32, head: &Head6) -> bool {
    let target = load!(source, at + IPV6_LEN + 8, 4 else false);
    if !on_path(&target) {
        return false;
    }
    let src = [head[2], head[3], head[4], head[5]];
    let dst = [head[6], head[7], head[8], head[9]];
    let unspecified = src[0] | src[1] | src[2] | src[3] == 0;
    let multicast = byte(dst[0], 0) == 0xff;
    (unspecified || on_path(&src)) && (multicast || on_path(&dst))
}

/// One IPv6 layer; as [`layer4`].
#[inline(always)]
pub fn layer6(head: &Head6, at: u32, as_: u32) -> Step {
    if byte(head[0], 0) & 0xf0 != 0x60 {
        return MISS;
    }
    let mut proto = byte(head[1], 2);
    if pair6(head) {
        let fragment = proto == NEXT_FRAGMENT;
        if fragment {
            proto = byte(head[10], 0);
        }
        // ICMPv6 errors are the types below 128 (RFC 4443).
        let icmp_error = proto == PROTO_ICMPV6 && !fragment && byte(head[10], 0) < 128;
        // Neighbour discovery between the two pods themselves is not of the flow.
        if proto == PROTO_ICMPV6 && !fragment && matches!(byte(head[10], 0), 133..=137) {
            return matched::NEIGHBOR as Step;
        }
        return if wanted(proto, icmp_error, head[10], !fragment) {
            (if icmp_error { matched::QUOTED } else { as_ }) as Step
        } else {
            MISS
        };
    }
    if proto == PROTO_UDP {
        if as_ != matched::ENCAPSULATED && is_vxlan_port(head[10] >> 16) {
            let as_ = if as_ == matched::QUOTED { as_ } else { matched::ENCAPSULATED };
            return below(at + IPV6_LEN + UDP_LEN + VXLAN_LEN, 0, as_);
        }
    } else if proto == PROTO_ICMPV6 {
        let kind = byte(head[10], 0);
        if kind < 128 && as_ != matched::QUOTED {
            return below(at + IPV6_LEN + ICMP_LEN, ETH_IPV6, matched::QUOTED);
        }
        if kind == ND_SOLICIT || kind == ND_ADVERT {
            // The caller that can read further decides.
            return below(at, ETH_IPV6, matched::NEIGHBOR);
        }
    }
    MISS
}

/// ARP between addresses on the path (RFC 826; Ethernet and IPv4 only).
#[inline(always)]
fn arp<S: Source>(source: &S, at: u32) -> bool {
    let words = load!(source, at, 7 else false);
    let sender = (words[3] >> 16) | (words[4] << 16);
    let target = words[6];
    on_path(&[target, 0, 0, 0]) && (sender == 0 || on_path(&[sender, 0, 0, 0]))
}

/// Any packet, layer by layer. `at`: offset of the network header; `protocol`: its EtherType in
/// network byte order; `as_`: what a hit at this layer means. Returns a `matched` constant or 0.
#[inline(always)]
pub fn thorough<S: Source>(source: &S, mut at: u32, mut protocol: u32, mut as_: u32) -> u32 {
    // The deepest: frame, tunnel, ICMP error, quoted packet; or frame, ICMP error, quoted tunnel,
    // packet in it.
    let mut depth = 0;
    while depth < 4 {
        depth += 1;
        if protocol == 0 {
            // At an Ethernet header inside a tunnel.
            let word = load!(source, at + 12, 1 else 0);
            protocol = word[0] & 0xffff;
            at += ETH_LEN;
        }
        let step = if protocol == ETH_IP {
            let head: Head4 = load!(source, at, 7 else 0);
            layer4(&head, at, as_)
        } else if protocol == ETH_IPV6 {
            let head: Head6 = load!(source, at, 12 else 0);
            if as_ == matched::NEIGHBOR {
                return if neighbor6(source, at, &head) { matched::NEIGHBOR } else { 0 };
            }
            layer6(&head, at, as_)
        } else if protocol == ETH_ARP {
            return if arp(source, at) { matched::NEIGHBOR } else { 0 };
        } else {
            return 0;
        };
        if !is_below(step) {
            return step as u32;
        }
        (at, protocol, as_) = parts(step);
    }
    0
}
