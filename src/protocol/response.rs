//! Composing a response, and reading one: its layout, which server and client share.

use super::{
    Encryption, Key, RaidaId, RequestHeader, ResponseCounter, Rules, Sent, Status, TRAILER,
    challenge::Challenge,
    cipher::{HMAC_SIZE, counter_after},
    header::{self, PRESENTATION, PRESENTED},
};

// Offsets in a response's header. Types 4 and 5 keep the execution time and the echo bytes
// elsewhere (see [`Places`]), and they have the key coin and the nonce where the others have the
// challenge answer.
const RAIDA: usize = 0;
const ZERO: usize = 1;
const STATUS: usize = 2;
const GROUP: usize = 3;
/// Types 0 to 2: 0, 1.
const FIXED: usize = 4;
const ZERO_TOO: usize = 8;
const BODY_LENGTH: usize = 9;
const CHALLENGE_ANSWER: usize = 16;
const ENCRYPTION: usize = 16;
const KEY_FIELD: usize = 17;
const NONCE: usize = 24;

/// Bytes of the fresh nonce in a response of types 4 and 5.
pub const RESPONSE_NONCE_SIZE: usize = 22;

/// The longest payload a response can have, in bytes: its length has three bytes.
pub const RESPONSE_PAYLOAD_MAX: usize = (1 << 24) - 1 - HMAC_SIZE - TRAILER.len();

/// The positions of the same two fields: one pair for types 0 to 2, another for types 4 and 5.
struct Places {
    execution_time: usize,
    echo: usize,
}

impl Places {
    #[inline]
    fn of(encryption: Encryption) -> Places {
        if encryption.has_hmac() {
            Places {
                execution_time: 4,
                echo: 46,
            }
        } else {
            Places {
                execution_time: 12,
                echo: 6,
            }
        }
    }
}

/// A response being composed in the buffer that it is sent from: at the end, behind earlier
/// responses. The command appends the payload, which is then sealed in place.
///
/// Dropping it without [`Response::finish`] leaves a header of zeros behind.
pub struct Response<'b> {
    out: &'b mut Vec<u8>,
    start: usize,
    request: &'b RequestHeader,
}

/// The input of [`Response::finish`] besides the payload.
#[derive(Clone, Copy, Debug)]
pub struct Sealing<'a> {
    /// The node's number and response counter.
    pub rules: &'a Rules,
    /// How the request went.
    pub status: Status,
    /// The key that the request was opened with; [`Key::None`] is enough where there is no payload.
    pub key: &'a Key,
    /// From [`super::Opened`] or [`super::BodyRefusal`].
    pub challenge_answer: [u8; 16],
    /// How long the request took, in microseconds.
    pub execution_micros: u32,
    /// Fresh random bytes for types 4 and 5, never used twice with a key: a repeated nonce tells an
    /// eavesdropper the XOR of two payloads. Types 0 to 2 ignore them.
    pub nonce: [u8; RESPONSE_NONCE_SIZE],
}

