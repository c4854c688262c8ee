use serde_json::{Value, json};

use crate::coin::Denomination;
use crate::coin::Worth;

/// Coins in circulation by denomination, and what they are worth.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals(pub [u32; Denomination::COUNT]);

impl Totals {
    /// How many coins.
    pub fn coins(&self) -> u64 {
        self.0.iter().map(|&coins| u64::from(coins)).sum()
    }

    /// What they are worth.
    pub fn worth(&self) -> Worth {
        Worth(self.rows().map(|(_, _, worth)| worth.0).sum())
    }

    /// `5 coins worth 12.5`.
    pub fn phrase(&self) -> String {
        let plural = if self.coins() == 1 { "" } else { "s" };
        format!("{} coin{plural} worth {}", self.coins(), self.worth())
    }

    /// A line a denomination, and one for all.
    pub fn table(&self) -> String {
        let mut text = String::from("denomination      coins                     worth\n");
        for (denomination, coins, worth) in self.rows() {
            text += &format!("{denomination:>12} {coins:>10} {worth:>25}\n");
        }
        text += &format!("{:>12} {:>10} {:>25}\n", "all", self.coins(), self.worth());
        text
    }

    /// The same for a program: `denominations`, `coins` and `worth`.
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows()
            .map(|(denomination, coins, worth)| {
                json!({
                    "denomination": denomination.exponent(),
                    "coins": coins,
                    "worth": worth.to_string(),
                })
            })
            .collect();
        let worth = self.worth().to_string();
        json!({ "denominations": rows, "coins": self.coins(), "worth": worth })
    }

    fn rows(&self) -> impl Iterator<Item = (Denomination, u32, Worth)> {
        Denomination::all()
            .zip(self.0)
            .map(|(denomination, coins)| {
                let worth = u128::from(coins) * u128::from(denomination.worth_units());
                (denomination, coins, Worth(worth))
            })
    }
}
