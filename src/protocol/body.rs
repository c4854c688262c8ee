//! A request's body: trailer, then challenge or HMAC, then payload.

use super::{
    Encryption, Key, RequestHeader, Rules, Status, TRAILER,
    challenge::Challenge,
    cipher::{HMAC_SIZE, HashedKey},
};

/// A request's body, read. Payloads hold authenticity numbers: printing one shows its size only.
pub struct Opened<'a> {
    /// The command's payload, decrypted; empty where the body's length is 0.
    pub payload: &'a [u8],
    /// The response's answer to the challenge; zeros where there is none.
    pub challenge_answer: [u8; 16],
}

/// Why a body is not read, and the answer to that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}")]
#[repr(align(8))] // moved in whole words
pub struct BodyRefusal {
    /// The status to answer with.
    pub status: Status,
    /// The challenge answer to send: the challenge as read, whether it is right or not; zeros where
    /// it was not read.
    pub challenge_answer: [u8; 16],
}

/// Bytes of a body of types 0 to 2 with no payload: challenge and trailer.
pub const EMPTY_BODY_SIZE: usize = Challenge::SIZE + TRAILER.len();
/// Bytes of a body of types 4 and 5 with no payload: HMAC and trailer.
pub const EMPTY_HMAC_BODY_SIZE: usize = HMAC_SIZE + TRAILER.len();

impl Encryption {
    /// Bytes of a request's body that are not payload: 18 for types 0 to 2, 34 for types 4 and 5.
    #[inline]
    pub fn body_overhead(self) -> usize {
        if self.has_hmac() {
            EMPTY_HMAC_BODY_SIZE
        } else {
            EMPTY_BODY_SIZE
        }
    }
}

/// The checks of a body that need no key: no body where one is needed (36), a length other than the
/// header's or over the limit (16), too short (16), no trailer (33). [`open`] makes them too. A
/// node makes them first, so that a wrong body costs no search for a key, and gets the same status
/// whether the key exists or not.
#[inline]
pub fn check_shape(header: &RequestHeader, body: &[u8], rules: &Rules) -> Result<(), BodyRefusal> {
    if header.body_length == 0 && body.is_empty() {
        return if may_be_bare(header) {
            Ok(())
        } else {
            Err(unread(Status::EMPTY_BODY))
        };
    }
    let shortest = if header.encryption.has_hmac() {
        EMPTY_HMAC_BODY_SIZE
    } else {
        TRAILER.len()
    };
    if body.len() != header.body_length
        || body.len() > rules.body_bytes_max()
        || body.len() < shortest
    {
        return Err(unread(Status::INVALID_LENGTH));
    }
    if !body.ends_with(&TRAILER) {
        return Err(unread(Status::WRONG_TRAILER));
    }
    // A challenge that is cut off cannot be decrypted, whatever the key.
    if !header.encryption.has_hmac() && body.len() < EMPTY_BODY_SIZE {
        return Err(unread(Status::INVALID_LENGTH));
    }
    Ok(())
}

/// Reads a request's body, decrypting it where it lies. `key` is the key that
/// [`RequestHeader::key_source`] names. A key of the wrong kind is refused with
/// [`RequestHeader::missing_key_status`]; so is [`Key::None`], for a key that was not found. That
/// holds also where there is no body to decrypt, since the response could not be encrypted either.
///
/// Checks run in the order of docs/protocol.md section 3. A ciphertext whose HMAC is wrong is left
/// as it is.
#[inline(always)]
pub fn open<'a>(
    header: &RequestHeader,
    body: &'a mut [u8],
    key: &Key,
    rules: &Rules,
) -> Result<Opened<'a>, BodyRefusal> {
    check_shape(header, body, rules)?;
    if !key.fits(header.encryption) {
        return Err(unread(header.missing_key_status()));
    }
    let Some(sealed) = body.len().checked_sub(TRAILER.len()) else {
        return Ok(Opened {
            payload: &[],
            challenge_answer: Challenge::NO_ANSWER,
        });
    };
    let sealed = &mut body[..sealed];
    match key {
        Key::Hashed(hashed) => open_verified(header, sealed, key, hashed),
        Key::None | Key::Plain(_) => open_challenged(header, sealed, key),
    }
}