impl<'b> Response<'b> {
    /// Appends room for the response's header: 32 or 48 bytes, like the request's.
    #[inline]
    pub fn begin(out: &'b mut Vec<u8>, header: &'b RequestHeader) -> Response<'b> {
        let start = out.len();
        out.resize(start + header.header_size(), 0);
        Response {
            out,
            start,
            request: header,
        }
    }

    /// The buffer, to append the payload to: at most [`RESPONSE_PAYLOAD_MAX`] bytes. What is there
    /// already must stay.
    #[inline]
    pub fn payload(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// Maximum number of bytes of payload in a response of `bytes` to a request of this encryption.
    #[inline]
    pub fn payload_bytes_within(bytes: usize, encryption: Encryption) -> usize {
        let hmac = if encryption.has_hmac() { HMAC_SIZE } else { 0 };
        bytes.saturating_sub(encryption.header_size() + hmac + TRAILER.len())
    }

    /// Bytes of payload that have been appended.
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        self.out.len() - self.start - self.request.header_size()
    }

    /// Discards the payload appended so far: for a command that fails half way.
    #[inline]
    pub fn clear(&mut self) {
        self.out.truncate(self.start + self.request.header_size());
    }

    /// Removes the whole response from the buffer, its header too: there is no response, a
    /// different one, or one that comes later.
    #[inline]
    pub fn withdraw(self) {
        self.out.truncate(self.start);
    }

    /// Encrypts the payload in place, adds HMAC and trailer, and fills in the header
    /// (docs/protocol.md section 4). Without a payload there is no body.
    ///
    /// # Panics
    /// When there is a payload and the key is of another kind than the request's encryption (it
    /// would go out readable), when it is longer than [`RESPONSE_PAYLOAD_MAX`], or when something
    /// before it was removed from the buffer. None of this is up to the client: a request that
    /// [`super::open`] accepted has a key that fits.
    #[inline]
    pub fn finish(self, sealing: Sealing<'_>) {
        let Response {
            out,
            start,
            request,
        } = self;
        let encryption = request.encryption;
        let body = start + encryption.header_size();
        assert!(out.len() >= body, "the payload is only ever appended to");
        let payload_bytes = out.len() - body;
        assert!(
            payload_bytes <= RESPONSE_PAYLOAD_MAX,
            "a command keeps its answer within what the length can say"
        );
        if encryption.has_hmac() {
            let nonce = start + NONCE;
            out[nonce..nonce + RESPONSE_NONCE_SIZE].copy_from_slice(&sealing.nonce);
        }
        if payload_bytes > 0 {
            assert!(
                sealing.key.fits(encryption),
                "a payload is sealed with the key that its request was opened with"
            );
            let counter = if encryption.has_hmac() {
                counter_at(&out[start..])
            } else {
                plain_counter(request, sealing.rules.response_counter)
            };
            sealing.key.apply(counter, &mut out[body..]);
            if let Key::Hashed(hashed) = sealing.key {
                let hmac = hashed.hmac(&out[body..]);
                out.extend_from_slice(&hmac);
            }
            out.extend_from_slice(&TRAILER);
        }
        let body_length = out.len() - body;
        let bytes = &mut out[start..body];
        fill(
            bytes,
            encryption,
            sealing.rules.raida,
            sealing.status,
            sealing.execution_micros,
            request.echo(),
        );
        bytes[GROUP] = request.group;
        bytes[BODY_LENGTH..BODY_LENGTH + 3]
            .copy_from_slice(&(body_length as u32).to_be_bytes()[1..]);
        if encryption.has_hmac() {
            bytes[ENCRYPTION] = encryption.type_number();
            bytes[KEY_FIELD..KEY_FIELD + 5].copy_from_slice(&request.key_field);
        } else {
            bytes[CHALLENGE_ANSWER..CHALLENGE_ANSWER + Challenge::SIZE]
                .copy_from_slice(&sealing.challenge_answer);
        }
    }
}

impl std::fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Response(to {:?})", self.request.command)
    }
}

/// Writes into a composed answer without a body what was not known when it was composed: its status
/// and the execution time in microseconds. `encryption` is the request's.
///
/// # Panics
/// When the answer has a body: another status could need another one.
pub fn complete(answer: &mut [u8], encryption: Encryption, status: Status, execution_micros: u32) {
    assert_eq!(
        answer.len(),
        encryption.header_size(),
        "only an answer without a body is completed later"
    );
    answer[STATUS] = status.code();
    write_time(answer, encryption, execution_micros);
}

