//! `forwarding.` and `route.`

use super::{Cause, Explanation, likely, told};
use crate::diagnose::Case;
use crate::diagnose::death::Death;
use crate::diagnose::text::point_text;
use crate::model::L4;

pub(super) const CAUSES: &[Cause] = &[
    Cause { code: "forwarding.disabled", recognise: forwarding },
    Cause { code: "route.missing", recognise: missing },
    Cause { code: "route.rp-filter", recognise: rp_filter },
    Cause { code: "route.martian-source", recognise: martian },
    Cause { code: "route.loop", recognise: going_round },
    Cause { code: "route.ttl-expired", recognise: ttl },
    Cause { code: "route.prohibit", recognise: prohibit },
    Cause { code: "route.unreachable", recognise: unreachable },
    Cause { code: "route.blackhole", recognise: blackhole },
    Cause { code: "route.xfrm-policy", recognise: xfrm },
];

/// `ip route get …`, as for this packet where it died.
fn route_get(case: &Case<'_>, death: &Death<'_>) -> String {
    let Some(ip) = death.ip() else { return "ip route show table all; ip rule show".to_owned() };
    let family = if ip.dst.is_ipv6() { " -6" } else { "" };
    match death.last.map(|p| &case.topology.station(p.station).name) {
        Some(iif) => format!("ip{family} route get {} from {} iif {iif}", ip.dst, ip.src),
        None => format!("ip{family} route get {}", ip.dst),
    }
}

/// net/ipv4/route.c, `ip_error`: EHOSTUNREACH from a lookup that ends in `no_route` because the
/// device does not forward is counted as an address error.
fn forwarding(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let ours = death.packet()?.outer.is_none() && death.place.pod.is_none();
    (ours && death.dropped("IP_INADDRERRORS", "ip_error")).then(|| {
        let node = case.where_words(death);
        likely(
            format!("{node} does not forward packets (or not those that come in here)"),
            &["sysctl -w net.ipv4.ip_forward=1".to_owned(), route_get(case, death)],
        )
    })
}

fn missing(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let none = death.dropped("IP_INNOROUTES", "*")
        || death.dropped("IP_OUTNOROUTES", "ip*")
        || death.dropped("*", "ip6_pkt_discard*");
    none.then(|| {
        let to =
            death.ip().map_or_else(|| "the destination".to_owned(), |ip| case.ip_name(&ip.dst));
        likely(
            format!("{} has no route to {to}", case.where_words(death)),
            &[route_get(case, death)],
        )
    })
}

fn rp_filter(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("IP_RPFILTER", "*").then(|| {
        let node = case.where_words(death);
        let source = death.ip().map_or_else(|| "its source".to_owned(), |ip| case.ip_name(&ip.src));
        let iif = death.place.interface.clone().unwrap_or_else(|| "IF".to_owned());
        let sysctl = iif.replace('.', "/");
        told(
            format!(
                "{node}'s reverse-path filter refuses the packet: the way back to {source} does not \
                 lead through {iif}"
            ),
            &[
                death.ip().map_or_else(|| "ip route".to_owned(), |ip| format!("ip route get {}", ip.src)),
                format!("sysctl -w net.ipv4.conf.{sysctl}.rp_filter=2   # loose; 0: off"),
            ],
        )
    })
}

fn martian(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let refused = death.dropped("IP_LOCAL_SOURCE", "*") || death.dropped("IP_INVALID_SOURCE", "*");
    refused.then(|| {
        let node = case.where_words(death);
        let source = death.ip().map(|ip| ip.src);
        told(
            format!(
                "{node} takes the packet's source {} for its own address",
                source.map_or_else(|| "address".to_owned(), |ip| case.ip_name(&ip))
            ),
            &[format!(
                "ip addr show to {}   # which interface has it? No node but the pod's own may",
                source.map_or_else(|| "SOURCE".to_owned(), |ip| ip.to_string())
            )],
        )
    })
}

/// The TTL ran out (net/ipv4/ip_forward.c `too_many_hops`; net/ipv6/ip6_output.c `ip6_forward`).
fn ran_out(death: &Death<'_>) -> bool {
    death.dropped("IP_INHDR", "ip_forward") || death.dropped("IP_INHDR", "ip6_forward")
}

