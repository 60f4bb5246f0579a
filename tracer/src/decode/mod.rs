//! Decoding: from the bytes of an event to a typed event. Pure.
