//! Debian's packaged kernels, unpacked below `target/vm` and never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::machine::Machine;
use crate::process::{self, output_of, run_step, target_dir};

/// Kernel series and the package that depends on Debian's latest of it. The cloud flavour has what
/// virtual machines need and nothing else.
const PACKAGES: [(&str, &str); 2] =
    [("6.1", "linux-image-cloud-amd64"), ("6.12", "linux-image-6.12-cloud-amd64")];

/// Modules, or directories of them, below `kernel`, that a network of namespaces may ask for.
const MODULES: [&str; 21] = [
    "arch/x86/crypto",
    "crypto",
    "drivers/char/virtio_console",
    "drivers/net/bonding",
    "drivers/net/dummy",
    "drivers/net/ifb",
    "drivers/net/net_failover",
    "drivers/net/tun",
    "drivers/net/veth",
    "drivers/net/virtio_net",
    "drivers/net/vxlan",
    "drivers/virtio",
    "lib",
    "net/802",
    "net/bridge",
    "net/core",
    "net/ipv4",
    "net/ipv6",
    "net/llc",
    "net/netfilter",
    "net/sched",
];

/// A kernel that a guest can run.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says it.
    pub release: String,
    directory: PathBuf,
}

impl Kernel {
    /// The kernel itself.
    pub fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// The directory that becomes `/usr/lib/modules/RELEASE`.
    pub fn modules(&self) -> PathBuf {
        self.directory.join("lib/modules").join(&self.release)
    }
}

/// All series that there are.
pub fn series() -> impl Iterator<Item = &'static str> {
    PACKAGES.iter().map(|(series, _)| *series)
}

fn directory() -> PathBuf {
    target_dir().join("vm/kernels")
}

/// The kernel of a series: as unpacked before, else fetched from Debian.
///
/// # Errors
/// When it is not one of [`series`], or cannot be fetched or unpacked.
pub fn get(machine: &Machine, wanted: &str) -> Result<Kernel> {
    let Some((series, package)) = PACKAGES.iter().find(|(series, _)| *series == wanted) else {
        let known: Vec<_> = series().collect();
        bail!("kernel {wanted}: must be one of {}", known.join(", "));
    };
    let directory = directory().join(series);
    let kernel = |release: String| Kernel { release, directory: directory.clone() };
    // Written last: what has it is whole.
    let marker = directory.join("release");
    if let Ok(release) = fs::read_to_string(&marker) {
        return Ok(kernel(release.trim().to_owned()));
    }
    let work = directory.with_extension("new");
    for old in [&work, &directory] {
        if old.exists() {
            fs::remove_dir_all(old).with_context(|| format!("remove {}", old.display()))?;
        }
    }
    fs::create_dir_all(&work).with_context(|| format!("make {}", work.display()))?;
    let deb = download(machine, package, &work)?;
    let release = unpack(&deb, &work)?;
    fs::write(work.join("release"), &release).context("write the kernel's release")?;
    fs::rename(&work, &directory).with_context(|| format!("make {}", directory.display()))?;
    Ok(kernel(release))
}

/// Fetches the package that `package` depends on; returns the file.
fn download(machine: &Machine, package: &str, to: &Path) -> Result<PathBuf> {
    if !machine.has("apt-get") || !machine.has("dpkg-deb") {
        bail!("the guests' kernels are Debian packages: this needs apt-get and dpkg-deb");
    }
    let find = || -> Result<Option<String>> {
        let mut command = Command::new("apt-cache");
        command.args(["depends", "--no-recommends", "--no-suggests", package]);
        // An unknown package is no output, and a complaint that would only confuse here.
        command.stderr(std::process::Stdio::null());
        Ok(output_of(&mut command).ok().and_then(|bytes| real_package(&bytes)))
    };
    let name = match find()? {
        Some(name) => name,
        None if machine.is_root => {
            run_step("apt-get update", Command::new("apt-get").args(["-q", "update"]))?;
            find()?.with_context(|| format!("apt knows no package {package}"))?
        }
        None => bail!("apt knows no package {package}: run `apt-get update` as root"),
    };
    run_step(
        &format!("download {name} (30 MB)"),
        Command::new("apt-get").current_dir(to).args(["-q", "download", &name]),
    )?;
    let files = fs::read_dir(to).with_context(|| format!("read {}", to.display()))?;
    files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .with_context(|| format!("apt-get left no package in {}", to.display()))
}

/// What `apt-cache depends` says that a meta package stands for.
fn real_package(output: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(output);
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|name| name.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// Takes kernel and modules out of a package; returns the kernel's release.
fn unpack(deb: &Path, to: &Path) -> Result<String> {
    let all = to.join("all");
    run_step(
        &format!("unpack {}", deb.file_name().unwrap_or_default().to_string_lossy()),
        Command::new("dpkg-deb").arg("-x").arg(deb).arg(&all),
    )?;
    let modules = ["lib/modules", "usr/lib/modules"]
        .map(|directory| all.join(directory))
        .into_iter()
        .find(|directory| directory.is_dir())
        .context("the kernel package has no modules")?;
    let release = fs::read_dir(&modules)
        .with_context(|| format!("read {}", modules.display()))?
        .find_map(|entry| entry.ok()?.file_name().into_string().ok())
        .context("the kernel package has no modules")?;
    let from = modules.join(&release);
    let into = to.join("lib/modules").join(&release);
    let rename = |from: &Path, to: &Path| -> Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        }
        fs::rename(from, to).with_context(|| format!("make {}", to.display()))
    };
    rename(&all.join(format!("boot/vmlinuz-{release}")), &to.join("vmlinuz"))?;
    for file in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        rename(&from.join(file), &into.join(file))?;
    }
    // A name is a directory or a module, and that perhaps compressed.
    for name in MODULES.iter().flat_map(|m| ["", ".ko", ".ko.xz"].map(|e| format!("kernel/{m}{e}")))
    {
        if from.join(&name).exists() {
            rename(&from.join(&name), &into.join(&name))?;
        }
    }
    for old in [deb, &all] {
        let removed = if old.is_dir() { fs::remove_dir_all(old) } else { fs::remove_file(old) };
        removed.with_context(|| format!("remove {}", old.display()))?;
    }
    let packed = compressed(&into)?;
    if !packed.is_empty() {
        // Here it takes a moment; in a guest that is emulated it would take that often.
        run_step("unpack the modules", Command::new("xz").arg("-d").args(&packed))?;
    }
    let mut depmod = Command::new("depmod");
    depmod.env("PATH", process::path_with_sbin()).arg("-b").arg(to).arg(&release);
    run_step(&format!("depmod {release}"), &mut depmod)?;
    Ok(release)
}

/// Compressed modules below a directory.
fn compressed(directory: &Path) -> Result<Vec<PathBuf>> {
    let read = || format!("read {}", directory.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(read)? {
        let path = entry.with_context(read)?.path();
        if path.is_dir() {
            found.extend(compressed(&path)?);
        } else if path.extension().is_some_and(|e| e == "xz") {
            found.push(path);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meta_package_names_the_real_one() {
        let output = b"linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(real_package(output).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(real_package(b"linux-image-cloud-amd64\n"), None);
    }
}
