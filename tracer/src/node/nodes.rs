//! The nodes of an inventory, connected to when they are first needed.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::renumber::{MAX_SITES, Renumbered};
use super::{
    Depth, FactsRequest, Hello, LocalNode, Locate, Located, NetnsRef, Node, NodeError, SpaceAnswer,
    SpaceRequest, message,
};
use crate::agent::client;
use crate::facts::NetnsFacts;
use crate::inventory::{self, Inventory, Place};

/// Makes a connection to the agent of a node.
pub type Connect = Box<dyn Fn(&inventory::Node) -> Result<Box<dyn Node>, NodeError> + Send + Sync>;

/// Where questions about a node are answered: this machine, or the agent of one node.
#[derive(Debug)]
pub struct Site {
    node: Box<dyn Node>,
    /// Name of the node; `None`: this machine, which may hold several.
    name: Option<String>,
    /// What it said of itself; `None`: nothing could be found out.
    hello: Option<Hello>,
    number: u8,
}

impl std::ops::Deref for Site {
    type Target = dyn Node;

    fn deref(&self) -> &Self::Target {
        &*self.node
    }
}

impl Site {
    /// Whether it can become unreachable.
    pub fn is_remote(&self) -> bool {
        self.name.is_some()
    }

    /// Name of the one node that is there; `None`: this machine.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// What it said of itself when it was connected to.
    pub fn said(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// Number of the clock that its events carry the time of: 0 for this machine, and another for
    /// every agent, even where several are on one machine.
    pub fn machine(&self) -> u16 {
        u16::from(self.number)
    }

    /// Finds a namespace there.
    ///
    /// # Errors
    /// As [`Node::locate`].
    pub fn find(self: &Arc<Self>, what: &Locate) -> Result<(Namespace, Located), NodeError> {
        let located = self.locate(what)?;
        Ok((Namespace { site: Arc::clone(self), netns: located.netns.clone() }, located))
    }
}

/// A network namespace of some node.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// Where it is.
    pub site: Arc<Site>,
    /// Which it is there. The number is used by no other namespace of any node.
    pub netns: NetnsRef,
}

impl Namespace {
    /// As a person would name it.
    pub fn name(&self) -> &str {
        &self.netns.name
    }

    /// Its number.
    pub fn inum(&self) -> u32 {
        self.netns.inum
    }

    /// Reads its state. `ends` are the addresses of the flow.
    ///
    /// # Errors
    /// When it cannot be entered, or the node does not answer.
    pub fn read(&self, depth: Depth, ends: &[IpAddr]) -> io::Result<NetnsFacts> {
        let request = FactsRequest {
            spaces: vec![SpaceRequest { netns: self.inum(), queries: Vec::new() }],
            depth,
            ends: ends.to_vec(),
            peers: None,
        };
        let facts = self.site.facts(&request).map_err(io::Error::other)?;
        match facts.spaces.into_iter().next() {
            Some(SpaceAnswer::Read(facts)) => Ok(*facts),
            Some(SpaceAnswer::Failed(cause)) => Err(cause.into()),
            None => Err(io::Error::other("the node left it out")),
        }
    }
}

/// All nodes that there may be.
pub struct Nodes {
    inventory: Option<Inventory>,
    local: Arc<Site>,
    /// Those elsewhere, in the order in which they were needed.
    remote: Mutex<Vec<Arc<Site>>>,
    connect: Connect,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("inventory", &self.inventory).finish_non_exhaustive()
    }
}

impl Nodes {
    /// Those of the inventory, and this machine.
    pub fn new(inventory: Option<Inventory>) -> Self {
        let certificates = inventory.as_ref().and_then(|i| i.collector_tls.clone());
        let connect = move |node: &inventory::Node| -> Result<Box<dyn Node>, NodeError> {
            let Place::Agent(agent) = &node.place else {
                return Err(NodeError::Refused(format!("node {} is on this machine", node.name)));
            };
            Ok(Box::new(client::connect(&node.name, agent, certificates.as_deref())?))
        };
        Self::with_connect(inventory, Box::new(connect))
    }

