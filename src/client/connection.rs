use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use crate::coin::Coin;
use crate::protocol::request::RequestTooLong;
use crate::protocol::response::ResponseError;
use crate::protocol::{
    Command, Protection, RaidaId, Request, ResponseCounter, ResponseHeader, Sent, Status,
    open_response,
};

/// The transport of requests and answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One connection, kept open; answers come in the order of the requests.
    Tcp,
    /// One datagram for each request. It may get lost, and so may the answer.
    Udp,
}

/// How to talk to a node.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The node's number: it answers to no other number.
    pub raida: RaidaId,
    /// The coin it serves; 6 is CloudCoin.
    pub coin_id: u16,
    /// How requests are encrypted.
    pub protection: Protection,
    /// Where the node's key stream for responses of types 1 and 2 starts.
    pub response_counter: ResponseCounter,
    /// How long to wait for a connection, and for each answer.
    pub timeout: Duration,
}

impl Options {
    /// The defaults: a node of the CloudCoin network, unencrypted, 5 seconds.
    pub fn new(raida: RaidaId) -> Options {
        Options {
            raida,
            coin_id: 6,
            protection: Protection::None,
            response_counter: ResponseCounter::Restart,
            timeout: Duration::from_secs(5),
        }
    }
}

/// The longest body of an answer that is read, bytes. The longest that a client asks for is the
/// list of a locker, 500,000 bytes; 25 lying servers take 25 times as much.
const ANSWER_BYTES_MAX: usize = 2 << 20;

/// Why there is no answer, or no usable one.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The node could not be reached.
    #[error("cannot reach {host}: {cause}", host = .0, cause = .1)]
    Unreachable(String, io::Error),
    /// The connection broke, or the node closed it. Requests under way may have been carried out.
    #[error("the connection to {host} broke: {cause}", host = .0, cause = .1)]
    Broken(String, io::Error),
    /// No answer in time. The request may have been carried out.
    #[error("no answer from {host} within {ms} ms", host = .0, ms = .1.as_millis())]
    TimedOut(String, Duration),
    /// The node did not do what was asked, and changed nothing.
    #[error("{host} refuses: {status}", host = .0, status = .1)]
    Refused(String, Status),
    /// Another node than the one asked listens there; it changed nothing.
    #[error("{host} is RAIDA {raida}, another one than was asked for", host = .0, raida = .1)]
    OtherRaida(String, RaidaId),
    /// The answer cannot be believed. The request may have been carried out.
    #[error("the answer of {host} cannot be used: {error}", host = .0, error = .1)]
    Malformed(String, ResponseError),
    /// The answer's content does not fit the command. The request may have been carried out.
    #[error("the answer of {host} cannot be used: it is not what {command:?} answers", host = .0, command = .1)]
    NotAnAnswer(String, Command),
    /// The answer lists coins as no correct server does.
    #[error("the answer of {host} cannot be used: its list of coins {why}", host = .0, why = .1)]
    NotAList(String, NotAList),
    /// The request is too long to be sent at once.
    #[error(transparent)]
    TooLong(#[from] RequestTooLong),
    /// The answer is too long for a datagram.
    #[error("the answer to {0:?} is too long for UDP: ask over TCP")]
    NeedsTcp(Command),
    /// The system has no random numbers to give.
    #[error("no random numbers from the system: {0}")]
    NoRandomness(#[from] getrandom::Error),
}

/// What is wrong with a list of coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAList {
    /// A coin is in the list twice.
    #[error("names {0} twice")]
    Twice(Coin),
    /// The list is longer than a client reads from one server.
    #[error("has {0} coins, and this client reads 100,000 at most")]
    TooLong(usize),
}

impl ClientError {
    /// What happened, for texts that already name the server.
    pub fn what(&self) -> String {
        match self {
            ClientError::Unreachable(_, cause) => format!("cannot be reached: {cause}"),
            ClientError::Broken(_, cause) => format!("the connection broke: {cause}"),
            ClientError::TimedOut(_, limit) => format!("no answer within {} ms", limit.as_millis()),
            ClientError::Refused(_, status) => format!("refuses: {status}"),
            ClientError::OtherRaida(_, raida) => {
                format!("it is RAIDA {raida}, another one than was asked for")
            }
            ClientError::Malformed(_, error) => format!("its answer cannot be used: {error}"),
            ClientError::NotAnAnswer(_, command) => {
                format!("its answer cannot be used: it is not what {command:?} answers")
            }
            ClientError::NotAList(_, why) => {
                format!("its answer cannot be used: its list of coins {why}")
            }
            ClientError::TooLong(_) | ClientError::NeedsTcp(_) | ClientError::NoRandomness(_) => {
                self.to_string()
            }
        }
    }

    /// Whether the server does not know the question, like a server that knows only a shorter form
    /// of it.
    pub fn is_not_known(&self) -> bool {
        matches!(self, ClientError::Refused(_, Status::INVALID_LENGTH))
    }

    /// Whether the request may have been carried out although there is no usable answer.
    pub fn leaves_doubt(&self) -> bool {
        matches!(
            self,
            ClientError::Broken(..)
                | ClientError::TimedOut(..)
                | ClientError::Malformed(..)
                | ClientError::NotAnAnswer(..)
                | ClientError::NotAList(..)
        )
    }
}

