//! Frames, bodies and responses against a recorded conversation with an existing server:
//! `tests/data/recorded_frames.jsonl` holds the steps whose outcome needs no coins, and those that
//! are encrypted under the keys below. The server was RAIDA 14 for coin id 6. No recorded response
//! is both encrypted and has a payload, so the recording does not tell where its key stream begins.

use raida::coin::{An, Coin};
use raida::protocol::{
    Command, Datagram, Dialect, Frame, Key, KeySource, PassFail, RaidaId, RequestHeader, Response,
    ResponseCounter, Rules, Sealing, Status, authentication::Detect, datagram, frame, open,
    pass_fail::Bitmap, refuse, try_challenge,
};

struct Step {
    name: String,
    transport: String,
    request: Vec<u8>,
    /// As recorded: hex digits, `?` where they are not compared.
    response: String,
}

fn rules() -> Rules {
    Rules {
        raida: RaidaId::new(14).unwrap(),
        coin_id: 6,
        dialect: Dialect::Raidax,
        response_counter: ResponseCounter::Continue,
        max_body_bytes: 65_536,
    }
}

/// Coin 4.49495, of `coins.csv`: the key of every recorded request of type 1.
fn key_coin() -> (Coin, An) {
    let coin = Coin::from_bytes(&[4, 0, 0, 0xc1, 0x57]).unwrap();
    let an = 0xa41d_c47e_a70e_09d1_f088_e571_375a_475b_u128;
    (coin, An::new(an.to_be_bytes()))
}

/// The locker that an earlier step stored coins in: the key of the recorded request of type 2.
fn locker_key() -> An {
    An::new(0x4149_00d5_309d_f034_3e04_7ee2_ffff_ffff_u128.to_be_bytes())
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn steps() -> Vec<Step> {
    include_str!("../data/recorded_frames.jsonl")
        .lines()
        .map(|line| {
            let step: serde_json::Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| step[field].as_str().unwrap().to_owned();
            Step {
                name: text("name"),
                transport: text("transport"),
                request: unhex(&text("request")),
                response: text("response"),
            }
        })
        .collect()
}

fn step(name: &str) -> Step {
    steps()
        .into_iter()
        .find(|step| step.name == name)
        .unwrap_or_else(|| panic!("the recording has a step {name:?}"))
}

fn assert_as_recorded(step: &Step, response: &[u8]) {
    let digits: String = response.iter().map(|byte| format!("{byte:02x}")).collect();
    let same = digits.len() == step.response.len()
        && digits
            .chars()
            .zip(step.response.chars())
            .all(|(got, recorded)| recorded == '?' || got == recorded);
    assert!(
        same,
        "{}\n  want {}\n  got  {digits}",
        step.name, step.response
    );
}

/// A node that holds nothing but the two keys: it refuses as the protocol says, and otherwise
/// answers with the status and payload that were recorded, so that what is compared is everything
/// else.
fn answer(step: &Step) -> Vec<u8> {
    let rules = rules();
    let mut out = Vec::new();
    let mut bytes = step.request.clone();
    let (header, length) = if step.transport == "udp" {
        match datagram(&bytes, &rules) {
            Datagram::Whole { header, length } => (header, length),
            Datagram::Cut { header } => (header, bytes.len()),
            Datagram::Refused { status } => {
                refuse(&mut out, &bytes, status, &rules, 1);
                return out;
            }
            Datagram::Silence => return out,
        }
    } else {
        match frame(&bytes, &rules) {
            Frame::Whole { header, length } => (header, length),
            Frame::Refused { status, length } => {
                assert_eq!(length.is_none(), status == Status::UNKNOWN_VERSION);
                refuse(&mut out, &bytes, status, &rules, 1);
                return out;
            }
            Frame::Incomplete { .. } => panic!("{} is whole", step.name),
        }
    };
    let body = &mut bytes[header.header_size()..length];
    let key = key_of(&header, body);
    let mut response = Response::begin(&mut out, &header);
    let (status, challenge_answer) = match open(&header, body, &key, &rules) {
        Ok(opened) => {
            if header.command == Command::Detect
                && let Err(status) = Detect::parse(opened.payload)
            {
                (status, opened.challenge_answer)
            } else {
                let recorded = unhex(&step.response.replace('?', "0"));
                if let Some(payload) = recorded[32..].strip_suffix(b">>") {
                    response.payload().extend_from_slice(payload);
                }
                (Status::new(recorded[2]), opened.challenge_answer)
            }
        }
        Err(refusal) => (refusal.status, refusal.challenge_answer),
    };
    response.finish(Sealing {
        rules: &rules,
        status,
        key: &key,
        challenge_answer,
        execution_micros: 1,
        nonce: [0; 22],
    });
    out
}

fn key_of(header: &RequestHeader, body: &[u8]) -> Key {
    match header.key_source() {
        KeySource::None => Key::None,
        KeySource::Coin(coin) => {
            let (key_coin, an) = key_coin();
            assert_eq!(coin, Some(key_coin));
            Key::from_an(an)
        }
        KeySource::Locker(front) => {
            let key = Key::from_an(locker_key());
            if locker_key().expose()[..5] == front && try_challenge(header, body, &key) {
                key
            } else {
                Key::None
            }
        }
        KeySource::TwoCoins(..) => panic!("the recording has no request of type 5"),
    }
}

#[test]
fn every_recorded_request_is_answered_as_recorded() {
    let steps = steps();
    assert_eq!(steps.len(), 45);
    for step in steps {
        assert_as_recorded(&step, &answer(&step));
    }
}

#[test]
fn a_recorded_bitmap_comes_out_again() {
    // "detect 2, some right": the first coin's number is right, the second's is not.
    let step = step("detect 2, some right");
    let mut payload = Vec::new();
    let mut passed = PassFail::begin(&mut payload, 2);
    passed.pass(0);
    assert_eq!(passed.finish(Bitmap::IfMixed), Status::MIXED);
    assert!(step.response.ends_with("013e3e"));
    assert_eq!(payload, [1]);
}

#[test]
fn a_recorded_encrypted_payload_holds_the_coins_of_the_servers_state() {
    let step = step("detect under a coin's key");
    let Datagram::Whole { header, .. } = datagram(&step.request, &rules()) else {
        panic!("a recorded datagram is whole");
    };
    let mut body = step.request[32..].to_vec();
    let key = Key::from_an(key_coin().1);
    let opened = open(&header, &mut body, &key, &rules()).unwrap();
    let detect = Detect::parse(opened.payload).unwrap();
    // As in `coins.csv`: the recorded answer is "all pass".
    let held = [
        ("-5.172652", 0x4fd2_db5f_ebe4_922c_d147_9d90_5e0e_0422_u128),
        ("1.593430", 0x9324_39fd_99a9_f1a7_d0c3_c1ef_8f93_421e),
        ("3.893098", 0xc7c4_4268_ee25_2da4_14a6_b548_df2f_6289),
    ];
    assert_eq!(detect.len(), held.len());
    for ((coin, an), (held_coin, held_an)) in detect.records().zip(held) {
        assert_eq!(coin.expect("a coin that exists").to_string(), held_coin);
        assert_eq!(an, An::new(held_an.to_be_bytes()));
    }
}
