//! Who this node is: its uuid, the pool it belongs to, and the certificate that proves both.
//!
//! One file, replaced as a whole, so that joining and leaving a pool happen at one instant. It holds private keys and is
//! readable by root only.

use std::io;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::paths::replace_file;

/// How the node came to its pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Origin {
    /// It made the pool, of itself.
    Formed,
    /// It was probed into it.
    Joined,
}

/// The pool's authority: whoever holds the key can take nodes in, which every member may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Authority {
    pub certificate: String,
    pub key: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Never changes.
    pub uuid: Uuid,
    pub pool_id: Uuid,
    pub origin: Origin,
    pub authority: Authority,
    /// The pool that was lost and that this one goes on from; its configuration is kept when the database still holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered_from: Option<Uuid>,
    /// This node's, issued by the authority; PEM.
    pub certificate: String,
    pub key: String,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: io::Error },
    #[error("{path} is not understood: {error}")]
    Format { path: PathBuf, error: serde_json::Error },
    #[error("making a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// The name that the node's certificate is for.
pub(crate) fn tls_name(node: Uuid) -> String {
    format!("{node}.mortar")
}

impl Identity {
    /// Reads the file, or makes a new node with a pool of its own.
    ///
    /// # Errors
    /// When the file is there but unreadable, or cannot be written.
    pub(crate) fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        match std::fs::read(path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|error| IdentityError::Format { path: path.to_owned(), error })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let identity = Self::fresh(Uuid::new_v4())?;
                identity.save(path)?;
                Ok(identity)
            }
            Err(error) => Err(IdentityError::File { path: path.to_owned(), error }),
        }
    }

    /// A node that forms a pool of itself.
    ///
    /// # Errors
    /// When no key can be made.
    pub(crate) fn fresh(uuid: Uuid) -> Result<Self, IdentityError> {
        Self::of(uuid, Uuid::new_v4(), Origin::Formed, Authority::new()?)
    }

    /// A node with a certificate of this authority.
    ///
    /// # Errors
    /// When the authority's key is unusable.
    pub(crate) fn of(uuid: Uuid, pool_id: Uuid, origin: Origin, authority: Authority) -> Result<Self, IdentityError> {
        let issuer = Issuer::from_ca_cert_pem(&authority.certificate, KeyPair::from_pem(&authority.key)?)?;
        let mut params = CertificateParams::new(vec![tls_name(uuid)])?;
        params.distinguished_name.push(DnType::CommonName, uuid.to_string());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Self {
            uuid,
            pool_id,
            origin,
            authority,
            recovered_from: None,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> Result<(), IdentityError> {
        let text =
            serde_json::to_vec_pretty(self).map_err(|error| IdentityError::Format { path: path.to_owned(), error })?;
        replace_file(path, &text).map_err(|error| IdentityError::File { path: path.to_owned(), error })
    }
}

impl Authority {
    fn new() -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Mortar pool authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        Ok(Self { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

#[cfg(test)]
mod tests {
    use super::Identity;

    #[test]
    fn a_node_keeps_its_identity() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.json");
        let made = Identity::load_or_create(&path).expect("makes");
        assert_eq!(Identity::load_or_create(&path).expect("reads"), made);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.json");
        std::fs::write(&path, "{").expect("writes");
        let error = Identity::load_or_create(&path).expect_err("is refused").to_string();
        assert!(error.contains("node.json is not understood"), "{error}");
    }
}
