//! An inventory file.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tracer::inventory::Inventory;

fuzz_target!(|text: &str| {
    match Inventory::parse(Path::new("inventory.toml"), text) {
        Ok(inventory) => {
            for (node, pod) in inventory.pods() {
                assert!(!pod.name.is_empty() && inventory.node(&node.name).is_some());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
