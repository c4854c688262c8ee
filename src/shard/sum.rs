use crate::coin::An;

/// The XOR of the authenticity numbers of some coins: what a client proves to know instead of each.
///
/// All coins of a locker have the same number, and an even count of them leaves nothing in the XOR:
/// whoever names two of them would prove nothing, and could take them all. So a sum is no proof where a
/// locker's or trade locker's key is in it an even number of times.
#[derive(Clone, Debug, Default)]
pub struct Sum {
    an: Option<An>,
    marked: Vec<An>,
}

impl Sum {
    /// Adds a coin's number.
    #[inline]
    pub fn add(&mut self, an: An) {
        self.an = Some(self.an.unwrap_or(An::ZERO) ^ an);
        if an.is_marked() {
            self.marked.push(an);
        }
    }

    /// Adds the numbers of other coins.
    pub fn merge(&mut self, other: &Sum) {
        if let Some(an) = other.an {
            self.an = Some(self.an.unwrap_or(An::ZERO) ^ an);
            self.marked.extend_from_slice(&other.marked);
        }
    }

    /// The number of one coin; of several their XOR, which [proves](Sum::proves) nothing by itself.
    pub fn an(&self) -> Option<An> {
        self.an
    }

    /// Whether somebody who gives this sum knows the numbers as far as a sum can say.
    pub fn proves(&self, sum: An) -> bool {
        let mut marked: Vec<u128> = (self.marked.iter())
            .map(|an| u128::from_ne_bytes(*an.expose()))
            .collect();
        marked.sort_unstable();
        let cancel_out = (marked.chunk_by(|a, b| a == b)).any(|same| same.len() % 2 == 0);
        self.an == Some(sum) && !cancel_out
    }
}

/// The sum of these numbers; `None` where a coin has none.
pub fn sum(mut ans: impl Iterator<Item = Option<An>>) -> Option<Sum> {
    ans.try_fold(Sum::default(), |mut sum, an| {
        sum.add(an?);
        Some(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> An {
        let mut bytes = [number; 16];
        bytes[12..].fill(0xff);
        An::new(bytes)
    }

    fn of(ans: &[An]) -> Sum {
        sum(ans.iter().map(|&an| Some(an))).unwrap()
    }

    #[test]
    fn coins_that_share_a_lockers_key_prove_nothing_in_pairs() {
        let own = An::new([7; 16]);
        assert!(of(&[own, key(1)]).proves(own ^ key(1)));
        assert!(of(&[key(1), key(2), key(1), key(1)]).proves(key(1) ^ key(2)));
        assert!(!of(&[key(1), key(1)]).proves(An::ZERO));
        assert!(!of(&[own, key(1), key(2), key(1)]).proves(own ^ key(2)));
        assert!(!of(&[own]).proves(An::ZERO));
        assert!(sum([Some(own), None].into_iter()).is_none());
        let mut both = of(&[key(1), own]);
        both.merge(&of(&[key(1)]));
        assert!(!both.proves(own) && both.an() == Some(own));
    }
}
