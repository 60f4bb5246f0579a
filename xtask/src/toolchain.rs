//! Which compiler can build the eBPF programs. It needs the source of Rust's `core`, which rustup's
//! stable toolchain does not have by default, and `bpf-linker`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::machine::{Machine, is_executable};

/// Where a toolchain keeps the source of the standard library, below its sysroot.
const LIBRARY_SOURCE: &str = "lib/rustlib/src/rust/library";
/// Chooses between two complete toolchains: `system` or `rustup`.
pub const CHOICE: &str = "PODTRACE_EBPF_TOOLCHAIN";

/// A compiler with the source of its library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// As shown to a person.
    pub name: String,
    /// Its directory: `bin/rustc` and the library's source are below it.
    pub sysroot: PathBuf,
}

impl Toolchain {
    fn at(sysroot: PathBuf, name: String) -> Option<Self> {
        let complete = is_executable(&sysroot.join("bin/rustc"))
            && is_executable(&sysroot.join("bin/cargo"))
            && sysroot.join(LIBRARY_SOURCE).is_dir();
        complete.then_some(Self { name, sysroot })
    }

    /// One of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.sysroot.join("bin").join(name)
    }

    /// Whether it can lint too.
    pub fn has_clippy(&self) -> bool {
        is_executable(&self.program("cargo-clippy"))
            && is_executable(&self.program("clippy-driver"))
    }
}

/// The distribution's own compiler, if it came with the library's source.
pub fn system(machine: &Machine) -> Option<Toolchain> {
    Toolchain::at(machine.root.join("usr"), "the system's Rust".to_owned())
}

/// A rustup toolchain with the `rust-src` component: nightly if there is one, else any.
pub fn rustup(machine: &Machine) -> Option<Toolchain> {
    let mut names: Vec<String> = fs::read_dir(machine.rustup_home.join("toolchains"))
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    // `nightly-x86_64-…` before dated nightlies, the latest of those first; then the others.
    names.sort_by_key(|name| {
        let nightly = name.strip_prefix("nightly-");
        let dated = nightly.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        (nightly.is_none(), dated, std::cmp::Reverse(name.clone()))
    });
    names.into_iter().find_map(|name| {
        let sysroot = machine.rustup_home.join("toolchains").join(&name);
        Toolchain::at(sysroot, format!("rustup's {name}"))
    })
}

/// The toolchain to use, or `None` when neither is complete.
///
/// The system's comes first: bpf-linker can read what an older LLVM wrote, but not a newer one's,
/// and a distribution's compiler is never newer than the LLVM that bpf-linker was built with.
///
/// # Errors
/// When `$PODTRACE_EBPF_TOOLCHAIN` asks for something else than `system` or `rustup`.
pub fn choose(machine: &Machine) -> Result<Option<Toolchain>> {
    match env::var(CHOICE).ok().filter(|choice| !choice.is_empty()).as_deref() {
        None => Ok(system(machine).or_else(|| rustup(machine))),
        Some("system") => Ok(system(machine)),
        Some("rustup") => Ok(rustup(machine)),
        Some(other) => bail!("{CHOICE}={other}: must be `system` or `rustup`"),
    }
}

/// Where bpf-linker is: on PATH, or where `cargo install` puts it.
pub fn linker(machine: &Machine) -> Option<PathBuf> {
    let installed = machine.cargo_home.join("bin/bpf-linker");
    machine.find("bpf-linker").or_else(|| is_executable(&installed).then_some(installed))
}

/// What tells one version of a program from another without running it: path, size and time.
pub fn fingerprint(program: &Path) -> String {
    let Ok(file) = fs::canonicalize(program) else {
        return format!("{} (missing)", program.display());
    };
    let (length, time) =
        fs::metadata(&file).map(|m| (m.len(), m.modified().ok())).unwrap_or_default();
    format!("{} {length} {time:?}", file.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{empty, put_program};

    fn put_toolchain(root: &Path, sysroot: &str, with_source: bool) {
        put_program(root, &format!("{sysroot}/bin/rustc"));
        put_program(root, &format!("{sysroot}/bin/cargo"));
        if with_source {
            fs::create_dir_all(root.join(sysroot).join(LIBRARY_SOURCE)).unwrap();
        }
    }

    #[test]
    fn a_toolchain_without_library_source_does_not_do() {
        let dir = tempfile::tempdir().unwrap();
        let machine = empty(dir.path());
        put_toolchain(dir.path(), "usr", false);
        put_toolchain(dir.path(), "home/.rustup/toolchains/stable-x86_64", false);
        assert_eq!(system(&machine), None);
        assert_eq!(rustup(&machine), None);
        put_toolchain(dir.path(), "usr", true);
        assert_eq!(system(&machine).unwrap().program("rustc"), dir.path().join("usr/bin/rustc"));
        assert!(!system(&machine).unwrap().has_clippy());
    }

    #[test]
    fn nightly_is_preferred_and_then_the_latest() {
        let dir = tempfile::tempdir().unwrap();
        let machine = empty(dir.path());
        let mut found = Vec::new();
        for name in ["stable-x", "nightly-2026-01-01-x", "nightly-2026-03-01-x", "nightly-x"] {
            put_toolchain(dir.path(), &format!("home/.rustup/toolchains/{name}"), true);
            found.push(rustup(&machine).unwrap().name);
        }
        let expected = ["stable-x", "nightly-2026-01-01-x", "nightly-2026-03-01-x", "nightly-x"]
            .map(|name| format!("rustup's {name}"));
        assert_eq!(found, expected);
    }

    #[test]
    fn the_linker_may_be_installed_without_being_on_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let machine = empty(dir.path());
        assert_eq!(linker(&machine), None);
        let installed = put_program(dir.path(), "home/.cargo/bin/bpf-linker");
        assert_eq!(linker(&machine), Some(installed));
        let on_path = put_program(dir.path(), "usr/bin/bpf-linker");
        assert_eq!(linker(&machine), Some(on_path));
    }
}
