//! A connection, from the first byte on: who is there, and how long it may stay.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tower_service::Service as _;

use super::service::Service;
use super::{Listener, Shared};
use crate::agent::payload::MAX_REQUEST;
use crate::agent::proto::agent_server::AgentServer;

/// The peer is asked so often whether it is still there …
const PING: Duration = Duration::from_millis(500);

/// … and must answer within this time: a collector that has gone without a word has its programs
/// detached within two seconds.
const PONG: Duration = Duration::from_millis(1400);

/// Someone who has connected.
pub enum Stranger {
    Tcp(TcpStream, String),
    Unix(UnixStream),
}

/// Waits for the next one.
pub async fn accept(listener: &Listener) -> io::Result<Stranger> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            // Only latency is lost without.
            let _ = stream.set_nodelay(true);
            Ok(Stranger::Tcp(stream, from.to_string()))
        }
        Listener::Unix(listener) => Ok(Stranger::Unix(listener.accept().await?.0)),
    }
}

/// Lets a stranger in, if it may come in.
pub fn welcome(shared: &Arc<Shared>, stranger: Stranger) {
    let Ok(permit) = Arc::clone(&shared.strangers).try_acquire_owned() else {
        // Too many at the door: they may come back.
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        match stranger {
            Stranger::Tcp(stream, from) => match shared.tls.clone() {
                None => converse(&shared, stream, from, permit).await,
                Some(tls) => {
                    match timeout(shared.settings.limits.patience, tls.accept(stream)).await {
                        Ok(Ok(stream)) => converse(&shared, stream, from, permit).await,
                        Ok(Err(error)) => shared.log(&format!("{from} was refused: {error}")),
                        Err(_) => shared.log(&format!("{from} was refused: it took too long")),
                    }
                }
            },
            Stranger::Unix(stream) => match trusted(&stream) {
                Ok(pid) => converse(&shared, stream, format!("process {pid}"), permit).await,
                Err(why) => shared.log(&format!("a process was refused: {why}")),
            },
        }
    });
}

/// Process of the peer of a Unix socket: it must be root's or this user's.
fn trusted(stream: &UnixStream) -> Result<i32, String> {
    let peer = stream.peer_cred().map_err(|error| error.to_string())?;
    if peer.uid() != 0 && peer.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!("it belongs to user {}", peer.uid()));
    }
    Ok(peer.pid().unwrap_or(0))
}

/// Answers until the peer goes, or has to.
async fn converse<S>(
    shared: &Arc<Shared>,
    stream: S,
    from: String,
    at_the_door: tokio::sync::OwnedSemaphorePermit,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(_permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        shared.log(&format!(
            "{from} was refused: there are {} connections already",
            shared.settings.limits.connections
        ));
        return;
    };
    let mut at_the_door = Some(at_the_door);
    if shared.tls.is_some() {
        at_the_door = None;
    }
    let node = match (shared.factory)() {
        Ok(node) => node,
        Err(error) => return shared.log(&format!("cannot serve {from}: {error}")),
    };
    let service = Service::new(Arc::clone(shared), node, from.clone());
    let service = AgentServer::new(service)
        .max_decoding_message_size(MAX_REQUEST)
        .max_encoding_message_size(usize::MAX);
    let asked = Arc::new(AtomicBool::new(false));
    let asks = Arc::clone(&asked);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PONG)
        .initial_stream_window_size(64 << 10)
        .initial_connection_window_size(256 << 10)
        .max_concurrent_streams(32)
        .max_header_list_size(16 << 10)
        .max_send_buf_size(256 << 10)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64);
    let connection = builder.serve_connection(
        TokioIo::new(stream),
        service_fn(move |request| {
            asks.store(true, Relaxed);
            service.clone().call(request)
        }),
    );
    tokio::pin!(connection);
    let mut ending = shared.ending.subscribe();
    let patience = tokio::time::sleep(shared.settings.limits.patience);
    tokio::pin!(patience);
    let (mut stays, mut ends) = (false, false);
    let ended = loop {
        tokio::select! {
            ended = &mut connection => break ended,
            () = &mut patience, if !stays => {
                if !asked.load(Relaxed) {
                    return shared.log(&format!("{from} was disconnected: it asked nothing"));
                }
                stays = true;
                at_the_door = None;
            }
            // What is under way is sent, then it ends.
            _ = ending.wait_for(|ending| *ending), if !ends => {
                ends = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    };
    drop(at_the_door);
    if let Err(error) = ended {
        // The one below says what happened.
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        let cause = cause.unwrap_or_else(|| error.to_string());
        shared.log(&format!("{from} was disconnected: {}", crate::agent::one_line(&cause)));
    }
}
