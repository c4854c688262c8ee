use std::path::Path;

use serde_json::json;

use super::CliError;
use super::coins::json_of;
use super::output::{Answer, print, print_json, waiting};
use crate::client::heal::look;
use crate::client::wallet::{Access, CoinFile, Filed, Folder, Grade, Mark, Wallet};
use crate::client::{PerRaida, Raidas};
use crate::coin::{An, Coin};
use crate::protocol::{Protection, RaidaId};
use crate::shown::Shown;

/// Maximum number of coins that are shown on a line each.
const LINES_MAX: usize = 25;
const LEGEND: &str = "a letter a server, RAIDA 0 first: p passes, f fails, n no answer, e an answer of no use, u not asked\n";

/// Asks all servers at the same time about the coins of a wallet or of one coin file, and shows a
/// POWN string a coin. The answer is yes where every coin is authentic.
///
/// Under encryption type 1 or 4 each server is asked under one of the coins, so that its answer
/// proves that it has the client's number of that coin.
///
/// # Errors
/// The coins cannot be read, or fewer than 13 servers answer.
pub fn detect_all(
    path: &Path,
    mut raidas: Raidas,
    encryption: u8,
    json: bool,
) -> Result<Answer, CliError> {
    let (mut coins, left_alone) = match path.is_dir() {
        true => {
            let mut wallet = Wallet::open(path, Access::Look)?;
            wallet.keep_only(raidas.coin_id);
            (wallet.coins().to_vec(), wallet.left_alone().to_vec())
        }
        false => {
            if path.extension().is_some_and(|end| end == "csv") {
                return Err(CliError::Unfinished(format!(
                    "{file} is a CSV of one node's numbers: `raida detect {file}` asks that node; --network and --hosts are for a wallet or a coin file of one",
                    file = path.shown()
                )));
            }
            let file = CoinFile::read(path).map_err(|cause| CliError::CoinFile {
                file: path.to_owned(),
                cause,
            })?;
            (vec![Filed::new(file, Folder::Suspect)], vec![])
        }
    };
    raidas.protection = protection(&coins, encryption)?;
    let bar = waiting();
    bar.set_message("asking all servers");
    let silent = look(&mut coins, &raidas)?;
    bar.finish_and_clear();

    let everywhere = coins
        .iter()
        .filter(|filed| passes_everywhere(filed))
        .count();
    let is_authentic = |filed: &&Filed| filed.file.pown.grade() == Grade::Authentic;
    let authentic = coins.iter().filter(is_authentic).count();
    if json {
        let coins = coins.iter().map(|filed| {
            let mut entry = json_of(filed.file.coin);
            entry["pown"] = filed.file.pown.to_string().into();
            entry["grade"] = filed.file.pown.grade().name().into();
            entry
        });
        let silent = silent
            .iter()
            .filter_map(|(raida, why)| Some(json!({ "raida": raida.get(), "why": why.as_ref()? })));
        let left_alone = left_alone
            .iter()
            .map(|left| json!({ "file": left.file, "why": left.reason }));
        print_json(&json!({
            "coins": coins.collect::<Vec<_>>(),
            "pass_everywhere": everywhere,
            "silent": silent.collect::<Vec<_>>(),
            "left_alone": left_alone.collect::<Vec<_>>(),
        }))?;
    } else {
        let mut text = String::new();
        // Of many coins those are of interest that do not pass everywhere.
        let is_shown = |filed: &&Filed| coins.len() <= LINES_MAX || !passes_everywhere(filed);
        let shown: Vec<&Filed> = coins.iter().filter(is_shown).collect();
        for filed in shown.iter().take(LINES_MAX) {
            let pown = filed.file.pown;
            let (coin, grade) = (filed.file.coin.to_string(), pown.grade().name());
            text += &format!("{coin:12} {pown}  {grade}\n");
        }
        if shown.len() > LINES_MAX {
            let more = shown.len() - LINES_MAX;
            text += &format!("{more} more do not pass on all servers; --json shows all\n");
        }
        if everywhere < coins.len() {
            text += LEGEND;
        }
        for left in &left_alone {
            text += &format!("left alone: {}: {}\n", left.file.shown(), left.reason);
        }
        for (raida, why) in silent.iter() {
            if let Some(why) = why {
                text += &format!("RAIDA {raida} says nothing of the coins: {why}\n");
            }
        }
        text += &format!(
            "{everywhere} of {} coins pass on all 25 servers",
            coins.len()
        );
        if authentic > everywhere {
            text += &format!("; {authentic} are authentic");
        }
        text += "\n";
        print(&text)?;
    }
    let is_left = left_alone.iter().any(|left| left.may_be_coin);
    Ok(match authentic == coins.len() && !is_left {
        true => Answer::Yes,
        false => Answer::No,
    })
}

fn passes_everywhere(filed: &Filed) -> bool {
    filed.file.pown.count(Mark::Passed) == RaidaId::COUNT
}

/// The key coin for each server: the first coin with a single number that passes there according to
/// its file; otherwise the first coin with a single number; otherwise the first coin. The server
/// says whether the number is right.
fn protection(coins: &[Filed], encryption: u8) -> Result<PerRaida<Protection>, CliError> {
    let under: fn(Coin, An) -> Protection = match encryption {
        0 => |_, _| Protection::None,
        1 => Protection::Coin,
        4 => Protection::CoinHmac,
        other => return Err(CliError::EncryptionOfAll(other)),
    };
    Ok(PerRaida::from_fn(|raida| {
        let is_certain = |filed: &&Filed| filed.file.pan(raida).is_none();
        let passes = |filed: &&Filed| filed.file.pown.0[raida] == Mark::Passed;
        let certain = || coins.iter().filter(is_certain);
        let key = (certain().find(passes)).or_else(|| certain().next());
        match key.or(coins.first()) {
            Some(key) => under(key.file.coin, key.file.an(raida)),
            // There is nothing to ask about either.
            None => Protection::None,
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::wallet::PownString;
    use crate::coin::{Denomination, SerialNumber};

    fn filed(sn: u32, mark: Mark) -> Filed {
        let coin = Coin {
            denomination: Denomination::new(0).unwrap(),
            serial_number: SerialNumber::new(sn).unwrap(),
        };
        let ans = PerRaida::from_fn(|_| An::new([sn as u8; 16]));
        let file = CoinFile::new(coin, 6, ans, PownString::all(mark));
        Filed::new(file, Folder::Bank)
    }

    /// The serial number of the coin under which RAIDA 3 is asked.
    fn key(coins: &[Filed]) -> Option<u32> {
        let raida = RaidaId::new(3).unwrap();
        match protection(coins, 4).unwrap()[raida] {
            Protection::CoinHmac(coin, _) => Some(coin.serial_number.get()),
            Protection::None => None,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_server_is_asked_under_a_coin_that_passes_there_and_is_not_in_doubt() {
        let raida = RaidaId::new(3).unwrap();
        let mut doubtful = filed(2, Mark::Passed);
        doubtful.file.propose(raida, An::new([9; 16]));
        let coins = [
            doubtful,
            filed(4, Mark::Failed),
            filed(5, Mark::Passed),
            filed(6, Mark::Passed),
        ];
        assert_eq!(key(&coins), Some(5));
        assert_eq!(key(&coins[..2]), Some(4));
        assert_eq!(key(&coins[..1]), Some(2));
        assert_eq!(key(&[]), None);
    }

    #[test]
    fn a_type_that_takes_two_coins_is_refused() {
        assert!(matches!(
            protection(&[], 5),
            Err(CliError::EncryptionOfAll(5))
        ));
    }
}
