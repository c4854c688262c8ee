use std::path::PathBuf;

use super::CliError;
use super::node::{AdminKeyArgs, NodeArgs};
use super::output::Answer;
use crate::coin::Denomination;

/// Create coins and write them to a CSV.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida mint --data raida-data --count 5 --denomination 1 --out coins.csv
  raida mint --admin-key-file admin.key --count 1000 --denomination 0 -1 --out coins.csv")]
pub struct MintCommand {
    #[command(flatten)]
    admin: AdminKeyArgs,
    /// How many coins of each denomination
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// What each is worth, as a power of ten: -8 to 6
    #[arg(long, value_name = "DN", required = true, num_args = 1.., allow_negative_numbers = true, value_parser = denomination)]
    denomination: Vec<Denomination>,
    /// CSV to write; must not exist
    #[arg(long, value_name = "FILE.csv")]
    out: PathBuf,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl MintCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The admin key cannot be read, the CSV cannot be written; the node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        Err(CliError::NotWired("raida mint"))
    }
}

fn denomination(text: &str) -> Result<Denomination, String> {
    text.parse()
        .ok()
        .and_then(Denomination::new)
        .ok_or_else(|| "permitted is a whole number from -8 to 6".to_owned())
}
