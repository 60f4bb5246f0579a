//! Where an agent listens, and where a collector finds it. Pure.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Port of an agent where none is given.
pub const PORT: u16 = 7474;

/// Where an agent listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Whether everyone who can connect is on this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Unix);
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self::Tcp((ip, PORT).into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!(
                "{text:?} is no address to listen at; use ADDRESS:PORT (0.0.0.0:{PORT}, \
                 [::]:{PORT}) or unix:PATH"
            )
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Where a collector finds an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// TLS to this host (a name or an address).
    Tls {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// Plain text, on this machine.
    Plain(SocketAddr),
    /// A Unix socket.
    Unix(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Unix);
        }
        let (secure, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            _ => {
                return Err(format!(
                    "{text:?} is no address of an agent; use https://HOST:PORT, \
                     http://127.0.0.1:PORT (plain text, this machine only) or unix:PATH"
                ));
            }
        };
        let (host, port) = host_and_port(rest.strip_suffix('/').unwrap_or(rest))
            .ok_or_else(|| format!("{text:?} is no address of an agent: no HOST:PORT in it"))?;
        if secure {
            return Ok(Self::Tls { host, port });
        }
        let ip =
            if host == "localhost" { Ok([127, 0, 0, 1].into()) } else { host.parse::<IpAddr>() };
        match ip {
            Ok(ip) if ip.is_loopback() => Ok(Self::Plain((ip, port).into())),
            _ => Err(format!(
                "{text:?}: plain text is only for agents on this machine; use https://"
            )),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls { host, port } if host.contains(':') => write!(f, "https://[{host}]:{port}"),
            Self::Tls { host, port } => write!(f, "https://{host}:{port}"),
            Self::Plain(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Path of a Unix socket: at most 107 bytes (unix(7)).
fn unix(path: &str) -> Result<PathBuf, String> {
    match path.len() {
        0 => Err("unix: needs the path of a socket behind it".into()),
        1..=107 => Ok(path.into()),
        _ => Err(format!("{path:?} is longer than a Unix socket's path may be (107 bytes)")),
    }
}

/// `host`, `host:1`, `[::1]`, `[::1]:1`.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (host, port)
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | ':' | '_');
    if host.is_empty() || !host.chars().all(plain) {
        return None;
    }
    let port = port.map_or(Some(PORT), |port| port.parse().ok().filter(|port| *port != 0))?;
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_found_by_url() {
        for (text, shown) in [
            ("https://192.0.2.1:1", "https://192.0.2.1:1"),
            ("https://node.example", "https://node.example:7474"),
            ("https://[2001:db8::1]/", "https://[2001:db8::1]:7474"),
            ("http://127.0.0.1:80", "http://127.0.0.1:80"),
            ("http://localhost:80", "http://127.0.0.1:80"),
            ("http://[::1]:80", "http://[::1]:80"),
            ("unix:/run/podtrace/agent.sock", "unix:/run/podtrace/agent.sock"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
    }

    #[test]
    fn plain_text_stays_on_this_machine() {
        let error = "http://192.0.2.1:80".parse::<Target>().unwrap_err();
        assert!(error.contains("plain text is only for agents on this machine"), "{error}");
        assert!("http://node.example:80".parse::<Target>().is_err());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "192.0.2.1",
            "ftp://x",
            "https://",
            "https://:1",
            "https://a:0",
            "https://a:x",
            "https://[::1",
            "https://a/b",
            "https://[a]:1",
            "unix:",
            "https://a:65536",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }

    #[test]
    fn listening_is_at_addresses() {
        assert_eq!("0.0.0.0:1".parse::<Listen>().unwrap().to_string(), "0.0.0.0:1");
        assert_eq!("::".parse::<Listen>().unwrap().to_string(), "[::]:7474");
        assert_eq!("[::1]:2".parse::<Listen>().unwrap().to_string(), "[::1]:2");
        assert!("unix:/run/a".parse::<Listen>().unwrap().is_local());
        assert!("127.0.0.1:1".parse::<Listen>().unwrap().is_local());
        assert!(!"0.0.0.0:1".parse::<Listen>().unwrap().is_local());
        assert!("localhost:1".parse::<Listen>().is_err());
        assert!(format!("unix:{}", "a".repeat(108)).parse::<Listen>().is_err());
    }
}
