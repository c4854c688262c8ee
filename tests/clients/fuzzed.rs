//! The targets of the fuzzer, on bytes by chance and on sound ones with some of them changed.

use proptest::prelude::*;

use crate::targets::ALL;

/// Inputs that get past the first look of some target.
fn sound() -> Vec<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");
    let coins = std::fs::read(format!("{folder}coins.csv")).unwrap();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/config/node.toml");
    let config = std::fs::read_to_string(config).unwrap();
    let keys = config.replace("\n#", "\n");
    let secrets: String = (0..25).map(|n| format!("{:032x}\n", n + 7)).collect();
    let frames = std::fs::read_to_string(format!("{folder}recorded_frames.jsonl")).unwrap();
    let frames = frames.lines().take(40).filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let digits = line["request"].as_str()?.to_owned();
        let (pairs, _) = digits.as_bytes().as_chunks::<2>();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        pairs.iter().map(byte).collect::<Option<Vec<u8>>>()
    });
    let mut all: Vec<Vec<u8>> = vec![coins, config.into(), keys.into(), secrets.into()];
    all.extend(frames);
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_target_fails_on_bytes_by_chance(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        for (_, target) in ALL {
            target(&bytes);
        }
    }

    #[test]
    fn no_target_fails_on_sound_bytes_with_some_changed(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        length in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let sound = sound();
        let mut bytes = which.get(&sound).clone();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if is_cut {
            bytes.truncate(length.index(bytes.len()));
        }
        for (_, target) in ALL {
            target(&bytes);
        }
    }
}
