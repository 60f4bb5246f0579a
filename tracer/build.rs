//! Hands the eBPF object to the compiler as `$OUT_DIR/podtrace.bpf.o`. Where it has not been built
//! the file is empty, so that podtrace compiles and its tests run without an eBPF toolchain; the
//! program then says at run time that it cannot trace.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Takes the object from elsewhere: for packagers, who build it apart.
const OBJECT: &str = "PODTRACE_BPF_OBJECT";
/// Where `cargo xtask build-ebpf` puts it, from the workspace.
const BUILT: &str = "target/bpf/podtrace.o";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let output = PathBuf::from(variable("OUT_DIR")?).join("podtrace.bpf.o");
    let object = match env::var_os(OBJECT).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            fs::read(&path).map_err(|e| format!("{OBJECT}={}: {e}", path.display()))?;
            path
        }
        None => {
            let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
            package.parent().unwrap_or(&package).join(BUILT)
        }
    };
    println!("cargo::rerun-if-changed={}", watched(&object)?.display());
    let bytes = match fs::read(&object) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        result => result.map_err(|e| format!("{}: {e}", object.display()))?,
    };
    if fs::read(&output).ok().as_ref() != Some(&bytes) {
        fs::write(&output, bytes)?;
    }
    Ok(())
}

fn variable(name: &str) -> Result<std::ffi::OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: Cargo runs build scripts with it"))
}

/// What changes when the object does. A file that does not exist counts as changed in every build,
/// so until it appears its directory, which holds nothing else, stands for it.
fn watched(object: &Path) -> Result<&Path, String> {
    let Some(dir) = object.parent().filter(|_| !object.exists()) else { return Ok(object) };
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    Ok(dir)
}