    /// The same with an own way of connecting to agents.
    pub fn with_connect(inventory: Option<Inventory>, connect: Connect) -> Self {
        let node = LocalNode::new();
        let hello = node.hello().ok();
        let local = Arc::new(Site { node: Box::new(node), name: None, hello, number: 0 });
        Self { inventory, local, remote: Mutex::default(), connect }
    }

    /// The inventory, if there is one.
    pub fn inventory(&self) -> Option<&Inventory> {
        self.inventory.as_ref()
    }

    /// This machine.
    pub fn local(&self) -> &Arc<Site> {
        &self.local
    }

    /// Where a node is; connects to its agent when that was not done before.
    ///
    /// # Errors
    /// When the agent cannot be reached, refuses, or speaks another version.
    pub fn site(&self, node: &inventory::Node) -> Result<Arc<Site>, NodeError> {
        let Place::Agent(_) = &node.place else { return Ok(Arc::clone(&self.local)) };
        let mut remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(site) = remote.iter().find(|s| s.name() == Some(&node.name)) {
            return Ok(Arc::clone(site));
        }
        let number = u8::try_from(remote.len() + 1).ok().filter(|n| *n <= MAX_SITES);
        let number = number.ok_or_else(|| {
            NodeError::Refused(format!("more than {MAX_SITES} nodes on other machines"))
        })?;
        let connected = (self.connect)(node)?;
        let hello = connected.hello()?;
        if hello.protocol != message::PROTOCOL {
            return Err(NodeError::Refused(format!(
                "its podtrace {} speaks version {} of the protocol, this one version {}: use the \
                 same podtrace on both",
                hello.version,
                hello.protocol,
                message::PROTOCOL
            )));
        }
        let site = Arc::new(Site {
            node: Box::new(Renumbered::new(connected, number)),
            name: Some(node.name.clone()),
            hello: Some(hello),
            number,
        });
        remote.push(Arc::clone(&site));
        Ok(site)
    }

    /// Every place where a node of the inventory is, this machine first. Places that cannot be reached
    /// are left out; each is connected to when the iterator comes to it.
    pub fn sites(&self) -> impl Iterator<Item = Arc<Site>> + '_ {
        let nodes = self.inventory.iter().flat_map(|i| &i.nodes);
        let remote = nodes.filter(|n| matches!(n.place, Place::Agent(_)));
        std::iter::once(Arc::clone(&self.local)).chain(remote.filter_map(|n| self.site(n).ok()))
    }

    /// Nodes of the inventory that are at a site.
    pub fn at<'a>(&'a self, site: &'a Site) -> impl Iterator<Item = &'a inventory::Node> {
        let here = move |node: &&inventory::Node| match &node.place {
            Place::Netns(_) => !site.is_remote(),
            Place::Agent(_) => site.name() == Some(&node.name),
        };
        self.inventory.iter().flat_map(|i| &i.nodes).filter(here)
    }

    /// Names of the namespaces that the inventory gives to nodes at a site.
    pub fn node_names(&self, site: &Site) -> Vec<String> {
        let names = self.at(site).filter_map(|node| match &node.place {
            Place::Netns(name) => Some(name.clone()),
            Place::Agent(_) => None,
        });
        names.collect()
    }

    /// Names of the namespaces that the inventory gives to pods at a site.
    pub fn pod_names(&self, site: &Site) -> Vec<String> {
        self.at(site).flat_map(|n| &n.pods).filter_map(|p| p.netns.clone()).collect()
    }

    /// Both: ids can be resolved only to namespaces that are known.
    pub fn peers(&self, site: &Site) -> Vec<String> {
        let mut names = self.node_names(site);
        names.extend(self.pod_names(site));
        names
    }
}
