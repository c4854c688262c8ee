//! Samples for the tests of this folder: a node's rules, and requests of every kind.

use super::{
    Command, Dialect, Protection, RaidaId, Request, ResponseCounter, Rules,
    response::RESPONSE_NONCE_SIZE,
};
use crate::coin::{An, Coin, Denomination, SerialNumber};
use proptest::prelude::*;

pub(super) fn rules() -> Rules {
    Rules {
        raida: RaidaId::new(14).unwrap(),
        coin_id: 6,
        dialect: Dialect::Spec,
        response_counter: ResponseCounter::Restart,
        max_body_bytes: 200_000,
    }
}

pub(super) fn coin(exponent: i8, sn: u32) -> Coin {
    Coin {
        denomination: Denomination::new(exponent).unwrap(),
        serial_number: SerialNumber::new(sn).unwrap(),
    }
}

/// One of each encryption type.
pub(super) fn protections() -> [Protection; 5] {
    let (first, second) = (An::new([0x51; 16]), An::new([0xa7; 16]));
    [
        Protection::None,
        Protection::Coin(coin(4, 49_495), first),
        Protection::Locker(first),
        Protection::CoinHmac(coin(-8, 0), first),
        Protection::TwoCoinsHmac((coin(6, 1_023_999), first), (coin(0, 7), second)),
    ]
}

pub(super) fn request(protection: Protection, payload: Option<&[u8]>) -> Request<'_> {
    Request {
        to: rules().raida,
        coin_id: 6,
        command: Command::Echo,
        protection,
        echo: [0x5a, 0xa5],
        challenge: *b"twelve bytes",
        nonce: *b"twenty-two bytes of it",
        payload,
    }
}

pub(super) fn any_an() -> impl Strategy<Value = An> {
    any::<[u8; 16]>().prop_map(An::new)
}

pub(super) fn any_coin() -> impl Strategy<Value = Coin> {
    (-8i8..=6, 0..SerialNumber::COUNT).prop_map(|(exponent, sn)| coin(exponent, sn))
}

pub(super) fn any_protection() -> impl Strategy<Value = Protection> {
    let key = || (any_coin(), any_an());
    prop_oneof![
        Just(Protection::None),
        key().prop_map(|(coin, an)| Protection::Coin(coin, an)),
        any_an().prop_map(Protection::Locker),
        key().prop_map(|(coin, an)| Protection::CoinHmac(coin, an)),
        (key(), key()).prop_map(|(first, second)| Protection::TwoCoinsHmac(first, second)),
    ]
}

pub(super) fn any_command() -> impl Strategy<Value = Command> {
    prop::sample::select(Command::all().collect::<Vec<_>>())
}

/// All parts of a request but its payload.
pub(super) fn any_request() -> impl Strategy<Value = Request<'static>> {
    (
        any_command(),
        any_protection(),
        any::<[u8; 2]>(),
        any::<[u8; 12]>(),
        any::<[u8; RESPONSE_NONCE_SIZE]>(),
    )
        .prop_map(|(command, protection, echo, challenge, nonce)| Request {
            to: rules().raida,
            coin_id: 6,
            command,
            protection,
            echo,
            challenge,
            nonce,
            payload: None,
        })
}

/// Bytes similar enough to a request to pass the first checks now and then.
pub(super) fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    let plausible = (
        prop::sample::select(vec![0u8, 1, 2]),
        0u8..2,
        0u8..20,
        prop::sample::select(vec![0u8, 1, 2, 3, 4, 5, 6, 255]),
        prop::collection::vec(any::<u8>(), 0..200),
    )
        .prop_map(|(version, group, code, encryption, mut tail)| {
            let mut bytes = vec![version, 0, 14, 0, group, code, 0, 6];
            bytes.append(&mut tail);
            if let Some(byte) = bytes.get_mut(16) {
                *byte = encryption;
            }
            for at in [17, 22] {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = 0;
                }
            }
            bytes
        });
    prop_oneof![plausible, prop::collection::vec(any::<u8>(), 0..200)]
}
