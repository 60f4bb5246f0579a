//! Wire types shared by the eBPF programs and user space; nothing else.
//!
//! Integers and explicit padding only, so that every byte is defined and ring bytes can be read with
//! `zerocopy` instead of being transmuted. All fields are in host byte order except where a comment
//! says otherwise: both sides run on the same machine.
#![no_std]

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Address pairs the kernel-side filter holds as constants for each IP version; beyond them a map
/// decides.
pub const MAX_PAIRS: usize = 8;
/// Addresses that the map of them can hold.
pub const MAX_ENDS: usize = 1 << 16;
/// On which side of the flow an address in the map of them is: bits.
pub const SIDE_SOURCE: u8 = 1;
/// As [`SIDE_SOURCE`].
pub const SIDE_DESTINATION: u8 = 2;
/// UDP destination ports the kernel side takes for VXLAN (one per differing device on the path).
pub const MAX_VXLAN_PORTS: usize = 4;
/// Namespaces in which hop programs can be told apart; see [`HopHeader::slot`].
pub const MAX_SLOTS: usize = 16;
/// Interfaces without an Ethernet header (TUN) that the filter can be told about.
pub const MAX_L3_DEVICES: usize = 4;
/// Frames of kernel stack kept with a drop.
pub const STACK_FRAMES: usize = 24;
/// Bytes of packet kept with a drop event: enough for outer IPv6 + VXLAN + inner IPv6 + TCP.
pub const DROP_SNAP: usize = 192;
/// Sizes of the packet data that follows a [`HopHeader`], in bytes; the smallest that holds what is
/// to be kept is reserved, because a ring-buffer reservation must have a constant size.
pub const SNAP_CLASSES: [usize; 5] = [64, 128, 256, 512, 2048];
/// The largest `--snaplen`, in bytes.
pub const MAX_SNAPLEN: usize = SNAP_CLASSES[SNAP_CLASSES.len() - 1];

/// [`HopHeader::kind`]: seen by the classifier at an interface.
pub const KIND_HOP: u8 = 1;
/// [`HopHeader::kind`]: freed by the kernel with a drop reason (`kfree_skb`).
pub const KIND_DROP: u8 = 2;

/// [`HopHeader::hook`]: entering the host at this interface.
pub const HOOK_INGRESS: u8 = 0;
/// [`HopHeader::hook`]: leaving the host at this interface.
pub const HOOK_EGRESS: u8 = 1;

/// Why the filter let the packet through.
pub mod matched {
    /// The frame's own addresses are the flow's.
    pub const PLAIN: u32 = 1;
    /// The addresses inside a VXLAN packet are the flow's.
    pub const ENCAPSULATED: u32 = 2;
    /// An ICMP error that quotes a packet of the flow.
    pub const QUOTED: u32 = 3;
    /// ARP or IPv6 neighbour discovery between addresses on the path.
    pub const NEIGHBOR: u32 = 4;
}

/// Index into the `LOST` per-CPU array: events that found no room in the ring buffer.
pub const LOST_HOP: u32 = 0;
/// As [`LOST_HOP`], for the drop tracepoint.
pub const LOST_DROP: u32 = 1;
/// Entries of the `LOST` array.
pub const LOST_ENTRIES: u32 = 2;

