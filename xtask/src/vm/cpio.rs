//! An initramfs: files collected from this machine, written as a `newc` cpio archive
//! (Documentation/driver-api/early-userspace/buffer-format.rst, Linux 6.18).

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// One entry of the archive.
#[derive(Clone, Debug)]
enum Node {
    Directory,
    Link(PathBuf),
    /// Content of a file of this machine, and whether it may be executed.
    File(PathBuf, bool),
    Text(Vec<u8>),
}

/// What the guest's root file system will hold, by absolute path.
#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<PathBuf, Node>);

impl Tree {
    /// An empty directory.
    pub fn directory(&mut self, path: &Path) {
        if let Some(parent) = path.parent() {
            if parent != Path::new("/") {
                self.directory(parent);
            }
            self.0.entry(path.to_owned()).or_insert(Node::Directory);
        }
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &Path, target: &Path) {
        self.put(path, Node::Link(target.to_owned()));
    }

    /// A file with this content.
    pub fn text(&mut self, path: &Path, content: Vec<u8>) {
        self.put(path, Node::Text(content));
    }

    /// The content of `source` at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn copy_as(&mut self, path: &Path, source: &Path) -> Result<()> {
        let metadata =
            fs::metadata(source).with_context(|| format!("read {}", source.display()))?;
        let executable = metadata.permissions().mode() & 0o111 != 0;
        self.put(path, Node::File(source.to_owned(), executable));
        Ok(())
    }

    fn put(&mut self, path: &Path, node: Node) {
        if let Some(parent) = path.parent()
            && parent != Path::new("/")
        {
            self.directory(parent);
        }
        self.0.insert(path.to_owned(), node);
    }

    /// A file of this machine at the place it has here, with the links that lead to it. Returns the
    /// file itself.
    ///
    /// # Errors
    /// When it is not there.
    pub fn host(&mut self, path: &Path) -> Result<PathBuf> {
        let read = || format!("read {}", path.display());
        let mut path = path.to_owned();
        // As many links as the kernel follows.
        for _ in 0..40 {
            let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                bail!("{}: no file", path.display());
            };
            // Directories may be links too (/bin is /usr/bin).
            let place = parent.canonicalize().with_context(read)?.join(name);
            let metadata = fs::symlink_metadata(&place).with_context(read)?;
            if !metadata.is_symlink() {
                if !metadata.is_file() {
                    bail!("{}: no file", place.display());
                }
                self.copy_as(&place, &place)?;
                return Ok(place);
            }
            let target = fs::read_link(&place).with_context(read)?;
            self.link(&place, &target);
            path = place.parent().unwrap_or(&place).join(target);
        }
        bail!("{}: too many links", path.display())
    }

    /// All files below a directory of this machine, at the same place below `at`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn copy_below(&mut self, at: &Path, directory: &Path) -> Result<()> {
        let read = || format!("read {}", directory.display());
        self.directory(at);
        for entry in fs::read_dir(directory).with_context(read)? {
            let entry = entry.with_context(read)?;
            let kind = entry.file_type().with_context(read)?;
            let place = at.join(entry.file_name());
            if kind.is_dir() {
                self.copy_below(&place, &entry.path())?;
            } else if kind.is_symlink() {
                self.link(&place, &fs::read_link(entry.path()).with_context(read)?);
            } else if kind.is_file() {
                self.copy_as(&place, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Writes the archive; the kernel takes it uncompressed, and unpacking it is a copy then.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn write(&self, file: &Path) -> Result<()> {
        let open = || format!("write {}", file.display());
        let mut out = io::BufWriter::new(fs::File::create(file).with_context(open)?);
        // Directories sort before what is in them, so each exists when it is needed.
        for (number, (path, node)) in self.0.iter().enumerate() {
            let (mode, content) = match node {
                Node::Directory => (S_IFDIR | 0o755, Vec::new()),
                Node::Link(target) => {
                    (S_IFLNK | 0o777, target.as_os_str().as_encoded_bytes().to_vec())
                }
                Node::File(source, executable) => {
                    let mode = if *executable { 0o755 } else { 0o644 };
                    let content =
                        fs::read(source).with_context(|| format!("read {}", source.display()))?;
                    (S_IFREG | mode, content)
                }
                Node::Text(content) => (S_IFREG | 0o644, content.clone()),
            };
            let name = path.strip_prefix("/").unwrap_or(path);
            entry(&mut out, number + 1, mode, name, &content).with_context(open)?;
        }
        entry(&mut out, 0, 0, Path::new("TRAILER!!!"), &[]).with_context(open)?;
        out.flush().with_context(open)
    }

    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.0
            .values()
            .map(|node| match node {
                Node::File(source, _) => fs::metadata(source).map_or(0, |m| m.size()),
                Node::Text(content) => content.len() as u64,
                Node::Directory | Node::Link(_) => 0,
            })
            .sum()
    }
}

/// One header, name and content, each padded to four bytes.
fn entry(
    out: &mut impl Write,
    number: usize,
    mode: u32,
    name: &Path,
    content: &[u8],
) -> io::Result<()> {
    const PADDING: [u8; 3] = [0; 3];
    let name = name.as_os_str().as_encoded_bytes();
    let links = if mode & S_IFDIR != 0 && mode & S_IFREG == 0 { 2 } else { 1 };
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    write!(
        out,
        "070701{number:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{length:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        name.len() + 1,
        0,
    )?;
    out.write_all(name)?;
    out.write_all(&[0])?;
    // The header is 110 bytes.
    out.write_all(&PADDING[..(4 - (110 + name.len() + 1) % 4) % 4])?;
    out.write_all(content)?;
    out.write_all(&PADDING[..(4 - content.len() % 4) % 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_headers_of_110_bytes_and_padding() {
        let directory = tempfile::tempdir().unwrap();
        let mut tree = Tree::default();
        tree.text(Path::new("/etc/a"), b"12345".to_vec());
        tree.link(Path::new("/bin"), Path::new("usr/bin"));
        let file = directory.path().join("x.cpio");
        tree.write(&file).unwrap();
        let bytes = fs::read(&file).unwrap();
        assert_eq!(bytes.len() % 4, 0);
        assert_eq!(&bytes[..6], b"070701");
        // In order: bin, etc, etc/a, the trailer.
        let text = String::from_utf8_lossy(&bytes);
        let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("no {needle:?}"));
        assert!(at("bin\0") < at("etc\0") && at("etc\0") < at("etc/a\0"));
        assert!(at("etc/a\0") < at("TRAILER!!!\0"));
        assert_eq!(at("etc/a\0") % 4, 110 % 4);
        assert_eq!(at("12345\0\0\x00070701") % 4, 0);
        assert_eq!(tree.size(), 5);
    }

    #[test]
    fn files_come_with_the_links_that_lead_to_them() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::write(root.join("usr/bin/multi"), "x").unwrap();
        std::os::unix::fs::symlink("multi", root.join("usr/bin/tool")).unwrap();
        std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
        let mut tree = Tree::default();
        let file = tree.host(&root.join("bin/tool")).unwrap();
        assert_eq!(file, root.join("usr/bin/multi"));
        assert!(matches!(tree.0.get(&root.join("usr/bin/tool")), Some(Node::Link(_))));
        assert!(matches!(tree.0.get(&file), Some(Node::File(_, false))));
        assert!(tree.host(&root.join("bin/none")).is_err());
    }
}
