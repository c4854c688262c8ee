//! A server of the network whose every byte the test decides: a listener on the loopback, a thread
//! a connection. What it reads is the real protocol.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use raida::{
    coin::Coin,
    protocol::{
        Command, Dialect, Frame, Key, RaidaId, RequestHeader, Response, ResponseCounter, Rules,
        Sealing, Status, frame, healing::Validate, open,
    },
};

/// How often a thread of the server looks whether the test is over.
const LOOK: Duration = Duration::from_millis(5);

pub struct Server {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    threads: Option<JoinHandle<()>>,
}

/// One connection, as the server holds it.
pub struct Line {
    pub stream: TcpStream,
    /// Which one it is, counted from 0.
    pub number: usize,
    bytes: Vec<u8>,
    raida: RaidaId,
    is_over: Arc<AtomicBool>,
}

/// A request that came.
pub struct Asked {
    pub header: RequestHeader,
    pub validate: Option<Validate>,
    challenge_answer: [u8; 16],
}

impl Server {
    /// Serves each connection with `serve`, on a thread of its own, from a free port or a given
    /// one.
    pub fn start(
        raida: RaidaId,
        address: impl Into<Option<SocketAddr>>,
        serve: impl Fn(&mut Line) + Send + Sync + 'static,
    ) -> Server {
        let address = address.into().unwrap_or(([127, 0, 0, 1], 0).into());
        let listener = TcpListener::bind(address).expect("a port of the loopback");
        Server::on(listener, raida, serve)
    }

    /// The same, on a listener that is there already.
    pub fn on(
        listener: TcpListener,
        raida: RaidaId,
        serve: impl Fn(&mut Line) + Send + Sync + 'static,
    ) -> Server {
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (count, over) = (connections.clone(), is_over.clone());
        let serve = Arc::new(serve);
        let threads = thread::spawn(move || {
            let mut lines = Vec::new();
            while !over.load(SeqCst) {
                let Ok((stream, _)) = listener.accept() else {
                    thread::sleep(LOOK);
                    continue;
                };
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(LOOK)).unwrap();
                stream.set_nodelay(true).unwrap();
                let mut line = Line {
                    stream,
                    number: count.fetch_add(1, SeqCst),
                    bytes: vec![],
                    raida,
                    is_over: over.clone(),
                };
                let serve = serve.clone();
                lines.push(thread::spawn(move || serve(&mut line)));
            }
            drop(listener);
            for line in lines {
                line.join().expect("the server does what it was told to");
            }
        });
        Server {
            address,
            connections,
            is_over,
            threads: Some(threads),
        }
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst);
        let ended = self.threads.take().unwrap().join();
        if !thread::panicking() {
            ended.expect("the server does what it was told to");
        }
    }
}

impl Line {
    /// The next request; `None` when the client has closed or the test is over.
    pub fn next(&mut self) -> Option<Asked> {
        let rules = rules(self.raida);
        let mut more = [0; 4096];
        loop {
            match frame(&self.bytes, &rules) {
                Frame::Incomplete { .. } => match self.stream.read(&mut more) {
                    Ok(0) => return None,
                    Ok(read) => self.bytes.extend_from_slice(&more[..read]),
                    Err(_) if self.is_over.load(SeqCst) => return None,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return None,
                },
                Frame::Whole { header, length } => {
                    let body = &mut self.bytes[header.header_size()..length];
                    let opened = open(&header, body, &Key::None, &rules).expect("a right request");
                    let validate = (header.command == Command::Validate)
                        .then(|| Validate::parse(opened.payload).expect("a right claim"));
                    let asked = Asked {
                        header,
                        validate,
                        challenge_answer: opened.challenge_answer,
                    };
                    self.bytes.drain(..length);
                    return Some(asked);
                }
                Frame::Refused { status, .. } => panic!("refused: {status}"),
            }
        }
    }

    /// The answer to a request.
    pub fn answer(&self, asked: &Asked, status: Status, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut response = Response::begin(&mut out, &asked.header);
        response.payload().extend_from_slice(payload);
        response.finish(Sealing {
            rules: &rules(self.raida),
            status,
            key: &Key::None,
            challenge_answer: asked.challenge_answer,
            execution_micros: 1,
            nonce: [0; 22],
        });
        out
    }

    /// Sends bytes, unless the client is gone.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Answers as a server should: echo with an echo, a ticket with these coins.
    pub fn serve_well(&mut self, coins: impl Fn(u32) -> Vec<Coin>) {
        while let Some(asked) = self.next() {
            self.answer_well(&asked, &coins);
        }
    }

    pub fn answer_well(&mut self, asked: &Asked, coins: impl Fn(u32) -> Vec<Coin>) {
        let mut payload = Vec::new();
        if let Some(validate) = asked.validate {
            Validate::answer(coins(validate.ticket.unwrap().get()), &mut payload);
        }
        let answer = self.answer(asked, Status::SUCCESS, &payload);
        self.send(&answer);
    }

    /// Stays, without a word, until the client has closed or the test is over.
    pub fn stay(&mut self) {
        while self.next().is_some() {}
    }

    /// Waits; `false` when the test is over.
    pub fn wait(&self, time: Duration) -> bool {
        thread::sleep(time);
        !self.is_over.load(SeqCst)
    }
}

fn rules(raida: RaidaId) -> Rules {
    Rules {
        raida,
        coin_id: 6,
        dialect: Dialect::Spec,
        response_counter: ResponseCounter::Restart,
        max_body_bytes: 1 << 20,
    }
}
