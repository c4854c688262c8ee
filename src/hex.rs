//! Bytes as hexadecimal digits, two a byte, written in lower case and read in either; in constant
//! time, since secrets are written so.

/// The bytes that digits stand for; `None` where there are more or fewer, or something else stands
/// among them.
///
/// ```
/// assert_eq!(raida::hex::read("0aFF"), Some([0x0a, 0xff]));
/// assert_eq!(raida::hex::read::<2>("+aff"), None);
/// ```
pub fn read<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let read = base16ct::mixed::decode(text, &mut bytes).ok()?;
    (read.len() == N).then_some(bytes)
}

/// The digits of some bytes.
pub fn write(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}
