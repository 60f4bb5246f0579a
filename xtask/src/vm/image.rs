//! The guests' one initramfs: podtrace, its tests, the programs these run, with the libraries that
//! they need, and the modules of each kernel.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::cpio::Tree;
use super::kernels::Kernel;
use super::plan::{self, Plan};
use crate::machine::{Machine, is_executable};
use crate::process::{self, output_of, target_dir};

/// Programs that podtrace, the lab and the tests run, and a shell.
const PROGRAMS: [&str; 38] = [
    "bash",
    "bpftool",
    "bridge",
    "cat",
    "conntrack",
    "curl",
    "dmesg",
    "ethtool",
    "grep",
    "ip",
    "ip6tables",
    "ip6tables-legacy",
    "ip6tables-legacy-restore",
    "ip6tables-nft",
    "ip6tables-nft-restore",
    "ip6tables-save",
    "ipset",
    "iptables",
    "iptables-legacy",
    "iptables-legacy-restore",
    "iptables-nft",
    "iptables-nft-restore",
    "iptables-save",
    "ipvsadm",
    "ln",
    "ls",
    "modprobe",
    "nft",
    "ping",
    "python3",
    "rm",
    "setpriv",
    "sleep",
    "ss",
    "sysctl",
    "tc",
    "true",
    "uname",
];

/// Loaded by programs while they run, so that no list of libraries names them.
const PLUGINS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu/xtables", "/usr/lib64/xtables"];

/// Directories with the names of routing tables, protocols and scopes.
const CONFIGURATION: [&str; 2] = ["/etc/iproute2", "/usr/share/iproute2"];

/// What the tests use of Python: prints the files of all that it loads.
const PYTHON: &str = "
import argparse, encodings.idna, gettext, glob, http.server, json, os, runpy, select, signal, socket, struct
import subprocess, sys, sysconfig, textwrap, threading, time
for module in list(sys.modules.values()):
    for name in (getattr(module, '__file__', None), getattr(module, '__cached__', None)):
        if name and os.path.exists(name):
            print(os.path.realpath(name))
";

/// What was made here: a program, or a directory of files.
#[derive(Clone, Debug)]
pub struct Built {
    /// Where it is on this machine.
    pub file: PathBuf,
    /// Where the guest shall have it.
    pub place: PathBuf,
}

/// Writes the initramfs, with these programs and directories in it, and returns its path and size in
/// bytes.
///
/// # Errors
/// When something that belongs into it is missing.
pub fn write(
    machine: &Machine,
    kernels: &[Kernel],
    built: &[Built],
    directories: &[Built],
    plan: &Plan,
) -> Result<(PathBuf, u64)> {
    let directory = target_dir().join("vm");
    let stripped = directory.join("stripped");
    std::fs::create_dir_all(&stripped).with_context(|| format!("make {}", stripped.display()))?;
    let mut tree = Tree::default();
    for path in ["/dev", "/etc", "/proc", "/root", "/run", "/sys", "/tmp", "/var"] {
        tree.directory(Path::new(path));
    }
    tree.link(Path::new("/var/run"), Path::new("/run"));
    // On a merged /usr these are links, and programs name their interpreter by them.
    for path in ["/bin", "/sbin", "/lib", "/lib64"].map(Path::new) {
        match std::fs::read_link(path) {
            Ok(target) => tree.link(path, &target),
            Err(_) => tree.directory(path),
        }
    }
    let mut objects = BTreeSet::new();
    for program in PROGRAMS {
        objects.insert(tree.host(&find(machine, program)?)?);
    }
    for plugins in PLUGINS.map(Path::new).into_iter().filter(|p| p.is_dir()) {
        for entry in std::fs::read_dir(plugins).context("read the plug-ins of iptables")? {
            let path = entry.context("read the plug-ins of iptables")?.path();
            if path.extension().is_some_and(|e| e == "so") {
                objects.insert(tree.host(&path)?);
            }
        }
    }
    for path in CONFIGURATION.map(Path::new).into_iter().filter(|p| p.is_dir()) {
        tree.copy_below(path, path)?;
    }
    for file in python_files(machine)? {
        let real = tree.host(&file)?;
        if real.extension().is_some_and(|e| e != "py" && e != "pyc") {
            objects.insert(real);
        }
    }
    let init = std::env::current_exe().context("find this program")?;
    let init = Built { file: init, place: "/init".into() };
    for built in built.iter().chain([&init]) {
        // Symbols are most of it.
        let name = built.file.file_name().context("a program without a name")?;
        let small = stripped.join(name);
        let mut strip = Command::new("strip");
        output_of(strip.arg("--strip-all").arg("-o").arg(&small).arg(&built.file))?;
        tree.copy_as(&built.place, &small)?;
        objects.insert(built.file.clone());
    }
    for directory in directories {
        tree.copy_below(&directory.place, &directory.file)?;
    }
    for library in libraries(&objects)? {
        tree.host(&library)?;
    }
    for kernel in kernels {
        let place = Path::new("/lib/modules").canonicalize();
        let place = place.unwrap_or_else(|_| "/usr/lib/modules".into()).join(&kernel.release);
        tree.copy_below(&place, &kernel.modules())?;
    }
    tree.text(Path::new("/etc/passwd"), b"root:x:0:0:root:/root:/bin/bash\n".to_vec());
    // ipset asks for protocols by name.
    let protocols = b"icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\n";
    tree.text(Path::new("/etc/protocols"), protocols.to_vec());
    tree.text(Path::new("/etc/hosts"), b"127.0.0.1 localhost\n::1 localhost\n".to_vec());
    tree.text(Path::new(plan::FILE), serde_json::to_vec(plan).context("write the plan")?);
    let file = directory.join("initramfs.cpio");
    tree.write(&file)?;
    Ok((file, tree.size()))
}

