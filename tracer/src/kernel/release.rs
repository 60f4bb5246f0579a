//! Which kernel this is.

use std::ffi::OsStr;

use nix::sys::utsname::{UtsName, uname};

/// Kernel release (`uname -r`); empty should it be unreadable, which Linux does not know.
pub fn release() -> String {
    text(UtsName::release)
}

/// Hardware architecture (`uname -m`).
pub fn architecture() -> String {
    text(UtsName::machine)
}

fn text(of: fn(&UtsName) -> &OsStr) -> String {
    uname().map_or_else(|_| String::new(), |names| of(&names).to_string_lossy().into_owned())
}
