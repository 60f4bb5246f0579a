//! The agent: serves a node to collectors.
//!
//! [`Server::start`] listens and returns; everything after that happens on threads of its own: one
//! that does all the network's work, one for each trace and probe, a few for questions. Each
//! connection has a node to itself, so that what one collector has located is not there for others,
//! and goes with the connection.

mod connection;
mod service;
mod stream;

pub(super) use stream::Probed;

use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use super::Speaks;
use super::address::Listen;
use super::limits::Limits;
use crate::node::Node;

/// Questions that are worked on at the same time.
const QUESTIONS: usize = 4;

/// Connections at the same time whose peer has not shown who it is.
const STRANGERS: usize = 64;

/// How long traces get to say good-bye when the agent ends.
const GOOD_BYE: Duration = Duration::from_secs(1);

/// Makes the node of a connection.
pub type Factory = Arc<dyn Fn() -> io::Result<Arc<dyn Node>> + Send + Sync>;

/// Gets told, in a line each, what collectors do.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How to serve.
#[derive(Clone)]
pub struct Settings {
    /// Where.
    pub listen: Listen,
    /// Certificates; `None`: plain text, which [`Server::start`] allows on this machine only.
    pub tls: Option<Arc<ServerConfig>>,
    /// At most this.
    pub limits: Limits,
    /// Protocol and version.
    pub speaks: Speaks,
    /// Told what happens.
    pub log: Log,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// What all connections share.
struct Shared {
    settings: Settings,
    factory: Factory,
    tls: Option<TlsAcceptor>,
    traces: Arc<Semaphore>,
    probes: Arc<Semaphore>,
    questions: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// Whether the agent ends.
    ending: watch::Sender<bool>,
}

impl Shared {
    fn log(&self, line: &str) {
        (self.settings.log)(line);
    }
}

/// A running agent. Dropping it ends it.
pub struct Server {
    listen: Listen,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("listen", &self.listen).finish_non_exhaustive()
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Server {
    /// Listens, and serves from now on.
    ///
    /// # Errors
    /// When it cannot listen there, or would have to serve other machines in plain text.
    pub fn start(settings: Settings, factory: Factory) -> io::Result<Self> {
        if settings.tls.is_none() && !settings.listen.is_local() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{}: plain text is only for loopback and Unix sockets", settings.listen),
            ));
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(QUESTIONS)
            .thread_name("question")
            .build()?;
        let (listener, listen) = runtime.block_on(listen(&settings.listen))?;
        let permits = settings.limits.traces;
        let shared = Arc::new(Shared {
            tls: settings.tls.clone().map(TlsAcceptor::from),
            traces: Arc::new(Semaphore::new(permits)),
            probes: Arc::new(Semaphore::new(permits)),
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            connections: Arc::new(Semaphore::new(settings.limits.connections)),
            strangers: Arc::new(Semaphore::new(STRANGERS)),
            ending: watch::Sender::new(false),
            settings,
            factory,
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("agent".into()).spawn(move || {
            runtime.block_on(serve(&serving, listener));
            // Questions that are still worked on are waited for by nobody.
            runtime.shutdown_background();
        })?;
        Ok(Self { listen, shared, thread: Some(thread) })
    }

    /// Where it listens, with the port that it got if it asked for any.
    pub fn listen(&self) -> &Listen {
        &self.listen
    }

    /// Traces that are running.
    pub fn traces(&self) -> usize {
        self.shared.settings.limits.traces.saturating_sub(self.shared.traces.available_permits())
    }

    /// Whether it still serves.
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends it: traces are told, then everything is closed.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.ending.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there was printed there.
            let _ = thread.join();
        }
        if let Listen::Unix(path) = &self.listen {
            // Somebody may have tidied up.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

async fn listen(listen: &Listen) -> io::Result<(Listener, Listen)> {
    match listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            Ok((Listener::Tcp(listener), Listen::Tcp(address)))
        }
        Listen::Unix(path) => {
            remove_dead_socket(path)?;
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            Ok((Listener::Unix(listener), listen.clone()))
        }
    }
}

/// Removes the socket of an agent that was killed. Anything else stays.
fn remove_dead_socket(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;

    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if metadata.file_type().is_socket()
        && std::os::unix::net::UnixStream::connect(path).is_err_and(refused)
    {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

async fn serve(shared: &Arc<Shared>, listener: Listener) {
    let mut ending = shared.ending.subscribe();
    loop {
        tokio::select! {
            accepted = connection::accept(&listener) => match accepted {
                Ok(stranger) => connection::welcome(shared, stranger),
                Err(error) => {
                    shared.log(&format!("cannot accept a connection: {error}"));
                    // Out of descriptors, mostly: they come back when connections end.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            },
            _ = ending.wait_for(|ending| *ending) => break,
        }
    }
    drop(listener);
    let all = u32::try_from(shared.settings.limits.connections).unwrap_or(u32::MAX);
    // They may not make it in time.
    let _ = tokio::time::timeout(GOOD_BYE, shared.connections.acquire_many(all)).await;
}