/// A program in a directory of the system: elsewhere may be wrappers that need what is not here.
fn find(machine: &Machine, program: &str) -> Result<PathBuf> {
    let system = ["usr/sbin", "usr/bin", "sbin", "bin"].map(|d| machine.root.join(d).join(program));
    let found = system.into_iter().find(|path| is_executable(path));
    found.with_context(|| format!("{program} is missing: run `cargo xtask setup`"))
}

fn python_files(machine: &Machine) -> Result<Vec<PathBuf>> {
    let python = find(machine, "python3")?;
    // -I and -S: nothing of this user, and no installed packages.
    let output = output_of(Command::new(python).args(["-I", "-S", "-c", PYTHON]))?;
    let text = String::from_utf8(output).context("names of Python's files")?;
    let mut files: BTreeSet<PathBuf> = text.lines().map(PathBuf::from).collect();
    // `site` is loaded when Python is started in the ordinary way.
    for name in ["site.py", "sitecustomize.py", "_sitebuiltins.py"] {
        let directory = files.iter().find(|f| f.ends_with("os.py")).and_then(|f| f.parent());
        if let Some(file) = directory.map(|d| d.join(name)).filter(|f| f.is_file()) {
            files.insert(file);
        }
    }
    Ok(files.into_iter().collect())
}

/// The libraries that these programs and libraries are linked with.
fn libraries(objects: &BTreeSet<PathBuf>) -> Result<BTreeSet<PathBuf>> {
    let mut command = Command::new("ldd");
    command.args(objects).stderr(std::process::Stdio::null());
    command.env("PATH", process::path_with_sbin()).env_remove("LD_LIBRARY_PATH");
    // It fails when one of them is a script, and still tells of all others.
    let output = command.output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if let Some(line) = text.lines().find(|line| line.contains("=> not found")) {
        bail!("ldd: {}", line.trim());
    }
    Ok(text.lines().filter_map(library).collect())
}

/// `\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `\t/lib64/ld-linux-x86-64.so.2 (0x…)`
fn library(line: &str) -> Option<PathBuf> {
    let line = line.strip_prefix('\t')?;
    let (path, _) = line.rsplit_once(" (0x")?;
    let path = path.split_once(" => ").map_or(path, |(_, path)| path);
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_says_is_understood() {
        let path = |line: &str| library(line).map(|p| p.display().to_string());
        let libc = "/lib/x86_64-linux-gnu/libc.so.6";
        let line = format!("\tlibc.so.6 => {libc} (0x00007f)");
        assert_eq!(path(&line).as_deref(), Some(libc));
        let interpreter = "/lib64/ld-linux-x86-64.so.2";
        assert_eq!(path(&format!("\t{interpreter} (0x00007f)")).as_deref(), Some(interpreter));
        for other in ["\tlinux-vdso.so.1 (0x00007f)", "/usr/bin/ip:", "\tnot a dynamic executable"]
        {
            assert_eq!(path(other), None);
        }
    }
}
