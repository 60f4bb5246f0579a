//! Attaching the hop programs: with TCX, or as filters of clsact qdiscs where there is none.

use std::collections::HashMap;
use std::os::fd::AsFd;

use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType};
use aya::util::KernelVersion;

use super::clsact::{self, Clsact, Place};
use super::load::{failed, program_failed};
use super::release;
use super::{AttachWith, CaptureError};
use crate::model::{Hook, Station};
use crate::netns::Netns;

/// The first kernel with TCX.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// What the names of the hop programs begin with.
const HOP: &str = "hop_";

/// Whether a program, or a filter, of this name is one of these, whichever podtrace attached it.
pub(crate) fn is_own_program(name: &str) -> bool {
    name.starts_with(HOP) || name.starts_with(clsact::PREFIX)
}

/// What became of attaching.
pub(super) struct Attached {
    /// The filters, when they are not TCX links.
    pub clsact: Option<Clsact>,
    /// Stations that were gone.
    pub vanished: Vec<String>,
    /// What cannot be seen, and why.
    pub limits: Vec<String>,
}

/// Whether to use clsact.
fn choose(with: AttachWith) -> Result<bool, CaptureError> {
    // A version that cannot be read is a new one: old kernels all have the same form.
    let has_tcx = KernelVersion::current().map_or(true, |version| version >= TCX_SINCE);
    match with {
        AttachWith::Any => Ok(!has_tcx),
        AttachWith::Clsact => Ok(true),
        AttachWith::Tcx if has_tcx => Ok(false),
        AttachWith::Tcx => Err(CaptureError::NoTcx(release())),
    }
}

/// Attaches the hop programs everywhere. The far end comes first and the source pod last, so that a
/// packet seen at its first station is seen everywhere.
pub(super) fn attach_all(
    bpf: &mut Ebpf,
    stations: &[Station],
    namespaces: &HashMap<u32, Netns>,
    slots: &[u32],
    with: AttachWith,
) -> Result<Attached, CaptureError> {
    let mut attached = Attached { clsact: None, vanished: Vec::new(), limits: Vec::new() };
    if choose(with)? {
        if let Err(error) = clsact::sweep(HOP) {
            attached.limits.push(format!("filters of a killed podtrace not looked for: {error}"));
        }
        attached.clsact = Some(Clsact::new().map_err(failed("owner map"))?);
    }
    for (slot, inum) in slots.iter().enumerate() {
        for hook in [Hook::Ingress, Hook::Egress] {
            classifier(bpf, slot, hook)?
                .load()
                .map_err(|e| program_failed(&program_name(slot, hook), e))?;
        }
        let here: Vec<&Station> = stations.iter().filter(|s| s.netns_inum == *inum).collect();
        let Some(netns) = namespaces.get(inum) else {
            return Err(CaptureError::Netns {
                netns: here.first().map_or_else(String::new, |s| s.netns.clone()),
                source: std::io::Error::from(std::io::ErrorKind::NotFound),
            });
        };
        let outcome = netns.run(|| {
            for station in here {
                attach_station(bpf, slot, netns, station, &mut attached)?;
            }
            Ok(())
        });
        outcome
            .map_err(|source| CaptureError::Netns { netns: netns.name().to_owned(), source })??;
    }
    Ok(attached)
}

fn program_name(slot: usize, hook: Hook) -> String {
    match hook {
        Hook::Ingress => format!("{HOP}in_{slot}"),
        Hook::Egress => format!("{HOP}out_{slot}"),
    }
}

fn classifier(
    bpf: &mut Ebpf,
    slot: usize,
    hook: Hook,
) -> Result<&mut SchedClassifier, CaptureError> {
    let name = program_name(slot, hook);
    bpf.program_mut(&name)
        .ok_or_else(|| failed(&name)("missing"))?
        .try_into()
        .map_err(failed(&name))
}

/// Attaches both programs to one interface of `netns`, which is the current namespace.
fn attach_station(
    bpf: &mut Ebpf,
    slot: usize,
    netns: &Netns,
    station: &Station,
    attached: &mut Attached,
) -> Result<(), CaptureError> {
    let gone =
        || nix::net::if_::if_nametoindex(station.name.as_str()).ok() != Some(station.ifindex);
    if gone() {
        attached.vanished.push(station.label());
        return Ok(());
    }
    let result = match &mut attached.clsact {
        Some(clsact) => with_clsact(bpf, slot, netns, station, clsact),
        None => with_tcx(bpf, slot, station).map(|()| Vec::new()),
    };
    match result {
        Ok(limits) => attached.limits.extend(limits),
        Err(CaptureError::Attach { .. }) if gone() => attached.vanished.push(station.label()),
        Err(error) => return Err(error),
    }
    Ok(())
}

fn with_tcx(bpf: &mut Ebpf, slot: usize, station: &Station) -> Result<(), CaptureError> {
    for (hook, attach_type) in
        [(Hook::Ingress, TcAttachType::Ingress), (Hook::Egress, TcAttachType::Egress)]
    {
        classifier(bpf, slot, hook)?.attach(&station.name, attach_type).map_err(|source| {
            CaptureError::Attach { interface: station.label(), source: source.into() }
        })?;
    }
    Ok(())
}

/// Returns what cannot be seen there.
fn with_clsact(
    bpf: &mut Ebpf,
    slot: usize,
    netns: &Netns,
    station: &Station,
    clsact: &mut Clsact,
) -> Result<Vec<String>, CaptureError> {
    let mut program = |hook| -> Result<_, CaptureError> {
        let fd = classifier(bpf, slot, hook)?.fd().map_err(failed(&program_name(slot, hook)))?;
        // The descriptor is borrowed from the loader; two of them cannot be at the same time.
        fd.as_fd().try_clone_to_owned().map_err(failed(&program_name(slot, hook)))
    };
    let (ingress, egress) = (program(Hook::Ingress)?, program(Hook::Egress)?);
    let programs = [(Hook::Ingress, ingress.as_fd()), (Hook::Egress, egress.as_fd())];
    let places = clsact.attach(netns, station.ifindex, programs).map_err(|source| {
        CaptureError::Attach { interface: station.label(), source: source.into() }
    })?;
    let limits = places.into_iter().zip([Hook::Ingress, Hook::Egress]).filter_map(|(place, hook)| {
        let label = station.label();
        match place {
            Place::First => None,
            Place::Behind => Some(format!(
                "{label} {hook}: another filter sees packets first, and may keep some from being seen here"
            )),
            Place::Nowhere => Some(format!(
                "{label} {hook} cannot be observed: an ingress qdisc is where clsact would be"
            )),
        }
    });
    Ok(limits.collect())
}
