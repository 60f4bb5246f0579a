//! The classifier: record a packet of the flow at one interface.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_skb_load_bytes},
};
use tracer_common::{HopHeader, KIND_HOP, LOST_HOP, MAX_L3_DEVICES, SNAP_CLASSES, matched};

use crate::{
    config::config,
    filter::{
        ETH_ARP, ETH_IP, ETH_IPV6, ETH_LEN, Source, is_below, layer4, layer6, parts, thorough,
    },
    maps::{EVENTS, NO_WAKEUP, count_lost},
    packet::{copy, half, head4, head6},
};

/// Packet bytes through the helper, wherever they lie.
struct Skb(*mut __sk_buff);

impl Source for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, out: &mut MaybeUninit<[u32; N]>) -> bool {
        // SAFETY: `out` has room for 4 * N bytes; the helper checks the packet's bounds.
        unsafe {
            bpf_skb_load_bytes(self.0.cast(), offset, out.as_mut_ptr().cast(), (4 * N) as u32) == 0
        }
    }
}

/// A function of its own (a BPF subprogram): kept out of the way of packets that `quick` decides.
#[inline(never)]
fn thorough_skb(skb: *mut __sk_buff, at: u32, protocol: u32, as_: u32) -> u32 {
    thorough(&Skb(skb), at, protocol, as_)
}

/// Whether the bytes up to `$end` lie in the linear part, where they can be read without a helper.
macro_rules! linear {
    ($packet:ident, $end:expr) => {
        $packet.0 + $end as usize <= $packet.1
    };
}

/// Decides the common packets on constant offsets; anything else goes to `thorough_skb`.
#[inline(always)]
fn quick(skb: *mut __sk_buff, protocol: u32) -> u32 {
    const AT: u32 = ETH_LEN;
    /// From an outer IPv4 header to the inner Ethernet header, and the inner network header.
    const TUNNEL: u32 = AT + 20 + 8 + 8;
    const INNER: u32 = TUNNEL + ETH_LEN;
    if protocol != ETH_IP && protocol != ETH_IPV6 && protocol != ETH_ARP {
        return 0;
    }
    // SAFETY: the context is valid while the program runs.
    let packet = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if protocol == ETH_IP && linear!(packet, AT + 28) {
        // SAFETY: just compared, which is what the verifier wants to see.
        let head = unsafe { head4::<{ AT as usize }>(packet.0) };
        let step = layer4(&head, AT, matched::PLAIN);
        if !is_below(step) {
            return step as u32;
        }
        let (at, below, as_) = parts(step);
        if at == TUNNEL && below == 0 && linear!(packet, INNER + 28) {
            // SAFETY: as above.
            let (ethertype, inner) = unsafe {
                (half::<{ TUNNEL as usize + 12 }>(packet.0), head4::<{ INNER as usize }>(packet.0))
            };
            if ethertype == ETH_IP {
                let step = layer4(&inner, INNER, matched::ENCAPSULATED);
                if !is_below(step) {
                    return step as u32;
                }
            }
        }
        return thorough_skb(skb, at, below, as_);
    }
    if protocol == ETH_IPV6 && linear!(packet, AT + 48) {
        // SAFETY: as above.
        let head = unsafe { head6::<{ AT as usize }>(packet.0) };
        let step = layer6(&head, AT, matched::PLAIN);
        if !is_below(step) {
            return step as u32;
        }
        let (at, below, as_) = parts(step);
        return thorough_skb(skb, at, below, as_);
    }
    thorough_skb(skb, AT, protocol, matched::PLAIN)
}

/// Whether frames on this interface have no Ethernet header (TUN).
#[inline(always)]
fn is_l3<const SLOT: u8>(ifindex: u32) -> bool {
    let mut i = 0;
    while i < MAX_L3_DEVICES {
        if (i as u32) < config!(l3_devices)
            && config!(l3_device[i][0]) == SLOT as u32
            && config!(l3_device[i][1]) == ifindex
        {
            return true;
        }
        i += 1;
    }
    false
}

