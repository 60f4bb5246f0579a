//! A captured frame. The first bytes say what the kernel would say beside it: where the network header
//! stands, what it is, and how long the frame was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::decode::parse_frame;
use tracer::diagnose;

fuzz_target!(|data: &[u8]| {
    let Some((&[l3, kind, high, low], frame)) = data.split_first_chunk() else { return };
    let ethertype = [0x0800, 0x86dd, 0x0806, 0x1234][usize::from(kind % 4)];
    let len = u32::from(u16::from_be_bytes([high, low]));
    let l3 = usize::from(l3 % 32);
    if let Some(packet) = parse_frame(frame, l3, ethertype, len, &[8472, 4789]) {
        let _ = diagnose::headers(&packet);
        assert!(l3 <= frame.len());
    }
});
