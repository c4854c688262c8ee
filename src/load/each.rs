use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use socket2::{Domain, Protocol, Socket, Type};

use super::carrier::Carrier;
use super::flight::Flight;
use super::tcp::{Answers, Unasked};
use super::udp::is_for_later;

/// Connections handled after one wait.
const EVENTS: usize = 64;
/// Pause before looking for a port again.
const PORT_WAIT: Duration = Duration::from_millis(1);

/// Requests over TCP, each on a connection of its own: connect, ask, read the answer, close. A slot
/// is a connection at a time.
///
/// This side closes connections, as any client does, which keeps their ports for a minute
/// (TIME_WAIT). Cutting them off (SO_LINGER of 0) would keep none, but it spares both sides the
/// handshake at the end, and so would measure something else. Where the kernel has no port left, a
/// request waits for one and its latency grows; how often that happened is reported. Between
/// addresses of this machine Linux releases a port after a second (`net.ipv4.tcp_tw_reuse` = 2, the
/// default), so that about as many connections a second are possible as there are ports.
pub(super) struct Each {
    address: SocketAddr,
    slots: Vec<Connection>,
    epoll: OwnedFd,
    /// Slots whose requests wait for a port.
    without_port: Vec<usize>,
    out_of_ports: u64,
    looked_for_overdue: Instant,
}

struct Connection {
    stream: Option<TcpStream>,
    /// The request while it is not written completely: this many bytes of it are written.
    written: Option<usize>,
    /// The slot itself, while its answer is awaited.
    asked: VecDeque<usize>,
    answers: Answers,
}

impl Each {
    pub(super) fn new(address: SocketAddr, slots: usize) -> io::Result<Each> {
        let connection = || Connection {
            stream: None,
            written: None,
            asked: VecDeque::with_capacity(1),
            answers: Answers::new(),
        };
        Ok(Each {
            address,
            slots: (0..slots).map(|_| connection()).collect(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            without_port: Vec::with_capacity(slots),
            out_of_ports: 0,
            looked_for_overdue: Instant::now(),
        })
    }

    /// Opens a slot's connection. A refused connection is lost; the very first attempt, in
    /// [`Carrier::ready`], reports that.
    fn open(&mut self, slot: usize, flight: &mut Flight) {
        match self.connect(slot) {
            Ok(stream) => {
                let connection = &mut self.slots[slot];
                connection.stream = Some(stream);
                connection.written = Some(0);
                connection.asked.clear();
                connection.asked.push_back(slot);
                connection.answers.clear();
                self.write(slot, flight);
            }
            Err(error) if is_for_want_of_a_port(&error) => {
                self.out_of_ports += 1;
                self.without_port.push(slot);
            }
            Err(_) => flight.lose(slot),
        }
    }

    fn connect(&self, slot: usize) -> io::Result<TcpStream> {
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(self.address), kind, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        match socket.connect(&self.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let stream = TcpStream::from(socket);
        let data = epoll::EventData::new_u64(slot as u64);
        let wanted = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, data, wanted)?;
        Ok(stream)
    }

    /// Writes the rest of a request. Not before the connection is open.
    fn write(&mut self, slot: usize, flight: &mut Flight) {
        let connection = &mut self.slots[slot];
        let (Some(mut stream), Some(mut written)) =
            (connection.stream.as_ref(), connection.written)
        else {
            return;
        };
        let request = flight.request(slot);
        while written < request.len() {
            match stream.write(&request[written..]) {
                Ok(length) => written += length,
                Err(error) if is_for_later(&error) => {
                    connection.written = Some(written);
                    return;
                }
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return,
                Err(_) => return self.lose(slot, flight),
            }
        }
        connection.written = None;
    }

    fn read(&mut self, slot: usize, flight: &mut Flight, now: Instant) {
        let Connection {
            stream: Some(stream),
            asked,
            answers,
            ..
        } = &mut self.slots[slot]
        else {
            return;
        };
        match answers.read_from(&*stream) {
            Ok(1..) => {}
            Err(error) if is_for_later(&error) => return,
            Ok(0) | Err(_) => return self.lose(slot, flight),
        }
        match answers.take(asked, flight, now) {
            Ok(()) if asked.is_empty() => self.slots[slot].stream = None,
            Ok(()) => {}
            Err(Unasked) => {
                flight.stray();
                self.lose(slot, flight);
            }
        }
    }

    fn lose(&mut self, slot: usize, flight: &mut Flight) {
        self.slots[slot].stream = None;
        flight.lose(slot);
    }
}

impl Carrier for Each {
    fn ready(&mut self) -> io::Result<()> {
        TcpStream::connect(self.address).map(drop)
    }

    fn run(&mut self, flight: &mut Flight) -> io::Result<()> {
        let mut now = Instant::now();
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            for _ in 0..self.without_port.len() {
                let slot = self.without_port.swap_remove(0);
                self.open(slot, flight);
            }
            while let Some(slot) = flight.begin(now) {
                self.open(slot, flight);
            }
            if flight.is_over(now) {
                return Ok(());
            }
            let patience = match self.without_port.is_empty() {
                true => flight.patience(now),
                false => flight.patience(now).min(PORT_WAIT),
            };
            events.clear();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            let wait = Timespec::try_from(patience).expect("a moment");
            match epoll::wait(&self.epoll, buffer, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let before = now;
            now = Instant::now();
            if events.is_empty() {
                if patience.is_zero() {
                    flight.spun(now - before);
                }
            } else {
                flight.answers_came(now);
            }
            for event in &events {
                let slot = event.data.u64() as usize;
                self.write(slot, flight);
                if { event.flags }.intersects(
                    epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR,
                ) {
                    self.read(slot, flight, now);
                }
                // The slot asks again at once, on a new connection.
                while let Some(slot) = flight.begin(now) {
                    self.open(slot, flight);
                }
            }
            if now.duration_since(self.looked_for_overdue) > flight.overdue_every() {
                self.looked_for_overdue = now;
                for slot in 0..flight.slots() {
                    if flight.is_overdue(slot, now) {
                        self.without_port.retain(|&waiting| waiting != slot);
                        self.lose(slot, flight);
                    }
                }
            }
        }
    }

    fn out_of_ports(&self) -> u64 {
        self.out_of_ports
    }
}

fn is_for_want_of_a_port(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
}