/// A node's answer, decrypted and checked against its request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// How the request went.
    pub status: Status,
    /// The command's answer; empty where there is nothing to say.
    pub payload: Vec<u8>,
    /// How long the node took, in microseconds.
    pub execution_micros: u32,
}

/// A conversation with one node. Requests may be sent before earlier ones are answered;
/// [`Connection::receive`] returns the answers in the order of the requests.
pub struct Connection {
    host: String,
    options: Options,
    socket: Socket,
    pending: VecDeque<Pending>,
    next_echo: u16,
    outgoing: Vec<u8>,
    // Over TCP, once an answer is missing, nobody can tell which request the next bytes belong to.
    out_of_step: bool,
}

enum Socket {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// A request without an answer. Over UDP it may have one that came before an earlier request's.
struct Pending {
    sent: Sent,
    deadline: Instant,
    early: Option<(ResponseHeader, Vec<u8>)>,
}

impl Connection {
    /// Longest request over UDP, in bytes: with IP and UDP headers it stays below the 1,500 bytes
    /// that a network carries without fragmenting it.
    pub const DATAGRAM_BYTES_MAX: usize = 1_400;

    /// Connects to the first address of `host` that accepts, over UDP to the first one.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], or no random numbers.
    pub fn open(
        (host, port): (&str, u16),
        transport: Transport,
        options: Options,
    ) -> Result<Connection, ClientError> {
        let name = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        let socket = Socket::open(host, port, transport, options.timeout)
            .map_err(|cause| ClientError::Unreachable(name.clone(), cause))?;
        let mut echo = [0; 2];
        getrandom::fill(&mut echo)?;
        Ok(Connection {
            host: name,
            options,
            socket,
            pending: VecDeque::new(),
            next_echo: u16::from_be_bytes(echo),
            outgoing: vec![],
            out_of_step: false,
        })
    }

    /// Another connection to the same node, over TCP: for requests that the node does not answer
    /// over UDP.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn over_tcp(&self) -> Result<Connection, ClientError> {
        let address = match &self.socket {
            Socket::Tcp(stream) => stream.peer_addr(),
            Socket::Udp(socket) => socket.peer_addr(),
        };
        let unreachable = |cause| ClientError::Unreachable(self.host.clone(), cause);
        let address = address.map_err(unreachable)?;
        let host = address.ip().to_string();
        let to = (host.as_str(), address.port());
        let connection = Connection::open(to, Transport::Tcp, self.options)?;
        Ok(Connection {
            host: self.host.clone(),
            ..connection
        })
    }

    /// The other end, as HOST:PORT.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The options of the connection.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The transport of requests and answers.
    pub fn transport(&self) -> Transport {
        match self.socket {
            Socket::Tcp(_) => Transport::Tcp,
            Socket::Udp(_) => Transport::Udp,
        }
    }

    /// Requests that were sent and have no received answer yet.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Sends a request. `None` as payload sends no body, which only echo, version and audit accept.
    ///
    /// # Errors
    /// The request is too long or the answer would be; the connection broke or takes no more bytes,
    /// after which it is of no more use over TCP.
    pub fn send(&mut self, command: Command, payload: Option<&[u8]>) -> Result<(), ClientError> {
        if self.transport() == Transport::Udp && command.needs_stream() {
            return Err(ClientError::NeedsTcp(command));
        }
        self.check_step()?;
        let (mut challenge, mut nonce) = ([0; 12], [0; 22]);
        getrandom::fill(&mut challenge)?;
        getrandom::fill(&mut nonce)?;
        self.outgoing.clear();
        let sent = Request {
            to: self.options.raida,
            coin_id: self.options.coin_id,
            command,
            protection: self.options.protection,
            echo: self.next_echo.to_be_bytes(),
            challenge,
            nonce,
            payload,
        }
        .compose(&mut self.outgoing)?;
        self.next_echo = self.next_echo.wrapping_add(1);
        let deadline = Instant::now() + self.options.timeout;
        let written = match &mut self.socket {
            Socket::Tcp(stream) => stream.write_all(&self.outgoing),
            Socket::Udp(socket) => socket.send(&self.outgoing).map(|_| ()),
        };
        written.map_err(|cause| self.broken(cause))?;
        self.pending.push_back(Pending {
            sent,
            deadline,
            early: None,
        });
        Ok(())
    }

