//! What is attached to the interfaces of a lab.

use aya::programs::SchedClassifier;
use aya::programs::tc::TcAttachType;
use tracer::lab::Lab;

use super::clsact::{clsact_filters, has_tcx, targets};

/// Programs attached to the interfaces of the lab's namespaces with TCX, by namespace and interface.
fn attached_tcx(lab: &Lab) -> Vec<String> {
    let mut found = Vec::new();
    for target in targets(lab) {
        let netns = lab.netns(&target).expect("a namespace");
        let here =
            netns.run(|| {
                let mut found = Vec::new();
                for interface in &nix::net::if_::if_nameindex().expect("interfaces") {
                    let name = interface.name().to_str().expect("UTF-8").to_owned();
                    for way in [TcAttachType::Ingress, TcAttachType::Egress] {
                        let (_, programs) = SchedClassifier::query_tcx(&name, way).expect("query");
                        found.extend(programs.iter().map(|p| {
                            format!("{target} {name} {}", p.name_as_str().unwrap_or("?"))
                        }));
                    }
                }
                found
            });
        found.extend(here.expect("enter"));
    }
    found
}

/// Programs attached in the way that this kernel has.
pub fn attached(lab: &Lab) -> Vec<String> {
    if has_tcx() { attached_tcx(lab) } else { clsact_filters(lab) }
}
