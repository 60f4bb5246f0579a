//! A connection to an agent: TCP or a Unix socket, TLS, HTTP/2.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::http::Uri;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig};
use tonic::body::Body;

use crate::agent::address::Target;

/// An agent is asked so often whether it is still there …
const PING: Duration = Duration::from_millis(500);

/// … and must answer within this time.
const PONG: Duration = Duration::from_millis(1500);

/// How long the reason of an end is waited for, which comes apart from the end itself.
const REASON: Duration = Duration::from_millis(200);

/// A connection that requests can be sent over.
#[derive(Clone)]
pub struct Channel {
    sender: SendRequest<Body>,
    /// Why it is closed, once it is.
    closed: watch::Receiver<Option<String>>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("closed", &*self.closed.borrow()).finish_non_exhaustive()
    }
}

/// What requests are addressed to; HTTP wants something there.
pub fn origin() -> Uri {
    Uri::from_static("http://podtrace-agent")
}

impl Channel {
    /// Connects.
    ///
    /// # Errors
    /// When there is nobody, or one side does not trust the other, in words.
    pub async fn connect(target: &Target, tls: Option<Arc<ClientConfig>>) -> Result<Self, String> {
        match target {
            Target::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| error.to_string())?;
                Self::over(stream).await
            }
            Target::Plain(address) => {
                let stream =
                    TcpStream::connect(address).await.map_err(|error| error.to_string())?;
                Self::over(no_delay(stream)).await
            }
            Target::Tls { host, port } => {
                let tls = tls.ok_or("no certificate to show")?;
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| format!("{host:?} is no host name"))?;
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(|error| error.to_string())?;
                let stream = TlsConnector::from(tls)
                    .connect(name, no_delay(stream))
                    .await
                    .map_err(|error| explain(&error))?;
                // With TLS 1.3 our side is done before the agent has looked at our certificate. Its
                // word comes first, settings (RFC 9113, 3.4) or a refusal: whoever writes before that
                // may find a closed connection, and not learn why.
                let mut stream = BufReader::new(stream);
                if stream.fill_buf().await.map_err(|error| explain(&error))?.is_empty() {
                    return Err("it has closed the connection".to_owned());
                }
                Self::over(stream).await
            }
        }
    }

    async fn over<S>(stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_header_list_size(16 << 10);
        let (sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|error| explain(&error))?;
        let (tell, closed) = watch::channel(None);
        tokio::spawn(async move {
            let why = match connection.await {
                Ok(()) => "it has closed the connection".to_owned(),
                Err(error) => explain(&error),
            };
            tell.send_replace(Some(why));
        });
        Ok(Self { sender, closed })
    }

    /// Why the connection is closed; `None`: it is not.
    pub async fn why_closed(&self) -> Option<String> {
        let mut closed = self.closed.clone();
        let told = tokio::time::timeout(REASON, closed.wait_for(Option::is_some)).await;
        match told {
            Ok(Ok(why)) => why.clone(),
            Ok(Err(_)) => Some("the connection is closed".to_owned()),
            Err(_) => None,
        }
    }
}

impl tower_service::Service<hyper::Request<Body>> for Channel {
    type Response = hyper::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, request: hyper::Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}

fn no_delay(stream: TcpStream) -> TcpStream {
    // Only latency is lost without.
    let _ = stream.set_nodelay(true);
    stream
}

/// What has gone wrong, in words for whoever has to mend it.
fn explain(error: &(dyn Error + 'static)) -> String {
    let mut at: Option<&(dyn Error + 'static)> = Some(error);
    let mut deepest = error.to_string();
    while let Some(error) = at {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return explain_tls(error);
        }
        // An I/O error hides the one that it wraps from `source`.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(error) = inner.and_then(|e| e.downcast_ref::<rustls::Error>()) {
            return explain_tls(error);
        }
        deepest = error.to_string();
        at = error.source();
    }
    // HTTP/2 keeps only the text of what happened below.
    match deepest.strip_prefix("received fatal alert: ") {
        Some(alert) => refuses(alert),
        None => crate::agent::one_line(&deepest),
    }
}

fn refuses(alert: &str) -> String {
    format!("it refuses our certificate ({})", crate::agent::one_line(alert))
}

fn explain_tls(error: &rustls::Error) -> String {
    use rustls::CertificateError as C;
    use rustls::Error as E;

    match error {
        E::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => {
            "its certificate has expired (podtrace agent init makes a new one)".into()
        }
        E::InvalidCertificate(C::UnknownIssuer | C::BadSignature) => {
            "its certificate is of another authority than the one trusted here".into()
        }
        E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "its certificate was made for other addresses (podtrace agent init NAME=ADDRESS)".into()
        }
        E::AlertReceived(alert) => refuses(&format!("{alert:?}")),
        other => format!("TLS: {other}"),
    }
}
