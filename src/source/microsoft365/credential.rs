//! How the application proves who it is: a secret, a certificate, or an identity that the platform vouches for.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::Clock;
use crate::error::{Code, Error, Result};
use crate::secret::{Secret, SecretPlace};

/// How the application proves who it is. Holds only the places of secrets, so it may be kept and shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credential {
    /// A client secret.
    Secret(SecretPlace),
    /// A PEM text with a certificate and its RSA key.
    Certificate(SecretPlace),
    /// A signed statement of another issuer (Kubernetes, CI) in a file that is renewed by the platform.
    WorkloadIdentity {
        /// The file; without it, the one that `AZURE_FEDERATED_TOKEN_FILE` names.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_file: Option<PathBuf>,
    },
    /// The identity of the Azure machine on which Waybill runs.
    ManagedIdentity,
}

/// What a token request carries as proof.
pub(super) enum Proof {
    /// The secret itself.
    Secret(Secret<String>),
    /// A signed statement.
    Assertion(Secret<String>),
    /// Nothing: the machine's metadata service knows the machine.
    Machine,
}

impl Credential {
    /// Reads the secret anew and makes the proof for one request to a token endpoint.
    ///
    /// # Errors
    /// `configuration` when the secret's place is empty, or the certificate or key cannot be used.
    pub(super) fn proof(&self, client_id: Uuid, token_url: &str, clock: &Clock) -> Result<Proof> {
        match self {
            Self::Secret(place) => Ok(Proof::Secret(place.read()?)),
            Self::Certificate(place) => {
                let assertion = sign(&place.read()?, client_id, token_url, clock).map_err(|problem| {
                    Error::new(Code::Configuration, format!("cannot use the certificate in {place}: {problem}"))
                })?;
                Ok(Proof::Assertion(assertion))
            }
            Self::WorkloadIdentity { token_file } => {
                let path =
                    token_file.clone().or_else(|| std::env::var_os("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from));
                let path = path.ok_or_else(|| {
                    Error::new(Code::Configuration, "the environment variable `AZURE_FEDERATED_TOKEN_FILE` is not set")
                })?;
                let token = SecretPlace::File(path).read()?;
                Ok(Proof::Assertion(Secret::new(token.expose().trim().to_owned())))
            }
            Self::ManagedIdentity => Ok(Proof::Machine),
        }
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    iss: Uuid,
    sub: Uuid,
    jti: Uuid,
    nbf: i64,
    iat: i64,
    exp: i64,
}

/// Seconds for which an assertion holds; it is used at once.
const ASSERTION_SECONDS: i64 = 600;

fn sign(pem: &Secret<String>, client_id: Uuid, token_url: &str, clock: &Clock) -> Result<Secret<String>, String> {
    let pem = pem.expose();
    let certificate =
        CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| format!("no certificate in it: {error}"))?;
    let key = key_section(pem).ok_or("no private key in it; an encrypted one must be decrypted first")?;
    let key =
        EncodingKey::from_rsa_pem(key.as_bytes()).map_err(|error| format!("its key is not an RSA key: {error}"))?;
    let header = Header {
        typ: Some("JWT".to_owned()),
        x5t_s256: Some(URL_SAFE_NO_PAD.encode(Sha256::digest(&certificate))),
        ..Header::new(Algorithm::PS256)
    };
    let now = clock.now().timestamp();
    let claims = Claims {
        aud: token_url,
        iss: client_id,
        sub: client_id,
        jti: Uuid::new_v4(),
        nbf: now,
        iat: now,
        exp: now + ASSERTION_SECONDS,
    };
    jsonwebtoken::encode(&header, &claims, &key)
        .map(Secret::new)
        .map_err(|error| format!("its key cannot sign: {error}"))
}

/// Cuts the private key out of a PEM text that holds more than it.
fn key_section(pem: &str) -> Option<&str> {
    ["PRIVATE KEY", "RSA PRIVATE KEY"].into_iter().find_map(|label| {
        let start = pem.find(&format!("-----BEGIN {label}-----"))?;
        let end_mark = format!("-----END {label}-----");
        let end = start + pem[start..].find(&end_mark)? + end_mark.len();
        Some(&pem[start..end])
    })
}
