//! Reads one namespace over one netlink connection, on a thread inside that namespace.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use futures_util::{Stream, StreamExt, TryStreamExt};
use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{Error, Handle, IpVersion};

use super::parse;
use super::types::{Gap, NetnsFacts, RouteAnswer, RouteOutcome, RouteQuery};
use crate::netns::Netns;

/// Reads `netns`, asks `queries`, and learns under which ids it knows the `known` namespaces.
pub(super) fn snapshot(
    netns: &Netns,
    queries: &[RouteQuery],
    known: &[Netns],
) -> io::Result<NetnsFacts> {
    inside(netns, async |handle: Handle| {
        let mut facts = NetnsFacts {
            name: netns.name().to_owned(),
            inum: netns.inum(),
            ..NetnsFacts::default()
        };
        read_tables(&handle, &mut facts).await;
        facts.answers = ask_all(&handle, queries).await;
        // Last: dumping links is what makes the kernel assign ids to the peers' namespaces.
        for other in known {
            match nsid(&handle, other).await {
                Ok(Some(id)) => _ = facts.nsids.insert(id, other.inum()),
                Ok(None) => {}
                Err(e) => facts.gaps.push(gap(&format!("id of namespace {}", other.name()), &e)),
            }
        }
        facts
    })
}

/// Asks the routing of `netns`.
pub(super) fn ask(netns: &Netns, queries: &[RouteQuery]) -> io::Result<Vec<RouteAnswer>> {
    inside(netns, async |handle: Handle| ask_all(&handle, queries).await)
}

/// Runs `work` on a thread inside `netns` with a netlink connection of that namespace.
fn inside<T: Send>(netns: &Netns, work: impl AsyncFnOnce(Handle) -> T + Send) -> io::Result<T> {
    netns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection()?;
            tokio::spawn(connection);
            Ok(work(handle).await)
        })
    })?
}

async fn read_tables(handle: &Handle, facts: &mut NetnsFacts) {
    let gaps = &mut facts.gaps;
    let links = handle.link().get().execute();
    facts.links = table("interfaces", links, |m| Some(parse::link(m)), gaps).await;
    facts.addresses =
        table("addresses", handle.address().get().execute(), parse::address, gaps).await;
    facts.neighbors =
        table("neighbours", handle.neighbours().get().execute(), parse::neighbor, gaps).await;
    let fdb = handle.neighbours().get().set_address_family(AddressFamily::Bridge).execute();
    facts.fdb = table("forwarding database", fdb, parse::fdb, gaps).await;
    for (family, version, name) in [
        (AddressFamily::Inet, IpVersion::V4, "IPv4"),
        (AddressFamily::Inet6, IpVersion::V6, "IPv6"),
    ] {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        let routes = handle.route().get(message).execute();
        facts.routes.extend(table(&format!("{name} routes"), routes, parse::route, gaps).await);
        let rules = handle.rule().get(version).execute();
        facts.rules.extend(table(&format!("{name} rules"), rules, parse::rule, gaps).await);
    }
}

/// Reads a dump to its end; what fails becomes a gap.
async fn table<M, T>(
    source: &str,
    dump: impl Stream<Item = Result<M, Error>>,
    parse: impl Fn(M) -> Option<T>,
    gaps: &mut Vec<Gap>,
) -> Vec<T> {
    let mut dump = std::pin::pin!(dump);
    let mut rows = Vec::new();
    loop {
        match dump.try_next().await {
            Ok(Some(message)) => rows.extend(parse(message)),
            Ok(None) => return rows,
            Err(e) => {
                gaps.push(gap(source, &e));
                return rows;
            }
        }
    }
}

async fn ask_all(handle: &Handle, queries: &[RouteQuery]) -> Vec<RouteAnswer> {
    let mut answers = Vec::with_capacity(queries.len());
    for query in queries {
        answers.push(RouteAnswer { query: *query, outcome: ask_one(handle, query).await });
    }
    answers
}

async fn ask_one(handle: &Handle, query: &RouteQuery) -> RouteOutcome {
    let mut message = RouteMessage::default();
    let (family, bits) = match query.dst {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    message.header.address_family = family;
    message.header.destination_prefix_length = bits;
    message.header.flags = RouteFlags::LookupTable;
    message.attributes.push(RouteAttribute::Destination(route_address(query.dst)));
    if let Some(src) = query.src {
        message.header.source_prefix_length = bits;
        message.attributes.push(RouteAttribute::Source(route_address(src)));
    }
    message.attributes.extend(query.iif.map(RouteAttribute::Iif));
    message.attributes.extend(query.oif.map(RouteAttribute::Oif));
    let mut answer = std::pin::pin!(handle.route().get(message).execute());
    match answer.try_next().await {
        Ok(Some(message)) => RouteOutcome::Found(parse::hit(message)),
        Ok(None) => RouteOutcome::Failed { errno: 0, message: "no answer".to_owned() },
        Err(e) => RouteOutcome::Failed { errno: errno(&e), message: describe(&e) },
    }
}

fn route_address(ip: IpAddr) -> RouteAddress {
    match ip {
        IpAddr::V4(ip) => RouteAddress::Inet(ip),
        IpAddr::V6(ip) => RouteAddress::Inet6(ip),
    }
}

/// Id under which the connection's namespace knows `other`, if it does.
async fn nsid(handle: &Handle, other: &Netns) -> Result<Option<i32>, Error> {
    let Ok(fd) = u32::try_from(other.file().as_raw_fd()) else { return Ok(None) };
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(fd));
    let mut request = NetlinkMessage::from(RouteNetlinkMessage::GetNsId(message));
    request.header.flags = NLM_F_REQUEST;
    let mut handle = handle.clone();
    let mut replies = handle.request(request)?;
    while let Some(reply) = replies.next().await {
        match reply.payload {
            NetlinkPayload::Error(e) => return Err(Error::NetlinkError(e)),
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNsId(m)) => {
                // -1 (NETNSA_NSID_NOT_ASSIGNED): not known here.
                return Ok(m.attributes.iter().find_map(|a| match a {
                    NsidAttribute::Id(id) if *id >= 0 => Some(*id),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    Ok(None)
}

fn gap(source: &str, error: &Error) -> Gap {
    Gap { source: source.to_owned(), reason: describe(error) }
}

fn errno(error: &Error) -> i32 {
    match error {
        Error::NetlinkError(e) => e.raw_code().saturating_abs(),
        _ => 0,
    }
}

fn describe(error: &Error) -> String {
    match error {
        Error::NetlinkError(e) => {
            nix::errno::Errno::from_raw(e.raw_code().saturating_abs()).desc().to_owned()
        }
        Error::UnexpectedMessage(m) => format!("unexpected netlink message {:?}", m.header),
        other => other.to_string(),
    }
}
