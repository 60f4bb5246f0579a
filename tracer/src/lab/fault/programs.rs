//! What only a system call can make: TUN interfaces, and BPF programs that drop everything. Both
//! last as long as the file descriptor.

use std::fs::OpenOptions;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::net::if_::if_nametoindex;

/// Commands of bpf(2) (include/uapi/linux/bpf.h, `enum bpf_cmd`).
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_LINK_CREATE: libc::c_long = 28;
/// Program types (`enum bpf_prog_type`).
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
/// Attach types (`enum bpf_attach_type`).
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
/// Flags of an XDP attachment (include/uapi/linux/if_link.h).
const XDP_FLAGS_SKB_MODE: u32 = 2;
const XDP_FLAGS_DRV_MODE: u32 = 4;
/// Verdicts: `XDP_DROP`, `TCX_DROP`.
const XDP_DROP: u32 = 1;
const TCX_DROP: u32 = 2;
/// `TUNSETIFF`, `IFF_TUN`, `IFF_NO_PI` (include/uapi/linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const IFF_TUN: libc::c_short = 1;
const IFF_NO_PI: libc::c_short = 0x1000;

/// Where a program sees packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Point {
    /// In the driver.
    XdpNative,
    /// Behind the driver.
    XdpGeneric,
    /// Ingress of traffic control (TCX, Linux 6.6).
    TcIngress,
}

/// The part of `union bpf_attr` for `BPF_PROG_LOAD` up to the licence; the kernel takes the rest as
/// zero.
#[repr(C)]
struct ProgLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

/// The part of `union bpf_attr` for `BPF_LINK_CREATE` up to the flags.
#[repr(C)]
struct LinkCreate {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Drops everything that arrives at an interface while the descriptor is open.
pub(super) fn drop_at(point: Point, interface: &str) -> io::Result<OwnedFd> {
    let index = if_nametoindex(interface)?;
    let (kind, verdict, attach, flags) = match point {
        Point::XdpNative => (BPF_PROG_TYPE_XDP, XDP_DROP, BPF_XDP, XDP_FLAGS_DRV_MODE),
        Point::XdpGeneric => (BPF_PROG_TYPE_XDP, XDP_DROP, BPF_XDP, XDP_FLAGS_SKB_MODE),
        Point::TcIngress => (BPF_PROG_TYPE_SCHED_CLS, TCX_DROP, BPF_TCX_INGRESS, 0),
    };
    // r0 = verdict; exit (BPF_ALU64 | BPF_MOV | BPF_K, BPF_JMP | BPF_EXIT); the immediate is in the
    // upper half.
    let instructions: [u64; 2] = [0xb7 | u64::from(verdict) << 32, 0x95];
    let licence = c"GPL";
    let load = ProgLoad {
        prog_type: kind,
        insn_cnt: 2,
        insns: instructions.as_ptr().addr() as u64,
        license: licence.as_ptr().addr() as u64,
    };
    let program = bpf(BPF_PROG_LOAD, &load)?;
    let link = LinkCreate {
        prog_fd: program.as_raw_fd().cast_unsigned(),
        target_ifindex: index,
        attach_type: attach,
        flags,
    };
    // The link keeps the program.
    bpf(BPF_LINK_CREATE, &link)
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is a plain structure of integers, at least as long as the size says, and
    // what its addresses point to lives until the call returns; the kernel only reads.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>())
    };
    let fd = RawFd::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a TUN interface that lasts while the descriptor is open.
pub(super) fn tun(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all-zero bytes are a valid `ifreq`: integers and a union of such.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_TUN | IFF_NO_PI;
    // SAFETY: the descriptor is open, and `request` is what this ioctl reads and writes.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(file.into()) }
}
