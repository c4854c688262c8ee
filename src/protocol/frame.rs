//! Where a request ends, in a stream and in a datagram.

use super::{RequestHeader, Rules, Status, header};

/// What the bytes at the front of a stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The front of a request that is not all there yet.
    Incomplete {
        /// How many bytes from the request's first on it takes to know more: 32, then 48 for types
        /// 4 and 5, then header and body. Always more than there are, never more than the request.
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
        /// Why.
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
    /// Shorter than its header: no answer.
    Silence,
    /// A whole request.
    Whole {
        /// Its header, checked.
        header: RequestHeader,
        /// Bytes of header and body; whatever follows them in the datagram is none of the request.
        length: usize,
    },
    /// Shorter than header and body: answered as a body refused with
    /// [`Status::INVALID_LENGTH`], so with the request's group and echo bytes.
    Cut {
        /// Its header, checked.
        header: RequestHeader,
    },
    /// The header is refused.
    Refused {
        /// Why.
        status: Status,
    },
}

/// Looks at the front of a stream (PROTOCOL.md sections 2 and 3). Nothing is consumed: call again
/// with more bytes until the answer is no longer [`Frame::Incomplete`].
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
#[inline]
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
        // The checks know version and encryption type, so it is the length that is refused.
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

/// Looks at a datagram (PROTOCOL.md sections 2 and 3). One that is longer than the request in it is
/// taken for that request and the rest ignored: the page has a status for a short one only.
#[inline]
pub fn datagram(bytes: &[u8], rules: &Rules) -> Datagram {
    let Some(front) = bytes.first_chunk() else {
        return Datagram::Silence;
    };
    let framing = header::framing(front, rules);
    if framing.is_some_and(|f| bytes.len() < f.encryption.header_size()) {
        return Datagram::Silence;
    }
    match frame(bytes, rules) {
        Frame::Whole { header, length } => Datagram::Whole { header, length },
        Frame::Refused { status, .. } => Datagram::Refused { status },
        Frame::Incomplete { .. } => {
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
