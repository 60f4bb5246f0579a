use std::path::Path;

use super::*;

fn parse(text: &str) -> Result<Inventory, String> {
    Inventory::parse(Path::new("inv.toml"), text).map_err(|e| e.to_string())
}

const GOOD: &str = r#"
[[node]]
name  = "A"
netns = "podtrace-A"

[[node.pod]]
name      = "a"
namespace = "shop"
ip        = ["fd00:10::2", "10.10.0.2"]
netns     = "podtrace-A-a"

[[node.pod]]
name = "web.1"
ip   = ["10.10.0.3"]

[[node]]
name  = "B"
agent = "https://192.0.2.1:7474"

[[node]]
name  = "wire"
netns = "/proc/12/ns/net"
"#;

#[test]
fn reads_nodes_and_pods() {
    let inventory = parse(GOOD).unwrap();
    assert_eq!(inventory.nodes.len(), 3);
    let a = inventory.node("A").unwrap();
    assert_eq!(a.place, Place::Netns("podtrace-A".into()));
    assert_eq!(a.pods[0].namespace, "shop");
    let ips: Vec<_> = a.pods[0].ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["10.10.0.2", "fd00:10::2"], "IPv4 comes first");
    assert_eq!(a.pods[1].namespace, "default");
    assert_eq!(a.pods[1].netns, None);
    assert!(matches!(inventory.nodes[1].place, Place::Agent(_)));
    assert!(inventory.nodes[2].pods.is_empty());
    assert_eq!(inventory.pods().count(), 2);
}

#[test]
fn certificates_are_beside_the_inventory_or_elsewhere() {
    let text = |tls| format!("[collector]\ntls = {tls:?}\n{GOOD}");
    let read = |text: &str| Inventory::parse(Path::new("/etc/podtrace/inv.toml"), text).unwrap();
    assert_eq!(read(GOOD).collector_tls, None);
    let inventory = read(&text("pki/collector"));
    assert_eq!(inventory.collector_tls.as_deref(), Some(Path::new("/etc/podtrace/pki/collector")));
    let inventory = read(&text("/root/collector"));
    assert_eq!(inventory.collector_tls.as_deref(), Some(Path::new("/root/collector")));
}

#[test]
fn says_where_and_what_is_wrong() {
    let cases = [
        ("[[node]]\nname='A'\nnetns='x'\ncolor='red'\n", "inv.toml:4: unknown field `color`"),
        ("[[node]]\nname='A'\n", "inv.toml:2: node \"A\" has neither `netns`"),
        ("[[node]]\nname='A'\nnetns='x'\nagent='y'", "inv.toml:2: node \"A\" has both"),
        ("[[node]]\nnetns='x'\n", "missing field `name`"),
        (
            "[[node]]\nname='A'\nagent='192.0.2.1:7474'\n",
            "inv.toml:2: node \"A\": \"192.0.2.1:7474\" is no address of an agent; use https://",
        ),
        (
            "[[node]]\nname='A'\nnetns='x'\n[[node]]\nname='A'\nnetns='y'\n",
            "inv.toml:5: there is already a node \"A\"",
        ),
        (
            "[[node]]\nname='A'\nnetns='x'\n[[node.pod]]\nname='a'\nip=['10.10.0.2/24']\n",
            "inv.toml:6: pod \"a\": \"10.10.0.2/24\" is not an IP address",
        ),
        (
            "[[node]]\nname='A'\nnetns='x'\n[[node.pod]]\nname='a'\n",
            "inv.toml:5: pod \"a\" has neither `ip` nor `netns`",
        ),
        (
            "[[node]]\nname='A'\nnetns='x'\n[[node.pod]]\nname='a'\nip=['::1']\n[[node.pod]]\nname='a'\nip=['::2']\n",
            "inv.toml:8: node \"A\" already has a pod \"a\"",
        ),
        ("[[node]]\nname='A/b'\nnetns='x'\n", "must not contain '/'"),
        ("[[node]\n", "inv.toml:1: "),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        assert!(!error.contains('\n'), "more than one line: {error:?}");
    }
}

#[test]
fn same_pod_name_in_two_namespaces_is_fine() {
    let text = "[[node]]\nname='A'\nnetns='x'\n[[node.pod]]\nname='a'\nip=['::1']\n\
                [[node.pod]]\nname='a'\nnamespace='kube-system'\nip=['::2']\n";
    assert_eq!(parse(text).unwrap().nodes[0].pods.len(), 2);
}

#[test]
fn searches_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("[[node]]\nname='{name}'\nnetns='x'\n")).unwrap();
        path
    };
    let (explicit, env, first, second) = (file("explicit"), file("env"), file("one"), file("two"));
    let absent = dir.path().join("absent");
    let chosen = |explicit: Option<&Path>, env: Option<&Path>, system: &[&Path]| {
        Inventory::load_from(explicit, env.map(Into::into), system)
            .unwrap()
            .map(|i| i.nodes[0].name.clone())
    };
    let system = [first.as_path(), second.as_path()];
    assert_eq!(chosen(Some(&explicit), Some(&env), &system).as_deref(), Some("explicit"));
    assert_eq!(chosen(None, Some(&env), &system).as_deref(), Some("env"));
    assert_eq!(chosen(None, None, &system).as_deref(), Some("one"));
    assert_eq!(chosen(None, Some(Path::new("")), &[&absent, &second]).as_deref(), Some("two"));
    assert_eq!(chosen(None, None, &[&absent]), None);
    let missing = Inventory::load_from(None, Some(absent.into()), &system).unwrap_err();
    assert!(missing.is_usage());
    assert!(missing.to_string().contains("PODTRACE_INVENTORY"), "{missing}");
}
