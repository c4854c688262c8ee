//! The requests to a Redis server, byte by byte (RESP2,
//! <https://redis.io/docs/latest/develop/reference/protocol-spec/>).

use rand::RngExt;
use rand::rngs::SmallRng;

use super::choice::{Choice, Draw};
use super::kind::Verdict;
use crate::coin::Coin;

/// Bytes of a value: those of an authenticity number.
pub(super) const VALUE_SIZE: usize = 16;

/// A coin for a Redis server: its 5 bytes are the key, and the value follows from it, so that every
/// answer can be checked whatever was written in between.
#[derive(Clone, Copy)]
pub(super) struct Entry {
    key: [u8; Coin::SIZE],
    value: [u8; VALUE_SIZE],
}

impl Entry {
    pub(super) fn of(coin: Coin) -> Entry {
        let key = coin.to_bytes();
        // Any well-mixed bytes will do: the multiplier of a known linear congruential generator.
        let number = key.iter().fold(0x9e37u128, |number, &byte| {
            (number ^ u128::from(byte)).wrapping_mul(0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645)
        });
        Entry {
            key,
            value: number.to_be_bytes(),
        }
    }
}

/// The requests of one thread to a Redis server: GET of a coin's number where a load only asks a
/// node about it, SET where it changes it; for several coins, MGET and MSET.
pub(super) struct RedisRequests {
    entries: Vec<Entry>,
    draw: Draw,
    per_request: usize,
    /// The part of requests that write, 0 to 1.
    writes: f64,
    /// By slot: the request under way.
    asked: Vec<Asked>,
}

#[derive(Clone, Default)]
struct Asked {
    writes: bool,
    entries: Vec<u32>,
}

impl RedisRequests {
    pub(super) fn new(
        coins: &[Coin],
        choice: Choice,
        per_request: usize,
        writes: f64,
        slots: usize,
        rng: &mut SmallRng,
    ) -> RedisRequests {
        RedisRequests {
            entries: coins.iter().map(|&coin| Entry::of(coin)).collect(),
            draw: Draw::new(choice, coins, rng),
            per_request,
            writes,
            asked: vec![
                Asked {
                    writes: false,
                    entries: Vec::with_capacity(per_request),
                };
                slots
            ],
        }
    }

    /// Appends a new request.
    pub(super) fn compose(&mut self, slot: usize, rng: &mut SmallRng, out: &mut Vec<u8>) {
        let asked = &mut self.asked[slot];
        asked.writes = self.writes > 0.0 && rng.random::<f64>() < self.writes;
        asked.entries.clear();
        let start = self.draw.start(rng);
        for record in 0..self.per_request {
            (asked.entries).push(self.draw.coin(start, record, rng) as u32);
        }
        let entries = asked.entries.iter().map(|&i| &self.entries[i as usize]);
        match asked.writes {
            true => compose_set(entries, out),
            false => compose_get(entries, out),
        }
    }

    /// Checks a complete answer.
    pub(super) fn check(&self, slot: usize, answer: &[u8]) -> Verdict {
        let asked = &self.asked[slot];
        if answer.first() == Some(&b'-') {
            return Verdict::Refused;
        }
        let is_right = match asked.writes {
            true => answer == b"+OK\r\n",
            false => {
                let entries = asked.entries.iter().map(|&i| &self.entries[i as usize]);
                has_values(entries, answer)
            }
        };
        match is_right {
            true => Verdict::Right,
            false => Verdict::Wrong,
        }
    }
}

/// Appends a request that reads entries.
fn compose_get<'a>(entries: impl ExactSizeIterator<Item = &'a Entry>, out: &mut Vec<u8>) {
    match entries.len() {
        1 => out.extend_from_slice(b"*2\r\n$3\r\nGET\r\n"),
        many => {
            begin_array(many + 1, out);
            out.extend_from_slice(b"$4\r\nMGET\r\n");
        }
    }
    for entry in entries {
        bulk(&entry.key, out);
    }
}

/// Appends a request that writes entries.
pub(super) fn compose_set<'a>(
    entries: impl ExactSizeIterator<Item = &'a Entry>,
    out: &mut Vec<u8>,
) {
    match entries.len() {
        1 => out.extend_from_slice(b"*3\r\n$3\r\nSET\r\n"),
        many => {
            begin_array(2 * many + 1, out);
            out.extend_from_slice(b"$4\r\nMSET\r\n");
        }
    }
    for entry in entries {
        bulk(&entry.key, out);
        bulk(&entry.value, out);
    }
}

/// Appends any request.
pub(super) fn compose_words(words: &[&str], out: &mut Vec<u8>) {
    begin_array(words.len(), out);
    for word in words {
        bulk(word.as_bytes(), out);
    }
}

fn begin_array(count: usize, out: &mut Vec<u8>) {
    out.push(b'*');
    number(count, out);
}

