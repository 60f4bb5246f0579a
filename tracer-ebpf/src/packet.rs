//! Direct reads of packet memory, in whole words.
//!
//! Headers behind an Ethernet header are not aligned. LLVM knows of no unaligned loads for BPF and
//! assembles each word from its bytes, three instructions a byte. The kernel has them on machines
//! that do (x86-64, arm64: `HAVE_EFFICIENT_UNALIGNED_ACCESS`), so they are written by hand. Offsets
//! are constants, which saves an addition per load.

use crate::filter::{Head4, Head6};

/// The unaligned integer at a constant offset from an address. Unsafe: the verifier must have seen
/// that it lies in the packet.
macro_rules! load {
    ($type:literal, $from:ident, $offset:expr) => {{
        let value: u64;
        core::arch::asm!(
            concat!("{value} = *(", $type, " *)({from} + {offset})"),
            value = out(reg) value,
            from = in(reg) $from,
            offset = const $offset,
            options(pure, readonly, nostack),
        );
        value
    }};
}

/// Words at constant offsets.
macro_rules! words {
    ($from:ident, $($offset:expr),+) => {
        [$(load!("u32", $from, $offset) as u32),+]
    };
}

/// Two bytes as they lie there.
///
/// # Safety
/// The verifier has seen that they lie in the packet.
#[inline(always)]
pub unsafe fn half<const AT: usize>(from: usize) -> u32 {
    // SAFETY: by contract; reads memory only.
    unsafe { load!("u16", from, AT) as u32 }
}

/// An IPv4 header.
///
/// # Safety
/// As for [`half`].
#[inline(always)]
pub unsafe fn head4<const AT: usize>(from: usize) -> Head4 {
    // SAFETY: as there.
    unsafe { words!(from, AT, AT + 4, AT + 8, AT + 12, AT + 16, AT + 20, AT + 24) }
}

/// An IPv6 header.
///
/// # Safety
/// As for [`half`].
#[inline(always)]
pub unsafe fn head6<const AT: usize>(from: usize) -> Head6 {
    // SAFETY: as there.
    unsafe {
        words!(
            from,
            AT,
            AT + 4,
            AT + 8,
            AT + 12,
            AT + 16,
            AT + 20,
            AT + 24,
            AT + 28,
            AT + 32,
            AT + 36,
            AT + 40,
            AT + 44
        )
    }
}

/// Copies 64 bytes at a constant offset.
macro_rules! copy64 {
    ($from:ident, $to:ident, $at:literal) => {
        copy64!($from, $to, $at: 0 1 2 3 4 5 6 7)
    };
    ($from:ident, $to:ident, $at:literal: $($i:literal)+) => {
        $($to.add($at / 8 + $i).write(load!("u64", $from, $at + 8 * $i));)+
    };
}

/// Copies N bytes: 64 or 128, anything else takes the helper.
///
/// # Safety
/// As for [`half`], and `to` is aligned and has room.
#[inline(always)]
pub unsafe fn copy<const N: usize>(from: usize, to: *mut u64) {
    // SAFETY: by contract; reads packet memory, writes to `to`.
    unsafe {
        copy64!(from, to, 0);
        if N == 128 {
            copy64!(from, to, 64);
        }
    }
}
