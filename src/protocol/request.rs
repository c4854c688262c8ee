//! Composing a request: the client's half of `header` and `body`.

use super::{Command, Encryption, Key, RaidaId, RequestHeader, TRAILER, challenge::Challenge};
use crate::coin::{An, Coin};

/// How a client encrypts a request: the key, and where the server finds it.
#[derive(Clone, Copy, Debug)]
pub enum Protection {
    /// Type 0.
    None,
    /// Type 1, under this coin's authenticity number on the server asked.
    Coin(Coin, An),
    /// Type 2, under this locker's key.
    Locker(An),
    /// Type 4, under this coin's authenticity number on the server asked.
    CoinHmac(Coin, An),
    /// Type 5, under both coins' authenticity numbers on the server asked.
    TwoCoinsHmac((Coin, An), (Coin, An)),
}

impl Protection {
    /// The encryption type.
    pub fn encryption(&self) -> Encryption {
        match self {
            Protection::None => Encryption::None,
            Protection::Coin(..) => Encryption::CoinKey,
            Protection::Locker(_) => Encryption::LockerKey,
            Protection::CoinHmac(..) => Encryption::CoinKeyHmac,
            Protection::TwoCoinsHmac(..) => Encryption::TwoCoinKeyHmac,
        }
    }

    /// The key.
    pub fn key(&self) -> Key {
        match *self {
            Protection::None => Key::None,
            Protection::Coin(_, an) | Protection::Locker(an) => Key::from_an(an),
            Protection::CoinHmac(_, an) => Key::from_hashed_an(an),
            Protection::TwoCoinsHmac((_, first), (_, second)) => {
                Key::from_hashed_ans(first, second)
            }
        }
    }

    fn key_field(&self) -> [u8; 5] {
        match *self {
            Protection::None => [0; 5],
            Protection::Coin(coin, _)
            | Protection::CoinHmac(coin, _)
            | Protection::TwoCoinsHmac((coin, _), _) => coin.to_bytes(),
            Protection::Locker(key) => std::array::from_fn(|i| key.expose()[i]),
        }
    }
}

/// A request as a client has it, before it becomes bytes. The caller gives all random bytes.
/// Printing it shows neither payload nor challenge.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The server.
    pub to: RaidaId,
    /// The coin (6 = CloudCoin).
    pub coin_id: u16,
    /// The command.
    pub command: Command,
    /// How it is encrypted.
    pub protection: Protection,
    /// Two bytes that the response repeats.
    pub echo: [u8; 2],
    /// Random bytes for the challenge (types 0 to 2).
    pub challenge: [u8; 12],
    /// Random bytes for the nonce: types 0 to 2 use the first 6; types 4 and 5 use all, except
    /// those that name the second key coin.
    pub nonce: [u8; 22],
    /// The payload; `None` sends no body at all, which only echo, version and audit accept.
    pub payload: Option<&'a [u8]>,
}

/// The part of a request that is kept to read its response.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The server asked.
    pub to: RaidaId,
    /// The header sent.
    pub header: RequestHeader,
    /// The key it was encrypted with.
    pub key: Key,
    /// The challenge in its body, before encryption; `None` where it has none.
    pub challenge: Option<Challenge>,
}

/// The payload is too long for the header's length field: 65,535 bytes of body for types 4 and 5, 4
/// GiB for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the request is {body_bytes} bytes long, {body_bytes_max} is the most: ask for fewer coins at a time"
)]
pub struct RequestTooLong {
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Number of bytes that the header's length can express.
    pub body_bytes_max: usize,
}

impl Request<'_> {
    /// Appends the request to `out`, encrypted (docs/protocol.md section 3). A body over 65,534
    /// bytes of types 0 to 2 gets the long form of the length.
    pub fn compose(&self, out: &mut Vec<u8>) -> Result<Sent, RequestTooLong> {
        let encryption = self.protection.encryption();
        let body_bytes = self
            .payload
            .map_or(0, |payload| payload.len() + encryption.body_overhead());
        let body_bytes_max = if encryption.has_hmac() {
            u16::MAX as usize
        } else {
            u32::MAX as usize
        };
        if body_bytes > body_bytes_max {
            return Err(RequestTooLong {
                body_bytes,
                body_bytes_max,
            });
        }
        let header = self.header(encryption, body_bytes);
        let key = self.protection.key();
        header.write(self.to, self.coin_id, out);
        let challenge = (self.payload.is_some() && !encryption.has_hmac())
            .then(|| Challenge::new(self.challenge));
        if let Some(payload) = self.payload {
            let start = out.len();
            if let Some(challenge) = challenge {
                out.extend_from_slice(&challenge.bytes());
            }
            out.extend_from_slice(payload);
            key.apply(header.initial_counter(), &mut out[start..]);
            if let Key::Hashed(hashed) = &key {
                let hmac = hashed.hmac(&out[start..]);
                out.extend_from_slice(&hmac);
            }
            out.extend_from_slice(&TRAILER);
        }
        Ok(Sent {
            to: self.to,
            header,
            key,
            challenge,
        })
    }

    fn header(&self, encryption: Encryption, body_length: usize) -> RequestHeader {
        let mut nonce = [0; 24];
        let echo = if encryption.has_hmac() {
            nonce[..22].copy_from_slice(&self.nonce);
            22
        } else {
            nonce[..6].copy_from_slice(&self.nonce[..6]);
            6
        };
        nonce[echo..echo + 2].copy_from_slice(&self.echo);
        if let Protection::TwoCoinsHmac(_, (second, _)) = self.protection {
            nonce[..Coin::SIZE].copy_from_slice(&second.to_bytes());
        }
        let mut header = RequestHeader {
            command: self.command,
            group: self.command.group(),
            encryption,
            body_length,
            key_field: self.protection.key_field(),
            nonce,
        };
        header.mark_long_body();
        header
    }
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("to", &self.to)
            .field("command", &self.command)
            .field("protection", &self.protection)
            .field("payload_bytes", &self.payload.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::samples::{protections, request};

    #[test]
    fn a_verified_request_has_no_long_form() {
        let [.., coin_hmac, two_coins] = protections();
        for protection in [coin_hmac, two_coins] {
            let most = vec![0; 65_535 - 34];
            let mut out = Vec::new();
            assert!(request(protection, Some(&most)).compose(&mut out).is_ok());
            let over = vec![0; most.len() + 1];
            let mut out = Vec::new();
            let refused = request(protection, Some(&over)).compose(&mut out);
            assert_eq!(
                refused.unwrap_err(),
                RequestTooLong {
                    body_bytes: 65_536,
                    body_bytes_max: 65_535
                }
            );
            assert!(out.is_empty());
        }
    }

    #[test]
    fn printing_what_was_sent_shows_neither_key_nor_payload_nor_challenge() {
        let [_, coin_key, ..] = protections();
        let request = request(coin_key, Some(&[81; 3]));
        let sent = request.compose(&mut Vec::new()).unwrap();
        // The sample's key is 81 in every byte, its challenge has "elv" in it.
        for printed in [format!("{request:?}"), format!("{sent:?}")] {
            assert!(printed.contains("secret"), "{printed}");
            assert!(!printed.contains("81, 81"), "{printed}");
            assert!(!printed.contains("101, 108, 118"), "{printed}");
        }
    }
}
