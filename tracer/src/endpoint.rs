//! Endpoints: from what the user typed to a node, a namespace and addresses.
