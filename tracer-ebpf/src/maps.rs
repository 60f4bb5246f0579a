//! Maps shared by all programs.

use aya_ebpf::{
    bindings::BPF_F_RDONLY_PROG,
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use tracer_common::{LOST_ENTRIES, SIDE_DESTINATION, SIDE_SOURCE};

/// Events for user space. The loader sets the size.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 25, 0);

/// Events that found no room, per program and CPU; indices are `tracer_common::LOST_*`.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(LOST_ENTRIES, 0);

/// Addresses whose resolution (ARP, neighbour discovery) is of interest: IPv6 as they are, IPv4 in
/// the first word with the rest zero; network byte order.
#[map]
static ADDRESSES: HashMap<[u32; 4], u8> = HashMap::with_max_entries(256, 0);

/// Addresses of the flow, where they are too many to be constants, with the sides that each may be on
/// (`SIDE_*`); keys as in [`ADDRESSES`]. The loader sets the size.
#[map]
static ENDS: HashMap<[u32; 4], u8> = HashMap::with_max_entries(1, BPF_F_RDONLY_PROG);

/// Ports of the flow (network byte order), where they are too many to be constants. The loader sets the
/// size.
#[map]
static PORTS: HashMap<u32, u8> = HashMap::with_max_entries(1, BPF_F_RDONLY_PROG);

/// `BPF_RB_NO_WAKEUP`: the reader polls on a timer. A wake-up per event costs more than all else
/// that the programs do.
pub const NO_WAKEUP: u64 = 1;

/// Counts an event that found no room.
#[inline(always)]
pub fn count_lost(index: u32) {
    if let Some(counter) = LOST.get_ptr_mut(index) {
        // SAFETY: a per-CPU entry, and programs do not migrate while they run.
        unsafe { *counter += 1 }
    }
}

/// Whether an address is one on the path.
#[inline(always)]
pub fn on_path(address: &[u32; 4]) -> bool {
    ADDRESSES.get_ptr(address).is_some()
}

/// The sides of the flow that an address may be on; 0: it is none of the flow's.
#[inline(always)]
fn sides(address: &[u32; 4]) -> u8 {
    match ENDS.get_ptr(address) {
        // SAFETY: a value of the map, which nobody removes while the programs run.
        Some(sides) => unsafe { *sides },
        None => 0,
    }
}

/// Whether the two addresses are on opposite sides of the flow. A packet of another flow costs one
/// look-up, as a rule.
#[inline(always)]
pub fn opposite(a: &[u32; 4], b: &[u32; 4]) -> bool {
    let a = sides(a);
    if a == 0 {
        return false;
    }
    let b = sides(b);
    a & SIDE_SOURCE != 0 && b & SIDE_DESTINATION != 0
        || a & SIDE_DESTINATION != 0 && b & SIDE_SOURCE != 0
}

/// Whether a port (network byte order) is one of the flow's.
#[inline(always)]
pub fn is_port(port: u32) -> bool {
    PORTS.get_ptr(port).is_some()
}
