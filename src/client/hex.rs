/// The bytes that hexadecimal digits stand for, two a byte; `None` where there are more or fewer, or
/// something else stands among them.
///
/// ```
/// assert_eq!(raida::client::from_hex("0aFF"), Some([0x0a, 0xff]));
/// assert_eq!(raida::client::from_hex::<2>("+aff"), None);
/// ```
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn digit(letter: u8) -> Option<u8> {
    let value = char::from(letter).to_digit(16)?;
    Some(value as u8)
}