    /// Waits for the answer to the oldest request that has none yet. A refusal is an answer too.
    ///
    /// # Errors
    /// There is no usable answer; over TCP the connection is then of no more use.
    ///
    /// # Panics
    /// When there is no such request.
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        if let Err(error) = self.check_step() {
            self.pending.pop_front();
            return Err(error);
        }
        let oldest = self
            .pending
            .front_mut()
            .expect("an answer is waited for only after a request");
        let deadline = oldest.deadline;
        let received = match (&mut self.socket, oldest.early.take()) {
            (_, Some(early)) => Ok(early),
            (Socket::Tcp(stream), None) => receive_from_stream(stream, &oldest.sent, deadline),
            (Socket::Udp(socket), None) => {
                receive_datagram(socket, self.pending.make_contiguous(), deadline)
            }
        };
        let oldest = self.pending.pop_front().expect("looked at above");
        let (header, mut body) = received.map_err(|cause| self.broken(cause))?;
        if header.status == Status::WRONG_RAIDA
            && let Some(other) = header.raida
        {
            return Err(ClientError::OtherRaida(self.host.clone(), other));
        }
        let counter = self.options.response_counter;
        match open_response(&oldest.sent, &header, &mut body, counter) {
            Ok(answer) => Ok(Reply {
                status: answer.status,
                payload: answer.payload.to_vec(),
                execution_micros: header.execution_micros,
            }),
            Err(error) => {
                self.out_of_step |= self.transport() == Transport::Tcp;
                Err(ClientError::Malformed(self.host.clone(), error))
            }
        }
    }

    fn check_step(&self) -> Result<(), ClientError> {
        if self.out_of_step {
            let cause = io::Error::other("an earlier answer is missing");
            return Err(ClientError::Broken(self.host.clone(), cause));
        }
        Ok(())
    }

    fn broken(&mut self, cause: io::Error) -> ClientError {
        self.out_of_step |= self.transport() == Transport::Tcp;
        match cause.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                ClientError::TimedOut(self.host.clone(), self.options.timeout)
            }
            // Over UDP a host reports in this way that nobody listens on the port.
            ErrorKind::ConnectionRefused => ClientError::Unreachable(self.host.clone(), cause),
            _ => ClientError::Broken(self.host.clone(), cause),
        }
    }
}

impl Socket {
    fn open(
        host: &str,
        port: u16,
        transport: Transport,
        timeout: Duration,
    ) -> Result<Socket, io::Error> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for address in (host, port).to_socket_addrs()? {
            match transport {
                Transport::Tcp => match TcpStream::connect_timeout(&address, timeout) {
                    Ok(stream) => {
                        // A request is sent completely, so waiting for more bytes only delays it.
                        stream.set_nodelay(true)?;
                        stream.set_write_timeout(Some(timeout))?;
                        return Ok(Socket::Tcp(stream));
                    }
                    Err(error) => last = error,
                },
                Transport::Udp => {
                    let any = if address.is_ipv4() {
                        "0.0.0.0:0"
                    } else {
                        "[::]:0"
                    };
                    let socket = UdpSocket::bind(any)?;
                    match socket.connect(address) {
                        Ok(()) => return Ok(Socket::Udp(socket)),
                        Err(error) => last = error,
                    }
                }
            }
        }
        Err(last)
    }
}

fn receive_from_stream(
    stream: &mut TcpStream,
    sent: &Sent,
    deadline: Instant,
) -> Result<(ResponseHeader, Vec<u8>), io::Error> {
    let encryption = sent.header.encryption;
    let mut front = vec![0; encryption.header_size()];
    read_until(stream, &mut front, deadline)?;
    let header = ResponseHeader::parse(&front, encryption)
        .expect("a header is parsed from as many bytes as it has");
    if header.body_length > ANSWER_BYTES_MAX {
        let length = header.body_length;
        let cause = format!(
            "it announces an answer of {length} bytes, and none has more than {ANSWER_BYTES_MAX}"
        );
        return Err(io::Error::new(ErrorKind::InvalidData, cause));
    }
    let mut body = vec![0; header.body_length];
    read_until(stream, &mut body, deadline)?;
    Ok((header, body))
}

fn read_until(
    stream: &mut TcpStream,
    mut bytes: &mut [u8],
    deadline: Instant,
) -> Result<(), io::Error> {
    while !bytes.is_empty() {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(bytes) {
            Ok(0) => {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "the node closed it",
                ));
            }
            Ok(read) => bytes = &mut bytes[read..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits for the answer to the first of `pending`, and keeps those to others. A datagram that
/// answers none of them, for example a late one, is ignored.
fn receive_datagram(
    socket: &UdpSocket,
    pending: &mut [Pending],
    deadline: Instant,
) -> Result<(ResponseHeader, Vec<u8>), io::Error> {
    let encryption = pending[0].sent.header.encryption;
    let mut datagram = vec![0; u16::MAX as usize];
    loop {
        socket.set_read_timeout(Some(time_left(deadline)?))?;
        let length = match socket.recv(&mut datagram) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let Some(header) = ResponseHeader::parse(&datagram[..length], encryption) else {
            continue;
        };
        let body = &datagram[encryption.header_size()..length];
        // A refused header may come back without the request's echo bytes. All requests of a
        // connection have the same header but for the command, so the first will do.
        let answered = pending
            .iter()
            .position(|pending| pending.sent.header.echo() == header.echo)
            .or(header.status.is_header_refusal().then_some(0));
        match answered {
            Some(0) => return Ok((header, body.to_vec())),
            Some(later) => pending[later].early = Some((header, body.to_vec())),
            None => {}
        }
    }
}

fn time_left(deadline: Instant) -> Result<Duration, io::Error> {
    match deadline.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}
