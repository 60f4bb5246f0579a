//! What this machine is and has: programs, toolchains, distribution. Looks at files only, so that
//! the answer takes milliseconds, and under a root and PATH that tests can choose.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A machine to build and run podtrace on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `/`, except in tests.
    pub root: PathBuf,
    /// Directories of PATH.
    pub path: Vec<PathBuf>,
    /// `$CARGO_HOME` or `~/.cargo`.
    pub cargo_home: PathBuf,
    /// `$RUSTUP_HOME` or `~/.rustup`.
    pub rustup_home: PathBuf,
    /// May install packages and make network namespaces.
    pub is_root: bool,
}

/// A distribution as os-release(5) names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Distribution {
    /// `debian`
    pub id: String,
    /// `12`; empty for a rolling one.
    pub version: String,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn this() -> Self {
        let home = env::var_os("HOME").map_or_else(|| PathBuf::from("/root"), PathBuf::from);
        let dir = |variable: &str, default: &str| {
            env::var_os(variable).map_or_else(|| home.join(default), PathBuf::from)
        };
        Self {
            root: PathBuf::from("/"),
            path: env::var_os("PATH").map_or_else(Vec::new, |p| env::split_paths(&p).collect()),
            cargo_home: dir("CARGO_HOME", ".cargo"),
            rustup_home: dir("RUSTUP_HOME", ".rustup"),
            is_root: nix::unistd::geteuid().is_root(),
        }
    }

    /// Where a program is. The sbin directories count too: podtrace is run as root, whose PATH has
    /// them, even if this user's has not.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        let sbin = ["usr/local/sbin", "usr/sbin", "sbin"].map(|dir| self.root.join(dir));
        self.path.iter().chain(&sbin).map(|dir| dir.join(program)).find(|p| is_executable(p))
    }

    /// Whether programs of this name are there.
    pub fn has(&self, program: &str) -> bool {
        self.find(program).is_some()
    }

    /// `None` where os-release(5) is missing.
    pub fn distribution(&self) -> Option<Distribution> {
        let text = ["etc/os-release", "usr/lib/os-release"]
            .iter()
            .find_map(|file| fs::read_to_string(self.root.join(file)).ok())?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(|value| value.trim_matches(['"', '\'']).to_owned())
        };
        Some(Distribution { id: value("ID")?, version: value("VERSION_ID").unwrap_or_default() })
    }
}

/// A file that may be executed by somebody.
pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An empty machine in a directory, with `usr/bin` on its PATH.
    pub fn empty(root: &Path) -> Machine {
        Machine {
            root: root.to_owned(),
            path: vec![root.join("usr/bin")],
            cargo_home: root.join("home/.cargo"),
            rustup_home: root.join("home/.rustup"),
            is_root: true,
        }
    }

    /// Puts an executable file there.
    pub fn put_program(root: &Path, file: &str) -> PathBuf {
        let path = root.join(file);
        put_file(root, file, "#!/bin/sh\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Puts a plain file there.
    pub fn put_file(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn finds_programs_on_the_path_and_in_sbin() {
        let dir = tempfile::tempdir().unwrap();
        let machine = empty(dir.path());
        assert_eq!(machine.find("ip"), None);
        let bin = put_program(dir.path(), "usr/bin/curl");
        let sbin = put_program(dir.path(), "usr/sbin/ip");
        put_file(dir.path(), "usr/bin/README", "not a program");
        assert_eq!(machine.find("curl"), Some(bin));
        assert_eq!(machine.find("ip"), Some(sbin));
        assert_eq!(machine.find("README"), None);
    }

    #[test]
    fn reads_the_distribution() {
        let dir = tempfile::tempdir().unwrap();
        let machine = empty(dir.path());
        assert_eq!(machine.distribution(), None);
        let text = "NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n";
        put_file(dir.path(), "etc/os-release", text);
        let expected = Distribution { id: "debian".into(), version: "12".into() };
        assert_eq!(machine.distribution(), Some(expected));
    }
}
