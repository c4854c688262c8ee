//! The key that executive commands ask for.

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The key that "show stats", the executive commands and the files commands ask for: 16 bytes. A
/// wrong key is refused with status 38 (docs/protocol.md section 5).
///
/// Comparing takes the same time wherever two keys differ, and printing one shows nothing of it.
///
/// ```
/// use raida::protocol::AdminKey;
/// let key = AdminKey::new([7; AdminKey::SIZE]);
/// assert!(key == AdminKey::new([7; 16]));
/// assert_eq!(format!("{key:?}"), "AdminKey(secret)");
/// ```
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AdminKey([u8; 16]);

impl AdminKey {
    /// Bytes an admin key takes.
    pub const SIZE: usize = 16;

    /// Makes a key of these sixteen bytes.
    #[inline]
    pub const fn new(bytes: [u8; 16]) -> AdminKey {
        AdminKey(bytes)
    }

    /// The bytes themselves: for the wire, never for a log or a listing.
    #[inline]
    pub fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for AdminKey {
    #[inline]
    fn eq(&self, other: &AdminKey) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for AdminKey {}

impl std::fmt::Debug for AdminKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminKey(secret)")
    }
}
