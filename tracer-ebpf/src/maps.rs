//! Maps shared by all programs.

use aya_ebpf::{
    macros::map,
    maps::{HashMap, PerCpuArray, RingBuf},
};
use tracer_common::LOST_ENTRIES;

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