/// The whole program.
#[inline(always)]
pub fn record<const SLOT: u8, const HOOK: u8>(skb: *mut __sk_buff) {
    // SAFETY: the context is valid while the program runs.
    let protocol = unsafe { (*skb).protocol };
    let mut l3_offset = ETH_LEN;
    // SAFETY: as above.
    let ifindex = unsafe { (*skb).ifindex };
    let matched = if config!(l3_devices) != 0 && is_l3::<SLOT>(ifindex) {
        l3_offset = 0;
        thorough_skb(skb, 0, protocol, matched::PLAIN)
    } else {
        quick(skb, protocol)
    };
    if matched == 0 {
        return;
    }
    let snaplen = config!(snaplen);
    // Without --snaplen: the headers and 16 bytes of payload, which is what tells packets apart.
    let ipv6 = protocol == ETH_IPV6;
    let want = if snaplen != 0 {
        snaplen
    } else if matched == matched::QUOTED || (matched == matched::ENCAPSULATED && ipv6) {
        SNAP_CLASSES[2] as u32
    } else if matched == matched::PLAIN && !ipv6 {
        SNAP_CLASSES[0] as u32
    } else {
        SNAP_CLASSES[1] as u32
    };
    if want <= SNAP_CLASSES[0] as u32 {
        keep::<SLOT, HOOK, { SNAP_CLASSES[0] }>(skb, matched, l3_offset, want);
    } else if want <= SNAP_CLASSES[1] as u32 {
        keep::<SLOT, HOOK, { SNAP_CLASSES[1] }>(skb, matched, l3_offset, want);
    } else if want <= SNAP_CLASSES[2] as u32 {
        keep::<SLOT, HOOK, { SNAP_CLASSES[2] }>(skb, matched, l3_offset, want);
    } else if want <= SNAP_CLASSES[3] as u32 {
        keep::<SLOT, HOOK, { SNAP_CLASSES[3] }>(skb, matched, l3_offset, want);
    } else {
        keep::<SLOT, HOOK, { SNAP_CLASSES[4] }>(skb, matched, l3_offset, want);
    }
}

/// Frames up to this length are no super-packets: the reads of `skb_shared_info` are saved.
const GSO_ABOVE: u32 = 1514;

#[repr(C)]
struct Record<const N: usize> {
    header: HopHeader,
    data: [u8; N],
}

/// Writes a record with room for N bytes of packet, of which at most `want` are kept.
#[inline(always)]
fn keep<const SLOT: u8, const HOOK: u8, const N: usize>(
    skb: *mut __sk_buff,
    matched: u32,
    l3_offset: u32,
    want: u32,
) {
    let Some(mut entry) = EVENTS.reserve::<Record<N>>(0) else {
        count_lost(LOST_HOP);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is N + 40 bytes of ring buffer that are ours until submitted, and every byte
    // of the header is written; the context is valid while the program runs; each helper is given
    // the size of what it writes to.
    unsafe {
        let header = &raw mut (*record).header;
        let data = &raw mut (*record).data;
        let len = (*skb).len;
        (*header).time_ns = bpf_ktime_get_ns();
        // In a tc program the context register holds the address of the struct sk_buff itself.
        (*header).skb = skb as u64;
        (*header).ifindex = (*skb).ifindex;
        (*header).len = len;
        let (segments, size) =
            if len > GSO_ABOVE { ((*skb).gso_segs, (*skb).gso_size) } else { (0, 0) };
        (*header).gso_segs = segments as u16;
        (*header).gso_size = size as u16;
        (*header).protocol = (*skb).protocol as u16;
        (*header).kind = KIND_HOP;
        (*header).hook = HOOK;
        (*header).slot = SLOT;
        (*header).matched = matched as u8;
        (*header).l3_offset = l3_offset as u8;
        (*header).cpu = bpf_get_smp_processor_id() as u8;
        (*header).pad = 0;
        let start = (*skb).data as usize;
        if (N == 64 || N == 128) && want >= N as u32 && start + N <= (*skb).data_end as usize {
            // The common case: all of it lies in the linear part. Words beat the helper.
            (*header).caplen = N as u16;
            copy::<N>(start, data.cast());
        } else {
            let n = if len < want { len } else { want };
            // bpf_skb_load_bytes refuses a size that might be 0, and the verifier of 6.1 does not
            // learn n >= 1 from `n != 0`. Hidden from LLVM, n - 1 is masked to [0, N - 1], N being
            // a power of two.
            let mut less_one = n.wrapping_sub(1) as u64;
            core::arch::asm!("{0} &= {1}", inout(reg) less_one, const N - 1);
            let n = less_one as u32 + 1;
            (*header).caplen = n as u16;
            if bpf_skb_load_bytes(skb.cast(), 0, data.cast(), n) != 0 {
                (*header).caplen = 0;
            }
        }
    }
    entry.submit(NO_WAKEUP);
}
