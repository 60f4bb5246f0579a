//! Hop programs on kernels without TCX (before Linux 6.6): filters of clsact qdiscs.
//!
//! Unlike a TCX link, a filter belongs to the interface, not to a process: it stays until somebody
//! removes it. So each filter's name tells whose it is, by the id of a BPF map that lives exactly as
//! long as its podtrace does. Ids are the same in all namespaces of a kernel, and are not used
//! again. Whoever starts next removes the filters of those that are no more, see [`sweep`].
//!
//! A clsact qdisc that podtrace has added is removed with the last filter on it. Others' filters,
//! and qdiscs that podtrace found, are left as they are.

mod tc;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::maps::{MapData, MapError, MapInfo};
use nix::fcntl::{Flock, FlockArg};

use crate::model::Hook;
use crate::netns::{NETNS_DIR, Netns};
use tc::{Parent, Tc};

/// What the names of podtrace's filters begin with.
pub(super) const PREFIX: &str = "podtrace/";
/// How the name goes on when the qdisc is podtrace's too.
const OWN_QDISC: &str = "/qdisc";
/// Name of the map whose id tells who owns a filter; the kernel keeps 15 bytes of it.
const OWNER_MAP: &str = "podtrace_owner";
/// Filters with lower numbers see packets first, and may end their way through the list.
const FIRST: u16 = 1;
/// The last priority that is tried: one may be taken by a filter of another kind.
const LAST: u16 = 16;
/// Held while qdiscs are looked at and changed, so that two podtraces do not remove what the other
/// one needs.
const LOCK: &str = "/run/podtrace/clsact.lock";

/// Whose a filter is, from its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    map: u32,
    own_qdisc: bool,
}

impl Owner {
    fn name(self) -> String {
        format!("{PREFIX}{}{}", self.map, if self.own_qdisc { OWN_QDISC } else { "" })
    }

    /// `None`: not podtrace's.
    fn of(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(PREFIX)?;
        let (map, own_qdisc) = match rest.strip_suffix(OWN_QDISC) {
            Some(map) => (map, true),
            None => (rest, false),
        };
        Some(Self { map: map.parse().ok()?, own_qdisc })
    }
}

impl From<Hook> for Parent {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::Ingress => Self::Ingress,
            Hook::Egress => Self::Egress,
        }
    }
}

/// A filter of ours.
#[derive(Clone, Copy, Debug)]
struct Attached {
    ifindex: u32,
    parent: Parent,
    priority: u16,
    handle: u32,
}

/// What a program's attaching came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It sees every packet.
    First,
    /// Others see packets before it, and may keep them from it.
    Behind,
    /// An ingress qdisc is where clsact should be; it has no egress, and cannot be replaced without
    /// losing what is on it.
    Nowhere,
}

/// The filters of this process. Dropping it removes them.
pub(super) struct Clsact {
    /// Nobody else holds it: it ends with this process.
    owner: MapData,
    filters: HashMap<u32, (Netns, Vec<Attached>)>,
}

impl Clsact {
    /// Nothing is attached yet.
    pub(super) fn new() -> Result<Self, MapError> {
        // `BPF_MAP_TYPE_ARRAY` (include/uapi/linux/bpf.h) with one entry of four bytes.
        let one_word = aya_obj::Map::new_from_params(2, 4, 4, 1, 0);
        Ok(Self { owner: MapData::create(one_word, OWNER_MAP, None)?, filters: HashMap::new() })
    }

