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
use tokio::runtime::Builder;
use tokio_postgres::config::{SslMode as Mode, TargetSessionAttrs};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Encrypted;

use crate::error::{OpenError, words};
use crate::url::{Host, SslMode, TargetSession, Url};
use crate::{dial, tls};

/// Makes them.
pub(crate) struct Lender {
    url: Url,
    name: String,
}

impl Lender {
    /// For the node of this name.
    pub(crate) fn new(url: &Url, name: &str) -> Self {
        Self { url: url.clone(), name: name.to_owned() }
    }

    /// Connects to the first server that will do.
    pub(crate) fn connect(&self) -> Result<Client, OpenError> {
        let mut first = None;
        for host in self.url.hosts() {
            match self.try_out(host).and_then(|()| self.connect_to(host)) {
                Ok(client) => return Ok(client),
                Err(refused) => drop(first.get_or_insert(refused)),
            }
        }
        Err(first.unwrap_or_else(|| OpenError::Url { words: "it names no server".to_owned() }))
    }

    /// Makes a connection as the store does, and closes it: the crate's own bound of time is over when a server has accepted, and its
    /// errors do not say what to do.
    fn try_out(&self, host: &Host) -> Result<(), OpenError> {
        let unmade =
            |error: io::Error| OpenError::Connect { server: host.to_string(), words: error.to_string() };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(unmade)?;
        runtime.block_on(dial::connect_to_one(&self.url, host, &self.name, None)).map(drop)
    }

    fn connect_to(&self, host: &Host) -> Result<Client, OpenError> {
        let config = self.config(host);
        let connected = match host {
            Host::Tcp(..) if self.url.ssl_mode() != SslMode::Disable => {
                config.connect(Encrypting(Arc::new(tls::client_config(&self.url)?)))
            }
            // As libpq has it, a socket of this machine is never encrypted.
            Host::Tcp(..) | Host::Unix(..) => config.connect(NoTls),
        };
        connected.map_err(|error| OpenError::Connect { server: host.to_string(), words: words(&error) })
    }

    fn config(&self, host: &Host) -> Config {
        let url = &self.url;
        let mut config = Config::new();
        config.user(url.user()).dbname(url.database()).connect_timeout(url.connect_timeout());
        config.application_name(&url.session_name(&self.name)).keepalives(url.keepalive().is_some());
        if let Some(idle) = url.keepalive() {
            config.keepalives_idle(idle);
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
        match host {
            Host::Unix(folder, port) => config.host_path(folder).port(*port).ssl_mode(Mode::Disable),
            Host::Tcp(address, port) => config.host(address).port(*port).ssl_mode(match url.ssl_mode() {
                SslMode::Disable => Mode::Disable,
                SslMode::Prefer => Mode::Prefer,
                SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Mode::Require,
            }),
        };
        config
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
