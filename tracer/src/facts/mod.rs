//! Facts: a snapshot of the network state of each namespace on the path.
