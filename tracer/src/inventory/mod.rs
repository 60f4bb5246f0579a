//! The inventory file: which nodes and pods there are.
//!
//! Enters: a TOML file. Leaves: a validated [`Inventory`]. Nothing about interfaces, address ranges
//! or peers is told here; all of that comes from the kernel.

mod check;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

/// Environment variable that names an inventory file.
pub const ENV: &str = "PODTRACE_INVENTORY";

/// Where an inventory is looked for when neither an option nor [`ENV`] names one, in this order.
/// The lab writes the first, an administrator the second.
pub const SYSTEM_PATHS: [&str; 2] =
    ["/run/podtrace/inventory.toml", "/etc/podtrace/inventory.toml"];

/// Namespace of a pod that names none (Kubernetes' own default).
pub const DEFAULT_NAMESPACE: &str = "default";

/// Nodes and their pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The file it came from.
    pub path: PathBuf,
    /// In the order of the file.
    pub nodes: Vec<Node>,
    /// Folder with the certificates to show to agents; `None`: where they are without an inventory.
    pub collector_tls: Option<PathBuf>,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique name.
    pub name: String,
    /// Where it can be observed.
    pub place: Place,
    /// Its pods; none for what only stands between nodes.
    pub pods: Vec<Pod>,
}

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A network namespace of this machine: a name under `/run/netns`, or a path.
    Netns(String),
    /// Another machine: URL of the agent there.
    Agent(String),
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name, unique in its namespace.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
    /// Network namespace: a name under `/run/netns`, or a path; `None`: to be found from the
    /// addresses.
    pub netns: Option<String>,
}

/// Why an inventory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// The file that was asked for does not exist.
    #[error("there is no inventory file {}{}", path.display(), asked_by(*from_env))]
    Missing {
        /// The file.
        path: PathBuf,
        /// Asked for through [`ENV`].
        from_env: bool,
    },
    /// None was found, where one is needed.
    #[error(
        "there is no inventory: give --inventory FILE, or start the lab (podtrace lab up), which \
         writes {}",
        SYSTEM_PATHS[0]
    )]
    None,
    /// The file cannot be read.
    #[error("cannot read inventory {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it says is wrong.
    #[error("{}:{line}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What, and what to do.
        message: String,
    },
}

impl InventoryError {
    /// Whether the user has to change what was typed or written (exit status 2), rather than
    /// podtrace having failed (exit status 1).
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }
}

fn asked_by(from_env: bool) -> &'static str {
    if from_env { " (named by PODTRACE_INVENTORY)" } else { "" }
}

impl Inventory {
    /// Reads the inventory that applies: `explicit`, else the one that [`ENV`] names, else the
    /// first of [`SYSTEM_PATHS`] that exists. `None` when there is none.
    ///
    /// # Errors
    /// When a file that was asked for is missing, or the one found is unreadable or wrong.
    pub fn load(explicit: Option<&Path>) -> Result<Option<Self>, InventoryError> {
        let system = SYSTEM_PATHS.map(Path::new);
        Self::load_from(explicit, std::env::var_os(ENV), &system)
    }

    fn load_from(
        explicit: Option<&Path>,
        env: Option<OsString>,
        system: &[&Path],
    ) -> Result<Option<Self>, InventoryError> {
        let env = env.filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(path) = explicit.or(env.as_deref()) {
            let from_env = explicit.is_none();
            return match Self::read(path)? {
                Some(inventory) => Ok(Some(inventory)),
                None => Err(InventoryError::Missing { path: path.to_owned(), from_env }),
            };
        }
        for path in system {
            if let Some(inventory) = Self::read(path)? {
                return Ok(Some(inventory));
            }
        }
        Ok(None)
    }

    /// `None` when there is no such file.
    fn read(path: &Path) -> Result<Option<Self>, InventoryError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(InventoryError::Read { path: path.to_owned(), source }),
        }
    }

    /// Understands `text`; `path` is for messages.
    ///
    /// # Errors
    /// When it is not TOML, has an unknown key, or contradicts itself.
    pub fn parse(path: &Path, text: &str) -> Result<Self, InventoryError> {
        let invalid = |at: usize, message: String| InventoryError::Invalid {
            path: path.to_owned(),
            line: line_of(text, at),
            message,
        };
        let file: File = toml::from_str(text).map_err(|e| {
            invalid(e.span().map_or(0, |s| s.start), e.message().trim().replace('\n', "; "))
        })?;
        // Relative to the inventory.
        let folder = path.parent().unwrap_or(Path::new(""));
        let collector_tls = file.collector.tls.as_ref().map(|tls| folder.join(tls));
        let nodes = check::nodes(file).map_err(|fault| invalid(fault.at, fault.message))?;
        Ok(Self { path: path.to_owned(), nodes, collector_tls })
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }

    /// Every pod with its node.
    pub fn pods(&self) -> impl Iterator<Item = (&Node, &Pod)> {
        self.nodes.iter().flat_map(|n| n.pods.iter().map(move |p| (n, p)))
    }
}

/// Line of a byte offset, from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// The file as written; [`check`] turns it into what the rest of podtrace sees.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    node: Vec<FileNode>,
    #[serde(default)]
    collector: FileCollector,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCollector {
    tls: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNode {
    name: Spanned<String>,
    netns: Option<String>,
    agent: Option<String>,
    #[serde(default)]
    pod: Vec<FilePod>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FilePod {
    name: Spanned<String>,
    namespace: Option<String>,
    #[serde(default)]
    ip: Vec<Spanned<String>>,
    netns: Option<String>,
}
