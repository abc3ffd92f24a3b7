//! Why a store cannot be opened.

use std::io::ErrorKind;

use crate::client::Failure;
use crate::link::LinkError;
use crate::url::{Place, Url, UrlError};
use liner_proto::effect::StoreFault;

/// Why a store cannot be opened. Each reason says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The URL is wrong.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The server is not reached.
    #[error("cannot reach {url}: {words}; {advice}")]
    Unreachable {
        /// The URL.
        url: Box<Url>,
        /// What the system says.
        words: String,
        /// What to do.
        advice: &'static str,
    },
    /// The server is not the one that was meant, or does not take us for whom we are.
    #[error("no encryption with {url}: {words}")]
    Tls {
        /// The URL.
        url: Box<Url>,
        /// What is wrong.
        words: String,
    },
    /// A file that encryption needs is of no use.
    #[error("{words}")]
    File {
        /// Which file, and what is wrong with it.
        words: String,
    },
    /// The user or the password is wrong, or one is needed.
    #[error("{url} does not let this user in: {words}; write redis://USER:PASSWORD@HOST")]
    Login {
        /// The URL.
        url: Box<Url>,
        /// What the server says.
        words: String,
    },
    /// The user may not do what the store has to do.
    #[error(
        "{url}: the user lacks a permission: {words}; what it needs is: ACL SETUSER NAME on >PASSWORD {acl}"
    )]
    Permission {
        /// The URL.
        url: Box<Url>,
        /// What the server says.
        words: String,
        /// The rules of the access control list.
        acl: &'static str,
    },
    /// The server is too old.
    #[error("{url} is Redis {version}, and 7.0 is the oldest that will do")]
    OldServer {
        /// The URL.
        url: Box<Url>,
        /// Its version.
        version: String,
    },
    /// The server would throw messages away when its memory is used up.
    #[error(
        "{url} throws keys away when its memory is used up (maxmemory-policy {policy}): CONFIG SET maxmemory-policy noeviction"
    )]
    Evicting {
        /// The URL.
        url: Box<Url>,
        /// Its policy.
        policy: String,
    },
    /// The server copies another one and takes nothing.
    #[error("{url} is a replica; name the server that it copies")]
    Replica {
        /// The URL.
        url: Box<Url>,
    },
    /// The server is one of several that have a part of the keys each.
    #[error(
        "{url} is part of a cluster, which cannot commit a turn as a whole; name a server that has all keys"
    )]
    Cluster {
        /// The URL.
        url: Box<Url>,
    },
    /// The server watches others and keeps nothing.
    #[error("{url} is a Sentinel; name the server that it watches")]
    Sentinel {
        /// The URL.
        url: Box<Url>,
    },
    /// A newer release has used the node's row.
    #[error(
        "{url}: the row of this node has format {found} and this release knows up to {known}; use the release that wrote it"
    )]
    NewerFormat {
        /// The URL.
        url: Box<Url>,
        /// The row's format.
        found: String,
        /// The newest one that this release knows.
        known: u64,
    },
    /// The server refuses something.
    #[error("{url} does not do what it is asked for: {words}")]
    Server {
        /// The URL.
        url: Box<Url>,
        /// What it says.
        words: String,
    },
}

impl OpenError {
    pub(crate) fn of(url: &Url, failure: Failure) -> Self {
        let url = Box::new(url.clone());
        match failure {
            Failure::Link(LinkError::Tls(error)) => Self::Tls { url, words: tls_words(&error) },
            Failure::Link(LinkError::File(words)) => Self::File { words },
            Failure::Link(LinkError::Io(error)) | Failure::Io { error, .. } => {
                let words = error.to_string();
                let is_tls = matches!(&url.place, Place::Tcp { tls: Some(_), .. });
                #[expect(clippy::wildcard_enum_match_arm, reason = "most say enough")]
                let is_other = match error.kind() {
                    // A server waits for the rest of what it takes for a command.
                    ErrorKind::TimedOut => is_tls,
                    ErrorKind::UnexpectedEof
                    | ErrorKind::InvalidData
                    | ErrorKind::ConnectionReset
                    | ErrorKind::BrokenPipe => true,
                    _ => false,
                };
                let advice = match (&url.place, is_other) {
                    (Place::Tcp { tls: None, .. }, true) => {
                        "if that port speaks TLS, write rediss:// instead of redis://"
                    }
                    (Place::Tcp { tls: Some(_), .. }, true) => {
                        "if that port does not speak TLS, write redis:// instead of rediss://; if it wants a certificate, name one with cert=FILE&key=FILE"
                    }
                    (Place::Tcp { .. }, false) => "make sure that it runs and that host and port are right",
                    (Place::Unix(_), _) => "make sure that it runs and that this user may use the socket",
                };
                Self::Unreachable { url, words, advice }
            }
            Failure::Server(words) => match words.split(' ').next().unwrap_or_default() {
                "NOPERM" => Self::Permission { url, words, acl: crate::ACL },
                "NOAUTH" | "WRONGPASS" => Self::Login { url, words },
                _ if words.contains("without any password configured") => Self::Login { url, words },
                _ => Self::Server { url, words },
            },
            Failure::Fault(StoreFault::Superseded) => Self::Server {
                url,
                words: "another instance took this node's name at the same time".to_owned(),
            },
            Failure::Fault(fault) => Self::Server { url, words: fault.to_string() },
        }
    }
}

/// What rustls says, with what to do about it.
fn tls_words(error: &rustls::Error) -> String {
    use rustls::AlertDescription as Alert;
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage};
    #[expect(clippy::wildcard_enum_match_arm, reason = "for the rest the library's words have to do")]
    let advice = match error {
        InvalidCertificate(UnknownIssuer) => "its certificate was not signed by whom ca=FILE names",
        InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "its certificate is for another host name"
        }
        InvalidCertificate(Expired | ExpiredContext { .. }) => "its certificate has expired",
        InvalidMessage(_) => "that port does not speak TLS: write redis:// instead of rediss://",
        // The second one is what older versions of TLS say.
        AlertReceived(Alert::CertificateRequired | Alert::HandshakeFailure) => {
            "it wants a certificate: name one that it trusts with cert=FILE&key=FILE"
        }
        AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown) => {
            "it does not trust the certificate of cert=FILE"
        }
        AlertReceived(Alert::CertificateExpired) => "the certificate of cert=FILE has expired",
        _ => return error.to_string(),
    };
    format!("{advice} ({error})")
}
