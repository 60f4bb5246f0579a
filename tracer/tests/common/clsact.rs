//! clsact qdiscs in the lab, and podtrace's filters on them.

use tracer::lab::Lab;

use super::kernel_at_least;
use super::trace::run;

/// Whether this kernel has TCX.
pub fn has_tcx() -> bool {
    kernel_at_least(6, 6)
}

/// All namespaces of a lab.
pub fn targets(lab: &Lab) -> Vec<String> {
    let mut targets: Vec<String> = lab.plan().targets().into_iter().map(|(t, _)| t).collect();
    targets.push("wire".into());
    targets
}

/// Interfaces with a clsact or ingress qdisc, in all namespaces of the lab: `A cni0`.
pub fn clsact_qdiscs(lab: &Lab) -> Vec<String> {
    let mut found = Vec::new();
    for target in targets(lab) {
        let text = run(lab, &target, &["tc", "qdisc", "show"]);
        let here = text.lines().filter(|l| l.contains("clsact") || l.contains("ingress"));
        found.extend(here.filter_map(|line| {
            let device = line.split(" dev ").nth(1)?.split(' ').next()?;
            Some(format!("{target} {device}"))
        }));
    }
    found
}

/// podtrace's filters on clsact qdiscs, in all namespaces of the lab: `A cni0 ingress podtrace/7`.
pub fn clsact_filters(lab: &Lab) -> Vec<String> {
    let mut found = Vec::new();
    for place in clsact_qdiscs(lab) {
        let (target, device) = place.split_once(' ').expect("two words");
        for way in ["ingress", "egress"] {
            let text = run(lab, target, &["tc", "filter", "show", "dev", device, way]);
            let names = text.split_whitespace().filter(|w| w.starts_with("podtrace/"));
            found.extend(names.map(|name| format!("{place} {way} {name}")));
        }
    }
    found
}