/// What the programs are told at load time, as a frozen global: the verifier sees every field as a
/// constant and removes what is not needed.
///
/// Offsets are those of the running kernel's BTF, in bytes.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, KnownLayout, Immutable))]
pub struct Config {
    /// `sk_buff.dev`
    pub skb_dev: u32,
    /// `sk_buff.head`
    pub skb_head: u32,
    /// `sk_buff.len`
    pub skb_len: u32,
    /// `sk_buff.mac_header`
    pub skb_mac: u32,
    /// `sk_buff.network_header`
    pub skb_network: u32,
    /// `sk_buff.tail`
    pub skb_tail: u32,
    /// `sk_buff.protocol`
    pub skb_protocol: u32,
    /// `sk_buff._skb_refdst`
    pub skb_dst: u32,
    /// `sk_buff.sk`
    pub skb_sk: u32,
    /// `net_device.ifindex`
    pub dev_ifindex: u32,
    /// `net_device.nd_net.net`
    pub dev_net: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `dst_entry.dev`
    pub dst_dev: u32,
    /// `sock.__sk_common.skc_net.net`
    pub sk_net: u32,
    /// `skb_drop_reason` value of NO_SOCKET: the harmless end of every ping, of which no stack is
    /// taken.
    pub reason_no_socket: u32,
    /// Bytes of each packet to keep; 0: as much as the headers take.
    pub snaplen: u32,
    /// Pairs in use in `pair4`.
    pub pairs4: u32,
    /// Pairs in use in `pair6`.
    pub pairs6: u32,
    /// Ports in use in `vxlan_port`.
    pub vxlan_ports: u32,
    /// Devices in use in `l3_device`.
    pub l3_devices: u32,
    /// IP protocol of the flow; 0: all.
    pub proto: u32,
    /// Port (either end) of the flow, network byte order; 0: all.
    pub port: u32,
    /// The port that `port` is translated to, network byte order; 0: none. Only with `port`.
    pub port_behind: u32,
    /// Not 0: instead of `pair4`, the map of addresses decides on IPv4 packets.
    pub many4: u32,
    /// Not 0: instead of `pair6`, the map of addresses decides on IPv6 packets.
    pub many6: u32,
    /// Not 0: beside `port`, the map of ports decides. Only with `port`.
    pub many_ports: u32,
    /// UDP destination ports of the VXLAN devices, network byte order.
    pub vxlan_port: [u32; MAX_VXLAN_PORTS],
    /// IPv4 addresses of the two ends, network byte order.
    pub pair4: [[u32; 2]; MAX_PAIRS],
    /// IPv6 addresses of the two ends, network byte order.
    pub pair6: [[[u32; 4]; 2]; MAX_PAIRS],
    /// `slot << 32 | ifindex` of interfaces without an Ethernet header, as two words.
    pub l3_device: [[u32; 2]; MAX_L3_DEVICES],
}

/// What every event begins with; `caplen` bytes of packet follow (for a drop, after
/// [`DropTrailer`]).
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, KnownLayout, Immutable, Debug))]
pub struct HopHeader {
    /// `bpf_ktime_get_ns`: CLOCK_MONOTONIC, ns.
    pub time_ns: u64,
    /// Kernel address of the `sk_buff`: an identity for microseconds only, it is reused.
    pub skb: u64,
    /// Interface, in the namespace that `slot` names.
    pub ifindex: u32,
    /// `skb->len` at this point, bytes (with the Ethernet header for a hop, from the network header
    /// or later for a drop).
    pub len: u32,
    /// Bytes of packet that follow.
    pub caplen: u16,
    /// Segments of a GSO super-packet; 0 or 1: not one.
    pub gso_segs: u16,
    /// Payload bytes of each GSO segment.
    pub gso_size: u16,
    /// `skb->protocol`, network byte order: the EtherType of the header at `l3_offset`.
    pub protocol: u16,
    /// `KIND_*`
    pub kind: u8,
    /// `HOOK_*`
    pub hook: u8,
    /// Which of the namespaces handed to the loader the program is attached in.
    pub slot: u8,
    /// [`matched`]
    pub matched: u8,
    /// Where in the packet data the network header stands (14 behind Ethernet, 0 without).
    pub l3_offset: u8,
    /// CPU, modulo 256.
    pub cpu: u8,
    /// Explicit padding.
    pub pad: u16,
}

/// What a drop event adds between the header and the packet data.
#[repr(C)]
#[derive(Clone, Copy)]
#[cfg_attr(feature = "user", derive(FromBytes, IntoBytes, KnownLayout, Immutable, Debug))]
pub struct DropTrailer {
    /// Address of the code that freed the packet.
    pub location: u64,
    /// `enum skb_drop_reason`, numbered as in the running kernel.
    pub reason: u32,
    /// Inode of the network namespace, from the device, else the route, else the socket; 0: none.
    pub netns: u32,
    /// Frames in `stack`; 0: none taken.
    pub frames: u32,
    /// Explicit padding.
    pub pad: u32,
    /// Return addresses, innermost first.
    pub stack: [u64; STACK_FRAMES],
}

const _: () = assert!(size_of::<HopHeader>() == 40);
const _: () = assert!(size_of::<DropTrailer>() == 24 + 8 * STACK_FRAMES);
const _: () = assert!(size_of::<Config>().is_multiple_of(4));
