//! A request's body: trailer, then challenge or HMAC, then payload.

use super::{
    Encryption, Key, RequestHeader, Rules, Status, TRAILER,
    challenge::Challenge,
    cipher::{HMAC_SIZE, HashedKey},
};

/// A request's body, read.
#[derive(Debug)]
pub struct Opened<'a> {
    /// What the command is given, decrypted; empty where the body's length is 0.
    pub payload: &'a [u8],
    /// What the response answers the challenge with; zeros where there is none.
    pub challenge_answer: [u8; 16],
}

/// Why a body is not read, and what to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{status}")]
pub struct BodyRefusal {
    /// The status to answer with.
    pub status: Status,
    /// The challenge answer to send: the challenge as it was read, right or not, zeros where it was
    /// not read.
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

/// The checks of a body that need no key: no body where the command needs one (36), a length other
/// than the header's or over the limit (16), too short (16), no trailer (33). [`open`] makes them
/// too; a node makes them first, so that a body which is wrong anyway costs no search for a key, and
/// gets the same status whether the key exists or not.
#[inline]
pub fn check_shape(header: &RequestHeader, body: &[u8], rules: &Rules) -> Result<(), BodyRefusal> {
    if header.body_length == 0 && body.is_empty() {
        return if header.command.takes_no_body() {
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

/// Reads a request's body, decrypting it where it lies. `key` is the one that
/// [`RequestHeader::key_source`] names; a key of the wrong kind, as [`Key::None`] for one that was
/// not found, is refused with [`RequestHeader::missing_key_status`], also where there is no body to
/// decrypt, since the response could not be encrypted either.
///
/// Checks run in the order of PROTOCOL.md section 3. A ciphertext whose HMAC is wrong is left as it
/// is.
#[inline]
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

/// Whether the challenge comes out right under this key: for type 2, where the caller has several
/// lockers to choose from. Leaves the body as it is. `false` for types that have no challenge.
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

/// Types 0 to 2: decrypts, then the challenge tells whether it was the right key.
#[inline]
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
