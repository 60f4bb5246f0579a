//! Network namespaces: open them, and run code inside one on a thread of its own.
//!
//! Enters: a name under `/run/netns` or a path. Leaves: handles, and the result of closures that ran
//! inside.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};

/// Where named namespaces are mounted (ip-netns(8)).
pub const NETNS_DIR: &str = "/run/netns";

/// A network namespace, held open.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    inum: u32,
    file: Arc<File>,
}

impl Netns {
    /// Opens `name`: a name under `/run/netns`, or a path when it contains a slash.
    ///
    /// # Errors
    /// When there is no such namespace, or `name` is the name of something else.
    pub fn open(name: &str) -> io::Result<Self> {
        let path: PathBuf =
            if name.contains('/') { name.into() } else { Path::new(NETNS_DIR).join(name) };
        // Looked at before it is opened: opening is an act for some files (pipes wait, a watchdog
        // starts), and a collector may name any.
        let at = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(&path)?;
        // The name of a namespace that is being deleted, or was in an earlier boot, is an empty file.
        if fstatfs(&at)?.filesystem_type() != NSFS_MAGIC {
            return Err(io::Error::other("not a network namespace"));
        }
        let file = File::open(format!("/proc/self/fd/{}", at.as_raw_fd()))?;
        // Inode numbers of namespaces are 32 bits (include/linux/ns_common.h).
        let inum = u32::try_from(file.metadata()?.ino()).map_err(io::Error::other)?;
        Ok(Self { name: name.to_owned(), inum, file: Arc::new(file) })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// When /proc is not mounted.
    pub fn current() -> io::Result<Self> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// As given to [`Netns::open`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Inode number: the kernel's identity for the namespace while it lives.
    pub fn inum(&self) -> u32 {
        self.inum
    }

    /// The open namespace file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs `f` inside the namespace, on a thread of its own, and waits for it. The calling thread
    /// never changes its namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered, no thread can be started, or `f` panicked.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|s| {
            std::thread::Builder::new()
                .name(format!("netns {}", self.name))
                .spawn_scoped(s, || {
                    let _inside = Guard::enter(self)?;
                    Ok(f())
                })?
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread inside a namespace panicked")))
        })
    }
}

/// While it lives, the calling thread is inside another namespace. Not `Send`: it must be dropped
/// on the thread that it moved.
#[derive(Debug)]
pub struct Guard {
    home: File,
    _not_send: PhantomData<*const ()>,
}

impl Guard {
    /// Moves the calling thread into `netns`.
    ///
    /// # Errors
    /// Without CAP_SYS_ADMIN.
    pub fn enter(netns: &Netns) -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        setns(netns.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(Self { home, _not_send: PhantomData })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET) {
            // Going on in the wrong namespace would act on the wrong node.
            eprintln!("podtrace: cannot leave a network namespace: {error}");
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_namespaces_are_opened() {
        let own = Netns::current().unwrap();
        assert_eq!(Netns::open("/proc/self/ns/net").unwrap().inum(), own.inum());
        // Opening it to read would wait for somebody who writes.
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = Netns::open(pipe.to_str().unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "not a network namespace");
    }
}
