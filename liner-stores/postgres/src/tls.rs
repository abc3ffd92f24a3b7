//! Encryption by rustls: whom it trusts, what it shows, and what a failure means.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::error::OpenError;
use crate::url::{RootCert, SslMode, Url};

/// Where systems keep the authorities that they trust, in one file.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// How to encrypt, as the URL has it. Its files are read each time, so that renewed ones are used by the next connection.
pub(crate) fn client_config(url: &Url) -> Result<ClientConfig, OpenError> {
    let provider = Arc::new(ring::default_provider());
    let unusable = |error: &dyn core::fmt::Display| OpenError::Tls {
        server: url.to_string(),
        words: format!("the encryption cannot be set up: {error}"),
    };
    let verifier = Verifier::new(url, Arc::clone(&provider))?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let (Some(cert), Some(key)) = (url.cert(), url.key()) else { return Ok(builder.with_no_client_auth()) };
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| file("sslkey", key, &error))?;
    builder
        .with_client_auth_cert(certificates("sslcert", cert)?, private)
        .map_err(|error| file("sslkey", key, &format!("it does not go with sslcert: {error}")))
}

fn file(option: &'static str, path: &Path, words: &dyn core::fmt::Display) -> OpenError {
    OpenError::File { option, path: path.to_owned(), words: words.to_string() }
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OpenError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let read = read.map_err(|error| file(option, path, &error))?;
    if read.is_empty() { Err(file(option, path, &"there is no certificate in it")) } else { Ok(read) }
}

fn roots(root: &RootCert) -> Result<RootCertStore, OpenError> {
    let path = match root {
        RootCert::File(path) => path.clone(),
        RootCert::System => system_file()?,
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates("sslrootcert", &path)?);
    if added == 0 {
        return Err(file("sslrootcert", &path, &"no certificate in it is one of an authority"));
    }
    Ok(store)
}

fn system_file() -> Result<PathBuf, OpenError> {
    if let Some(path) = std::env::var_os("SSL_CERT_FILE") {
        return Ok(path.into());
    }
    let found = SYSTEM.map(PathBuf::from).into_iter().find(|path| path.exists());
    found.ok_or_else(|| {
        let words = format!("there is none of {}; name the file in SSL_CERT_FILE", SYSTEM.join(", "));
        file("sslrootcert", Path::new("system"), &words)
    })
}

/// Looks at a server's certificate, as far as `sslmode` wants it.
#[derive(Debug)]
struct Verifier {
    /// Nothing, if the certificate is not looked at.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Whether the name counts.
    full: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(url: &Url, provider: Arc<CryptoProvider>) -> Result<Self, OpenError> {
        let chain = url.root_cert().map(|root| {
            let store = Arc::new(roots(root)?);
            let built = WebPkiServerVerifier::builder_with_provider(store, Arc::clone(&provider)).build();
            built.map_err(|error| file("sslrootcert", Path::new(""), &error))
        });
        Ok(Self { chain: chain.transpose()?, full: url.ssl_mode() == SslMode::VerifyFull, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            // The name is looked at last: all else is as it should be.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.full => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// What is wrong with certificates that other programs take: rustls has no code for it.
fn hasty(words: &str) -> String {
    if words.contains("UnsupportedCertVersion") {
        "its certificate is of version 1: make one of version 3, with its name as subjectAltName (openssl x509 -req … -extfile FILE)".to_owned()
    } else if words.contains("CaUsedAsEndEntity") {
        "its certificate is that of an authority: have that sign another one for the server, with basicConstraints=CA:FALSE".to_owned()
    } else {
        format!("its certificate is not good: {words}")
    }
}

/// What a failed handshake means, and what helps.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others have words of their own")]
pub(crate) fn words(error: &io::Error, host: &str) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let Some(error) = inner else { return format!("the handshake broke off: {error}") };
    match error {
        Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is signed by nobody in sslrootcert: name the file of the authority that signed it".to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("its certificate is not for {host}: use a name of its subjectAltName, or sslmode=verify-ca")
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired: renew it, or see that this machine's clock is right".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet: see that this machine's clock is right".to_owned()
            }
            CertificateError::Other(other) => hasty(&other.to_string()),
            other => format!("its certificate is not good: {other}"),
        },
        Error::AlertReceived(alert) => {
            format!("it broke the handshake off ({alert:?}): see that sslcert is there and signed by whom it trusts")
        }
        other => format!("the handshake failed: {other}"),
    }
}
