//! The inventory file: which nodes and pods there are.
