//! `cargo xtask setup`: what building, testing and showing podtrace needs, and how to get it.

use std::fmt::Write;
use std::process::Command;

use anyhow::{Result, bail};

use crate::machine::Machine;
use crate::process::{self, run_step};
use crate::toolchain;

/// The version that works with the LLVM below and with Rust 1.95.
const BPF_LINKER: &str = "0.13.0";
/// Where Debian's llvm-22-dev puts LLVM.
const LLVM: &str = "/usr/lib/llvm-22";
/// The program by which llvm-22-dev is recognised.
const LLVM_CONFIG: &str = "usr/lib/llvm-22/bin/llvm-config";

/// Programs that the lab, the tests, the guests, the demo and the bench run, with Debian's package of
/// each.
const PROGRAMS: [(&str, &str); 25] = [
    ("bpftool", "bpftool"),
    ("c++", "g++"),
    ("chromium-headless-shell", "chromium-headless-shell"),
    ("conntrack", "conntrack"),
    ("curl", "curl"),
    ("depmod", "kmod"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("ipset", "ipset"),
    ("iptables-legacy", "iptables"),
    ("iptables-nft", "iptables"),
    ("ipvsadm", "ipvsadm"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("python3", "python3"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("strip", "binutils"),
    ("sysctl", "procps"),
    ("tc", "iproute2"),
    ("tcpdump", "tcpdump"),
    ("tmux", "tmux"),
    ("tshark", "tshark"),
    ("xz", "xz-utils"),
];

/// What a machine lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Programs by name.
    programs: Vec<&'static str>,
    /// Debian's packages that bring all of it, except bpf-linker.
    packages: Vec<&'static str>,
    /// A compiler with the source of its library.
    compiler: bool,
    /// Clippy of that compiler.
    clippy: bool,
    /// bpf-linker.
    linker: bool,
}

impl Missing {
    /// Finds out.
    ///
    /// # Errors
    /// When the environment asks for a toolchain that does not exist.
    pub fn on(machine: &Machine) -> Result<Self> {
        let mut missing = Self { linker: toolchain::linker(machine).is_none(), ..Self::default() };
        for (program, package) in PROGRAMS {
            if !machine.has(program) {
                missing.programs.push(program);
                missing.package(package);
            }
        }
        let chosen = toolchain::choose(machine)?;
        missing.compiler = chosen.is_none();
        missing.clippy = chosen.as_ref().is_some_and(|toolchain| !toolchain.has_clippy());
        // The bpf-linker that is going to be built can read what Debian's compiler writes, and
        // perhaps not what a newer nightly does.
        if missing.compiler || (missing.linker && toolchain::system(machine).is_none()) {
            for package in ["rustc-web", "cargo-web", "rust-web-src"] {
                missing.package(package);
            }
        }
        if missing.compiler || missing.clippy {
            missing.package("rust-web-clippy");
        }
        if missing.linker && !machine.root.join(LLVM_CONFIG).exists() {
            missing.package("llvm-22-dev");
        }
        missing.packages.sort_unstable();
        Ok(missing)
    }

    fn package(&mut self, name: &'static str) {
        if !self.packages.contains(&name) {
            self.packages.push(name);
        }
    }

    fn nothing(&self) -> bool {
        self.packages.is_empty() && !self.linker
    }

    /// One message: what is missing and what to run.
    fn message(&self, machine: &Machine) -> String {
        let debian = is_debian_12(machine);
        let mut text = "this machine lacks what building or testing podtrace needs:\n".to_owned();
        let mut list = |item: &str| {
            let _ = writeln!(text, "  - {item}");
        };
        if !self.programs.is_empty() {
            list(&self.programs.join(", "));
        }
        if self.compiler {
            list(
                "a Rust compiler with the source of its library (rust-src), for the eBPF programs",
            );
        }
        if self.clippy {
            list("clippy of the compiler that builds the eBPF programs");
        }
        if self.linker {
            list("bpf-linker");
        }
        text.push_str("Run:\n");
        let mut run = |command: &str| {
            let _ = writeln!(text, "  {command}");
        };
        if debian {
            if !self.packages.is_empty() {
                run("apt-get update    # as root, and the next");
                run(&format!("apt-get install -y {}", self.packages.join(" ")));
            }
            if self.linker {
                run(&process::line(&install_linker()).replacen(
                    &cargo_name(),
                    &format!("LLVM_PREFIX={LLVM} LLVM_SYS_221_PREFIX={LLVM} cargo"),
                    1,
                ));
            }
        } else {
            if !self.programs.is_empty() {
                run("your package manager for the programs above");
            }
            if self.compiler {
                run("rustup toolchain install nightly --component rust-src,clippy");
            } else if self.clippy {
                run("rustup component add clippy, for the toolchain that has rust-src");
            }
            if self.linker {
                run(
                    "cargo install bpf-linker    # needs the LLVM that nightly is built on; see docs/development.md",
                );
            }
        }
        text.push_str("and then again what you have just run.");
        text
    }
}

fn cargo_name() -> String {
    process::cargo().get_program().to_string_lossy().into_owned()
}

/// The only one for which packages and versions are known here.
fn is_debian_12(machine: &Machine) -> bool {
    machine.distribution().is_some_and(|d| d.id == "debian" && d.version == "12")
}

fn install_linker() -> Command {
    let mut command = process::cargo();
    command
        .env("LLVM_SYS_221_PREFIX", LLVM)
        .env("LLVM_PREFIX", LLVM)
        // Its build shall not depend on how this workspace is built.
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("RUSTFLAGS")
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked"])
        .args(["--no-default-features", "--features", "llvm-22"]);
    command
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Another apt that is at work, as on a machine that has just started, is waited for.
        .args(["-o", "DPkg::Lock::Timeout=120", "-y", "-q"])
        .args(arguments);
    command
}

/// Installs what is missing where it may; otherwise says what to do.
///
/// # Errors
/// When something is still missing at the end.
pub fn run(machine: &Machine) -> Result<()> {
    let missing = Missing::on(machine)?;
    if missing.nothing() {
        return Ok(());
    }
    if !(machine.is_root && is_debian_12(machine)) {
        bail!("{}", missing.message(machine));
    }
    if !missing.packages.is_empty() {
        install_packages(machine, &missing.packages)?;
    }
    if missing.linker {
        let what = format!("build bpf-linker {BPF_LINKER} (1 to 3 minutes)");
        run_step(&what, &mut install_linker())?;
    }
    let left = Missing::on(machine)?;
    if left.nothing() {
        return Ok(());
    }
    bail!("after installing, {}", left.message(machine));
}

/// For a task that needs root.
///
/// # Errors
/// Without root: one message that says what to install, and how to run the task.
pub fn need_root(machine: &Machine, task: &str) -> Result<()> {
    if machine.is_root {
        return Ok(());
    }
    let missing = Missing::on(machine)?;
    let install = match missing.nothing() {
        true => String::new(),
        false => format!("{}\n", missing.message(machine)),
    };
    bail!(
        "{install}`{task}` makes network namespaces and loads eBPF programs, which needs root:\n  \
         sudo env \"PATH=$PATH\" \"HOME=$HOME\" {task}"
    );
}

fn install_packages(machine: &Machine, packages: &[&str]) -> Result<()> {
    let lists = machine.root.join("var/lib/apt/lists");
    let has_lists = std::fs::read_dir(lists).is_ok_and(|mut entries| {
        entries
            .any(|entry| entry.is_ok_and(|e| e.file_name().to_string_lossy().contains("_Packages")))
    });
    let what = format!("install {} (up to 3 minutes)", packages.join(" "));
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend(packages);
    if has_lists {
        // What apt knows may be old: a simulation tells whether it knows these packages at all.
        let known =
            apt(&["--simulate"]).args(&arguments).output().is_ok_and(|o| o.status.success());
        if known && run_step(&what, &mut apt(&arguments)).is_ok() {
            return Ok(());
        }
    }
    run_step("apt-get update", &mut apt(&["update"]))?;
    run_step(&what, &mut apt(&arguments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::tests::{empty, put_file, put_program};
    use std::path::Path;

    const DEBIAN_12: &str = "ID=debian\nVERSION_ID=\"12\"\n";

    fn put_programs(root: &Path) {
        for (program, _) in PROGRAMS {
            put_program(root, &format!("usr/sbin/{program}"));
        }
    }

    fn put_compiler(root: &Path, sysroot: &str) {
        for program in ["rustc", "cargo", "cargo-clippy", "clippy-driver"] {
            put_program(root, &format!("{sysroot}/bin/{program}"));
        }
        put_file(root, &format!("{sysroot}/lib/rustlib/src/rust/library/Cargo.toml"), "");
    }

    #[test]
    fn a_fresh_debian_needs_everything() {
        let dir = tempfile::tempdir().unwrap();
        put_file(dir.path(), "etc/os-release", DEBIAN_12);
        let machine = Machine { is_root: false, ..empty(dir.path()) };
        let missing = Missing::on(&machine).unwrap();
        for package in ["rustc-web", "rust-web-src", "llvm-22-dev", "iproute2", "iptables"] {
            assert!(missing.packages.contains(&package), "{package}");
        }
        assert_eq!(missing.packages.iter().filter(|p| **p == "iptables").count(), 1);
        let error = run(&machine).unwrap_err().to_string();
        assert!(error.contains("apt-get install -y binutils bpftool cargo-web"), "{error}");
        assert!(
            error.contains("LLVM_SYS_221_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker"),
            "{error}"
        );
    }

    #[test]
    fn without_root_one_message_says_all() {
        let dir = tempfile::tempdir().unwrap();
        put_file(dir.path(), "etc/os-release", DEBIAN_12);
        let machine = Machine { is_root: false, ..empty(dir.path()) };
        let error = need_root(&machine, "cargo xtask demo").unwrap_err().to_string();
        assert!(error.contains("apt-get install -y binutils bpftool"), "{error}");
        assert!(error.ends_with("cargo xtask demo"), "{error}");
        need_root(&empty(dir.path()), "cargo xtask demo").unwrap();
    }

    #[test]
    fn only_what_is_missing_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        put_file(dir.path(), "etc/os-release", DEBIAN_12);
        put_programs(dir.path());
        put_compiler(dir.path(), "usr");
        put_program(dir.path(), "home/.cargo/bin/bpf-linker");
        let machine = empty(dir.path());
        assert_eq!(Missing::on(&machine).unwrap(), Missing::default());
        run(&machine).unwrap();

        std::fs::remove_file(dir.path().join("usr/bin/clippy-driver")).unwrap();
        std::fs::remove_file(dir.path().join("usr/sbin/tcpdump")).unwrap();
        let missing = Missing::on(&machine).unwrap();
        assert_eq!(missing.packages, ["rust-web-clippy", "tcpdump"]);
    }

    #[test]
    fn elsewhere_rustup_is_advised_and_suffices() {
        let dir = tempfile::tempdir().unwrap();
        put_file(dir.path(), "etc/os-release", "ID=fedora\nVERSION_ID=44\n");
        let machine = empty(dir.path());
        let error = run(&machine).unwrap_err().to_string();
        assert!(error.contains("rustup toolchain install nightly --component rust-src"), "{error}");
        assert!(error.contains("iptables-nft"), "{error}");
        assert!(!error.contains("apt-get"), "{error}");

        put_programs(dir.path());
        put_compiler(dir.path(), "home/.rustup/toolchains/nightly-x86_64-unknown-linux-gnu");
        put_program(dir.path(), "usr/bin/bpf-linker");
        run(&machine).unwrap();
    }
}
