//! The `kfree_skb` tracepoint: record why and where the kernel freed a packet of the flow.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{
        bpf_get_smp_processor_id, bpf_get_stack, bpf_ktime_get_ns, bpf_probe_read_kernel,
    },
    programs::BtfTracePointContext,
};
use tracer_common::{
    DROP_SNAP, DropTrailer, HOOK_INGRESS, HopHeader, KIND_DROP, LOST_DROP, STACK_FRAMES, matched,
};

use crate::{
    config::config,
    filter::{Source, thorough},
    maps::{EVENTS, NO_WAKEUP, count_lost},
};

/// `skb->mac_header` when it was never set (include/linux/skbuff.h, skb_mac_header_was_set).
const NOT_SET: u16 = 0xffff;

/// `SKB_DST_NOREF` (include/linux/skbuff.h): a flag in the lowest bit of the dst pointer.
const DST_FLAGS: u64 = 1;

/// The linear part of an skb, from its network header.
struct Linear {
    base: u64,
    len: u32,
}

impl Source for Linear {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32, out: &mut MaybeUninit<[u32; N]>) -> bool {
        if offset + (4 * N) as u32 > self.len {
            return false;
        }
        // SAFETY: `out` has room for 4 * N bytes; a bad address is an error, not a fault.
        unsafe {
            bpf_probe_read_kernel(
                out.as_mut_ptr().cast(),
                (4 * N) as u32,
                self.base.wrapping_add(offset as u64) as *const _,
            ) == 0
        }
    }
}

/// A load that the verifier checks against BTF, at an offset it knows as a constant.
///
/// # Safety
/// `pointer` is one that the verifier tracks, and `offset` that of a field of type `T`.
#[inline(always)]
unsafe fn field<T: Copy>(pointer: *const u8, offset: u32) -> T {
    // SAFETY: by contract.
    unsafe { core::ptr::read_volatile(pointer.add(offset as usize).cast::<T>()) }
}

/// A load through a pointer that the verifier knows nothing of.
#[inline(always)]
fn probe<T: Copy + Default>(address: u64) -> T {
    let mut value = T::default();
    // SAFETY: a bad address is an error, not a fault; `value` then keeps its default.
    unsafe {
        bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const _);
    }
    value
}

#[inline(always)]
fn arg(ctx: &BtfTracePointContext, n: usize) -> *const u8 {
    // SAFETY: kfree_skb has at least three arguments on every kernel that gives reasons (5.17).
    unsafe { *ctx.as_ptr().cast::<*const u8>().add(n) }
}

#[repr(C)]
struct Record {
    header: HopHeader,
    trailer: DropTrailer,
    data: [u8; DROP_SNAP],
}

/// Inode of a namespace, from a `struct net *`.
#[inline(always)]
fn inum(net: u64) -> u32 {
    if net == 0 { 0 } else { probe(net.wrapping_add(config!(net_inum) as u64)) }
}

/// Inode of the namespace of a `struct net_device *`.
#[inline(always)]
fn device_netns(device: u64) -> u32 {
    if device == 0 { 0 } else { inum(probe(device.wrapping_add(config!(dev_net) as u64))) }
}

/// The whole program.
#[inline(always)]
pub fn record(ctx: &BtfTracePointContext) {
    let skb = arg(ctx, 0);
    // SAFETY: fields of a `struct sk_buff *` argument, at the offsets of the running kernel.
    let (protocol, head, network, tail) = unsafe {
        (
            field::<u16>(skb, config!(skb_protocol)),
            field::<u64>(skb, config!(skb_head)),
            field::<u16>(skb, config!(skb_network)),
            field::<u32>(skb, config!(skb_tail)),
        )
    };
    let Some(len) = tail.checked_sub(network as u32) else { return };
    let packet = Linear { base: head.wrapping_add(network as u64), len };
    let matched = thorough(&packet, 0, protocol as u32, matched::PLAIN);
    if matched == 0 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve::<Record>(0) else {
        count_lost(LOST_DROP);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is ours until submitted and every byte of header and trailer is written;
    // typed loads are of BTF pointers; all else goes through bpf_probe_read_kernel, which is given
    // sizes within the record.
    unsafe {
        let header = &raw mut (*record).header;
        let trailer = &raw mut (*record).trailer;
        let reason = arg(ctx, 2) as u64 as u32;
        let device: u64 = field(skb, config!(skb_dev));
        (*header).time_ns = bpf_ktime_get_ns();
        (*header).skb = skb as u64;
        (*header).len = field(skb, config!(skb_len));
        (*header).gso_segs = 0;
        (*header).gso_size = 0;
        (*header).protocol = protocol;
        (*header).kind = KIND_DROP;
        (*header).hook = HOOK_INGRESS;
        (*header).slot = 0;
        (*header).matched = matched as u8;
        (*header).cpu = bpf_get_smp_processor_id() as u8;
        (*header).pad = 0;

        // The device may be gone or its field in use for something else (UDP receive queues put
        // dev_scratch there): then the route, then the socket tell the namespace.
        (*header).ifindex =
            if device == 0 { 0 } else { probe(device.wrapping_add(config!(dev_ifindex) as u64)) };
        let mut netns = device_netns(device);
        if netns == 0 {
            let dst = field::<u64>(skb, config!(skb_dst)) & !DST_FLAGS;
            if dst != 0 {
                netns = device_netns(probe(dst.wrapping_add(config!(dst_dev) as u64)));
            }
        }
        if netns == 0 {
            let sk = field::<u64>(skb, config!(skb_sk));
            if sk != 0 {
                netns = inum(probe(sk.wrapping_add(config!(sk_net) as u64)));
            }
        }
        (*trailer).location = arg(ctx, 1) as u64;
        (*trailer).reason = reason;
        (*trailer).netns = netns;
        (*trailer).pad = 0;
        (*trailer).frames = 0;
        // Nearly all the cost of this program is the stack: not for the end of every ping.
        if reason != config!(reason_no_socket) {
            let bytes = bpf_get_stack(
                ctx.as_ptr(),
                (&raw mut (*trailer).stack).cast(),
                (STACK_FRAMES * 8) as u32,
                0,
            );
            if bytes > 0 {
                (*trailer).frames = (bytes as u32) / 8;
            }
        }

        // From the link-layer header when it stands before the network header, as it should.
        let mac: u16 = field(skb, config!(skb_mac));
        let start =
            if mac != NOT_SET && mac <= network && network - mac <= 64 { mac } else { network };
        (*header).l3_offset = (network - start) as u8;
        let available = tail.wrapping_sub(start as u32);
        let n = if available < DROP_SNAP as u32 { available } else { DROP_SNAP as u32 };
        (*header).caplen = n as u16;
        if n >= 1
            && n <= DROP_SNAP as u32
            && bpf_probe_read_kernel(
                (&raw mut (*record).data).cast(),
                n,
                head.wrapping_add(start as u64) as *const _,
            ) != 0
        {
            (*header).caplen = 0;
        }
    }
    entry.submit(NO_WAKEUP);
}
