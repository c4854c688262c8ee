//! When freed memory goes back to the system.
//!
//! The C library gives back the free end of a heap and long blocks by itself. Memory that a flood
//! of requests took and freed lies between blocks in use, and stays with the process until
//! [`give_back`].

/// How much a core has to do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Bytes of requests and answers that wait now.
    pub bytes: usize,
    /// The most such bytes since the last look.
    pub most_bytes: usize,
    /// Connections to the node that are open.
    pub connections: usize,
}

/// Tells when a flood is over.
#[derive(Debug, Default)]
pub(super) struct Tide {
    /// The most of each since memory was last given back.
    bytes: usize,
    connections: usize,
    looks: u32,
}

/// Least size of a flood.
const FLOOD_BYTES: usize = 4 << 20;
const FLOOD_CONNECTIONS: usize = 64;
/// Least number of looks between two times that memory is given back: that keeps other threads that
/// allocate waiting for some milliseconds.
const LOOKS_LEAST: u32 = 5;

impl Tide {
    /// Whether less than half is left of the most that there was, so that memory should be given
    /// back now.
    pub fn is_out(&mut self, load: Load) -> bool {
        self.bytes = self.bytes.max(load.most_bytes);
        self.connections = self.connections.max(load.connections);
        self.looks = self.looks.saturating_add(1);
        let is_over = self.bytes >= FLOOD_BYTES && load.bytes < self.bytes / 2
            || self.connections >= FLOOD_CONNECTIONS && load.connections < self.connections / 2;
        let is_due = is_over && self.looks >= LOOKS_LEAST;
        if is_due {
            *self = Tide {
                bytes: load.bytes,
                connections: load.connections,
                looks: 0,
            };
        }
        is_due
    }
}

/// Gives all free pages of all heaps back to the system. Takes milliseconds: not on a core.
pub(super) fn give_back() {
    // SAFETY: malloc_trim takes a number and no memory, and may run beside anything
    // (malloc_trim(3)).
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(bytes: usize, most_bytes: usize, connections: usize) -> Load {
        Load {
            bytes,
            most_bytes,
            connections,
        }
    }

    #[test]
    fn memory_is_given_back_once_after_a_flood_and_not_too_often() {
        let mut tide = Tide::default();
        let quiet = load(1_000, FLOOD_BYTES / 2, FLOOD_CONNECTIONS / 2);
        assert!((0..20).all(|_| !tide.is_out(quiet)), "there was no flood");
        assert!(!tide.is_out(load(5 << 20, 8 << 20, 10)), "it goes on");
        assert!(tide.is_out(load(1 << 20, 6 << 20, 10)));
        assert!(!tide.is_out(load(1_000, 8 << 20, 10)), "too soon");
        assert_eq!((0..20).filter(|_| tide.is_out(quiet)).count(), 1);
        assert!(!tide.is_out(load(0, 0, 1_000)));
        assert_eq!((0..20).filter(|_| tide.is_out(load(0, 0, 10))).count(), 1);
    }
}
