//! Gives the bytes from the sockets to the service as commands: the one place where sockets and
//! service meet.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::net::{Handled, Handler, Origin, Release, Session, Split, Transport};
use crate::runtime::Environment;
use crate::{
    protocol::Frame,
    service::{
        self, Outcome, Service,
        budget::{Budget, Needs},
    },
};

/// A session of the service, with the transport that it came by.
pub struct Bytes<E: Environment> {
    session: service::Session<E>,
    transport: Transport,
}

impl<E: Environment> Handler for Service<E> {
    type Session = Bytes<E>;
    type Release = service::Release;

    fn budget(&self) -> &Rc<Budget> {
        Service::budget(self)
    }

    fn session(&self, origin: Origin) -> Bytes<E> {
        let transport = match origin.transport {
            Transport::Tcp => service::Transport::Tcp,
            Transport::Udp => service::Transport::Udp,
        };
        Bytes {
            session: Service::session(self, transport),
            transport: origin.transport,
        }
    }

    fn poll_released(
        &self,
        cx: &mut Context<'_>,
        released: &mut Vec<service::Release>,
    ) -> Poll<()> {
        Service::poll_released(self, cx, released)
    }
}

impl Release for service::Release {
    fn id(&self) -> usize {
        self.id
    }

    fn goes(&self) -> bool {
        self.goes
    }

    fn complete(&self, response: &mut [u8]) {
        service::Release::complete(self, response);
    }

    fn is_given_up(&self) -> bool {
        service::Release::is_given_up(self)
    }
}

impl<E: Environment> Session for Bytes<E> {
    #[inline]
    fn split(&mut self, bytes: &[u8]) -> Split {
        match self.session.split(bytes) {
            Frame::Incomplete { needed } => Split::Incomplete { needed },
            Frame::Whole { header, length } => Split::Whole {
                length,
                needs: Needs::of(&header),
            },
            Frame::Refused { length, .. } => Split::Refused { length },
        }
    }

    #[inline]
    fn prepare(&self, bytes: &[u8]) {
        self.session.prepare(bytes);
    }

    #[inline]
    fn handle(&mut self, request: &mut [u8], from: SocketAddr, out: &mut Vec<u8>) -> Handled {
        self.session.come_from(from.ip());
        let outcome = match self.transport {
            Transport::Tcp => self.session.request(request, out),
            Transport::Udp => self.session.datagram(request, out),
        };
        match outcome {
            Outcome::Answered => Handled::Answered,
            Outcome::Silent => Handled::Silent,
            Outcome::Later(later) => Handled::Later(later),
            Outcome::Parked(id) => Handled::Parked(id),
        }
    }

    fn refuse_for_room(&mut self, header: &[u8], out: &mut Vec<u8>) {
        self.session.refuse_for_room(header, out);
    }

    fn refuse(&mut self, header: &[u8], out: &mut Vec<u8>) {
        self.session.refuse(header, out);
    }
}
