//! Connections take turns by address: an address with many connections gets no more turns than an
//! address with a few.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::{Rc, Weak};

use crate::runtime::{Line, LinePlace};
use crate::shard::Stranger;

/// Connections of one address that get a turn before all others of the core have had one.
const OF_ONE: usize = 8;

/// The lines of one core's addresses.
#[derive(Debug, Default)]
pub(super) struct Lines(RefCell<HashMap<Stranger, Weak<Line>>>);

/// The line of one connection's address.
#[derive(Debug)]
pub(super) struct LineOfOne {
    lines: Rc<Lines>,
    owner: Stranger,
    line: Rc<Line>,
}

impl Lines {
    /// The line of an address, the same for all of its connections.
    pub(super) fn of(self: &Rc<Lines>, address: IpAddr) -> LineOfOne {
        let owner = Stranger::of(address);
        let mut lines = self.0.borrow_mut();
        let line = lines.get(&owner).and_then(Weak::upgrade);
        let line = line.unwrap_or_else(|| {
            let line = Line::new(OF_ONE);
            lines.insert(owner, Rc::downgrade(&line));
            line
        });
        LineOfOne {
            lines: Rc::clone(self),
            owner,
            line,
        }
    }
}

impl LineOfOne {
    /// Goes to the end of the line.
    pub(super) fn enter(&self) -> LinePlace {
        self.line.enter()
    }
}

impl Drop for LineOfOne {
    fn drop(&mut self) {
        if Rc::strong_count(&self.line) == 1 {
            self.lines.0.borrow_mut().remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_line_for_as_long_as_it_has_a_connection() {
        let lines = Rc::<Lines>::default();
        let of = |last: u8| lines.of([127, 0, 0, last].into());
        let (first, second, other) = (of(1), of(1), of(2));
        assert!(Rc::ptr_eq(&first.line, &second.line));
        assert!(!Rc::ptr_eq(&first.line, &other.line));
        drop((first, other));
        assert_eq!(lines.0.borrow().len(), 1);
        assert!(Rc::ptr_eq(&of(1).line, &second.line));
        drop(second);
        assert!(lines.0.borrow().is_empty());
    }
}
