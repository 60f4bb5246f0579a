//! The lab: a two-node flannel cluster in network namespaces of this machine.
