//! podtrace's eBPF programs.
//!
//! * `hop_in_N`, `hop_out_N`: classifiers for the ingress and egress of an interface in namespace
//!   number N of those the loader was given. One copy per namespace, because the namespace is then
//!   known for nothing, where walking `skb->dev->nd_net` costs three probed reads per packet.
//! * `packet_dropped`: the `kfree_skb` BTF tracepoint, for every namespace at once.
//!
//! Both look at the packet first and leave at once when it is not of the flow; both always let the
//! packet go on.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod config;
mod drop;
mod filter;
mod hop;
mod maps;
mod packet;

use aya_ebpf::{
    macros::{btf_tracepoint, classifier},
    programs::{BtfTracePointContext, TcContext},
};
use tracer_common::{HOOK_EGRESS, HOOK_INGRESS};

/// `TC_ACT_UNSPEC` for clsact filters, `TCX_NEXT` for TCX (include/uapi/linux/bpf.h): on to the
/// next program, as if this one were not there.
const NEXT: i32 = -1;

macro_rules! hop_programs {
    ($($slot:literal: $ingress:ident $egress:ident,)*) => {$(
        #[classifier]
        pub fn $ingress(ctx: TcContext) -> i32 {
            hop::record::<$slot, HOOK_INGRESS>(ctx.skb.skb);
            NEXT
        }
        #[classifier]
        pub fn $egress(ctx: TcContext) -> i32 {
            hop::record::<$slot, HOOK_EGRESS>(ctx.skb.skb);
            NEXT
        }
    )*};
}

// As many as tracer_common::MAX_SLOTS.
hop_programs! {
    0: hop_in_0 hop_out_0,
    1: hop_in_1 hop_out_1,
    2: hop_in_2 hop_out_2,
    3: hop_in_3 hop_out_3,
    4: hop_in_4 hop_out_4,
    5: hop_in_5 hop_out_5,
    6: hop_in_6 hop_out_6,
    7: hop_in_7 hop_out_7,
    8: hop_in_8 hop_out_8,
    9: hop_in_9 hop_out_9,
    10: hop_in_10 hop_out_10,
    11: hop_in_11 hop_out_11,
    12: hop_in_12 hop_out_12,
    13: hop_in_13 hop_out_13,
    14: hop_in_14 hop_out_14,
    15: hop_in_15 hop_out_15,
}
const _: () = assert!(tracer_common::MAX_SLOTS == 16);

#[btf_tracepoint(function = "kfree_skb")]
pub fn packet_dropped(ctx: BtfTracePointContext) -> i32 {
    drop::record(&ctx);
    0
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: nothing here can panic, and the verifier would refuse the loop.
    loop {}
}

/// The helpers used are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
