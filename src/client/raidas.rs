use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::{Client, ClientError, HostPort, NotHostPort, Options, PerRaida, Transport};
use crate::plain_file;
use crate::protocol::{Protection, RaidaId};
use crate::shown::{Shown, remedy};

/// Where the 25 servers of a network listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts(pub PerRaida<HostPort>);

/// Why a file does not list the servers.
#[derive(Debug, thiserror::Error)]
pub enum HostsError {
    /// The file could not be read.
    #[error(
        "cannot read the list of hosts {file}: {cause}{next}",
        file = .0.shown(), cause = .1, next = remedy(.1)
    )]
    Unreadable(PathBuf, io::Error),
    /// A line is no host and port; lines are counted from 1.
    #[error("{file}:{line}: {fault}", file = file.shown())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with it.
        fault: NotHostPort,
    },
    /// There are not 25 hosts.
    #[error("{file} lists {found} hosts: write 25, one a line, RAIDA 0 first", file = file.shown())]
    Count {
        /// The file.
        file: PathBuf,
        /// Hosts in it.
        found: usize,
    },
}

impl Hosts {
    /// Reads a file of 25 lines HOST:PORT, RAIDA 0 first. Empty lines, and anything after a `#`,
    /// are ignored.
    ///
    /// # Errors
    /// The file cannot be read, or has other content.
    pub fn read(file: &Path) -> Result<Hosts, HostsError> {
        let text = plain_file::read_text(file, plain_file::TEXT_BYTES_MAX)
            .map_err(|cause| HostsError::Unreadable(file.to_owned(), cause))?;
        Hosts::parse(&text, file)
    }

    /// Reads a text like that; `file` is the name used in errors.
    ///
    /// # Errors
    /// The text has other content.
    pub fn parse(text: &str, file: &Path) -> Result<Hosts, HostsError> {
        let mut hosts = vec![];
        for (number, line) in text.lines().enumerate() {
            let host = line.split('#').next().unwrap_or_default().trim();
            if host.is_empty() {
                continue;
            }
            hosts.push(host.parse().map_err(|fault| HostsError::Line {
                file: file.to_owned(),
                line: number + 1,
                fault,
            })?);
        }
        if hosts.len() != RaidaId::COUNT {
            return Err(HostsError::Count {
                file: file.to_owned(),
                found: hosts.len(),
            });
        }
        let mut hosts = hosts.into_iter();
        let next = |_| hosts.next().expect("counted above");
        Ok(Hosts(PerRaida::from_fn(next)))
    }
}

/// All servers of a network, over TCP.
#[derive(Clone, Debug)]
pub struct Raidas {
    /// Where they are.
    pub hosts: Hosts,
    /// The coin they serve; 6 is CloudCoin.
    pub coin_id: u16,
    /// How long to wait for a connection, and for each answer.
    pub timeout: Duration,
    /// The encryption of requests to each server.
    pub protection: PerRaida<Protection>,
}

impl Raidas {
    /// All servers, without encryption.
    pub fn new(hosts: Hosts, coin_id: u16, timeout: Duration) -> Raidas {
        Raidas {
            hosts,
            coin_id,
            timeout,
            protection: PerRaida::from_fn(|_| Protection::None),
        }
    }

    /// Asks the servers that `question` returns something for, all at the same time, each over a
    /// connection of its own; `None` where nothing was asked. All servers that are down cost one
    /// time-out together.
    pub fn ask<Q: Send, T: Send>(
        &self,
        timeout: Duration,
        question: impl Fn(RaidaId) -> Option<Q>,
        ask: impl Fn(&mut Client, Q) -> Result<T, ClientError> + Sync,
    ) -> PerRaida<Option<Result<T, ClientError>>> {
        let ask = &ask;
        thread::scope(|scope| {
            let asked = PerRaida::from_fn(|raida| {
                let question = question(raida)?;
                Some(scope.spawn(move || ask(&mut self.connect(raida, timeout)?, question)))
            });
            asked.map(|thread| {
                let join = |thread: thread::ScopedJoinHandle<'_, _>| match thread.join() {
                    Ok(answer) => answer,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                thread.map(join)
            })
        })
    }

    /// Asks every server, as [`Raidas::ask`] does.
    pub fn ask_all<T: Send>(
        &self,
        timeout: Duration,
        ask: impl Fn(&mut Client, RaidaId) -> Result<T, ClientError> + Sync,
    ) -> PerRaida<Result<T, ClientError>> {
        self.ask(timeout, Some, ask)
            .map(|answer| answer.expect("every server was asked"))
    }

    /// Connects to one of them.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect(&self, raida: RaidaId, timeout: Duration) -> Result<Client, ClientError> {
        self.connect_under(raida, timeout, self.protection[raida])
    }

    /// Like the method above, with another encryption.
    ///
    /// # Errors
    /// It cannot be reached.
    pub fn connect_under(
        &self,
        raida: RaidaId,
        timeout: Duration,
        protection: Protection,
    ) -> Result<Client, ClientError> {
        let host = &self.hosts.0[raida];
        let options = Options {
            coin_id: self.coin_id,
            protection,
            timeout,
            ..Options::new(raida)
        };
        Client::connect((host.host(), host.port()), Transport::Tcp, options)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use super::*;

    fn lines(hosts: usize) -> String {
        let line = |number| {
            format!(
                "raida{number}.example.com:{} # no. {number}\n",
                50_000 + number
            )
        };
        (0..hosts).map(line).collect()
    }

    fn parse(text: &str) -> Result<Hosts, String> {
        Hosts::parse(text, Path::new("hosts")).map_err(|error| error.to_string())
    }

    #[test]
    fn hosts_stand_one_a_line_the_first_server_first() {
        let hosts = parse(&format!("# ours\n\n{}", lines(25))).unwrap();
        let of = |number| hosts.0[RaidaId::new(number).unwrap()].to_string();
        assert_eq!(of(0), "raida0.example.com:50000");
        assert_eq!(of(24), "raida24.example.com:50024");
    }

    #[test]
    fn another_number_of_hosts_or_half_a_host_is_refused() {
        assert!(parse(&lines(24)).unwrap_err().contains("lists 24 hosts"));
        assert!(parse(&lines(26)).unwrap_err().contains("lists 26 hosts"));
        let half = format!("\n{}localhost\n", lines(24));
        assert!(parse(&half).unwrap_err().contains("hosts:26:"));
    }

    #[test]
    fn silent_servers_cost_one_time_out_together() {
        // The system accepts connections; nobody answers them.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = silent.local_addr().unwrap().to_string();
        let hosts = Hosts(PerRaida::from_fn(|_| host.parse().unwrap()));
        let raidas = Raidas::new(hosts, 6, Duration::from_millis(300));
        let start = Instant::now();
        let asked = |raida: RaidaId| (raida.get() != 3).then_some(());
        let answers = raidas.ask(raidas.timeout, asked, |client, ()| client.echo());
        // 24 one after the other would take 7.2 s.
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
        for (raida, answer) in answers {
            match answer {
                None => assert_eq!(raida.get(), 3),
                Some(answer) => assert!(matches!(answer, Err(ClientError::TimedOut(..)))),
            }
        }
    }
}
