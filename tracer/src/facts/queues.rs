//! Queueing disciplines, and what others have attached to interfaces.

use std::io;

use aya::programs::tc::TcAttachType;
use aya::programs::{ProgramError, SchedClassifier, loaded_programs};
use rtnetlink::sys::protocols::NETLINK_ROUTE;

use super::dump::{attributes, dump, number32, number64, string};
use super::tool;
use super::traffic::{AttachPoint, AttachedProgram, Qdisc};
use super::types::{Gap, NetnsFacts};

/// RTM_GETQDISC (include/uapi/linux/rtnetlink.h).
const QDISC_GET: u16 = 38;
/// RTM_GETTFILTER.
const FILTER_GET: u16 = 46;
/// Size of `struct tcmsg`, bytes.
const TCMSG: usize = 20;
/// TC_H_ROOT.
const ROOT: u32 = 0xffff_ffff;
/// TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS) and its egress sibling.
const INGRESS: u32 = 0xffff_fff2;
const EGRESS: u32 = 0xffff_fff3;
/// Kinds that neither shape nor lose on purpose.
const PLAIN: [&str; 8] =
    ["noqueue", "pfifo_fast", "mq", "fq_codel", "fq", "noop", "clsact", "ingress"];
/// Kinds whose limits are in their classes.
const CLASSFUL: [&str; 7] = ["htb", "hfsc", "cbq", "drr", "qfq", "ets", "prio"];

/// Reads both, and names the XDP programs of the links.
pub(super) fn read(facts: &mut NetnsFacts) {
    let mut qdiscs = Vec::new();
    let result = dump(NETLINK_ROUTE, QDISC_GET, &[0; TCMSG], |body| {
        qdiscs.extend(qdisc(body));
        true
    });
    if let Err(e) = result {
        facts.gaps.push(gap("queueing disciplines", &e.to_string()));
    }
    if let Err(e) = add_options(&mut qdiscs, facts) {
        facts.gaps.push(gap("parameters of queueing disciplines", &e.to_string()));
    }
    facts.qdiscs = qdiscs;
    let mut programs = Vec::new();
    for qdisc in &facts.qdiscs {
        if qdisc.kind != "clsact" && qdisc.kind != "ingress" {
            continue;
        }
        let sides = [(INGRESS, AttachPoint::TcIngress), (EGRESS, AttachPoint::TcEgress)];
        let sides = if qdisc.kind == "clsact" { &sides[..] } else { &sides[..1] };
        for (parent, point) in sides {
            match filters(qdisc.ifindex, *parent, *point) {
                Ok(found) => programs.extend(found),
                Err(e) => facts.gaps.push(gap("tc filters", &e.to_string())),
            }
        }
    }
    for link in &facts.links {
        for (side, point) in [
            (TcAttachType::Ingress, AttachPoint::TcxIngress),
            (TcAttachType::Egress, AttachPoint::TcxEgress),
        ] {
            match tcx(link.index, &link.name, side, point) {
                Ok(found) => programs.extend(found),
                Err(reason) => facts.gaps.push(gap("TCX programs", &reason)),
            }
        }
    }
    programs.retain(|p| !p.name.as_deref().is_some_and(crate::kernel::is_own_program));
    describe_filters(&mut programs, facts);
    // Filters that are no program are told apart by nothing, and their text is that of all: u32
    // lists its hash tables as filters, too.
    programs.dedup();
    name_xdp(facts);
    facts.programs = programs;
}

fn gap(source: &str, reason: &str) -> Gap {
    Gap { source: source.to_owned(), reason: reason.to_owned() }
}

/// `struct tcmsg` with attributes (`TCA_*`).
fn qdisc(body: &[u8]) -> Option<Qdisc> {
    const KIND: u16 = 1;
    const STATS2: u16 = 7;
    let mut found = Qdisc {
        ifindex: number32(body, 4)?,
        handle: format!("{:x}:", number32(body, 8)? >> 16),
        parent: match number32(body, 12)? {
            ROOT => "root".to_owned(),
            parent => class(parent),
        },
        ..Qdisc::default()
    };
    for (kind, value) in attributes(body.get(TCMSG..)?) {
        match kind {
            KIND => found.kind = string(value),
            STATS2 => statistics(&mut found, value),
            _ => {}
        }
    }
    Some(found)
}

