use crate::hex;
use std::fmt;

use serde_json::json;

use crate::protocol::RaidaId;

/// A purchase, with what settling it needs. It has no key in it: its contents let nobody take
/// coins.
///
/// Printing it leaves out what its buyer said, which with some currencies is worth money.
#[derive(Clone, PartialEq, Eq)]
pub struct Purchase {
    /// The node that is asked to hand the coins over. A buyer asks 25, each by itself.
    pub raida: RaidaId,
    /// The currency of the payment: `cloudcoin`, `bitcoin` or `monero`.
    pub currency: &'static str,
    /// What the coins are worth, in their smallest unit (0.00000001).
    pub value: u64,
    /// The price, in the unit that buyer and seller mean: the protocol names none.
    pub price: u32,
    /// Where the seller wants to be paid, as the seller wrote it; up to 120 bytes.
    pub seller: Vec<u8>,
    /// Names the payment, as the buyer says.
    pub transaction_id: [u8; 32],
    /// The buyer's own name for the purchase.
    pub receipt_id: [u8; 16],
    /// What the buyer wants to say; up to 254 bytes of anything.
    pub memo: Vec<u8>,
    /// The locker's public id.
    pub locker: [u8; 16],
}

impl Purchase {
    /// One object of JSON on one line, and the line's end. Bytes are there in hexadecimal; the
    /// address and the memo also as text, or as null where they are not UTF-8.
    pub fn line(&self) -> String {
        let object = json!({
            "raida": self.raida.get(),
            "currency": self.currency,
            "value": self.value,
            "price": self.price,
            "seller": text(&self.seller),
            "seller_hex": hex::write(&self.seller),
            "transaction_id": hex::write(&self.transaction_id),
            "receipt_id": hex::write(&self.receipt_id),
            "memo": text(&self.memo),
            "memo_hex": hex::write(&self.memo),
            "locker": hex::write(&self.locker),
        });
        object.to_string() + "\n"
    }

    /// The locker's public id, as reports and logs have it.
    pub fn locker(&self) -> String {
        hex::write(&self.locker)
    }
}

impl fmt::Debug for Purchase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Purchase")
            .field("raida", &self.raida)
            .field("currency", &self.currency)
            .field("value", &self.value)
            .field("price", &self.price)
            .field("locker", &self.locker())
            .finish_non_exhaustive()
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purchase() -> Purchase {
        Purchase {
            raida: RaidaId::new(14).unwrap(),
            currency: "bitcoin",
            value: u64::MAX,
            price: 70_000,
            seller: b"bc1qexample".to_vec(),
            transaction_id: [0xab; 32],
            receipt_id: [0x01; 16],
            memo: "für \"dich\"\n".into(),
            locker: [0xee; 16],
        }
    }

    #[test]
    fn a_purchase_is_one_line_of_json() {
        let line = purchase().line();
        assert_eq!(line.find('\n'), Some(line.len() - 1));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        let expected = json!({
            "raida": 14,
            "currency": "bitcoin",
            "value": u64::MAX,
            "price": 70_000,
            "seller": "bc1qexample",
            "seller_hex": "626331716578616d706c65",
            "transaction_id": "ab".repeat(32),
            "receipt_id": "01".repeat(16),
            "memo": "für \"dich\"\n",
            "memo_hex": "66c3bc72202264696368220a",
            "locker": "ee".repeat(16),
        });
        assert_eq!(read, expected);
    }

    #[test]
    fn bytes_that_are_no_text_are_given_in_hexadecimal_alone() {
        let line = Purchase {
            seller: vec![0xff; 16],
            memo: vec![0xc3, 0x28],
            ..purchase()
        }
        .line();
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&read["seller"], &read["memo"]),
            (&json!(null), &json!(null))
        );
        assert_eq!(read["memo_hex"], "c328");
    }

    #[test]
    fn printing_shows_nothing_that_the_buyer_said() {
        let shown = format!("{:?}", purchase());
        for secret in ["ab".repeat(4), "01".repeat(4), "dich".to_owned()] {
            assert!(!shown.contains(&secret), "{shown}");
        }
    }
}
