//! Requests to a real node and its answers: one after the other or many at once, each under a
//! protection of its own.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use raida::protocol::{
    Command, Protection, Request, ResponseCounter, ResponseHeader, Sent, Status, TRAILER,
    open_response,
};

use super::{COIN_ID, PATIENCE, RAIDA};

/// What carries requests and answers.
pub enum Wire {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

/// A request on its way.
pub struct Asked {
    pub bytes: Vec<u8>,
    pub sent: Sent,
}

/// An answer, decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Status,
    pub payload: Vec<u8>,
}

impl Wire {
    pub fn tcp(node: SocketAddr) -> Wire {
        let stream = TcpStream::connect_timeout(&node, PATIENCE).expect("a connection");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        stream
            .set_write_timeout(Some(PATIENCE))
            .expect("a time-out");
        Wire::Tcp(stream)
    }

    pub fn udp(node: SocketAddr) -> Wire {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(node).expect("an address");
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        Wire::Udp(socket)
    }

    /// Sends bytes: over UDP as one datagram.
    pub fn send(&mut self, bytes: &[u8]) {
        match self {
            Wire::Tcp(stream) => stream.write_all(bytes).expect("the node takes requests"),
            Wire::Udp(socket) => {
                socket.send(bytes).expect("the node takes datagrams");
            }
        }
    }

    /// All that comes: over TCP until the node closes, over UDP one datagram.
    pub fn receive_all(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Wire::Tcp(stream) => {
                stream.read_to_end(&mut bytes).expect("an answer in time");
            }
            Wire::Udp(socket) => {
                bytes.resize(u16::MAX as usize, 0);
                let length = socket.recv(&mut bytes).expect("an answer in time");
                bytes.truncate(length);
            }
        }
        bytes
    }

    /// Waits for the answer to a request and checks that it is one.
    pub fn answer(&mut self, sent: &Sent, counter: ResponseCounter) -> Answer {
        self.answer_of_group(sent.header.command.group(), sent, counter)
    }

    /// The same, where the request may have gone to another group that has the command too.
    pub fn answer_of_group(&mut self, group: u8, sent: &Sent, counter: ResponseCounter) -> Answer {
        let encryption = sent.header.encryption;
        let (header, mut body) = match self {
            Wire::Tcp(stream) => {
                let mut front = vec![0; encryption.header_size()];
                stream.read_exact(&mut front).expect("an answer in time");
                let header = ResponseHeader::parse(&front, encryption).expect("a whole header");
                let mut body = vec![0; header.body_length];
                stream.read_exact(&mut body).expect("a whole body");
                (header, body)
            }
            Wire::Udp(socket) => loop {
                let mut datagram = vec![0; u16::MAX as usize];
                let length = socket.recv(&mut datagram).expect("an answer in time");
                let header = ResponseHeader::parse(&datagram[..length], encryption);
                let header = header.expect("a whole header");
                // A request that was sent again may have been answered again.
                if header.echo == sent.header.echo() {
                    break (header, datagram[encryption.header_size()..length].to_vec());
                }
            },
        };
        assert_eq!(header.group, group);
        assert!(body.is_empty() || body.ends_with(&TRAILER));
        let opened = open_response(sent, &header, &mut body, counter);
        let opened = opened.unwrap_or_else(|error| panic!("{}: {error}", header.status));
        Answer {
            status: opened.status,
            payload: opened.payload.to_vec(),
        }
    }

    /// Asks and waits.
    pub fn ask(&mut self, asked: &Asked, counter: ResponseCounter) -> Answer {
        self.send(&asked.bytes);
        self.send_until_answered(&asked.bytes);
        self.answer(&asked.sent, counter)
    }

    /// Sends a datagram that was sent once again and again until there is an answer, as clients do:
    /// of the same change that is under way there is none. Gives how often.
    pub fn send_until_answered(&mut self, bytes: &[u8]) -> u64 {
        let Wire::Udp(socket) = self else { return 0 };
        let command = Command::from_codes(bytes[4], bytes[5]);
        if !command.is_some_and(Command::is_carried_out_once) {
            return 0;
        }
        let pause = Duration::from_secs(1);
        socket.set_read_timeout(Some(pause)).expect("a time-out");
        let (deadline, mut times) = (Instant::now() + PATIENCE, 0);
        while socket.peek(&mut [0]).is_err() && Instant::now() < deadline {
            socket.send(bytes).expect("the node takes datagrams");
            times += 1;
        }
        socket.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        times
    }
}

/// Composes a request; `unique` makes its echo bytes, challenge and nonce.
pub fn compose(
    command: Command,
    protection: Protection,
    payload: Option<&[u8]>,
    unique: u64,
) -> Asked {
    let mut challenge = [0; 12];
    challenge[..8].copy_from_slice(&unique.to_be_bytes());
    let mut nonce = [0; 22];
    // Types 0 to 2 use the first 6 bytes, type 5 fills the first 5 itself.
    nonce[..6].copy_from_slice(&unique.to_be_bytes()[2..]);
    nonce[6..14].copy_from_slice(&unique.to_be_bytes());
    let mut bytes = Vec::new();
    let request = Request {
        to: RAIDA,
        coin_id: COIN_ID,
        command,
        protection,
        echo: (unique as u16).to_be_bytes(),
        challenge,
        nonce,
        payload,
    };
    let sent = request.compose(&mut bytes).expect("a request that fits");
    Asked { bytes, sent }
}
