//! The probe: test traffic sent from inside the source pod's namespace.