/// Whether the challenge is right under this key: for type 2, where the caller has several lockers
/// to choose from. Leaves the body as it is. `false` for types that have no challenge.
#[inline]
pub fn try_challenge(header: &RequestHeader, body: &[u8], key: &Key) -> bool {
    let Some(&front) = body.first_chunk::<{ Challenge::SIZE }>() else {
        return false;
    };
    if header.encryption.has_hmac() || !key.fits(header.encryption) {
        return false;
    }
    let mut bytes = front;
    key.apply(header.initial_counter(), &mut bytes);
    Challenge::read(bytes).is_right()
}

impl std::fmt::Debug for Opened<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opened({} bytes)", self.payload.len())
    }
}

/// Whether a request may come without a body.
///
/// Version and audit must have a body under types 1 and 2, which docs/protocol.md section 3 does
/// not say. Nothing in such a request shows that the client knows the key. Anyone can ask for the
/// plain text of the answer under type 0, so the answer would show the client the key stream of a
/// nonce of its own choosing. A second request with that nonce and a made-up body is answered with
/// the challenge as decrypted XOR the key. So two datagrams would tell a stranger the authenticity
/// number of any coin.
#[inline]
fn may_be_bare(header: &RequestHeader) -> bool {
    let answer_shows_key_stream = matches!(
        header.encryption,
        Encryption::CoinKey | Encryption::LockerKey
    ) && !header.command.answers_nothing();
    header.command.takes_no_body() && !answer_shows_key_stream
}

/// Types 0 to 2: decrypts; then the challenge shows whether it was the right key.
#[inline(always)]
fn open_challenged<'a>(
    header: &RequestHeader,
    sealed: &'a mut [u8],
    key: &Key,
) -> Result<Opened<'a>, BodyRefusal> {
    key.apply(header.initial_counter(), sealed);
    let Some((&challenge, payload)) = sealed.split_first_chunk() else {
        return Err(unread(Status::INVALID_LENGTH));
    };
    let challenge = Challenge::read(challenge);
    let challenge_answer = challenge.answer(key);
    if challenge.is_right() {
        Ok(Opened {
            payload,
            challenge_answer,
        })
    } else {
        Err(BodyRefusal {
            status: Status::WRONG_CHALLENGE,
            challenge_answer,
        })
    }
}

/// Types 4 and 5: verifies, then decrypts.
#[inline]
fn open_verified<'a>(
    header: &RequestHeader,
    sealed: &'a mut [u8],
    key: &Key,
    hashed: &HashedKey,
) -> Result<Opened<'a>, BodyRefusal> {
    let Some((ciphertext, hmac)) = sealed.split_last_chunk_mut() else {
        return Err(unread(Status::INVALID_LENGTH));
    };
    if !hashed.verifies(ciphertext, hmac) {
        return Err(unread(Status::WRONG_HMAC));
    }
    key.apply(header.initial_counter(), ciphertext);
    Ok(Opened {
        payload: ciphertext,
        challenge_answer: Challenge::NO_ANSWER,
    })
}

