//! Servers in pods, healthy and sick: what `podtrace lab serve` runs.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use super::super::plan::Plan;
use super::super::services::{self, Speaks};
use super::super::{dns, state};
use super::programs::{self, Point};
use crate::netns::Netns;

/// The line that a server writes when it serves.
pub const READY: &str = "ready";
/// Connections that may wait at a healthy server.
const BACKLOG: i32 = 128;
/// The smallest receive buffer that a socket can have; the kernel rounds up (tcp(7), `SO_RCVBUF`).
const TINY_BUFFER: usize = 1;
/// How long a local connection may take until the backlog counts as full.
const FULL_AFTER: Duration = Duration::from_millis(200);
/// More connections than a backlog of 0 holds.
const FILLERS: usize = 8;

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Server {
    /// Accepts connections and sends back what it gets
    Tcp {
        /// Port
        port: u16,
    },
    /// The same on the loopback addresses only
    TcpLocal {
        /// Port
        port: u16,
    },
    /// Listens, but never accepts: its backlog is full
    TcpFull {
        /// Port
        port: u16,
    },
    /// Sends back every datagram
    Udp {
        /// Port
        port: u16,
    },
    /// Never reads: its receive buffer is full
    UdpFull {
        /// Port
        port: u16,
    },
    /// Everything that a lab serves by itself
    Lab {
        /// The lab's name
        name: String,
    },
    /// Holds a TUN interface and never reads from it
    Tun {
        /// Name of the interface
        name: String,
    },
    /// Drops every packet at an interface: as XDP program in the driver
    XdpNative {
        /// Name of the interface
        name: String,
    },
    /// As XDP program behind the driver
    XdpGeneric {
        /// Name of the interface
        name: String,
    },
    /// As tc program at ingress
    TcIngress {
        /// Name of the interface
        name: String,
    },
}

impl Server {
    /// Serves until it is killed.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn run(self) -> io::Result<()> {
        match self {
            Server::Tcp { port } => {
                let socket = listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port, BACKLOG)?;
                ready()?;
                accept(&socket)
            }
            Server::TcpLocal { port } => {
                let six = listen(IpAddr::V6(Ipv6Addr::LOCALHOST), port, BACKLOG);
                let four = listen(IpAddr::V4(Ipv4Addr::LOCALHOST), port, BACKLOG)?;
                ready()?;
                let served = accept(&four);
                drop(six);
                served
            }
            Server::TcpFull { port } => {
                let _socket = listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port, 0)?;
                let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
                let fillers: Vec<_> = (0..FILLERS)
                    .map_while(|_| TcpStream::connect_timeout(&to, FULL_AFTER).ok())
                    .collect();
                ready()?;
                forever();
                drop(fillers);
                Ok(())
            }
            Server::Udp { port } => echo(&udp(port, None)?),
            Server::UdpFull { port } => {
                let socket = udp(port, Some(TINY_BUFFER))?;
                // One that fills it.
                let to = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
                let sender = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                for _ in 0..FILLERS {
                    sender.send_to(&[0; 1000], to)?;
                }
                ready()?;
                forever();
                drop(socket);
                Ok(())
            }
            Server::Lab { name } => serve_lab(&name),
            Server::Tun { name } => hold(&programs::tun(&name)?),
            Server::XdpNative { name } => hold(&programs::drop_at(Point::XdpNative, &name)?),
            Server::XdpGeneric { name } => hold(&programs::drop_at(Point::XdpGeneric, &name)?),
            Server::TcIngress { name } => hold(&programs::drop_at(Point::TcIngress, &name)?),
        }
    }
}

/// Serves by holding something open.
fn hold(_file: &OwnedFd) -> io::Result<()> {
    ready()?;
    forever();
    Ok(())
}

