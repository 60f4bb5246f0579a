//! Kernel side: load the eBPF programs, attach them, read the ring buffer, count losses.
