//! Which of a core's streams can be read or written: one epoll for all of them, and one wait of the
//! executor's for the epoll.
//!
//! glommio waits for each socket by a request of its own to the kernel, whose completion interrupts
//! the core while it runs: with 64 connections under load that took a third of the core's time. An
//! epoll collects what became ready while the core ran, and hands it over in one call. The one
//! socket for datagrams is not among them: there the detour costs more than it saves.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_util::io::AsyncRead;
use glommio::net::UnixStream;
use rustix::event::{Timespec, epoll};
use slab::Slab;

use super::rings::Rings;
use super::{signal::yield_now, turn::turn};

/// Sockets looked at with one call.
const EVENTS: usize = 256;

const AT_ONCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// What is watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something has come.
    Read,
    /// Something has come, or there is room again to send.
    ReadAndWrite,
}

/// The sockets of one core. [`run`](Readiness::run) it for as long as any is in use.
#[derive(Debug)]
pub struct Readiness {
    epoll: OwnedFd,
    sources: RefCell<Slab<Source>>,
}

#[derive(Debug)]
struct Source {
    readable: bool,
    writable: bool,
    /// The other side sends no more, or the socket failed: reading tells, so that there always is
    /// something to be read.
    is_over: bool,
    /// The other side takes no more either.
    is_gone: bool,
    waker: Option<Waker>,
}

/// A socket whose readiness is known. It is tried first and then waited for: at first it counts as
/// ready, and from when a call said that it is not, until the kernel says that it is.
#[derive(Debug)]
pub struct Watched<S: AsFd> {
    socket: S,
    readiness: Rc<Readiness>,
    key: usize,
}

impl Readiness {
    /// No socket yet.
    ///
    /// # Errors
    /// There is no file descriptor left.
    pub fn new() -> io::Result<Rc<Readiness>> {
        Ok(Rc::new(Readiness {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            sources: RefCell::default(),
        }))
    }

    /// Watches a socket, which does not block, until the result is dropped.
    ///
    /// # Errors
    /// The system's limit of watched sockets (`fs.epoll.max_user_watches`) is reached.
    pub fn watch<S: AsFd>(
        self: &Rc<Readiness>,
        socket: S,
        interest: Interest,
    ) -> io::Result<Watched<S>> {
        let key = self.sources.borrow_mut().insert(Source {
            readable: true,
            writable: true,
            is_over: false,
            is_gone: false,
            waker: None,
        });
        let mut flags = epoll::EventFlags::ET | epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        flags.set(epoll::EventFlags::OUT, interest == Interest::ReadAndWrite);
        let data = epoll::EventData::new_u64(key as u64);
        if let Err(error) = epoll::add(&self.epoll, &socket, data, flags) {
            self.sources.borrow_mut().remove(key);
            return Err(error.into());
        }
        Ok(Watched {
            socket,
            readiness: Rc::clone(self),
            key,
        })
    }

    /// Wakes the tasks that wait for sockets that became ready, until dropped.
    pub async fn run(self: Rc<Readiness>, rings: Rc<Rings>) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS);
        loop {
            if self.collect(&mut events) == 0 {
                self.wait().await;
                rings.were_seen();
                continue;
            }
            yield_now().await; // lets the woken tasks run
            rings.look_if_due().await;
        }
    }

    /// Notes what became ready, and says how many sockets did.
    fn collect(&self, events: &mut Vec<epoll::Event>) -> usize {
        events.clear();
        let room = rustix::buffer::spare_capacity(events);
        let Ok(count) = epoll::wait(&self.epoll, room, Some(&AT_ONCE)) else {
            return 0; // interrupted by a signal
        };
        let mut sources = self.sources.borrow_mut();
        for event in events.iter() {
            let flags = event.flags;
            let Some(source) = sources.get_mut(event.data.u64() as usize) else {
                continue;
            };
            let over = epoll::EventFlags::HUP | epoll::EventFlags::RDHUP | epoll::EventFlags::ERR;
            let gone = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            source.is_over |= flags.intersects(over);
            source.is_gone |= flags.intersects(gone);
            source.readable |= source.is_over || flags.contains(epoll::EventFlags::IN);
            source.writable |= flags.intersects(gone | epoll::EventFlags::OUT);
            if let Some(waker) = &source.waker {
                waker.wake_by_ref();
            }
        }
        count
    }

    /// Waits until a socket became ready.
    ///
    /// glommio has no public way to wait for a descriptor that is not a socket of its own. But its
    /// streams wait for readiness first and receive after that, and to receive from an epoll fails
    /// (ENOTSOCK): so a stream around the epoll waits for it, and the error says that it is ready.
    async fn wait(&self) {
        let epoll = match self.epoll.try_clone() {
            Ok(epoll) => epoll,
            // No descriptor left: look again and again until there is.
            Err(_) => return turn().await,
        };
        // SAFETY: the descriptor was just made and is given away, to this owner.
        let mut stream = unsafe { UnixStream::from_raw_fd(epoll.into_raw_fd()) };
        let mut nothing = [0];
        // Its answer is always the error.
        let _ = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut nothing)).await;
    }
}

impl<S: AsFd> Watched<S> {
    /// The socket.
    #[inline]
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// Ready where reading may give something; otherwise the task is woken when it may.
    #[inline]
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx, |source| source.readable)
    }

    /// Ready where there may be room to send; otherwise the task is woken when there may.
    #[inline]
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll(cx, |source| source.writable)
    }

    /// Whether the other side has gone, and takes no answer any more.
    #[inline]
    pub fn is_gone(&self) -> bool {
        self.readiness.sources.borrow()[self.key].is_gone
    }

    /// Notes that a read took everything that had come.
    #[inline]
    pub fn is_drained(&self) {
        let mut sources = self.readiness.sources.borrow_mut();
        let source = &mut sources[self.key];
        source.readable = source.is_over;
    }

    /// Notes that there was nothing to read.
    pub fn is_empty(&self) {
        self.readiness.sources.borrow_mut()[self.key].readable = false;
    }

    /// Notes that there was no room to send.
    pub fn is_full(&self) {
        self.readiness.sources.borrow_mut()[self.key].writable = false;
    }

    #[inline]
    fn poll(&self, cx: &mut Context<'_>, is_ready: impl Fn(&Source) -> bool) -> Poll<()> {
        let mut sources = self.readiness.sources.borrow_mut();
        let source = &mut sources[self.key];
        if is_ready(source) {
            return Poll::Ready(());
        }
        match &mut source.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl<S: AsFd> Drop for Watched<S> {
    fn drop(&mut self) {
        // Closing alone is not enough where the descriptor has copies. The call fails only for a
        // socket that is not watched.
        let _ = epoll::delete(&self.readiness.epoll, &self.socket);
        let source = self.readiness.sources.borrow_mut().remove(self.key);
        drop(source); // may be the last hold on a task: not while the sources are borrowed
    }
}
