//! `socket.`: the receiving program.

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::{Death, Ending};
use crate::model::{Direction, L4};
use crate::report::{Confidence, Place};

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "socket.no-listener", recognise: no_listener },
    Cause { code: "socket.buffer-full", recognise: buffer },
    Cause { code: "socket.backlog-full", recognise: backlog },
];

fn no_listener(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let dropped = death.dropped("NO_SOCKET", "*") && !death.is_outer();
    let (proto, port, flag) = match death.ip()?.l4 {
        L4::Tcp { dport, .. } => ("TCP", dport, 't'),
        L4::Udp { dport, .. } => ("UDP", dport, 'u'),
        _ => return None,
    };
    dropped.then(|| {
        told(
            format!("Nothing listens on {proto} port {port} in {}", case.where_words(death)),
            &[
                format!("in {}: ss -ln{flag}p   # on which port and address does it listen?", case.where_words(death)),
                "compare with the container's port and the service's targetPort; 127.0.0.1 is not reachable from outside"
                    .to_owned(),
            ],
        )
    })
}

fn buffer(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let full = ["SOCKET_RCVBUFF", "SOCKET_BACKLOG", "PROTO_MEM"];
    full.iter().any(|reason| death.dropped(reason, "*")).then(|| {
        told(
            format!(
                "The program in {} does not read fast enough: its socket's buffer is full",
                case.where_words(death)
            ),
            &[
                format!("in {}: ss -nmtu   # Recv-Q near its limit?", case.where_words(death)),
                "sysctl net.core.rmem_max; or make the program read faster".to_owned(),
            ],
        )
    })
}

/// A full accept queue drops without a drop event before 6.16 (TCP_LISTEN_OVERFLOW): the counter
/// tells.
fn backlog(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let fix = [
        "ss -lnt   # Recv-Q above Send-Q: the accept queue is full".to_owned(),
        "make the program accept faster, or give listen() and net.core.somaxconn more room"
            .to_owned(),
    ];
    if death.dropped("TCP_LISTEN_OVERFLOW", "*") {
        return Some(told(
            format!("The accept queue of the program in {} is full", case.where_words(death)),
            &fix,
        ));
    }
    let silent = matches!(death.ending, Ending::Unanswered | Ending::Vanished);
    let pod = case.answerer()?;
    let by = ["TcpExt.ListenOverflows", "TcpExt.ListenDrops"]
        .iter()
        .find_map(|name| Some((*name, case.counter_moved(pod, name)?)));
    let (name, by) = by.filter(|_| silent)?;
    let mut explanation =
        likely("The accept queue of the program that should answer is full", &fix);
    explanation.evidence.push(format!("{name} rose by {by} there"));
    explanation.confidence = Confidence::Proven;
    // What is missed is the answer; what was discarded is the request.
    explanation.direction = Some(Direction::Forward);
    explanation.place = Some(Place { stage: Some("socket".to_owned()), ..death.place.clone() });
    Some(explanation)
}
