use std::time::Duration;

/// How long a server that has failed is left in peace: twice as long after each failure in a row.
#[derive(Debug)]
pub(super) struct BackOff {
    first: Duration,
    most: Duration,
    next: Duration,
}

impl BackOff {
    pub fn new(first: Duration, most: Duration) -> BackOff {
        BackOff {
            first,
            most,
            next: first.min(most),
        }
    }

    /// It has failed: how long to wait now.
    pub fn failed(&mut self) -> Duration {
        let now = self.next;
        self.next = now.saturating_mul(2).min(self.most);
        now
    }

    /// It does its work again.
    pub fn worked(&mut self) {
        self.next = self.first.min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_most_and_starts_again_after_work() {
        let ms = Duration::from_millis;
        let mut back_off = BackOff::new(ms(100), ms(700));
        let waits: Vec<Duration> = (0..5).map(|_| back_off.failed()).collect();
        assert_eq!(waits, [100, 200, 400, 700, 700].map(ms));
        back_off.worked();
        assert_eq!(back_off.failed(), ms(100));
    }
}
