use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;

use super::datagrams::Address;
use super::pipeline::Pipeline;
use super::udp::Outbox;
use super::{Handler, Release};
use crate::service::budget::Made;

/// The composed answers of one core that wait for a notice that they may go, by the number that the
/// handler gave them. Numbers are small, and used again and again.
#[derive(Default)]
pub(super) struct Parked {
    places: RefCell<Vec<Option<Place>>>,
}

/// Where a parked answer is kept.
pub(super) enum Place {
    /// In its turn among the answers of a connection.
    Stream(Rc<Pipeline>, u64),
    /// By itself.
    Datagram(Address, Vec<u8>),
}

impl Parked {
    /// Keeps a place until the number is released.
    ///
    /// # Panics
    /// When another is kept under this number.
    pub(super) fn keep(&self, id: usize, place: Place) {
        let mut places = self.places.borrow_mut();
        if places.len() <= id {
            places.resize_with(id + 1, || None);
        }
        let before = places[id].replace(place);
        assert!(before.is_none(), "a number is in use once at a time");
    }

    /// Sends answers as they are released, until dropped.
    pub(super) async fn release<H: Handler>(self: Rc<Parked>, handler: H, outbox: Rc<Outbox>) {
        let mut released = Vec::new();
        loop {
            poll_fn(|cx| handler.poll_released(cx, &mut released)).await;
            for release in released.drain(..) {
                let place = self.places.borrow_mut()[release.id()].take();
                match place.expect("a release is of a parked answer") {
                    Place::Stream(pipeline, number) if release.is_given_up() => {
                        pipeline.end_at(number);
                    }
                    Place::Stream(pipeline, number) => {
                        pipeline.release(number, |answer| release.complete(answer));
                    }
                    Place::Datagram(_, answer) if !release.goes() => outbox.give_back(answer),
                    Place::Datagram(peer, mut answer) => {
                        release.complete(&mut answer);
                        outbox.push(peer, Made::from(answer));
                    }
                }
            }
        }
    }
}
