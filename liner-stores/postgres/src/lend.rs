//! Connections of the crate `postgres` for applications, to the same servers and encrypted in the same way as those of the store.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;
use std::sync::Arc;

use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use postgres::{Client, Config, NoTls, Socket};
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{SslMode as Mode, TargetSessionAttrs};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Encrypted;

use crate::error::OpenError;
use crate::tls;
use crate::url::{Host, SslMode, TargetSession, Url};

/// Makes them.
pub(crate) struct Lender {
    config: Config,
    tls: Option<Encrypting>,
}

impl Lender {
    /// For the node of this name.
    pub(crate) fn new(url: &Url, name: &str) -> Result<Self, OpenError> {
        let mut config = Config::new();
        config.user(url.user()).dbname(url.database()).connect_timeout(url.connect_timeout());
        config
            .application_name(&url.application_name().map_or_else(|| format!("liner {name}"), str::to_owned));
        for host in url.hosts() {
            match host {
                Host::Unix(folder, port) => config.host_path(folder).port(*port),
                Host::Tcp(address, port) => config.host(address).port(*port),
            };
        }
        if let Some(options) = url.options() {
            config.options(options);
        }
        if let Some(password) = url.password().map(str::to_owned).or_else(|| std::env::var("PGPASSWORD").ok())
        {
            config.password(password);
        }
        if url.target_session() == TargetSession::ReadWrite {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        config.ssl_mode(match url.ssl_mode() {
            SslMode::Disable => Mode::Disable,
            SslMode::Prefer => Mode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Mode::Require,
        });
        let encrypts = url.ssl_mode() != SslMode::Disable;
        let tls = encrypts.then(|| tls::client_config(url)).transpose()?;
        let tls = tls.map(|config| Encrypting(Arc::new(config)));
        Ok(Self { config, tls })
    }

    pub(crate) fn connect(&self) -> Result<Client, postgres::Error> {
        match &self.tls {
            Some(tls) => self.config.connect(tls.clone()),
            None => self.config.connect(NoTls),
        }
    }
}

#[derive(Clone)]
struct Encrypting(Arc<ClientConfig>);

impl MakeTlsConnect<Socket> for Encrypting {
    type Stream = Wire;
    type TlsConnect = Handshake;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Handshake, InvalidDnsNameError> {
        let name = ServerName::try_from(domain.to_owned())?;
        Ok(Handshake { connector: TlsConnector::from(self.0.clone()), name })
    }
}

struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        Box::pin(async move { self.connector.connect(self.name, stream).await.map(Wire) })
    }
}

struct Wire(Encrypted<Socket>);

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl TlsStream for Wire {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}
