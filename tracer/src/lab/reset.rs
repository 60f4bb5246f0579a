//! Empties a namespace of the lab, so that it can be built anew in it: sockets, shells and traces
//! that are inside keep their namespace.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::TryStreamExt;
use netlink_packet_route::link::LinkAttribute;

use super::error::{Context, LabError, Result};
use super::space::Space;
use super::{exec, namespace, sysctl};
use crate::netns::Guard;

/// What netlink requests would say in many more lines. Programs that are absent have left nothing
/// behind. `ip rule flush` spares the rule of table local only.
const FLUSH: &str = r#"
for family in -4 -6; do
    [ $family = -4 ] || [ -d /proc/sys/net/ipv6 ] || continue
    for type in unreachable blackhole prohibit throw; do
        ip $family route flush table all type $type
    done
    ip $family rule flush
    ip $family rule add pref 32766 lookup main
done
ip -4 rule add pref 32767 lookup default
ip link set lo down
ip address flush dev lo
! command -v nft || nft flush ruleset
for version in ip ip6; do
    [ -r /proc/net/${version}_tables_names ] || continue
    while read -r table; do
        legacy="${version}tables-legacy -w 5 -t $table"
        $legacy -F; $legacy -X
        $legacy -S | while read -r policy chain rest; do
            [ "$policy" != -P ] || $legacy -P "$chain" ACCEPT
        done
    done < /proc/net/${version}_tables_names
done
"#;
/// How often kernel parameters are written until they stay: one may change others.
const ROUNDS: usize = 3;

/// Removes everything that can be configured in the namespace, and sets every kernel parameter as in
/// a new one after `prepare`.
pub(super) async fn empty(space: &Space, prepare: impl FnOnce() -> Result<()>) -> Result<()> {
    remove_links(space).await?;
    let script = ["sh", "-c", FLUSH].map(OsString::from);
    // Each of its commands may have nothing to do, which is a failure to most of them.
    exec::output(space.netns(), &script)?;
    flush_conntrack(space)?;
    let scratch = format!("{}-new", space.netns().name());
    namespace::remove(&scratch)?;
    let made = namespace::create(&scratch, || {
        prepare()?;
        parameters()
    });
    namespace::remove(&scratch)?;
    let (_, wanted) = made?;
    space.inside(|| set_parameters(&wanted))
}

async fn remove_links(space: &Space) -> Result<()> {
    let name = space.netns().name();
    loop {
        let links: Vec<_> = space
            .handle()
            .link()
            .get()
            .execute()
            .try_collect()
            .await
            .context(|| format!("list interfaces in {name}"))?;
        let is_loopback = |attributes: &[LinkAttribute]| {
            attributes.contains(&LinkAttribute::IfName("lo".to_owned()))
        };
        let Some(link) = links.iter().find(|link| !is_loopback(&link.attributes)) else {
            return Ok(());
        };
        // With it go its other end, its addresses, routes, neighbours, queues and programs.
        match space.handle().link().del(link.header.index).execute().await {
            Err(rtnetlink::Error::NetlinkError(error))
                if error.to_io().raw_os_error() == Some(libc::ENODEV) => {}
            result => result.context(|| format!("remove an interface in {name}"))?,
        }
    }
}

/// Forgets every connection that the namespace tracks (`IPCTNL_MSG_CT_DELETE` without attributes,
/// include/uapi/linux/netfilter/nfnetlink_conntrack.h).
pub(super) fn flush_conntrack(space: &Space) -> Result<()> {
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, send, socket,
    };
    use std::os::fd::AsRawFd;

    let mut message = Vec::with_capacity(20);
    // nlmsghdr: length, NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE, NLM_F_REQUEST, then
    // sequence and port; nfgenmsg: family, version, resource. Host byte order.
    message.extend_from_slice(&20u32.to_ne_bytes());
    message.extend_from_slice(&0x0102u16.to_ne_bytes());
    message.extend_from_slice(&1u16.to_ne_bytes());
    message.extend_from_slice(&[0; 12]);
    let sent = {
        let _inside =
            Guard::enter(space.netns()).context(|| format!("enter {}", space.netns().name()))?;
        socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkNetFilter,
        )
        .and_then(|socket| send(socket.as_raw_fd(), &message, MsgFlags::empty()))
    };
    match sent {
        // No connection tracking in this kernel.
        Ok(_) | Err(nix::Error::EPROTONOSUPPORT | nix::Error::ECONNREFUSED) => Ok(()),
        Err(errno) => Err(LabError::Io {
            action: format!("flush connection tracking in {}", space.netns().name()),
            source: errno.into(),
        }),
    }
}

/// Kernel parameters by path: those of the namespace as a whole.
type Parameters = BTreeMap<PathBuf, String>;

/// Whether a directory holds parameters of single interfaces, other than `all`, `default`, `lo`.
fn is_of_interface(path: &Path) -> bool {
    let parent = path.parent().and_then(Path::file_name);
    parent.is_some_and(|parent| parent == "conf" || parent == "neigh")
        && path.file_name().is_some_and(|name| name != "all" && name != "default" && name != "lo")
}

/// Reads the parameters of the calling thread's namespace.
fn parameters() -> Result<Parameters> {
    let mut all = Parameters::new();
    read_directory(Path::new(sysctl::ROOT), &|path| !is_of_interface(path), &mut all)
        .context(|| "read kernel parameters")?;
    Ok(all)
}

/// Reads the files below `directory`; what cannot be read has no value to keep.
pub(super) fn read_directory(
    directory: &Path,
    wanted: &dyn Fn(&Path) -> bool,
    all: &mut Parameters,
) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            if wanted(&path) {
                read_directory(&path, wanted, all)?;
            }
        } else if let Ok(value) = fs::read_to_string(&path) {
            all.insert(path, value);
        }
    }
    Ok(())
}

fn set_parameters(wanted: &Parameters) -> Result<()> {
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (path, value) in wanted {
            let there = fs::read_to_string(path).unwrap_or_default();
            // One that cannot be written is the machine's, not the namespace's.
            changed |= there != *value && fs::write(path, value).is_ok();
        }
        if !changed {
            break;
        }
    }
    Ok(())
}
