//! Reads namespaces of this machine.

use std::io;
use std::net::IpAddr;

use super::types::{NetnsFacts, RouteQuery};
use super::{deep, netlink};
use crate::netns::Netns;
use crate::node::{Depth, SpaceAnswer};

/// Namespaces that are read at a time: each takes a thread, and programs are started in it.
const AT_A_TIME: usize = 16;

/// Reads these namespaces as deep as asked, with the answers of their routing to questions, and with
/// the ids under which they know the `known` ones. `ends` are the addresses of the flow.
pub(crate) fn read(
    spaces: &[(Netns, &[RouteQuery])],
    depth: Depth,
    ends: &[IpAddr],
    known: &[Netns],
) -> Vec<SpaceAnswer> {
    let mut answers = Vec::with_capacity(spaces.len());
    for some in spaces.chunks(AT_A_TIME) {
        // Most of the time passes in waiting for programs.
        let read = std::thread::scope(|scope| {
            let mut running = Vec::with_capacity(some.len());
            for (netns, queries) in some {
                running.push(scope.spawn(move || one(netns, queries, depth, ends, known)));
            }
            let panicked = |_| Err(io::Error::other("a thread inside a namespace panicked"));
            running.into_iter().map(|t| t.join().unwrap_or_else(panicked)).collect::<Vec<_>>()
        });
        answers.extend(read.into_iter().map(|facts| match facts {
            Ok(facts) => SpaceAnswer::Read(Box::new(facts)),
            Err(error) => SpaceAnswer::Failed(error.into()),
        }));
    }
    answers
}

fn one(
    netns: &Netns,
    queries: &[RouteQuery],
    depth: Depth,
    ends: &[IpAddr],
    known: &[Netns],
) -> io::Result<NetnsFacts> {
    if depth == Depth::Answers {
        let answers = netlink::ask(netns, queries)?;
        let (name, inum) = (netns.name().to_owned(), netns.inum());
        return Ok(NetnsFacts { name, inum, answers, ..NetnsFacts::default() });
    }
    let mut facts = netlink::snapshot(netns, queries, known)?;
    match depth {
        Depth::Answers | Depth::Tables => {}
        Depth::Translations => deep::translations(&mut facts, netns, ends),
        Depth::Everything => deep::everything(&mut facts, netns, ends),
    }
    Ok(facts)
}
