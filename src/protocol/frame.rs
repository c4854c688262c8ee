//! Where a request ends, in a stream and in a datagram.

use super::{
    Command, Encryption, RequestHeader, Rules, Status, body::EMPTY_BODY_SIZE, challenge::Challenge,
    header, response::can_be_answer,
};
use crate::coin::{An, Coin};

/// What the bytes at the front of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The front of a request that has not arrived completely yet.
    Incomplete {
        /// Number of bytes from the request's first that are needed to know more: 32, then 48 for
        /// types 4 and 5, then header and body. Always more than there are, never more than the
        /// request.
        needed: usize,
    },
    /// A whole request.
    Whole {
        /// Its header, checked.
        header: RequestHeader,
        /// Bytes of header and body: where the next request begins.
        length: usize,
    },
    /// A request whose header is refused, known as soon as its first 32 bytes are there.
    Refused {
        /// The reason.
        status: Status,
        /// Bytes of header and body, which need not all be there yet: after skipping them the next
        /// request begins. `None` where the request's end is unknown (a version or encryption type
        /// that is not ours) or too far away to wait for (a body over the limit): answer and close.
        length: Option<usize>,
    },
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Datagram {
    /// Shorter than its header, or a datagram that gets no answer over UDP.
    Silence,
    /// A whole request.
    Whole {
        /// Its header, checked.
        header: RequestHeader,
        /// Bytes of header and body; anything that follows them in the datagram does not belong to
        /// the request.
        length: usize,
    },
    /// Shorter than header and body: answered like a body refused with [`Status::INVALID_LENGTH`],
    /// so with the request's group and echo bytes.
    Cut {
        /// Its header, checked.
        header: RequestHeader,
    },
    /// The header is refused.
    Refused {
        /// The reason.
        status: Status,
    },
}

/// Looks at the front of a stream (docs/protocol.md sections 2 and 3). Nothing is consumed: call
/// again with more bytes until the answer is no longer [`Frame::Incomplete`].
///
/// ```
/// use raida::protocol::{Dialect, Frame, RaidaId, ResponseCounter, Rules, frame};
/// let rules = Rules {
///     raida: RaidaId::new(14).unwrap(),
///     coin_id: 6,
///     dialect: Dialect::Spec,
///     response_counter: ResponseCounter::Restart,
///     max_body_bytes: 65_536,
/// };
/// let mut echo = [0; 32];
/// (echo[0], echo[2], echo[7]) = (1, 14, 6);
/// assert_eq!(frame(&echo[..10], &rules), Frame::Incomplete { needed: 32 });
/// assert!(matches!(frame(&echo, &rules), Frame::Whole { length: 32, .. }));
/// ```
#[inline(always)]
pub fn frame(bytes: &[u8], rules: &Rules) -> Frame {
    let Some(front) = bytes.first_chunk() else {
        return Frame::Incomplete {
            needed: RequestHeader::SIZE_MIN,
        };
    };
    let framing = header::framing(front, rules)
        .filter(|framing| framing.body_length <= rules.body_bytes_max());
    let length = framing.map(|f| f.encryption.header_size() + f.body_length);
    let command = match header::check(front, rules) {
        Ok(command) => command,
        Err(status) => return Frame::Refused { status, length },
    };
    let (Some(framing), Some(length)) = (framing, length) else {
        // The checks accept version and encryption type, so the length is the reason of the
        // refusal.
        return Frame::Refused {
            status: Status::INVALID_LENGTH,
            length: None,
        };
    };
    match RequestHeader::read(bytes, command, framing) {
        None => Frame::Incomplete {
            needed: framing.encryption.header_size(),
        },
        Some(_) if bytes.len() < length => Frame::Incomplete { needed: length },
        Some(header) => Frame::Whole { header, length },
    }
}

/// The shortest datagram that gets a refusal: the shortest request with a body. Shorter datagrams
/// that are answered are echo, version and audit without a body.
pub const REFUSED_BYTES_MIN: usize = RequestHeader::SIZE_MIN + EMPTY_BODY_SIZE;

/// Looks at a datagram (docs/protocol.md sections 2, 3 and 5). A datagram longer than its request
/// counts as that request and the rest is ignored: the page has a status only for a datagram that
/// is too short.
///
/// The source of a datagram is easily forged, and a refusal would go there. So three kinds of
/// datagrams get no refusal: those with an unknown version, those shorter than
/// [`REFUSED_BYTES_MIN`], and those that another node can have sent as an answer.
#[inline(always)]
pub fn datagram(bytes: &[u8], rules: &Rules) -> Datagram {
    let Some(front) = bytes.first_chunk() else {
        return Datagram::Silence;
    };
    let is_short = bytes.len() < REFUSED_BYTES_MIN;
    if can_be_answer(bytes) {
        return Datagram::Silence;
    }
    match frame(bytes, rules) {
        Frame::Whole { header, .. } if is_short && !header.command.takes_no_body() => {
            Datagram::Silence
        }
        Frame::Whole { header, length } => Datagram::Whole { header, length },
        _ if is_short => Datagram::Silence,
        Frame::Refused { status, .. } if status == Status::UNKNOWN_VERSION => Datagram::Silence,
        Frame::Refused { status, .. } => Datagram::Refused { status },
        Frame::Incomplete { .. } => {
            let framing = header::framing(front, rules);
            let header = header::check(front, rules)
                .ok()
                .zip(framing)
                .and_then(|(command, framing)| RequestHeader::read(bytes, command, framing));
            match header {
                Some(header) => Datagram::Cut { header },
                None => Datagram::Silence,
            }
        }
    }
}

