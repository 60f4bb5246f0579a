//! Of very many backends, not every pod's own interface can be watched: a machine takes only so many
//! network namespaces. The node's end of each pod's pair still is. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::renumbered;
use crate::model::Topology;

/// Leaves out the stations inside pods beyond `most` namespaces a machine, those of the source and of
/// the first destination last. The topologies are those of one address family, all over the same
/// stations, and know their machines.
pub fn fit(topologies: &mut [Topology], most: usize) {
    let Some(first) = topologies.first() else { return };
    let ends: Vec<u32> =
        [&first.src, &first.dst].into_iter().flatten().map(|end| end.netns_inum).collect();
    // Nodes first, then the ends, then the other pods in their order.
    let mut ranked: Vec<_> = first.stations.iter().collect();
    ranked.sort_by_key(|s| (s.pod.is_some(), !ends.contains(&s.netns_inum)));
    let mut taken: BTreeMap<u16, BTreeSet<u32>> = BTreeMap::new();
    let mut left_out = BTreeSet::new();
    for station in ranked {
        let here = taken.entry(first.machine(&station.node)).or_default();
        if here.contains(&station.netns_inum) || station.pod.is_none() || here.len() < most {
            here.insert(station.netns_inum);
        } else {
            left_out.insert(station.netns_inum);
        }
    }
    if left_out.is_empty() {
        return;
    }
    let mut kept = first.clone();
    kept.stations.retain(|station| !left_out.contains(&station.netns_inum));
    let gap = format!(
        "{} pods are watched at their node's end only: a machine takes {most} network namespaces",
        left_out.len()
    );
    for topology in topologies {
        topology.forward = renumbered(topology, &topology.forward, &kept);
        topology.reply = renumbered(topology, &topology.reply, &kept);
        topology.stations.clone_from(&kept.stations);
        topology.gaps.push(gap.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::testing::cross_node;
    use crate::model::Role;

    #[test]
    fn what_does_not_fit_is_watched_at_the_nodes_end() {
        // Two nodes, the wire and two pods: five namespaces.
        let whole = cross_node();
        let mut topologies = [whole.clone(), whole.clone()];
        fit(&mut topologies, 5);
        assert_eq!(topologies, [whole.clone(), whole.clone()]);
        fit(&mut topologies, 4);
        for topology in &topologies {
            assert!(topology.stations.iter().all(|s| s.pod.as_deref() != Some("b")));
            assert_eq!(topology.stations.len(), whole.stations.len() - 1);
            assert_eq!(topology.forward.len(), 11);
            let last = topology.forward.last().map(|p| topology.station(p.station).role);
            assert_eq!(last, Some(Role::Veth));
            assert_eq!(topology.gaps.len(), 1);
        }
        // On two machines each has room of its own.
        let mut apart = [whole.clone()];
        apart[0].machines.insert("B".to_owned(), 1);
        let before = apart.clone();
        fit(&mut apart, 3);
        assert_eq!(apart, before);
    }
}
