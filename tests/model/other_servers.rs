//! The other servers, which the model plays: what each shares with the node, and the tickets that
//! it makes for the node and reads from it, byte by byte as docs/protocol.md section 6 has them.

use aes::{
    Aes128,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use raida::coin::Coin;

use crate::real_node::RAIDA;

/// Servers there are.
pub const SERVERS: u8 = 25;
/// The one that has no secret in common with the node.
pub const STRANGER: u8 = 20;

/// Half of an AN.
pub type Part = [u8; 8];
/// An encryption ticket.
pub type Ticket = [u8; 16];

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voucher {
    pub part: Part,
    pub coin: Coin,
    /// Minutes since 1970.
    pub minute: u64,
}

/// Whether a server shares a secret with the node; any number.
pub fn shares_a_secret(server: u8) -> bool {
    server < SERVERS && server != RAIDA.get() && server != STRANGER
}

fn secret(server: u8) -> [u8; 16] {
    match shares_a_secret(server) {
        true => std::array::from_fn(|i| server.wrapping_mul(17) ^ i as u8 ^ 0x5a),
        false => [0; 16],
    }
}

/// The node's file of secrets.
pub fn key_file() -> String {
    let line = |server| secret(server).map(|byte| format!("{byte:02x}")).concat() + "\n";
    (0..SERVERS).map(line).collect()
}

/// A server makes a ticket for the node.
pub fn seal(helper: u8, voucher: &Voucher) -> Ticket {
    let mut block = block(voucher).into();
    cipher(helper).encrypt_block(&mut block);
    block.into()
}

/// Whether a server reads this from a ticket of the node's.
pub fn reads(server: u8, ticket: &[u8], voucher: &Voucher) -> bool {
    let Ok(ticket) = Ticket::try_from(ticket) else {
        return false;
    };
    let mut read = ticket.into();
    cipher(server).decrypt_block(&mut read);
    Ticket::from(read) == block(voucher)
}

fn cipher(server: u8) -> Aes128 {
    Aes128::new(&secret(server).into())
}

fn block(voucher: &Voucher) -> [u8; 16] {
    let mut block = [0xff; 16];
    block[..8].copy_from_slice(&voucher.part);
    block[8..13].copy_from_slice(&voucher.coin.to_bytes());
    block[13..15].copy_from_slice(&(voucher.minute as u16).to_be_bytes());
    block
}
