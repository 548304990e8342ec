//! Certificates for `https`: an authority that is made at every start, and the server's certificate signed by it.
//! Microsoft's own client library insists on `https` for the login address.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use super::{Result, SimulatorError};

/// What a server on this address needs, and the authority's certificate in PEM for those who shall trust it.
pub(crate) fn acceptor(address: IpAddr) -> Result<(TlsAcceptor, String)> {
    let (authority, authority_key) = authority()?;
    let authority_pem = authority.self_signed(&authority_key).map_err(SimulatorError::Key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned(), address.to_string()];
    let mut server = CertificateParams::new(names).map_err(SimulatorError::Key)?;
    server.distinguished_name.push(DnType::CommonName, "localhost");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let server_key = KeyPair::generate().map_err(SimulatorError::Key)?;
    let certificate = server.signed_by(&server_key, &issuer).map_err(SimulatorError::Key)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key))
        .map_err(|error| SimulatorError::Certificate(error.to_string()))?;
    Ok((TlsAcceptor::from(Arc::new(config)), authority_pem))
}

fn authority() -> Result<(CertificateParams, KeyPair)> {
    let mut params = CertificateParams::new(Vec::<String>::new()).map_err(SimulatorError::Key)?;
    params.distinguished_name.push(DnType::CommonName, "Waybill simulator");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params, KeyPair::generate().map_err(SimulatorError::Key)?))
}