/// `1:10`, hexadecimal, as tc writes it.
fn class(handle: u32) -> String {
    match handle & 0xffff {
        0 => format!("{:x}:", handle >> 16),
        minor => format!("{:x}:{minor:x}", handle >> 16),
    }
}

/// `TCA_STATS_BASIC` and `TCA_STATS_QUEUE` (include/uapi/linux/gen_stats.h).
fn statistics(qdisc: &mut Qdisc, value: &[u8]) {
    const BASIC: u16 = 1;
    const QUEUE: u16 = 3;
    for (kind, value) in attributes(value) {
        let number = |at| number32(value, at).map(u64::from).unwrap_or_default();
        match kind {
            BASIC => {
                qdisc.bytes = number64(value, 0).unwrap_or_default();
                qdisc.packets = number(8);
            }
            QUEUE => {
                qdisc.qlen = number(0);
                qdisc.backlog = number(4);
                qdisc.drops = number(8);
                qdisc.requeues = number(12);
                qdisc.overlimits = number(16);
            }
            _ => {}
        }
    }
}

/// What tc prints as parameters. It is asked only where there is something to tell.
fn add_options(qdiscs: &mut [Qdisc], facts: &NetnsFacts) -> Result<(), tool::ToolError> {
    let name = |index: u32| facts.link(index).map(|l| l.name.as_str());
    let mut asked: Vec<u32> = Vec::new();
    for at in 0..qdiscs.len() {
        let Some(index) = qdiscs.get(at).filter(|q| !PLAIN.contains(&q.kind.as_str())) else {
            continue;
        };
        let index = index.ifindex;
        let Some(device) = name(index).filter(|_| !asked.contains(&index)) else { continue };
        asked.push(index);
        let text = tool::output("tc", &["qdisc", "show", "dev", device])?;
        let classful = |q: &Qdisc| q.ifindex == index && CLASSFUL.contains(&q.kind.as_str());
        let classes = if qdiscs.iter().any(classful) {
            tool::output("tc", &["class", "show", "dev", device])?
        } else {
            String::new()
        };
        for qdisc in qdiscs.iter_mut().filter(|q| q.ifindex == index) {
            qdisc.options = options(&text, qdisc).unwrap_or_default();
            if classful(qdisc) {
                for line in classes
                    .lines()
                    .filter(|l| l.split(' ').nth(2).is_some_and(|c| c.starts_with(&qdisc.handle)))
                {
                    qdisc.options.push_str("; ");
                    qdisc.options.push_str(line.trim());
                }
            }
        }
    }
    Ok(())
}

/// `qdisc tbf 8001: root refcnt 2 rate 8Kbit burst 1600b lat 400ms` → `rate 8Kbit …`.
fn options(listing: &str, qdisc: &Qdisc) -> Option<String> {
    listing.lines().find_map(|line| {
        let mut words = line.split_whitespace().peekable();
        let head = [words.next()?, words.next()?, words.next()?];
        if head != ["qdisc", &qdisc.kind, &qdisc.handle] {
            return None;
        }
        while let Some(word) = words.peek() {
            match *word {
                "root" | "ingress_block" => _ = words.next(),
                "dev" | "parent" | "refcnt" => _ = (words.next(), words.next()),
                _ => break,
            }
        }
        Some(words.collect::<Vec<_>>().join(" "))
    })
}