/// Whether any server of a network can have sent this datagram as an answer (docs/protocol.md,
/// "Refusals over UDP"). A node answers no such datagram. Otherwise one datagram with a forged
/// source would make two nodes, or a node and itself, answer each other for ever.
///
/// A request differs from an answer in two places: clients put 1, 1 into bytes 14 and 15, which is
/// never the low half of an answer's time, and they put zeros into bytes 9 to 11,
/// where an answer has the length of its body.
#[inline]
pub fn can_be_answer(datagram: &[u8]) -> bool {
    let Some(front) = datagram.first_chunk::<{ RequestHeader::SIZE_MIN }>() else {
        return false;
    };
    // Of requests about coins, only those of types 4 and 5 get past these two checks.
    let may_be_plain = front[FIXED..FIXED + 2] == [0, 1];
    let may_be_verified = matches!(front[ENCRYPTION], 4 | 5);
    if !may_be_plain && !may_be_verified {
        return false;
    }
    let is_from_server = RaidaId::new(front[RAIDA]).is_some()
        && front[ZERO] == 0
        && front[ZERO_TOO] == 0
        && Status::new(front[STATUS]).is_known();
    let body_length = u32::from_be_bytes([
        0,
        front[BODY_LENGTH],
        front[BODY_LENGTH + 1],
        front[BODY_LENGTH + 2],
    ]);
    let has_body_after = |header: usize| header + body_length as usize == datagram.len();
    let presented = &front[PRESENTATION..PRESENTATION + 2];
    let is_plain =
        may_be_plain && *presented != PRESENTED && has_body_after(RequestHeader::SIZE_MIN);
    // There a response has four zeros where a plain response has the time.
    let is_verified =
        may_be_verified && *presented == [0; 2] && has_body_after(RequestHeader::SIZE_MAX);
    is_from_server && (is_plain || is_verified)
}

/// Appends the answer to a request whose header is refused: `header_bytes` is the part of it that
/// there is. The command group is 0 and there is no body. The answer has 48 bytes for a request
/// that is known to be of type 4 or 5, else 32. The echo bytes are the request's where they have
/// arrived, else 0.
pub fn refuse(
    out: &mut Vec<u8>,
    header_bytes: &[u8],
    status: Status,
    rules: &Rules,
    execution_micros: u32,
) {
    let encryption = header_bytes
        .first_chunk()
        .and_then(|front| header::framing(front, rules))
        .map_or(Encryption::None, |framing| framing.encryption);
    let size = encryption.header_size();
    let echo = header_bytes
        .get(size - 2..size)
        .map_or([0; 2], |echo| [echo[0], echo[1]]);
    let start = out.len();
    out.resize(start + size, 0);
    let bytes = &mut out[start..];
    fill(
        bytes,
        encryption,
        rules.raida,
        status,
        execution_micros,
        echo,
    );
    if encryption.has_hmac() {
        bytes[ENCRYPTION] = encryption.type_number();
    }
}

/// The part that every response has, served or refused.
#[inline]
fn fill(
    bytes: &mut [u8],
    encryption: Encryption,
    raida: RaidaId,
    status: Status,
    execution_micros: u32,
    echo: [u8; 2],
) {
    let places = Places::of(encryption);
    bytes[RAIDA] = raida.get();
    bytes[STATUS] = status.code();
    if !encryption.has_hmac() {
        bytes[FIXED + 1] = 1;
    }
    write_time(bytes, encryption, execution_micros);
    bytes[places.echo..places.echo + 2].copy_from_slice(&echo);
}

/// Writes the execution time, which is for people. Where its low half would be 1, 1, a time one
/// microsecond longer is written, so that no answer looks like a request (see [`can_be_answer`]).
#[inline]
fn write_time(bytes: &mut [u8], encryption: Encryption, micros: u32) {
    let at = Places::of(encryption).execution_time;
    let [.., low, lowest] = micros.to_be_bytes();
    let micros = micros + u32::from([low, lowest] == PRESENTED);
    bytes[at..at + 4].copy_from_slice(&micros.to_be_bytes());
}

/// The counter block of a response of types 1 and 2.
#[inline]
fn plain_counter(request: &RequestHeader, counter: ResponseCounter) -> [u8; 16] {
    match counter {
        ResponseCounter::Restart => request.initial_counter(),
        ResponseCounter::Continue => counter_after(
            request.initial_counter(),
            request.body_length.saturating_sub(TRAILER.len()),
        ),
    }
}

/// The counter block of a response of types 4 and 5: bytes 24-39 of its header.
#[inline]
fn counter_at(header: &[u8]) -> [u8; 16] {
    std::array::from_fn(|i| header[NONCE + i])
}

