//! Who is let in, and whom a collector trusts.

use std::sync::Arc;

use jiff::civil::date;
use tokio_rustls::rustls;
use tracer::agent::client::{self, Collector, RemoteNode};
use tracer::agent::pki::{Authority, Bundle, Role, Validity};
use tracer::agent::tls::Credentials;
use tracer::node::{Node, NodeError};

use crate::synthetic::{ENDLESS, TestAgent, wait_for};

fn agent_role() -> Role {
    Role::Agent { node: "B".into(), at: vec!["127.0.0.1".into()] }
}

fn issue(authority: &Authority, role: &Role) -> Bundle {
    authority.issue(role, Validity::days(2)).expect("a certificate")
}

fn expired(authority: &Authority, role: &Role) -> Bundle {
    let validity = Validity { from: date(2020, 1, 1), to: date(2021, 1, 1) };
    authority.issue(role, validity).expect("a certificate")
}

fn read(bundle: &Bundle) -> Credentials {
    Credentials::parse(bundle, "test").expect("credentials")
}

fn agent(bundle: &Bundle) -> TestAgent {
    let tls = read(bundle).server().expect("TLS");
    TestAgent::start(ENDLESS, |settings| settings.tls = Some(tls))
}

fn connect_with(
    agent: &TestAgent,
    tls: Arc<rustls::ClientConfig>,
) -> Result<RemoteNode, NodeError> {
    let target = format!("https://127.0.0.1:{}", agent.port()).parse().expect("a target");
    Collector { tls: Some(tls), ..Collector::default() }.connect("B", &target)
}

fn connect(agent: &TestAgent, bundle: &Bundle) -> Result<RemoteNode, NodeError> {
    connect_with(agent, read(bundle).client().expect("TLS"))
}

/// The collector was refused, and nothing was asked of the node.
fn refused(outcome: Result<RemoteNode, NodeError>, why: &str) {
    let error = outcome.expect_err("refused");
    assert!(matches!(error, NodeError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains(why), "{error}");
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn certificates_of_one_authority_let_each_other_in() {
    let authority = Authority::new().unwrap();
    let agent = agent(&issue(&authority, &agent_role()));
    let node = connect(&agent, &issue(&authority, &Role::Collector)).unwrap();
    assert_eq!(node.hello().unwrap().version, "synthetic");
}

#[test]
fn an_authority_that_was_read_again_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    Authority::new().unwrap().write(folder.path()).unwrap();
    let read = || Authority::read(folder.path()).unwrap().unwrap();
    let agent = agent(&issue(&read(), &agent_role()));
    connect(&agent, &issue(&read(), &Role::Collector)).unwrap();
}

#[test]
fn nobody_comes_in_without_a_certificate() {
    let authority = Authority::new().unwrap();
    let bundle = issue(&authority, &agent_role());
    let agent = agent(&bundle);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in
        rustls::pki_types::pem::PemObject::pem_slice_iter(bundle.ca.as_bytes()).flatten()
    {
        roots.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut anonymous = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    anonymous.alpn_protocols = vec![b"h2".to_vec()];
    refused(connect_with(&agent, Arc::new(anonymous)), "it refuses our certificate");
    wait_for("the agent to say so", || agent.has_said("was refused"));
}

#[test]
fn nobody_comes_in_with_a_certificate_of_another_authority() {
    let (here, elsewhere) = (Authority::new().unwrap(), Authority::new().unwrap());
    let agent = agent(&issue(&here, &agent_role()));
    // The collector trusts the agent's authority, but shows a certificate of the other.
    let other = issue(&elsewhere, &Role::Collector);
    let mixed = Bundle { ca: issue(&here, &Role::Collector).ca, ..other.clone() };
    refused(connect(&agent, &mixed), "it refuses our certificate");
    // And it does not trust an agent of another authority.
    refused(connect(&agent, &other), "of another authority");
}

#[test]
fn nobody_comes_in_with_an_expired_certificate() {
    let authority = Authority::new().unwrap();
    let here = agent(&issue(&authority, &agent_role()));
    refused(connect(&here, &expired(&authority, &Role::Collector)), "it refuses our certificate");
    let old = agent(&expired(&authority, &agent_role()));
    refused(connect(&old, &issue(&authority, &Role::Collector)), "has expired");
}

#[test]
fn an_agents_certificate_opens_no_other_agent() {
    let authority = Authority::new().unwrap();
    let agent = agent(&issue(&authority, &agent_role()));
    let stolen = issue(&authority, &agent_role());
    refused(connect(&agent, &stolen), "it refuses our certificate");
}

#[test]
fn an_agent_at_another_address_is_not_trusted() {
    let authority = Authority::new().unwrap();
    let elsewhere = Role::Agent { node: "B".into(), at: vec!["192.0.2.1".into()] };
    let agent = agent(&issue(&authority, &elsewhere));
    refused(connect(&agent, &issue(&authority, &Role::Collector)), "made for other addresses");
}

#[test]
fn plain_text_is_not_spoken_to_a_tls_agent_nor_the_other_way() {
    let authority = Authority::new().unwrap();
    let secure = agent(&issue(&authority, &agent_role()));
    assert!(Collector::default().connect("B", &secure.target()).is_err());
    let plain = TestAgent::start(ENDLESS, |_| {});
    assert!(connect(&plain, &issue(&authority, &Role::Collector)).is_err());
    assert_eq!(plain.counters.captures.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[test]
fn an_inventory_says_where_certificates_are() {
    let folder = tempfile::tempdir().unwrap();
    let error = client::connect("B", "https://192.0.2.1", Some(folder.path())).unwrap_err();
    let text = error.to_string();
    let what = "/ca.pem (podtrace agent init makes certificates): No such file";
    assert!(text.contains(what), "{text}");
    let error = client::connect("B", "http://192.0.2.1", None).unwrap_err();
    assert!(error.to_string().contains("plain text is only for agents on this machine"));
}

#[test]
fn other_machines_are_not_served_in_plain_text() {
    let node = || -> std::io::Result<Arc<dyn Node>> { Err(std::io::Error::other("none")) };
    let settings = tracer::agent::server::Settings {
        listen: "0.0.0.0:0".parse().unwrap(),
        tls: None,
        limits: Default::default(),
        speaks: Default::default(),
        log: Arc::new(|_| {}),
    };
    let error = tracer::agent::server::Server::start(settings, Arc::new(node)).unwrap_err();
    assert!(error.to_string().contains("plain text is only for loopback"), "{error}");
}