#[inline]
fn unread(status: Status) -> BodyRefusal {
    BodyRefusal {
        status,
        challenge_answer: Challenge::NO_ANSWER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coin::An;
    use crate::protocol::{
        Command, Frame, Protection, Request, Sent, frame,
        samples::{any_bytes, any_request, protections, request, rules},
    };
    use proptest::prelude::*;

    /// A detect request's header as sent, and its body.
    fn composed(protection: Protection, payload: &[u8]) -> (Sent, Vec<u8>) {
        let mut out = Vec::new();
        let request = Request {
            command: Command::Detect,
            ..request(protection, Some(payload))
        };
        let sent = request.compose(&mut out).unwrap();
        let body = out.split_off(sent.header.header_size());
        (sent, body)
    }

    /// The status for a body of this length and content, with a header that states just that
    /// length.
    fn refusal(sent: &Sent, body: &[u8]) -> Option<Status> {
        let header = RequestHeader {
            body_length: body.len(),
            ..sent.header
        };
        open(&header, &mut body.to_vec(), &sent.key, &rules())
            .err()
            .map(|refusal| refusal.status)
    }

    #[test]
    fn only_echo_version_and_audit_come_without_a_body_and_only_echo_under_types_1_and_2() {
        for protection in protections() {
            for command in Command::all() {
                let mut out = Vec::new();
                let sent = Request {
                    command,
                    ..request(protection, None)
                }
                .compose(&mut out)
                .unwrap();
                let opened = open(&sent.header, &mut [], &sent.key, &rules());
                let masked = [1, 2].contains(&protection.encryption().type_number());
                if command == Command::Echo || (command.takes_no_body() && !masked) {
                    let opened = opened.unwrap();
                    assert_eq!(
                        (opened.payload, opened.challenge_answer),
                        (&[][..], [0; 16])
                    );
                } else {
                    assert_eq!(opened.unwrap_err().status, Status::EMPTY_BODY);
                }
            }
        }
    }

    #[test]
    fn a_plain_body_is_checked_for_length_end_length_and_challenge() {
        let [plain, coin_key, locker_key, ..] = protections();
        for protection in [plain, coin_key, locker_key] {
            let (sent, body) = composed(protection, b"payload");
            assert_eq!(refusal(&sent, b">"), Some(Status::INVALID_LENGTH));
            assert_eq!(refusal(&sent, b"ab"), Some(Status::WRONG_TRAILER));
            assert_eq!(refusal(&sent, b">>"), Some(Status::INVALID_LENGTH));
            assert_eq!(
                refusal(&sent, b"fifteen bytes..>>"),
                Some(Status::INVALID_LENGTH)
            );
            assert_eq!(
                refusal(&sent, b"sixteen bytes...>>"),
                Some(Status::WRONG_CHALLENGE)
            );
            assert_eq!(refusal(&sent, &body), None);
        }
    }

    #[test]
    fn a_verified_body_is_checked_for_length_end_and_hmac() {
        for protection in &protections()[3..] {
            let (sent, body) = composed(*protection, b"payload");
            assert_eq!(refusal(&sent, &[b'>'; 33]), Some(Status::INVALID_LENGTH));
            assert_eq!(refusal(&sent, &[b'<'; 34]), Some(Status::WRONG_TRAILER));
            assert_eq!(refusal(&sent, &[b'>'; 34]), Some(Status::WRONG_HMAC));
            assert_eq!(refusal(&sent, &body), None);
        }
    }

    #[test]
    fn a_body_of_another_length_than_the_header_says_is_refused() {
        for protection in protections() {
            let (sent, mut body) = composed(protection, b"payload>>>>");
            let cut = body.len() - 1;
            let refusal = open(&sent.header, &mut body[..cut], &sent.key, &rules()).unwrap_err();
            assert_eq!(refusal.status, Status::INVALID_LENGTH);
            let refusal = open(&sent.header, &mut [], &sent.key, &rules()).unwrap_err();
            assert_eq!(refusal.status, Status::INVALID_LENGTH);
        }
    }

    #[test]
    fn a_key_that_is_missing_or_of_another_kind_is_refused_whatever_the_body() {
        for protection in &protections()[1..] {
            let (sent, mut body) = composed(*protection, b"payload");
            let refusal = open(&sent.header, &mut body, &Key::None, &rules()).unwrap_err();
            assert_eq!(refusal.status, sent.header.missing_key_status());
            let bare = request(*protection, None).compose(&mut Vec::new()).unwrap();
            let refusal = open(&bare.header, &mut [], &Key::None, &rules()).unwrap_err();
            assert_eq!(refusal.status, bare.header.missing_key_status());
        }
    }

    #[test]
    fn a_wrong_key_is_answered_with_what_it_made_of_the_challenge() {
        let [_, coin_key, ..] = protections();
        let (sent, mut body) = composed(coin_key, b"payload");
        let wrong = Key::from_an(An::new([9; 16]));
        let mut challenge: [u8; 16] = std::array::from_fn(|i| body[i]);
        wrong.apply(sent.header.initial_counter(), &mut challenge);
        assert_eq!(
            open(&sent.header, &mut body, &wrong, &rules()).unwrap_err(),
            BodyRefusal {
                status: Status::WRONG_CHALLENGE,
                challenge_answer: challenge.map(|byte| byte ^ 9),
            }
        );
    }

    #[test]
    fn the_right_locker_is_found_among_several_without_touching_the_body() {
        let [_, _, locker_key, coin_hmac, _] = protections();
        let (sent, body) = composed(locker_key, b"payload");
        let before = body.clone();
        assert!(!try_challenge(
            &sent.header,
            &body,
            &Key::from_an(An::new([9; 16]))
        ));
        assert!(try_challenge(&sent.header, &body, &sent.key));
        assert!(!try_challenge(&sent.header, &body[..15], &sent.key));
        assert_eq!(body, before);
        let (verified, body) = composed(coin_hmac, b"payload");
        assert!(!try_challenge(&verified.header, &body, &verified.key));
    }

    proptest! {
        #[test]
        fn a_request_opens_to_what_was_composed(
            request in any_request(),
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut out = vec![0xee; 3];
            let request = Request { payload: Some(&payload), ..request };
            let sent = request.compose(&mut out).unwrap();
            let mut bytes = out.split_off(3);
            let Frame::Whole { header, length } = frame(&bytes, &rules()) else {
                panic!("a composed request is whole");
            };
            prop_assert_eq!((header, length), (sent.header, bytes.len()));
            prop_assert_eq!(header.command, request.command);
            prop_assert_eq!(header.echo(), request.echo);
            let opened = open(
                &header,
                &mut bytes[header.header_size()..],
                &request.protection.key(),
                &rules(),
            )
            .unwrap();
            prop_assert_eq!(opened.payload, &payload[..]);
            let answer = sent.challenge.map_or([0; 16], |challenge| challenge.answer(&sent.key));
            prop_assert_eq!(opened.challenge_answer, answer);
        }

        #[test]
        fn a_flipped_bit_in_a_verified_body_is_refused(
            payload in prop::collection::vec(any::<u8>(), 0..50),
            which in any::<prop::sample::Index>(),
            two_coins in any::<bool>(),
        ) {
            let (sent, mut body) = composed(protections()[3 + usize::from(two_coins)], &payload);
            let bit = which.index(body.len() * 8);
            body[bit / 8] ^= 1 << (bit % 8);
            let expected = if bit / 8 < body.len() - 2 {
                Status::WRONG_HMAC
            } else {
                Status::WRONG_TRAILER
            };
            prop_assert_eq!(refusal(&sent, &body), Some(expected));
        }

        #[test]
        fn any_bytes_are_opened_without_a_panic(mut bytes in any_bytes(), key in 0usize..5) {
            let key = protections()[key].key();
            if let Frame::Whole { header, length } = frame(&bytes, &rules()) {
                let body = &mut bytes[header.header_size()..length];
                let tried = try_challenge(&header, body, &key);
                let status = open(&header, body, &key, &rules()).err().map(|r| r.status);
                prop_assert!(!tried || status != Some(Status::WRONG_CHALLENGE));
            }
        }
    }
}
