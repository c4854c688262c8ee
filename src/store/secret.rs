use aes::{
    Aes128,
    cipher::{BlockCipherEncrypt, KeyInit},
};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::slot::PageImage;
use crate::coin::{An, COINS_PER_PAGE, PageId};

/// Sixteen random bytes, made with the data folder, from which the ANs of pages never written are
/// derived: so such a page takes no room, and still nobody can guess what it holds.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct NodeSecret([u8; 16]);

impl NodeSecret {
    /// Bytes of a secret.
    pub const SIZE: usize = 16;

    /// Takes the bytes as they are.
    pub fn new(bytes: [u8; Self::SIZE]) -> NodeSecret {
        NodeSecret(bytes)
    }

    /// The bytes themselves, to be kept in the data folder.
    pub fn expose(&self) -> &[u8; Self::SIZE] {
        &self.0
    }

    /// A key derived from the secret for another purpose than pages' ANs; `label` names the
    /// purpose. It is the HMAC-SHA-256 of the label.
    pub fn derive(&self, label: &[u8]) -> [u8; 32] {
        let hmac = Hmac::<Sha256>::new_from_slice(&self.0);
        let mut hmac = hmac.expect("an HMAC takes a key of any length");
        Mac::update(&mut hmac, label);
        hmac.finalize().into_bytes().into()
    }

    /// The page as it is before anything was written to it: all coins free, with ANs that follow
    /// from the secret. An AN is one AES-128 block of (page index, place) under the secret.
    pub fn derive_page(&self, page: PageId) -> Box<PageImage> {
        let cipher = Aes128::new(&self.0.into());
        let mut image = PageImage::blank();
        for place in 0..COINS_PER_PAGE {
            let mut block = [0u8; 16];
            block[..4].copy_from_slice(&(page.index() as u32).to_le_bytes());
            block[4..8].copy_from_slice(&(place as u32).to_le_bytes());
            let mut block = block.into();
            cipher.encrypt_block(&mut block);
            image.ans[place] = An::new(block.into());
        }
        image
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_derived_page_is_free_and_its_ans_follow_from_secret_and_page() {
        let page = |index| PageId::from_index(index).unwrap();
        let one = NodeSecret::new([1; 16]).derive_page(page(5));
        let again = NodeSecret::new([1; 16]).derive_page(page(5));
        let other_page = NodeSecret::new([1; 16]).derive_page(page(6));
        let other_secret = NodeSecret::new([2; 16]).derive_page(page(5));
        assert!(one.ans == again.ans);
        assert!(one.ans[0] != one.ans[1]);
        assert!(one.ans[0] != other_page.ans[0] && one.ans[0] != other_secret.ans[0]);
        assert!(one.mfs.iter().all(|mfs| mfs.is_free()));
    }
}