fn bulk(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'$');
    number(bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn number(number: usize, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    while rest > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits[at..]);
    out.extend_from_slice(b"\r\n");
}

/// Length of the answer at the front of a stream; `None` while it is not complete.
pub(super) fn answer_length(bytes: &[u8]) -> Option<usize> {
    let (line, after) = line(bytes)?;
    match line.split_first()? {
        (b'$', count) => match read_number(count)? {
            Some(count) => {
                let length = after.checked_add(count)?.checked_add(2)?;
                (bytes.len() >= length).then_some(length)
            }
            None => Some(after),
        },
        (b'*', count) => {
            let mut length = after;
            for _ in 0..read_number(count)?.unwrap_or(0) {
                let entry = &bytes[length..];
                // No answer here has nested lists, which could go on without end.
                length += (entry.first()? != &b'*').then(|| answer_length(entry))??;
            }
            Some(length)
        }
        _ => Some(after),
    }
}

/// Whether an answer has exactly these entries' values.
fn has_values<'a>(entries: impl ExactSizeIterator<Item = &'a Entry>, mut answer: &[u8]) -> bool {
    if entries.len() > 1 {
        let Some((line, after)) = line(answer) else {
            return false;
        };
        if line.first() != Some(&b'*') || read_number(&line[1..]) != Some(Some(entries.len())) {
            return false;
        }
        answer = &answer[after..];
    }
    for entry in entries {
        let Some((bulk, rest)) = answer.split_at_checked(VALUE_SIZE + 7) else {
            return false;
        };
        let is_it = bulk.starts_with(b"$16\r\n")
            && bulk[5..5 + VALUE_SIZE] == entry.value
            && bulk.ends_with(b"\r\n");
        if !is_it {
            return false;
        }
        answer = rest;
    }
    answer.is_empty()
}

/// The first line without its end, and the position of the next one.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((bytes[..end].strip_suffix(b"\r")?, end + 1))
}

/// `Some(None)` for the -1 that stands for nothing; `None` where the text is no number.
fn read_number(digits: &[u8]) -> Option<Option<usize>> {
    match digits {
        b"-1" => Some(None),
        _ => std::str::from_utf8(digits).ok()?.parse().ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::PageId;
    use rand::SeedableRng;

    fn coins() -> Vec<Coin> {
        (0..3)
            .map(|place| PageId::from_index(5).unwrap().coin(place))
            .collect()
    }

    #[test]
    fn an_answer_is_as_long_as_its_lines_say() {
        for whole in [
            &b"+OK\r\n"[..],
            b"-ERR unknown\r\n",
            b":12\r\n",
            b"$-1\r\n",
            b"$3\r\na\r\n\r\n",
            b"*2\r\n$1\r\na\r\n$-1\r\n",
            b"*0\r\n",
        ] {
            for cut in 0..whole.len() {
                assert_eq!(answer_length(&whole[..cut]), None, "{whole:?} {cut}");
            }
            let more = [whole, b"+more"].concat();
            assert_eq!(answer_length(&more), Some(whole.len()), "{whole:?}");
        }
    }

    #[test]
    fn lengths_that_no_answer_has_and_lists_in_lists_are_none() {
        let deep = b"*1\r\n".repeat(1_000_000);
        for endless in [
            &b"$18446744073709551615\r\n"[..],
            b"$18446744073709551614\r\nab\r\n",
            b"*18446744073709551615\r\n$1\r\na\r\n",
            b"*1\r\n*1\r\n+OK\r\n",
            &deep,
        ] {
            assert_eq!(answer_length(endless), None);
        }
    }

    #[test]
    fn only_the_values_of_the_keys_asked_for_are_right() {
        let rng = &mut SmallRng::seed_from_u64(1);
        for (per_request, writes) in [(1, 0.0), (3, 0.0), (1, 1.0), (3, 1.0)] {
            let mut requests =
                RedisRequests::new(&coins(), Choice::Uniform, per_request, writes, 1, rng);
            let mut out = vec![];
            requests.compose(0, rng, &mut out);
            // A request has the form of an answer that is a list.
            assert_eq!(answer_length(&out), Some(out.len()));
            let mut answer = vec![];
            if per_request > 1 {
                begin_array(per_request, &mut answer);
            }
            for &index in &requests.asked[0].entries {
                bulk(&Entry::of(coins()[index as usize]).value, &mut answer);
            }
            if writes > 0.0 {
                answer = b"+OK\r\n".to_vec();
            }
            assert_eq!(requests.check(0, &answer), Verdict::Right);
            assert_eq!(requests.check(0, b"-OOM\r\n"), Verdict::Refused);
            assert_eq!(requests.check(0, b"$-1\r\n"), Verdict::Wrong);
            let last = answer.len() - 3;
            answer[last] ^= 1;
            assert_eq!(requests.check(0, &answer), Verdict::Wrong);
        }
    }
}