/// What a request is looked up by first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstLook {
    /// A coin.
    Coin(Coin),
    /// A pown of one coin: the number that it names for the coin, and the one that it proposes.
    Pown(Coin, An, An),
}

/// What a request at the front of `bytes` is most likely looked up by first, even if the rest of it
/// is wrong: a plain request by its first record, an encrypted one by its key coin. A caller can
/// fetch it before the request's turn comes.
#[inline]
pub fn first_look(bytes: &[u8]) -> Option<FirstLook> {
    let encryption = Encryption::from_type(*bytes.get(header::ENCRYPTION)?)?;
    let at = match encryption {
        Encryption::None => encryption.header_size() + Challenge::SIZE,
        _ => header::key_field_offset(encryption),
    };
    let coin = Coin::from_bytes(bytes.get(at..)?.first_chunk()?)?;
    if encryption == Encryption::None && header::is_of(bytes, Command::Pown) {
        let numbers = bytes.get(at + Coin::SIZE..)?;
        if let Some((an, rest)) = numbers.split_first_chunk()
            && let Some(proposed) = rest.first_chunk()
        {
            return Some(FirstLook::Pown(coin, An::new(*an), An::new(*proposed)));
        }
    }
    Some(FirstLook::Coin(coin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        Dialect, Request,
        authentication::Pown,
        samples::{any_bytes, any_request, protections, request, rules},
    };
    use proptest::prelude::*;

    fn composed(payload: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let [protection, ..] = protections();
        request(protection, Some(&vec![7; payload]))
            .compose(&mut out)
            .unwrap();
        out
    }

    #[test]
    fn what_a_request_is_looked_up_by_first_is_its_first_record_or_its_key() {
        let (coin, an) = (
            Coin::from_bytes(&[1, 0, 0, 2, 3]).unwrap(),
            An::new([4; 16]),
        );
        let proposed = An::new([5; 16]);
        for protection in protections() {
            let mut payload = Vec::new();
            Pown::compose([(coin, an, proposed)], &mut payload);
            let mut pown = Vec::new();
            let asked = Request {
                command: Command::Pown,
                ..request(protection, Some(&payload))
            };
            asked.compose(&mut pown).unwrap();
            let looked = first_look(&pown);
            match pown[header::ENCRYPTION] {
                0 => assert_eq!(looked, Some(FirstLook::Pown(coin, an, proposed))),
                _ => assert!(!matches!(looked, Some(FirstLook::Pown(..)))),
            }
            let cut = first_look(&pown[..pown.len() - 3]);
            assert!(!matches!(cut, Some(FirstLook::Pown(_, _, other)) if other != proposed));
            for length in 0..pown.len() {
                let _ = first_look(&pown[..length]); // must not panic
            }
        }
    }

    #[test]
    fn a_refused_header_does_not_wait_for_the_body_but_knows_where_it_ends() {
        let mut bytes = composed(1_000);
        bytes[2] = 15;
        assert_eq!(
            frame(&bytes[..32], &rules()),
            Frame::Refused {
                status: Status::WRONG_RAIDA,
                length: Some(32 + 1_018),
            }
        );
    }

    #[test]
    fn the_end_is_unknown_when_version_or_encryption_type_are() {
        for (at, status) in [
            (0, Status::UNKNOWN_VERSION),
            (16, Status::UNKNOWN_ENCRYPTION),
        ] {
            let mut bytes = composed(10);
            bytes[at] = 9;
            assert_eq!(
                frame(&bytes, &rules()),
                Frame::Refused {
                    status,
                    length: None
                }
            );
        }
    }

    #[test]
    fn an_unknown_encryption_type_hides_the_end_behind_an_earlier_refusal_too() {
        let mut bytes = composed(10);
        (bytes[2], bytes[16]) = (15, 9);
        assert_eq!(
            frame(&bytes, &rules()),
            Frame::Refused {
                status: Status::WRONG_RAIDA,
                length: None
            }
        );
    }

    #[test]
    fn a_body_over_the_limit_is_refused_at_once() {
        let limit = rules().max_body_bytes;
        let over = composed(limit - 17);
        let refused = Frame::Refused {
            status: Status::INVALID_LENGTH,
            length: None,
        };
        assert_eq!(frame(&over[..32], &rules()), refused);
        let most = composed(limit - 18);
        assert!(matches!(frame(&most, &rules()), Frame::Whole { .. }));
        let nothing_configured = Rules {
            max_body_bytes: usize::MAX,
            ..rules()
        };
        let mut huge = composed(limit);
        huge[24..28].copy_from_slice(&[0xff; 4]);
        assert_eq!(frame(&huge, &nothing_configured), refused);
    }

    #[test]
    fn the_long_form_begins_at_65_535_bytes() {
        for (payload, long) in [(65_534 - 18, false), (65_535 - 18, true)] {
            let bytes = composed(payload);
            assert_eq!(bytes[22..24] == [0xff; 2], long);
            let Frame::Whole { header, length } = frame(&bytes, &rules()) else {
                panic!("a whole request is whole");
            };
            assert_eq!((header.body_length, length), (payload + 18, bytes.len()));
        }
    }

    #[test]
    fn a_datagram_of_fewer_than_50_bytes_gets_no_answer() {
        for protection in protections() {
            let mut bytes = Vec::new();
            let sent = request(protection, Some(&[0; 40]))
                .compose(&mut bytes)
                .unwrap();
            for length in 0..50 {
                assert_eq!(datagram(&bytes[..length], &rules()), Datagram::Silence);
            }
            for length in 50..bytes.len() {
                let header = sent.header;
                assert_eq!(
                    datagram(&bytes[..length], &rules()),
                    Datagram::Cut { header }
                );
            }
            // Not even where its header would be refused.
            bytes[2] = 15;
            assert_eq!(datagram(&bytes[..49], &rules()), Datagram::Silence);
            let status = Status::WRONG_RAIDA;
            assert_eq!(
                datagram(&bytes[..50], &rules()),
                Datagram::Refused { status }
            );
        }
    }

    #[test]
    fn what_is_asked_without_a_body_is_answered() {
        for protection in protections() {
            for command in Command::all() {
                let mut bytes = Vec::new();
                let asked = Request {
                    command,
                    ..request(protection, None)
                };
                asked.compose(&mut bytes).unwrap();
                let is_whole = matches!(datagram(&bytes, &rules()), Datagram::Whole { .. });
                assert_eq!(is_whole, command.takes_no_body(), "{}", command.name());
            }
        }
    }

    #[test]
    fn another_version_gets_no_answer_in_a_datagram() {
        let mut bytes = composed(1_000);
        for version in 2..=255 {
            bytes[0] = version;
            assert_eq!(datagram(&bytes, &rules()), Datagram::Silence);
        }
        bytes[0] = 0;
        assert!(matches!(datagram(&bytes, &rules()), Datagram::Whole { .. }));
        let raidax = Rules {
            dialect: Dialect::Raidax,
            ..rules()
        };
        assert_eq!(datagram(&bytes, &raidax), Datagram::Silence);
    }

    #[test]
    fn what_follows_the_request_in_a_datagram_is_ignored() {
        let mut bytes = composed(5);
        let whole = bytes.len();
        bytes.extend_from_slice(b"more");
        let Datagram::Whole { length, .. } = datagram(&bytes, &rules()) else {
            panic!("the request is all there");
        };
        assert_eq!(length, whole);
    }

    proptest! {
        #[test]
        fn any_bytes_are_framed_without_a_panic(bytes in any_bytes()) {
            match frame(&bytes, &rules()) {
                Frame::Incomplete { needed } => prop_assert!(needed > bytes.len()),
                Frame::Whole { header, length } => {
                    prop_assert_eq!(length, header.header_size() + header.body_length);
                    prop_assert!(length <= bytes.len());
                }
                Frame::Refused { length, .. } => prop_assert!(length != Some(0)),
            }
            let silent = datagram(&bytes, &rules()) == Datagram::Silence;
            prop_assert!(bytes.len() >= 32 || silent);
            prop_assert!(silent || bytes.len() >= 50 || bytes[5] < 4);
            let is_refused = bytes.len() >= 50 && bytes[0] <= 1 && !can_be_answer(&bytes);
            prop_assert!(!silent || !is_refused);
        }

        #[test]
        fn every_prefix_asks_for_no_more_than_the_whole(
            request in any_request(),
            payload in prop::collection::vec(any::<u8>(), 0..100),
            next in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = Vec::new();
            let request = Request { payload: Some(&payload), ..request };
            let sent = request.compose(&mut bytes).unwrap();
            let whole = bytes.len();
            let header_size = sent.header.header_size();
            for length in 0..whole {
                let expected = match length {
                    0..32 => 32,
                    _ if length < header_size => header_size,
                    _ => whole,
                };
                prop_assert_eq!(
                    frame(&bytes[..length], &rules()),
                    Frame::Incomplete { needed: expected }
                );
            }
            bytes.extend_from_slice(&next);
            prop_assert_eq!(
                frame(&bytes, &rules()),
                Frame::Whole { header: sent.header, length: whole }
            );
        }
    }
}
