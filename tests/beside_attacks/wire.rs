//! Requests and answers as bytes, made by a stranger who has read the protocol.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Group and code of a command.
pub type Code = (u8, u8);

pub const ECHO: Code = (0, 0);
pub const VERSION: Code = (0, 1);
pub const SHOW_STATS: Code = (0, 2);
pub const AUDIT: Code = (0, 3);
pub const DETECT: Code = (1, 10);
pub const DETECT_SUM: Code = (1, 11);
pub const POWN: Code = (1, 20);
pub const POWN_SUM: Code = (1, 21);
pub const POWN_DERIVE: Code = (1, 22);
pub const GET_TICKET: Code = (2, 40);
pub const GET_TICKET_BY_SUM: Code = (2, 41);
pub const VALIDATE_TICKET: Code = (2, 50);
pub const FIND: Code = (2, 60);
pub const FIX: Code = (2, 80);
pub const AVAILABLE_SNS: Code = (3, 120);
pub const CREATE_COINS: Code = (3, 130);
pub const LOCKER_DOWNLOAD: Code = (8, 8);
pub const PEEK_TRADE: Code = (8, 81);
pub const STORE_SUM: Code = (8, 82);
pub const PEEK: Code = (8, 83);
pub const REMOVE: Code = (8, 84);
pub const PUT_FOR_SALE: Code = (8, 85);
pub const LIST_FOR_SALE: Code = (8, 86);
pub const BUY: Code = (8, 87);
pub const STORE_MULTIPLE: Code = (8, 88);
pub const REMOVE_TRADE: Code = (8, 89);
pub const AVAILABLE_CHANGE: Code = (9, 91);
pub const BRANCH: Code = (14, 2);
pub const ALL_ROOTS: Code = (14, 5);

pub const ALL_PASS: u8 = 241;
pub const SUCCESS: u8 = 250;
pub const PAYMENT_PENDING: u8 = 150;
/// "No such ticket" in the dialect `spec`.
pub const NO_SUCH_TICKET: u8 = 0xe4;
/// "Ticket claimed already" in the dialect `spec`.
pub const TICKET_CLAIMED: u8 = 0xe5;

/// Bytes of a header of encryption types 0, 1 and 2, of a request and of an answer.
pub const HEADER: usize = 32;
/// Bytes of a body beside its payload.
pub const AROUND_PAYLOAD: usize = 18;
/// Where a request has its echo bytes.
pub const ECHO_BYTES: usize = 30;
/// Where an answer repeats them.
pub const ECHO_BYTES_BACK: usize = 6;
/// Where an answer has its status.
pub const STATUS: usize = 2;

/// A number, as a coin has one on a node.
pub type Number = [u8; 16];

/// A coin and its number.
#[derive(Clone, Copy)]
pub struct Owned {
    pub denomination: i8,
    pub serial: u32,
    pub number: Number,
}

impl Owned {
    /// Denomination and serial number.
    pub fn coin(&self) -> [u8; 5] {
        let [a, b, c, d] = self.serial.to_be_bytes();
        [self.denomination as u8, a, b, c, d]
    }

    /// The same coin with another number.
    pub fn under(self, number: Number) -> Owned {
        Owned { number, ..self }
    }
}

/// A request to RAIDA 0 without encryption.
pub fn request(command: Code, payload: &[u8]) -> Vec<u8> {
    request_to(0, command, payload)
}

/// A request without encryption.
pub fn request_to(raida: u8, command: Code, payload: &[u8]) -> Vec<u8> {
    let mut bytes = header(raida, command, payload.len() + AROUND_PAYLOAD);
    let challenge: [u8; 12] = rand::random();
    bytes.extend_from_slice(&challenge);
    bytes.extend_from_slice(&crc32fast::hash(&challenge).to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b">>");
    bytes
}

/// A header alone, which says that this many bytes follow.
pub fn header(raida: u8, (group, code): Code, body: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[0] = 1;
    bytes[2] = raida;
    bytes[4] = group;
    bytes[5] = code;
    bytes[7] = 6;
    bytes[14..16].fill(1);
    let nonce: [u8; 8] = rand::random();
    bytes[24..].copy_from_slice(&nonce);
    match u16::try_from(body) {
        Ok(short) if short < u16::MAX => bytes[22..24].copy_from_slice(&short.to_be_bytes()),
        _ => {
            bytes[22..24].fill(0xff);
            bytes[24..28].copy_from_slice(&(body as u32).to_be_bytes());
        }
    }
    bytes
}

/// Coins with their numbers: what detect and "get ticket" take.
pub fn with_numbers(coins: &[Owned]) -> Vec<u8> {
    let record = |coin: &Owned| [&coin.coin()[..], &coin.number].concat();
    coins.iter().flat_map(record).collect()
}

/// Coins without their numbers.
pub fn without_numbers(coins: &[Owned]) -> Vec<u8> {
    coins.iter().flat_map(Owned::coin).collect()
}

/// The XOR of the coins' numbers.
pub fn sum(coins: &[Owned]) -> Number {
    let xor = |sum: Number, coin: &Owned| std::array::from_fn(|i| sum[i] ^ coin.number[i]);
    coins.iter().fold([0; 16], xor)
}

/// A detect of these coins.
pub fn detect(coins: &[Owned]) -> Vec<u8> {
    request(DETECT, &with_numbers(coins))
}

/// A pown of one coin.
pub fn pown(coin: &Owned, new: Number) -> Vec<u8> {
    request(POWN, &[&with_numbers(&[*coin])[..], &new].concat())
}

/// A random number that is no locker's and no trade locker's key.
pub fn random_number() -> Number {
    let mut number: Number = rand::random();
    number[15] = 1;
    number
}

/// A random locker key.
pub fn locker_key() -> Number {
    let mut key: Number = rand::random();
    key[12..].fill(0xff);
    key
}

/// What was answered: a status and a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u8,
    pub payload: Vec<u8>,
}

/// Asks over a connection of its own, from an address of 127.0.0.0/8.
///
/// # Errors
/// The node takes no connection, closes it, or does not answer within `patience`.
pub fn ask(
    source: Ipv4Addr,
    node: SocketAddr,
    request: &[u8],
    patience: Duration,
) -> io::Result<Answer> {
    let mut stream = connect(source, node, patience)?;
    stream.write_all(request)?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let mut payload = vec![0; body_length(&header)];
    stream.read_exact(&mut payload)?;
    payload.truncate(payload.len().saturating_sub(2));
    Ok(Answer {
        status: header[STATUS],
        payload,
    })
}

/// Bytes that follow the header of an answer.
pub fn body_length(header: &[u8; HEADER]) -> usize {
    u32::from_be_bytes([0, header[9], header[10], header[11]]) as usize
}

/// A connection whose calls wait up to `patience`.
pub fn connect(source: Ipv4Addr, node: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    let socket = from(source)?;
    socket.connect_timeout(&SockAddr::from(node), patience)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))?;
    Ok(socket.into())
}

/// A connection whose calls never wait, and which may still be on its way.
pub fn begin_to_connect(source: Ipv4Addr, node: SocketAddr) -> io::Result<TcpStream> {
    let socket = from(source)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(node)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// A socket that leaves no port behind when it is closed: thousands of them are, one after the
/// other.
fn from(source: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SockAddr::from(SocketAddr::from((source, 0))))?;
    Ok(socket)
}
