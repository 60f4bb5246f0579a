use std::net::IpAddr;
use std::path::Path;

use super::name::{Target, understand};
use super::*;
use crate::inventory::Inventory;

fn inventory() -> Inventory {
    let text = r#"
[[node]]
name = "A"
netns = "x"
[[node.pod]]
name = "a"
ip = ["10.10.0.2", "fd00:10::2"]
[[node.pod]]
name = "web.1"
namespace = "shop"
ip = ["10.10.0.3"]
[[node]]
name = "A.zone"
netns = "y"
[[node.pod]]
name = "c"
ip = ["10.10.2.2"]
[[node]]
name = "B"
netns = "z"
[[node.pod]]
name = "b1"
ip = ["10.10.1.2"]
[[node.pod]]
name = "same"
ip = ["10.10.1.3"]
[[node]]
name = "C"
agent = "https://192.0.2.1:7474"
[[node.pod]]
name = "same"
ip = ["10.10.3.3"]
[[node.pod]]
name = "twin"
ip = ["10.10.3.4"]
[[node.pod]]
name = "twin"
namespace = "shop"
ip = ["10.10.3.5"]
"#;
    Inventory::parse(Path::new("inv.toml"), text).unwrap()
}

fn found(text: &str) -> Result<String, String> {
    match understand(text, Some(&inventory())) {
        Ok(Target::Pod(node, pod, ip)) => {
            let ip = ip.map(|ip| format!(" {ip}")).unwrap_or_default();
            Ok(format!("{} {}{ip}", node.name, pod.name))
        }
        Ok(Target::Node(node)) => Ok(format!("node {}", node.name)),
        Ok(Target::Address(ip)) => Ok(ip.to_string()),
        Err(e) => {
            assert!(e.is_usage(), "{e}");
            Err(e.to_string())
        }
    }
}

#[test]
fn understands_every_form() {
    for (text, expected) in [
        ("A.a", "A a"),
        ("A.web.1", "A web.1"),
        ("A.zone.c", "A.zone c"),
        ("shop/web.1", "A web.1"),
        ("default/a", "A a"),
        ("b1", "B b1"),
        ("web.1", "A web.1"),
        ("10.10.0.3", "A web.1 10.10.0.3"),
        ("fd00:10:0:0::2", "A a fd00:10::2"),
        ("192.0.2.7", "192.0.2.7"),
        ("A.zone", "node A.zone"),
        ("B", "node B"),
        ("node/C", "node C"),
    ] {
        assert_eq!(found(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn says_what_is_wrong() {
    for (text, expected) in [
        ("B.b", "pod \"b\" not found on node B; nearest: \"b1\""),
        ("B.completely-different", "pod \"completely-different\" not found on node B"),
        ("D.a", "node \"D\" not found; nodes: A, A.zone, B, C"),
        ("b2", "pod \"b2\" not found; nearest: \"b1\""),
        ("same", "\"same\" could be B.same, C.same; say which (NODE.POD or NAMESPACE/POD)"),
        ("C.twin", "\"C.twin\" could be default/twin, shop/twin; say which"),
        ("shop/web.2", "pod \"shop/web.2\" not found; nearest: \"shop/web.1\""),
        ("nowhere/a", "namespace \"nowhere\" has no pods; namespaces: default, shop"),
        ("node/D", "node \"D\" not found; nodes: A, A.zone, B, C"),
        ("a b", "\"a b\" is no endpoint"),
        ("/a", "\"/a\" is no endpoint"),
        ("", "\"\" is no endpoint"),
    ] {
        let error = found(text).unwrap_err();
        assert!(error.starts_with(expected), "{text}: {error:?}, expected {expected:?}");
    }
}

#[test]
fn a_name_needs_an_inventory_and_an_address_does_not() {
    let error = understand("A.a", None).unwrap_err();
    assert!(error.to_string().contains("--inventory"), "{error}");
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    assert_eq!(understand("10.0.0.1", None).unwrap(), Target::Address(ip));
}

#[test]
fn an_agent_that_does_not_answer_is_a_failure_of_its_node() {
    let connect = |node: &Node| Err(NodeError::Unreachable(format!("nobody at {}", node.name)));
    let nodes = Nodes::with_connect(Some(inventory()), Box::new(connect));
    let error = resolve("C.same", &nodes).unwrap_err();
    assert!(!error.is_usage());
    let text = crate::facts::in_full(&error);
    assert_eq!(text, "cannot observe node C: nobody at C");
}

#[test]
fn a_missing_namespace_is_a_failure() {
    let text = "[[node]]\nname='A'\nnetns='/nonexistent/netns'\n[[node.pod]]\nname='a'\nip=['::1']";
    let inventory = Inventory::parse(Path::new("inv.toml"), text).unwrap();
    let error = resolve("A.a", &Nodes::new(Some(inventory))).unwrap_err();
    assert!(!error.is_usage());
    assert!(error.to_string().contains("of node A"), "{error}");
}