/// Serves what the plan of a lab says, in its namespaces.
fn serve_lab(name: &str) -> io::Result<()> {
    let state = state::load(name).map_err(io::Error::other)?;
    let state = state.ok_or_else(|| io::Error::other(format!("there is no lab {name:?}")))?;
    let plan = Arc::new(Plan::new(&state.config));
    for server in services::servers(&plan) {
        let netns = Netns::open(&server.netns)?;
        let at = server.at;
        match server.speaks {
            Speaks::Tcp => {
                let socket = netns.run(|| listen(at.ip(), at.port(), BACKLOG))??;
                std::thread::spawn(move || accept(&socket));
            }
            Speaks::Udp => {
                let socket = netns.run(|| udp_at(at.ip(), at.port()))??;
                std::thread::spawn(move || answer(&socket, |got| Some(got.to_vec())));
            }
            Speaks::Dns => {
                let (datagrams, stream) = netns.run(|| {
                    Ok::<_, io::Error>((
                        udp_at(at.ip(), at.port())?,
                        listen(at.ip(), at.port(), BACKLOG)?,
                    ))
                })??;
                let zone = Arc::clone(&plan);
                std::thread::spawn(move || answer(&datagrams, |got| dns::answer(&zone, got)));
                let zone = Arc::clone(&plan);
                std::thread::spawn(move || serve_each(&stream, move |c| dns_stream(c, &zone)));
            }
        }
    }
    ready()?;
    forever();
    Ok(())
}

/// DNS over TCP: each message behind its length (RFC 1035 section 4.2.2).
fn dns_stream(connection: &mut TcpStream, plan: &Plan) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        connection.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        connection.read_exact(&mut query)?;
        let Some(answer) = dns::answer(plan, &query) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        connection.write_all(&[&length.to_be_bytes()[..], &answer].concat())?;
    }
}

fn ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()
}

fn forever() {
    loop {
        std::thread::park();
    }
}

/// On `::` also over IPv4; where the kernel has no IPv6, only there.
fn bind(ip: IpAddr, kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let domain = if ip.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = match Socket::new(domain, kind, Some(protocol)) {
        Ok(socket) => socket,
        Err(_) if ip.is_ipv6() => {
            return bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED), kind, protocol, port);
        }
        Err(error) => return Err(error),
    };
    if ip.is_ipv6() {
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    if kind == Type::STREAM {
        socket.set_reuse_address(true)?;
    }
    match socket.bind(&SocketAddr::new(ip, port).into()) {
        Err(error) if ip.is_ipv6() && error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {
            bind(IpAddr::V4(Ipv4Addr::UNSPECIFIED), kind, protocol, port)
        }
        result => result.map(|()| socket),
    }
}

fn listen(ip: IpAddr, port: u16, backlog: i32) -> io::Result<Socket> {
    let socket = bind(ip, Type::STREAM, Protocol::TCP, port)?;
    socket.listen(backlog)?;
    Ok(socket)
}

fn accept(socket: &Socket) -> io::Result<()> {
    serve_each(socket, |connection| {
        let mut buffer = [0; 16 * 1024];
        loop {
            let length = connection.read(&mut buffer)?;
            if length == 0 {
                return Ok(());
            }
            connection.write_all(&buffer[..length])?;
        }
    })
}

/// Serves every connection on a thread of its own, until it ends.
fn serve_each(
    socket: &Socket,
    serve: impl Fn(&mut TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    loop {
        let (connection, _) = socket.accept()?;
        let serve = serve.clone();
        std::thread::spawn(move || serve(&mut TcpStream::from(connection)));
    }
}

fn udp(port: u16, buffer: Option<usize>) -> io::Result<UdpSocket> {
    let socket = udp_at(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)?;
    if let Some(bytes) = buffer {
        socket2::SockRef::from(&socket).set_recv_buffer_size(bytes)?;
    }
    Ok(socket)
}

fn udp_at(ip: IpAddr, port: u16) -> io::Result<UdpSocket> {
    bind(ip, Type::DGRAM, Protocol::UDP, port).map(Into::into)
}

fn echo(socket: &UdpSocket) -> io::Result<()> {
    ready()?;
    answer(socket, |got| Some(got.to_vec()))
}

/// Answers every datagram that has an answer.
fn answer(socket: &UdpSocket, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) -> io::Result<()> {
    let mut buffer = vec![0; 65536];
    loop {
        // An answer that was refused is reported with the next datagram.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(answer) = answer(&buffer[..length]) {
            // The sender may have gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}