    /// Attaches both hop programs to an interface of `netns`, which is the current namespace.
    pub(super) fn attach(
        &mut self,
        netns: &Netns,
        ifindex: u32,
        programs: [(Hook, BorrowedFd<'_>); 2],
    ) -> io::Result<[Place; 2]> {
        let _lock = lock();
        let mut tc = Tc::open()?;
        let added = tc.add_clsact(ifindex)?;
        let qdisc = tc.qdiscs()?.into_iter().find(|q| q.ifindex == ifindex);
        let ingress_only = qdisc.is_some_and(|q| q.kind != "clsact");
        // Another podtrace's qdisc is to be removed by the last of us.
        let own_qdisc = added || filters(&mut tc, ifindex)?.iter().any(|o| o.own_qdisc);
        let map = self.owner.info().map_err(io::Error::other)?.id();
        let name = Owner { map, own_qdisc }.name();
        let mine =
            &mut self.filters.entry(netns.inum()).or_insert_with(|| (netns.clone(), Vec::new())).1;
        let mut places = [Place::Nowhere; 2];
        for (place, (hook, program)) in places.iter_mut().zip(programs) {
            let parent = Parent::from(hook);
            if ingress_only && parent == Parent::Egress {
                continue;
            }
            let (priority, handle) = add_first(&mut tc, ifindex, parent, program, &name)?;
            mine.push(Attached { ifindex, parent, priority, handle });
            let before = tc.filters(ifindex, parent)?;
            let first =
                before.first().is_some_and(|f| (f.priority, f.handle) == (priority, handle));
            *place = if first { Place::First } else { Place::Behind };
        }
        Ok(places)
    }
}

impl Drop for Clsact {
    fn drop(&mut self) {
        let _lock = lock();
        for (netns, filters) in self.filters.values() {
            // A namespace or interface that is gone has taken its filters along.
            let _ = netns.run(|| remove(filters));
        }
    }
}

/// Removes filters of the current namespace, and what nobody needs without them.
fn remove(attached: &[Attached]) -> io::Result<()> {
    let mut tc = Tc::open()?;
    let interfaces: HashSet<u32> = attached.iter().map(|a| a.ifindex).collect();
    for ifindex in interfaces {
        let own_qdisc = filters(&mut tc, ifindex).is_ok_and(|f| f.iter().any(|o| o.own_qdisc));
        for filter in attached.iter().filter(|a| a.ifindex == ifindex) {
            // The interface may be gone.
            let _ = tc.delete_filter(ifindex, filter.parent, filter.priority, filter.handle);
        }
        if own_qdisc {
            remove_unused(&mut tc, ifindex);
        }
    }
    Ok(())
}

/// Removes the clsact qdisc of an interface unless something hangs on it.
fn remove_unused(tc: &mut Tc, ifindex: u32) {
    let empty = |tc: &mut Tc, parent| tc.filters(ifindex, parent).is_ok_and(|f| f.is_empty());
    if empty(tc, Parent::Ingress) && empty(tc, Parent::Egress) {
        // It may be gone with the interface.
        let _ = tc.delete_clsact(ifindex);
    }
}

/// The owners of podtrace's filters on an interface.
fn filters(tc: &mut Tc, ifindex: u32) -> io::Result<Vec<Owner>> {
    let mut owners = Vec::new();
    for parent in [Parent::Ingress, Parent::Egress] {
        owners.extend(tc.filters(ifindex, parent)?.iter().filter_map(|f| Owner::of(&f.name)));
    }
    Ok(owners)
}

/// Attaches before all others if possible.
fn add_first(
    tc: &mut Tc,
    ifindex: u32,
    parent: Parent,
    program: BorrowedFd<'_>,
    name: &str,
) -> io::Result<(u16, u32)> {
    let mut priority = FIRST;
    loop {
        match tc.add_filter(ifindex, parent, priority, program, name) {
            Ok(handle) => return Ok((priority, handle)),
            // All filters of one priority are of one kind and protocol.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && priority < LAST => {
                priority += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits for other podtraces. Where there is no directory for the lock nobody else can have it.
fn lock() -> Option<Flock<fs::File>> {
    fs::create_dir_all(Path::new(LOCK).parent()?).ok()?;
    let file = fs::OpenOptions::new().create(true).write(true).truncate(false).open(LOCK).ok()?;
    Flock::lock(file, FlockArg::LockExclusive).ok()
}

/// Removes, in all namespaces that can be found, the filters of podtraces that have been killed.
/// `program` begins the names of the hop programs. To be called before the first of this process'
/// filters is attached; `Err` when the kernel does not tell who lives.
pub(super) fn sweep(program: &str) -> Result<(), aya::programs::ProgramError> {
    let mut any = false;
    for loaded in aya::programs::loaded_programs() {
        any |= loaded?.name_as_str().is_some_and(|name| name.starts_with(program));
    }
    if !any {
        // Nothing to look for.
        return Ok(());
    }
    let _lock = lock();
    for netns in namespaces() {
        // It may go away at any time, and its filters with it.
        let _ = netns.run(sweep_here);
    }
    Ok(())
}

/// Whether the podtrace that owns this map may still live.
fn lives(map: u32) -> bool {
    match MapInfo::from_id(map) {
        Ok(info) => info.name_as_str() == Some(OWNER_MAP),
        Err(MapError::SyscallError(error)) => error.io_error.raw_os_error() != Some(libc::ENOENT),
        Err(_) => true,
    }
}

fn sweep_here() -> io::Result<()> {
    let mut tc = Tc::open()?;
    for qdisc in tc.qdiscs()? {
        let mut own_qdisc = false;
        for parent in [Parent::Ingress, Parent::Egress] {
            for filter in tc.filters(qdisc.ifindex, parent)? {
                let Some(owner) = Owner::of(&filter.name).filter(|o| !lives(o.map)) else {
                    continue;
                };
                own_qdisc |= owner.own_qdisc;
                // Shown twice where there is no egress, and perhaps gone with its interface.
                let _ = tc.delete_filter(qdisc.ifindex, parent, filter.priority, filter.handle);
            }
        }
        if own_qdisc && qdisc.kind == "clsact" {
            remove_unused(&mut tc, qdisc.ifindex);
        }
    }
    Ok(())
}

/// Every network namespace that has a name or a process.
fn namespaces() -> Vec<Netns> {
    let below = |directory: &str, rest: &str| -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        entries.map(|entry| entry.path().join(rest)).collect()
    };
    let named = fs::read_dir(NETNS_DIR).into_iter().flatten().flatten().map(|e| e.path());
    let mut known = HashSet::new();
    let mut found = Vec::new();
    for path in named.chain(below("/proc", "ns/net")) {
        // Through the link, without opening the namespace: there are many processes in few of them.
        let Ok(inode) = fs::metadata(&path).map(|m| m.ino()) else { continue };
        if known.insert(inode)
            && let Some(name) = path.to_str()
            && let Ok(netns) = Netns::open(name)
        {
            found.push(netns);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_a_filter_is() {
        for owner in [Owner { map: 17, own_qdisc: true }, Owner { map: 4, own_qdisc: false }] {
            assert_eq!(Owner::of(&owner.name()), Some(owner));
        }
        assert_eq!(Owner { map: 17, own_qdisc: true }.name(), "podtrace/17/qdisc");
        for other in
            ["", "cil_from_container", "podtrace", "podtrace/", "podtrace/x", "xpodtrace/1"]
        {
            assert_eq!(Owner::of(other), None, "{other}");
        }
    }
}
