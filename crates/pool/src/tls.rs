//! Mutual TLS between members: every certificate is issued by the pool's authority and names a node by its uuid.
//!
//! The material is swapped as a whole when the node joins or leaves a pool. Connections remember under which it was
//! made; what an earlier authority proved counts no more.

use std::sync::Arc;

use parking_lot::RwLock;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use crate::identity::Identity;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the node's certificate is unusable: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the node's certificate is unusable: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the pool's authority is unusable: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// What both directions of a connection need.
#[derive(Debug, Clone)]
pub(crate) struct Material {
    /// Counts the swaps.
    pub generation: u64,
    /// Accepts members, and strangers without a certificate (who may only claim a fresh node).
    pub server: Arc<ServerConfig>,
    /// Shows this node's certificate and accepts members only.
    pub client: Arc<ClientConfig>,
    /// Accepts anybody and shows nothing: for the first contact with a node that is to be claimed.
    pub stranger: Arc<ClientConfig>,
}

#[derive(Debug)]
pub(crate) struct Tls {
    material: RwLock<Arc<Material>>,
}

impl Tls {
    /// # Errors
    /// When the identity's certificates are damaged.
    pub(crate) fn new(identity: &Identity) -> Result<Self, TlsError> {
        Ok(Self { material: RwLock::new(Arc::new(material(identity, 0)?)) })
    }

    /// From now on this identity's.
    ///
    /// # Errors
    /// When its certificates are damaged; nothing changes then.
    pub(crate) fn replace(&self, identity: &Identity) -> Result<(), TlsError> {
        let generation = self.current().generation + 1;
        let material = material(identity, generation)?;
        *self.material.write() = Arc::new(material);
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<Material> {
        Arc::clone(&self.material.read())
    }
}

fn material(identity: &Identity, generation: u64) -> Result<Material, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(identity.authority.certificate.as_bytes())?)?;
    let roots = Arc::new(roots);
    let chain = vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?;

    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain.clone(), key.clone_key())?;
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    let stranger = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustOnFirstUse(provider)))
        .with_no_client_auth();
    Ok(Material { generation, server: Arc::new(server), client: Arc::new(client), stranger: Arc::new(stranger) })
}

/// Accepts any certificate whose key the peer holds: the admin named the host, nothing else is known of it yet.
#[derive(Debug)]
struct TrustOnFirstUse(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustOnFirstUse {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