fn going_round(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let looped = death.example.is_some_and(|j| j.looped);
    looped.then(|| {
        let points: Vec<String> = case.loop_points(death);
        let mut explanation = told(
            format!("The packet goes round in circles ({})", points.join(" → ")),
            &[route_get(case, death)],
        );
        explanation
            .evidence
            .push("it crossed the same interface again with a smaller TTL".to_owned());
        explanation
    })
}

fn ttl(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let example = death.example?;
    (ran_out(death) && !example.looped).then(|| {
        let first = example.hops.first().and_then(|h| case.ttl(&h.packet));
        // Forwarding takes one; what takes more is a rule.
        let seen = example.hops.iter().map(|h| (Some(h.point), case.ttl(&h.packet)));
        let died = death.drop().map(|d| (None, case.ttl(&d.packet)));
        let all: Vec<_> = seen.chain(died).filter_map(|(at, ttl)| Some((at, ttl?))).collect();
        let fell = all.windows(2).find_map(|pair| match pair {
            [(Some(at), from), (_, to)] if *to < from.saturating_sub(1) => Some((*at, *from, *to)),
            _ => None,
        });
        if let Some((at, from, to)) = fell {
            return told(
                format!(
                    "Something lowers the packet's TTL from {from} to {to} behind {}, and {} cannot \
                     forward it any more",
                    point_text(case.topology, at),
                    case.where_words(death)
                ),
                &[
                    "iptables-save -t mangle | grep -w -e TTL -e HL".to_owned(),
                    "nft list ruleset | grep -e 'ttl set' -e 'hoplimit set'".to_owned(),
                ],
            );
        }
        let sent = first.map_or_else(String::new, |ttl| format!(" (it was sent with {ttl})"));
        told(
            format!("The packet's TTL ran out at {}{sent}", case.where_words(death)),
            &["send with a larger TTL: the path takes two routers between nodes".to_owned()],
        )
    })
}

/// `ip_error` for a route or rule that refuses; the ICMP code tells which (RFC 1812).
fn refused(case: &Case<'_>, death: &Death<'_>) -> Option<Option<(u8, u8)>> {
    let refused = death.dropped("NOT_SPECIFIED", "ip_error")
        || death.dropped("*", "ip6_pkt_prohibit*")
        || death.dropped("NOT_SPECIFIED", "ip6_pkt_*");
    refused.then(|| {
        let id = death.example.map(|j| j.id);
        case.trace.icmp_errors.iter().find(|e| e.about.is_some() && e.about == id).and_then(|e| {
            match e.packet.l4 {
                L4::IcmpError { kind, code, .. } => Some((kind, code)),
                _ => None,
            }
        })
    })
}

fn refusal(case: &Case<'_>, death: &Death<'_>, what: &str) -> Explanation {
    likely(
        format!("A route or rule of {} refuses the packet ({what})", case.where_words(death)),
        &[route_get(case, death), format!("ip route show table all | grep {what}; ip rule show")],
    )
}

fn prohibit(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let code = refused(case, death)?;
    matches!(code, Some((3, 13) | (1, 1))).then(|| refusal(case, death, "prohibit"))
}

fn unreachable(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let code = refused(case, death)?;
    matches!(code, Some((3, 1) | (1, 3))).then(|| refusal(case, death, "unreachable"))
}

fn blackhole(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    let code = refused(case, death)?;
    code.is_none().then(|| refusal(case, death, "blackhole"))
}

/// `xfrm_policy_check` and `xfrm_lookup` (net/xfrm/xfrm_policy.c) refused it.
fn xfrm(case: &Case<'_>, death: &Death<'_>) -> Option<Explanation> {
    death.dropped("XFRM_*", "*").then_some(())?;
    let mut explanation = told(
        format!("An IPsec policy of {} refuses the packet", case.where_words(death)),
        &["ip xfrm policy; ip -s xfrm state".to_owned()],
    );
    let blocks =
        case.netns_after(death.netns).into_iter().flat_map(|f| &f.xfrm).filter(|p| p.block);
    explanation.evidence.extend(
        blocks.map(|p| {
            format!("policy src {} dst {} dir {} action block", p.src, p.dst, p.direction)
        }),
    );
    Some(explanation)
}