/// A response's header as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The server that answers; `None` for a number that no server has.
    pub raida: Option<RaidaId>,
    /// How the request went.
    pub status: Status,
    /// The command group; 0 where the request's header was refused.
    pub group: u8,
    /// The request's echo bytes.
    pub echo: [u8; 2],
    /// How long the server took, in microseconds.
    pub execution_micros: u32,
    /// Bytes that follow the header, the final `>>` included.
    pub body_length: usize,
    /// The challenge answer (types 0 to 2); zeros for types 4 and 5.
    pub challenge_answer: [u8; 16],
    counter: [u8; 16],
}

impl ResponseHeader {
    /// Reads the header of a response to a request of this encryption type; `None` while there are
    /// fewer bytes than [`Encryption::header_size`].
    pub fn parse(bytes: &[u8], encryption: Encryption) -> Option<ResponseHeader> {
        let bytes = bytes.get(..encryption.header_size())?;
        let places = Places::of(encryption);
        let at = places.execution_time;
        let challenge_answer = if encryption.has_hmac() {
            Challenge::NO_ANSWER
        } else {
            std::array::from_fn(|i| bytes[CHALLENGE_ANSWER + i])
        };
        let counter = if encryption.has_hmac() {
            counter_at(bytes)
        } else {
            [0; 16]
        };
        Some(ResponseHeader {
            raida: RaidaId::new(bytes[RAIDA]),
            status: Status::new(bytes[STATUS]),
            group: bytes[GROUP],
            echo: [bytes[places.echo], bytes[places.echo + 1]],
            execution_micros: u32::from_be_bytes(std::array::from_fn(|i| bytes[at + i])),
            body_length: u32::from_be_bytes([
                0,
                bytes[BODY_LENGTH],
                bytes[BODY_LENGTH + 1],
                bytes[BODY_LENGTH + 2],
            ]) as usize,
            challenge_answer,
            counter,
        })
    }
}

/// A response, read. Payloads hold authenticity numbers: printing one shows its size only.
pub struct Answer<'a> {
    /// How the request went.
    pub status: Status,
    /// The command's answer, decrypted; empty where there is no body.
    pub payload: &'a [u8],
    /// Whether only somebody who knows the key (type 0: who saw the request) can have made it: the
    /// challenge answer is right, or the body's HMAC is. Neither protects the header's own bytes,
    /// which include the status.
    pub proven: bool,
}

impl std::fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("payload_bytes", &self.payload.len())
            .field("proven", &self.proven)
            .finish()
    }
}

/// Why a response cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// Another server answered.
    #[error("the answer comes from another server than the one asked")]
    WrongRaida,
    /// The echo bytes are another request's.
    #[error("the answer is to another request")]
    WrongEcho,
    /// The body is shorter or longer than the header says, or too short to be one.
    #[error("the answer is cut short or has bytes too many")]
    WrongLength,
    /// The body does not end in `>>`.
    #[error("the answer's end is missing")]
    WrongTrailer,
    /// The challenge answer is wrong: the server did not read the request with this key.
    #[error("the server did not prove that it knows the key")]
    WrongChallengeAnswer,
    /// The HMAC of the body is wrong.
    #[error("the answer was altered on its way, or made with another key")]
    WrongHmac,
}

