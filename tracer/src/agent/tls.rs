//! TLS with certificates on both sides: what is read from a folder, and what the two sides ask of
//! each other. TLS 1.3 only; cryptography is ring's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::pki::Bundle;

/// File of the authority's certificate, in the folder of an agent or a collector.
pub const CA: &str = "ca.pem";
/// File of the certificate.
pub const CERT: &str = "cert.pem";
/// File of its private key.
pub const KEY: &str = "key.pem";

/// Where an agent looks for its files unless told.
pub const AGENT_FOLDER: &str = "/etc/podtrace/agent";
/// Where a collector looks for its files unless the inventory tells.
pub const COLLECTOR_FOLDER: &str = "/etc/podtrace/collector";

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(
        "cannot read {}{}",
        path.display(),
        if source.kind() == io::ErrorKind::NotFound {
            " (podtrace agent init makes certificates)"
        } else {
            ""
        }
    )]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds something else.
    #[error("{what} is none that can be used: {why}")]
    Content {
        /// Which file.
        what: String,
        /// Why.
        why: String,
    },
}

/// Certificates and a key, read.
#[derive(Debug)]
pub struct Credentials {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads [`CA`], [`CERT`] and [`KEY`] of a folder.
    ///
    /// # Errors
    /// When one is missing, or holds something else.
    pub fn read(folder: &Path) -> Result<Self, TlsError> {
        let read = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(|source| TlsError::File { path, source })
        };
        let bundle = Bundle { ca: read(CA)?, cert: read(CERT)?, key: read(KEY)? };
        Self::parse(&bundle, &folder.display().to_string())
    }

    /// Understands a bundle; `from` is for messages.
    ///
    /// # Errors
    /// When it holds something else.
    pub fn parse(bundle: &Bundle, from: &str) -> Result<Self, TlsError> {
        let content =
            |file: &str, why: String| TlsError::Content { what: format!("{from}/{file}"), why };
        let certificates = |file: &str, text: &str| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
            match all {
                Ok(all) if !all.is_empty() => Ok(all),
                Ok(_) => Err(content(file, "no certificate in it".into())),
                Err(error) => Err(content(file, error.to_string())),
            }
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(CA, &bundle.ca)? {
            roots.add(certificate).map_err(|error| content(CA, error.to_string()))?;
        }
        let chain = certificates(CERT, &bundle.cert)?;
        let key = PrivateKeyDer::from_pem_slice(bundle.key.as_bytes())
            .map_err(|error| content(KEY, error.to_string()))?;
        Ok(Self { roots: Arc::new(roots), chain, key })
    }

    /// What an agent asks for and shows: clients need a certificate of the same authority.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn server(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::clone(&self.roots),
            Arc::clone(&provider),
        )
        .build()
        .map_err(|error| unusable(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| unusable(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A certificate is looked at each time.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What a collector asks for and shows.
    ///
    /// # Errors
    /// When certificate and key do not belong together.
    pub fn client(&self) -> Result<Arc<ClientConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| unusable(&error))?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| unusable(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

fn unusable(error: &dyn std::error::Error) -> TlsError {
    TlsError::Content { what: "a certificate".into(), why: error.to_string() }
}