fn filters(ifindex: u32, parent: u32, point: AttachPoint) -> io::Result<Vec<AttachedProgram>> {
    let mut request = [0; TCMSG];
    request[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    request[12..16].copy_from_slice(&parent.to_ne_bytes());
    let mut found = Vec::new();
    dump(NETLINK_ROUTE, FILTER_GET, &request, |body| {
        found.extend(filter(body, ifindex, point));
        true
    })?;
    Ok(found)
}

/// A filter; one without options only announces the priority that filters of its kind share.
fn filter(body: &[u8], ifindex: u32, point: AttachPoint) -> Option<AttachedProgram> {
    const KIND: u16 = 1;
    const OPTIONS: u16 = 2;
    const BPF_NAME: u16 = 7;
    const BPF_ID: u16 = 11;
    let mut program = AttachedProgram {
        ifindex,
        point,
        kind: String::new(),
        id: None,
        name: None,
        text: String::new(),
    };
    let mut options = false;
    for (kind, value) in attributes(body.get(TCMSG..)?) {
        match kind {
            KIND => program.kind = string(value),
            OPTIONS => {
                options = true;
                if program.kind == "bpf" {
                    for (kind, value) in attributes(value) {
                        match kind {
                            BPF_NAME => program.name = Some(string(value)),
                            BPF_ID => program.id = number32(value, 0),
                            _ => {}
                        }
                    }
                }
            }
            _ => {}
        }
    }
    options.then_some(program)
}

fn tcx(
    ifindex: u32,
    interface: &str,
    side: TcAttachType,
    point: AttachPoint,
) -> Result<Vec<AttachedProgram>, String> {
    let programs = match SchedClassifier::query_tcx(interface, side) {
        Ok((_, programs)) => programs,
        // A kernel without TCX has nothing attached to it.
        Err(ProgramError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::EINVAL) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(e.to_string()),
    };
    let found = programs.into_iter().map(|program| AttachedProgram {
        ifindex,
        point,
        kind: "bpf".to_owned(),
        id: Some(program.id()),
        name: program.name_as_str().map(str::to_owned),
        text: String::new(),
    });
    Ok(found.collect())
}

/// Adds what tc prints for filters of others: that tells their actions.
fn describe_filters(programs: &mut [AttachedProgram], facts: &mut NetnsFacts) {
    for (point, side) in [(AttachPoint::TcIngress, "ingress"), (AttachPoint::TcEgress, "egress")] {
        let mut devices: Vec<u32> =
            programs.iter().filter(|p| p.point == point).map(|p| p.ifindex).collect();
        devices.dedup();
        for index in devices {
            let Some(name) = facts.link(index).map(|l| l.name.clone()) else { continue };
            match tool::output("tc", &["filter", "show", "dev", &name, side]) {
                Ok(text) => {
                    // All of the interface's filters: which is which tc numbers differently.
                    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    let here =
                        programs.iter_mut().filter(|p| p.point == point && p.ifindex == index);
                    here.for_each(|p| p.text.clone_from(&text));
                }
                Err(e) => facts.gaps.push(gap("text of tc filters", &e.to_string())),
            }
        }
    }
}

fn name_xdp(facts: &mut NetnsFacts) {
    if facts.links.iter().all(|l| l.xdp.is_none()) {
        return;
    }
    let loaded: Vec<_> = loaded_programs().filter_map(Result::ok).collect();
    for xdp in facts.links.iter_mut().filter_map(|l| l.xdp.as_mut()) {
        let program = loaded.iter().find(|p| Some(p.id()) == xdp.id);
        xdp.name = program.and_then(|p| p.name_as_str()).map(str::to_owned);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_what_tc_prints_after_the_place() {
        let qdisc = |kind: &str, handle: &str| Qdisc {
            kind: kind.to_owned(),
            handle: handle.to_owned(),
            ..Qdisc::default()
        };
        let listing = include_str!("fixtures/tc-qdisc.txt");
        let tbf = options(listing, &qdisc("tbf", "8001:"));
        assert_eq!(tbf.as_deref(), Some("rate 8Kbit burst 1600b lat 400ms"));
        let pfifo = options(listing, &qdisc("pfifo", "20:"));
        assert_eq!(pfifo.as_deref(), Some("limit 5p"));
        assert_eq!(options(listing, &qdisc("tbf", "1:")), None);
    }

    #[test]
    fn handles_are_written_as_tc_writes_them() {
        assert_eq!(class(0x0001_0010), "1:10");
        assert_eq!(class(0x8001_0000), "8001:");
        assert_eq!(class(0xffff_fff1), "ffff:fff1");
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(message in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,80}") {
            qdisc(&message);
            filter(&message, 1, AttachPoint::TcIngress);
            options(&text, &Qdisc::default());
        }
    }
}
