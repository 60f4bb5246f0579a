//! `podtrace agent init`: a small certificate authority of one's own, a certificate for each node's
//! agent, one for the collector.
//!
//! Enters: a folder, names and addresses. Leaves: files in it, which the administrator carries to
//! where they belong:
//!
//! ```text
//! ca/cert.pem  ca/key.pem                          stays where it was made, best offline
//! collector/{ca,cert,key}.pem                      → /etc/podtrace/collector
//! nodes/NAME/{ca,cert,key}.pem                     → /etc/podtrace/agent on that node
//! ```
//!
//! An agent's certificate serves only as a server's, for the addresses it was made for; the
//! collector's only as a client's: with a key stolen from a node nobody can observe another.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};

use super::tls::{CA, CERT, KEY};

/// How long the authority is good for, days.
const CA_DAYS: u16 = 3650;

/// Why certificates could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file or folder.
    #[error("cannot use {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What certificates cannot hold.
    #[error("cannot make a certificate for {whom}")]
    Certificate {
        /// For whom.
        whom: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The authority's key is not one.
    #[error("{} is no private key", path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rcgen::Error,
    },
}

/// Whose certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// An agent that is reached at these addresses or host names.
    Agent {
        /// The node.
        node: String,
        /// Addresses and host names.
        at: Vec<String>,
    },
    /// Who asks agents.
    Collector,
}

/// First and last day on which a certificate is good (both at 0:00 UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From.
    pub from: jiff::civil::Date,
    /// To.
    pub to: jiff::civil::Date,
}

impl Validity {
    /// From yesterday on (clocks differ), for so many days.
    pub fn days(days: u16) -> Self {
        let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
        let shift = |days: i64| today.saturating_add(jiff::Span::new().days(days));
        Self { from: shift(-1), to: shift(i64::from(days)) }
    }
}

/// A certificate with its private key and the authority's certificate, all PEM.
#[derive(Clone)]
pub struct Bundle {
    /// The authority's certificate.
    pub ca: String,
    /// The certificate.
    pub cert: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Bundle {
    /// Writes the three files into a folder, which is made if it is missing. Only the owner may
    /// read them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), PkiError> {
        make_folder(folder)?;
        for (name, text) in [(CA, &self.ca), (CERT, &self.cert), (KEY, &self.key)] {
            write(&folder.join(name), text)?;
        }
        Ok(())
    }
}

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cert: String,
    key: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cert", &self.cert).finish_non_exhaustive()
    }
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// When there is no randomness.
    pub fn new() -> Result<Self, PkiError> {
        let failed = |source| PkiError::Certificate { whom: "the authority".into(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let params = authority(&key);
        let cert = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { cert, key: key.serialize_pem(), issuer: Issuer::new(params, key) })
    }

    /// The one that was written to this folder; `None`: there is none yet.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(folder: &Path) -> Result<Option<Self>, PkiError> {
        let path = folder.join(KEY);
        let key = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(PkiError::File { path, source }),
        };
        let pair = KeyPair::from_pem(&key).map_err(|source| PkiError::Key { path, source })?;
        let path = folder.join(CERT);
        let cert = fs::read_to_string(&path).map_err(|source| PkiError::File { path, source })?;
        // What the issuer is called follows from its key: the certificate need not be taken apart.
        Ok(Some(Self { issuer: Issuer::new(authority(&pair), pair), cert, key }))
    }

    /// Writes certificate and key into a folder; only the owner may read them.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), PkiError> {
        make_folder(folder)?;
        write(&folder.join(CERT), &self.cert)?;
        write(&folder.join(KEY), &self.key)
    }

    /// Makes a certificate.
    ///
    /// # Errors
    /// When an address is none that a certificate can hold.
    pub fn issue(&self, role: &Role, validity: Validity) -> Result<Bundle, PkiError> {
        let (name, at, usage) = match role {
            Role::Agent { node, at } => {
                (format!("podtrace agent {node}"), at.clone(), ExtendedKeyUsagePurpose::ServerAuth)
            }
            Role::Collector => {
                ("podtrace collector".to_owned(), Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
            }
        };
        let failed = |source| PkiError::Certificate { whom: name.clone(), source };
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(at).map_err(failed)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name.as_str());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity);
        let cert = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(Bundle { ca: self.cert.clone(), cert: cert.pem(), key: key.serialize_pem() })
    }
}

