//! What tools and /proc print: packet filters in each of their forms, counters and sockets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tracer::facts;
use tracer::facts::firewall::{Firewall, iptables, nft};

fuzz_target!(|text: &str| {
    let mut all = iptables::parse(text, false);
    all.extend(iptables::parse(text, true));
    if let Ok(tables) = nft::parse(text) {
        all.extend(tables);
    }
    nft::add_text(&mut all, text);
    facts::parse_proc(text);
    // What was read can be recorded, and read again.
    let firewall = Firewall { tables: all, ..Firewall::default() };
    let written = serde_json::to_string(&firewall).unwrap();
    assert_eq!(serde_json::from_str::<Firewall>(&written).unwrap(), firewall);
});
