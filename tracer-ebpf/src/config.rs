//! What the loader tells the programs.

use aya_ebpf::Global;
use tracer_common::Config;

/// Filled in before loading and then frozen, so that the verifier knows every field.
#[unsafe(no_mangle)]
pub static CONFIG: Global<Config> = Global::new(
    // SAFETY: `Config` is made of integers only; zero is a value of each.
    unsafe { core::mem::zeroed() },
);

/// One volatile load of one field; `Global::load` would copy the whole struct to the stack.
macro_rules! config {
    ($($field:tt)+) => {{
        #[allow(unused_unsafe, reason = "also used where unsafe is on already")]
        // SAFETY: `Global<T>` is a transparent wrapper, and the field lies within it.
        let value = unsafe {
            core::ptr::read_volatile(
                &raw const (*(&raw const $crate::config::CONFIG).cast::<tracer_common::Config>())
                    .$($field)+,
            )
        };
        value
    }};
}
pub(crate) use config;