/// What an authority with this key looks like.
fn authority(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    // Two authorities must not be called the same, or a certificate of one would seem to be a forged
    // one of the other.
    let id = super::fnv1a(key.der_bytes());
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("podtrace authority {id:016x}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, Validity::days(CA_DAYS));
    params
}

fn set_validity(params: &mut CertificateParams, validity: Validity) {
    let day = |date: jiff::civil::Date| {
        let part = |n: i8| u8::try_from(n).unwrap_or(1);
        rcgen::date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = day(validity.from);
    params.not_after = day(validity.to);
}

fn make_folder(folder: &Path) -> Result<(), PkiError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| PkiError::File { path: folder.to_owned(), source })
}

/// Writes a file that only its owner may read; whoever reads it meanwhile gets the old one or the
/// new one.
fn write(path: &Path, text: &str) -> Result<(), PkiError> {
    let new = path.with_extension("new");
    let make = || {
        // A file left by a run that was killed may have other permissions.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    make().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// What [`init`] has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Whether the authority is new; else the one in the folder has signed.
    pub new_authority: bool,
    /// The collector's folder, if one was made.
    pub collector: Option<PathBuf>,
    /// The nodes' folders, in the order of the nodes.
    pub nodes: Vec<PathBuf>,
}

/// Makes certificates in `folder`, for these nodes (name, addresses), and for the collector where
/// it has none yet or the authority is new. Nodes that have one get a new one.
///
/// # Errors
/// When a certificate cannot be made or written.
pub fn init(
    folder: &Path,
    nodes: &[(String, Vec<String>)],
    validity: Validity,
) -> Result<Made, PkiError> {
    let ca = folder.join("ca");
    let (authority, new_authority) = match Authority::read(&ca)? {
        Some(authority) => (authority, false),
        None => (Authority::new()?, true),
    };
    // Everything is made before anything is written: a wrong address leaves no half a set.
    let mut bundles = Vec::new();
    for (node, at) in nodes {
        let role = Role::Agent { node: node.clone(), at: at.clone() };
        bundles.push((folder.join("nodes").join(node), authority.issue(&role, validity)?));
    }
    let collector = folder.join("collector");
    let wants_collector = new_authority || nodes.is_empty() || !collector.join(CERT).exists();
    if wants_collector {
        bundles.push((collector.clone(), authority.issue(&Role::Collector, validity)?));
    }
    if new_authority {
        authority.write(&ca)?;
    }
    for (folder, bundle) in &bundles {
        bundle.write(folder)?;
    }
    Ok(Made {
        new_authority,
        collector: wants_collector.then_some(collector),
        nodes: bundles.into_iter().map(|(folder, _)| folder).take(nodes.len()).collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn node(name: &str) -> (String, Vec<String>) {
        (name.to_owned(), vec!["192.0.2.1".to_owned(), "node.example".to_owned()])
    }

    #[test]
    fn keys_are_their_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let made = init(folder.path(), &[node("A")], Validity::days(30)).unwrap();
        assert!(made.new_authority);
        assert_eq!(made.nodes, [folder.path().join("nodes/A")]);
        for file in ["ca/key.pem", "collector/key.pem", "nodes/A/key.pem"] {
            let mode = fs::metadata(folder.path().join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
        let mode = fs::metadata(folder.path().join("ca")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_node_more_keeps_the_authority_and_the_collector() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), &[node("A")], Validity::days(30)).unwrap();
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).unwrap();
        let before = ["ca/cert.pem", "collector/cert.pem", "nodes/A/cert.pem"].map(read);
        let made = init(folder.path(), &[node("B")], Validity::days(30)).unwrap();
        assert!(!made.new_authority && made.collector.is_none());
        assert_eq!(before, ["ca/cert.pem", "collector/cert.pem", "nodes/A/cert.pem"].map(read));
        assert_eq!(read("nodes/B/ca.pem"), read("ca/cert.pem"));
    }

    #[test]
    fn what_is_no_address_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let bad = ("A".to_owned(), vec!["not an address ä".to_owned()]);
        let error = init(folder.path(), &[bad], Validity::days(30)).unwrap_err();
        assert!(error.to_string().contains("podtrace agent A"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