/// Reads the response to a request, decrypting the body in place.
///
/// A response to another request or from another server is an error; so is one that reports an
/// outcome, or carries a body, under a wrong challenge answer. A refusal under a wrong challenge
/// answer is returned with `proven` false: a server that could not read the challenge cannot answer
/// it. The echo bytes of a refused header are not compared, since published servers send others.
pub fn open_response<'a>(
    sent: &Sent,
    header: &ResponseHeader,
    body: &'a mut [u8],
    counter: ResponseCounter,
) -> Result<Answer<'a>, ResponseError> {
    let status = header.status;
    if header.raida != Some(sent.to) {
        return Err(ResponseError::WrongRaida);
    }
    if header.echo != sent.header.echo() && !status.is_header_refusal() {
        return Err(ResponseError::WrongEcho);
    }
    if body.len() != header.body_length {
        return Err(ResponseError::WrongLength);
    }
    let expected = sent
        .challenge
        .map(|challenge| challenge.answer(&sent.key))
        .unwrap_or(Challenge::NO_ANSWER);
    let answered = sent.header.encryption.has_hmac() || header.challenge_answer == expected;
    if !answered && (status.is_verdict() || !body.is_empty()) {
        return Err(ResponseError::WrongChallengeAnswer);
    }
    if body.is_empty() {
        return Ok(Answer {
            status,
            payload: &[],
            proven: answered && sent.challenge.is_some(),
        });
    }
    let sealed = body
        .len()
        .checked_sub(TRAILER.len())
        .ok_or(ResponseError::WrongLength)?;
    if !body.ends_with(&TRAILER) {
        return Err(ResponseError::WrongTrailer);
    }
    let sealed = &mut body[..sealed];
    if let Key::Hashed(hashed) = &sent.key {
        let (ciphertext, hmac) = sealed
            .split_last_chunk_mut()
            .ok_or(ResponseError::WrongLength)?;
        if !hashed.verifies(ciphertext, hmac) {
            return Err(ResponseError::WrongHmac);
        }
        sent.key.apply(header.counter, ciphertext);
        return Ok(Answer {
            status,
            payload: ciphertext,
            proven: true,
        });
    }
    sent.key.apply(plain_counter(&sent.header, counter), sealed);
    Ok(Answer {
        status,
        payload: sealed,
        proven: sent.challenge.is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{
        Command, Protection, Request,
        samples::{any_bytes, any_request, protections, request, rules},
    };
    use proptest::prelude::*;

    const COUNTERS: [ResponseCounter; 2] = [ResponseCounter::Restart, ResponseCounter::Continue];

    /// A version request under this protection, whose key is known to both sides.
    fn sent(protection: Protection) -> Sent {
        let request = Request {
            command: Command::Version,
            ..request(protection, Some(b"ignored"))
        };
        request.compose(&mut Vec::new()).unwrap()
    }

    fn sealing<'a>(rules: &'a Rules, sent: &'a Sent) -> Sealing<'a> {
        Sealing {
            rules,
            status: Status::SUCCESS,
            key: &sent.key,
            challenge_answer: sent.challenge.map_or([0; 16], |c| c.answer(&sent.key)),
            execution_micros: 0x0102_0304,
            nonce: *b"a nonce that is fresh!",
        }
    }

    fn respond(sent: &Sent, payload: &[u8], sealing: Sealing<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        let mut response = Response::begin(&mut out, &sent.header);
        response.payload().extend_from_slice(payload);
        response.finish(sealing);
        out
    }

    fn read(
        sent: &Sent,
        response: &[u8],
        counter: ResponseCounter,
    ) -> Result<(Status, Vec<u8>, bool), ResponseError> {
        let encryption = sent.header.encryption;
        let header = ResponseHeader::parse(response, encryption).unwrap();
        let mut body = response[encryption.header_size()..].to_vec();
        let answer = open_response(sent, &header, &mut body, counter)?;
        Ok((answer.status, answer.payload.to_vec(), answer.proven))
    }

    #[test]
    fn a_plain_response_stands_where_the_page_says() {
        let rules = rules();
        let sent = sent(Protection::None);
        let response = respond(&sent, b"answer", sealing(&rules, &sent));
        let mut expected = vec![14, 0, 250, 0, 0, 1, 0x5a, 0xa5, 0, 0, 0, 8, 1, 2, 3, 4];
        expected.extend_from_slice(&sent.challenge.unwrap().bytes());
        expected.extend_from_slice(b"answer>>");
        assert_eq!(response, expected);
    }

    #[test]
    fn a_verified_response_stands_where_the_page_says() {
        let rules = rules();
        let [.., coin_hmac, _] = protections();
        let sent = sent(coin_hmac);
        let response = respond(&sent, b"answer", sealing(&rules, &sent));
        let mut expected = vec![14, 0, 250, 0, 1, 2, 3, 4, 0, 0, 0, 40, 0, 0, 0, 0];
        expected.extend_from_slice(&[4, 0xf8, 0, 0, 0, 0, 0, 0]);
        expected.extend_from_slice(b"a nonce that is fresh!");
        expected.extend_from_slice(&[0x5a, 0xa5]);
        assert_eq!(response[..48], expected);
        assert_eq!(response.len(), 48 + 40);
        assert_eq!(response[86..], TRAILER);
        assert_ne!(&response[48..54], b"answer");
    }

    #[test]
    fn without_a_payload_there_is_no_body() {
        let rules = rules();
        for protection in protections() {
            let sent = sent(protection);
            let response = respond(&sent, &[], sealing(&rules, &sent));
            assert_eq!(response.len(), sent.header.header_size());
            let (status, payload, _) = read(&sent, &response, COUNTERS[0]).unwrap();
            assert_eq!((status, payload), (Status::SUCCESS, vec![]));
        }
    }

    #[test]
    fn restarting_uses_the_requests_key_stream_and_continuing_the_blocks_after_it() {
        let [_, coin_key, ..] = protections();
        let sent = sent(coin_key);
        // Challenge and payload are 23 bytes: two blocks, the second used in part.
        let mut stream = [0; 48];
        sent.key.apply(sent.header.initial_counter(), &mut stream);
        for (response_counter, stream) in COUNTERS.into_iter().zip([&stream[..16], &stream[32..]]) {
            let rules = Rules {
                response_counter,
                ..rules()
            };
            let response = respond(&sent, &[0; 16], sealing(&rules, &sent));
            assert_eq!(&response[32..48], stream);
        }
    }

    #[test]
    fn a_payload_that_was_thrown_away_is_not_sent() {
        let rules = rules();
        let sent = sent(Protection::None);
        let mut out = vec![7];
        let mut response = Response::begin(&mut out, &sent.header);
        response.payload().extend_from_slice(b"half an answer");
        response.clear();
        response.finish(sealing(&rules, &sent));
        assert_eq!(out.len(), 1 + 32);
    }

    #[test]
    fn a_refused_header_is_answered_with_group_0_and_the_echo_bytes_that_are_there() {
        let mut bytes = Vec::new();
        let [plain, .., coin_hmac, _] = protections();
        request(plain, Some(&[])).compose(&mut bytes).unwrap();
        let mut out = Vec::new();
        refuse(&mut out, &bytes, Status::WRONG_RAIDA, &rules(), 5);
        let mut expected = vec![14, 0, 3, 0, 0, 1, 0x5a, 0xa5, 0, 0, 0, 0, 0, 0, 0, 5];
        expected.resize(32, 0);
        assert_eq!(out, expected);

        bytes.clear();
        request(coin_hmac, Some(&[])).compose(&mut bytes).unwrap();
        for (there, echo) in [(32, [0, 0]), (48, [0x5a, 0xa5])] {
            out.clear();
            refuse(
                &mut out,
                &bytes[..there],
                Status::WRONG_COIN_ID,
                &rules(),
                0,
            );
            assert_eq!((out.len(), out[16]), (48, 4));
            assert_eq!(out[46..], echo);
        }

        // Where a header's version is unknown, nothing else in it can be believed.
        bytes[0] = 9;
        out.clear();
        refuse(&mut out, &bytes, Status::UNKNOWN_VERSION, &rules(), 0);
        assert_eq!(out.len(), 32);
    }

    #[test]
    fn an_outcome_under_a_wrong_challenge_answer_is_not_believed_but_a_refusal_is_passed_on() {
        let rules = rules();
        let [plain, coin_key, ..] = protections();
        for protection in [plain, coin_key] {
            let sent = sent(protection);
            let wrong = Sealing {
                challenge_answer: [0; 16],
                ..sealing(&rules, &sent)
            };
            for payload in [&b""[..], b"payload"] {
                assert_eq!(
                    read(&sent, &respond(&sent, payload, wrong), COUNTERS[0]),
                    Err(ResponseError::WrongChallengeAnswer)
                );
            }
            let refusal = Sealing {
                status: Status::WRONG_CHALLENGE,
                ..wrong
            };
            assert_eq!(
                read(&sent, &respond(&sent, &[], refusal), COUNTERS[0]),
                Ok((Status::WRONG_CHALLENGE, vec![], false))
            );
        }
    }

    #[test]
    fn an_answer_of_another_server_or_to_another_request_is_not_believed() {
        let rules = rules();
        for protection in protections() {
            let sent = sent(protection);
            let response = respond(&sent, b"payload", sealing(&rules, &sent));
            let echo = Places::of(sent.header.encryption).echo;
            for (at, error) in [
                (0, ResponseError::WrongRaida),
                (echo, ResponseError::WrongEcho),
            ] {
                let mut response = response.clone();
                response[at] ^= 1;
                assert_eq!(read(&sent, &response, COUNTERS[0]), Err(error));
            }
        }
    }

    #[test]
    fn a_flipped_bit_in_a_verified_response_is_not_believed() {
        let rules = rules();
        for protection in &protections()[3..] {
            let sent = sent(*protection);
            let response = respond(&sent, b"payload", sealing(&rules, &sent));
            for bit in 48 * 8..response.len() * 8 {
                let mut response = response.clone();
                response[bit / 8] ^= 1 << (bit % 8);
                let expected = if bit / 8 < response.len() - 2 {
                    ResponseError::WrongHmac
                } else {
                    ResponseError::WrongTrailer
                };
                assert_eq!(read(&sent, &response, COUNTERS[0]), Err(expected));
            }
        }
    }

    proptest! {
        #[test]
        fn a_client_reads_what_a_node_composed(
            request in any_request(),
            asked in prop::option::of(prop::collection::vec(any::<u8>(), 0..100)),
            answered in prop::collection::vec(any::<u8>(), 0..300),
            earlier in prop::collection::vec(any::<u8>(), 0..40),
            response_counter in prop::sample::select(COUNTERS.to_vec()),
        ) {
            let request = Request { payload: asked.as_deref(), ..request };
            let sent = request.compose(&mut Vec::new()).unwrap();
            let rules = Rules { response_counter, ..rules() };
            let mut out = earlier.clone();
            let mut response = Response::begin(&mut out, &sent.header);
            response.payload().extend_from_slice(&answered);
            response.finish(sealing(&rules, &sent));
            prop_assert_eq!(&out[..earlier.len()], &earlier[..]);
            let bytes = &out[earlier.len()..];
            let header = ResponseHeader::parse(bytes, sent.header.encryption).unwrap();
            prop_assert_eq!(header.group, request.command.group());
            prop_assert_eq!(header.execution_micros, 0x0102_0304);
            let (status, payload, proven) = read(&sent, bytes, response_counter).unwrap();
            prop_assert_eq!((status, &payload), (Status::SUCCESS, &answered));
            let guarded = if sent.header.encryption.has_hmac() {
                !answered.is_empty()
            } else {
                asked.is_some()
            };
            prop_assert_eq!(proven, guarded);
        }

        #[test]
        fn any_response_is_read_without_a_panic(bytes in any_bytes(), which in 0usize..5) {
            let sent = sent(protections()[which]);
            let encryption = sent.header.encryption;
            if let Some(header) = ResponseHeader::parse(&bytes, encryption) {
                let mut body = bytes[encryption.header_size()..].to_vec();
                let header = ResponseHeader {
                    raida: Some(sent.to),
                    echo: sent.header.echo(),
                    body_length: body.len(),
                    ..header
                };
                let _ = open_response(&sent, &header, &mut body, ResponseCounter::Restart);
            }
        }

        #[test]
        fn anything_is_refused_without_a_panic(bytes in any_bytes()) {
            let mut out = Vec::new();
            refuse(&mut out, &bytes, Status::WRONG_RAIDA, &rules(), 0);
            prop_assert!(out.len() == 32 || out.len() == 48);
        }
    }
}
