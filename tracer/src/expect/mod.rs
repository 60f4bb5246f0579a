//! Expected path: from facts to the stations that a packet should cross, and their names. Pure.
