//! The program as a person runs it, against a small node over real sockets.

use std::path::{Path, PathBuf};
use std::process::Command as Process;

use crate::small_node::{ADMIN_KEY, Fault, RAIDA, SmallNode};
use raida::client::{CoinListReader, CoinRecord, Months};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::folder_lock::Locked;
use raida::protocol::{Command, Status};

/// A node, and a folder to work in that holds its admin key.
struct Trial {
    node: SmallNode,
    folder: tempfile::TempDir,
}

struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Trial {
    fn new() -> Trial {
        let folder = tempfile::tempdir().unwrap();
        let key = u128::from_be_bytes(*ADMIN_KEY.expose());
        std::fs::write(folder.path().join("admin.key"), format!("{key:032x}\n")).unwrap();
        Trial {
            node: SmallNode::start(),
            folder,
        }
    }

    /// Runs `raida` with these words in the folder, against the node.
    fn run(&self, words: &str) -> Run {
        self.run_with(words, &["--timeout-ms", "20000"])
    }

    fn run_with(&self, words: &str, more: &[&str]) -> Run {
        let output = Process::new(env!("CARGO_BIN_EXE_raida"))
            .current_dir(self.folder.path())
            .args(words.split(' '))
            .args(["--host", &self.node.address.to_string()])
            .args(["--raida", &RAIDA.to_string()])
            .args(more)
            .output()
            .unwrap();
        let run = Run {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        };
        self.assert_silent_about_ans(&run);
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Nothing a command prints may hold an AN (docs/architecture.md, "Rules that always hold", 7).
    fn assert_silent_about_ans(&self, run: &Run) {
        let state = self.node.state.lock().unwrap();
        for (an, _) in state.coins.values() {
            let hex = format!("{:032x}", u128::from_be_bytes(*an.expose()));
            assert!(!run.out.contains(&hex) && !run.err.contains(&hex));
        }
    }

    /// Coins in a CSV, and how many of them the node holds with the CSV's number.
    fn held(&self, file: &str) -> (usize, usize) {
        let coins = read(&self.path(file));
        let held = (coins.iter()).filter(|coin| self.node.an(coin.coin) == Some(coin.an));
        (coins.len(), held.count())
    }
}

fn read(file: &Path) -> Vec<CoinRecord> {
    let reader = CoinListReader::open(file, Months::Required).unwrap();
    reader.map(|record| record.unwrap()).collect()
}

const MINT: &str = "mint --admin-key-file admin.key --out coins.csv";

#[test]
fn coins_are_minted_detected_and_taken_over() {
    let trial = Trial::new();
    let mint = trial.run(&format!("{MINT} --count 1500 --denomination 1 -8"));
    assert_eq!((mint.status, mint.err.as_str()), (0, ""));
    assert!(
        mint.out
            .starts_with("3000 coins worth 15000.000015 in coins.csv"),
        "{}",
        mint.out
    );
    assert_eq!(trial.held("coins.csv"), (3_000, 3_000));

    let detect = trial.run("detect coins.csv");
    assert_eq!(
        (detect.status, detect.out.as_str()),
        (0, "3000 of 3000 coins pass\n")
    );

    let pown = trial.run("pown coins.csv --out mine.csv");
    assert_eq!(pown.status, 0, "{}", pown.err);
    assert_eq!(pown.out, "3000 coins taken over, now in mine.csv\n");
    assert_eq!(trial.held("mine.csv"), (3_000, 3_000));
    assert_eq!(trial.held("coins.csv"), (3_000, 0));

    let old = trial.run("detect coins.csv");
    assert_eq!(old.status, 1);
    assert!(old.out.contains("fail  1.0\n") && old.out.ends_with("0 of 3000 coins pass\n"));
    for encryption in ["1", "4", "5"] {
        let words = format!("detect mine.csv --encryption {encryption} --key-file mine.csv");
        let detect = trial.run(&words);
        assert_eq!(detect.status, 0, "type {encryption}: {}", detect.err);
    }
    let datagrams = trial.run("detect mine.csv --udp --json");
    let report: serde_json::Value = serde_json::from_str(&datagrams.out).unwrap();
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&3_000.into(), &0.into())
    );
}

#[test]
fn reports_are_readable_by_people_and_programs() {
    let trial = Trial::new();
    trial.run(&format!("{MINT} --count 3 --denomination 6"));
    assert_eq!(trial.run("version").out, "small 1\n");
    assert!(
        trial
            .run("echo --count 3")
            .out
            .starts_with("RAIDA 14 at 127.0.0.1:")
    );
    let audit = trial.run("audit");
    assert!(
        audit
            .out
            .contains("           6          3                   3000000\n")
    );
    for command in [
        "version",
        "echo",
        "audit",
        "stats --admin-key-file admin.key",
    ] {
        let run = trial.run(&format!("{command} --json"));
        assert_eq!(run.status, 0, "{}", run.err);
        let report: serde_json::Value = serde_json::from_str(&run.out).unwrap();
        assert!(report.is_object());
    }
}

#[test]
fn errors_are_one_line_that_says_what_to_do() {
    let trial = Trial::new();
    std::fs::write(trial.path("other.key"), "0".repeat(32)).unwrap();
    for (words, says) in [
        (
            "stats --admin-key-file other.key",
            "name the file of its key with --admin-key-file",
        ),
        (
            "stats --admin-key-file no.key",
            "cannot read the admin key no.key",
        ),
        ("detect no.csv", "cannot read no.csv"),
        ("detect other.key", "other.key:1: the first line has to be"),
        ("detect a.csv --encryption 4", "--key-file"),
        ("detect", "<FILE>"),
        ("serve --listen 1", "unexpected argument '--host'"),
    ] {
        let run = trial.run(words);
        assert_eq!(
            (run.status, run.out.as_str()),
            (2, ""),
            "{words}: {}",
            run.err
        );
        assert!(
            run.err.starts_with("raida: ") && run.err.contains(says),
            "{}",
            run.err
        );
        assert_eq!(run.err.matches('\n').count(), 1, "{}", run.err);
    }
    let other = trial.run_with("echo --json", &["--coin-id", "7"]);
    assert!(other.err.contains("--coin-id"), "{}", other.err);
}

#[test]
fn a_list_without_a_coin_and_tickets_that_repair_nothing_are_refused_before_anything_is_asked() {
    let trial = Trial::new();
    let head = "denomination,serial_number,authenticity_number,months_from_start\n";
    std::fs::write(trial.path("none.csv"), head).unwrap();
    std::fs::write(trial.path("one.csv"), format!("{head}0,7,{:032x},1\n", 7)).unwrap();
    let own = format!("--ticket {RAIDA}=1 ");
    let others: String = (0..12).map(|n| format!("--ticket {n}=1 ")).collect();
    for (words, says) in [
        ("detect none.csv".to_owned(), "none.csv has no coin in it"),
        (
            "pown none.csv --out new.csv".to_owned(),
            "none.csv has no coin in it",
        ),
        (
            format!("fix one.csv --out new.csv {own}{others}"),
            "tickets of 12 servers",
        ),
    ] {
        let run = trial.run(words.trim_end());
        assert_eq!(run.status, 2, "{words}: {}", run.out);
        assert!(run.err.contains(says), "{}", run.err);
        assert!(!trial.exists("new.csv"));
    }
}

#[test]
fn a_list_that_a_command_writes_still_is_not_deleted() {
    let trial = Trial::new();
    let list = trial.path("c.csv.7.part");
    let head = "denomination,serial_number,authenticity_number,months_from_start\n";
    std::fs::write(&list, format!("{head}0,7,{:032x},1\n", 7)).unwrap();
    let lock = Locked::take(std::fs::File::open(&list).unwrap()).unwrap();
    assert!(lock.is_some());
    let run = trial.run("delete c.csv.7.part --admin-key-file admin.key --whatever-number");
    assert_eq!(run.status, 2, "{}", run.out);
    let says = "is being written by another process";
    assert!(run.err.contains(says), "{}", run.err);
    assert!(list.exists());
}

#[test]
fn an_output_that_exists_is_left_alone_and_nothing_is_asked() {
    let trial = Trial::new();
    trial.run(&format!("{MINT} --count 2 --denomination 1"));
    let before = std::fs::read(trial.path("coins.csv")).unwrap();
    let mint = trial.run(&format!("{MINT} --count 2 --denomination 1"));
    let pown = trial.run("pown coins.csv --out coins.csv");
    assert_eq!((mint.status, pown.status), (2, 2));
    assert!(mint.err.contains("coins.csv exists"), "{}", mint.err);
    assert_eq!(std::fs::read(trial.path("coins.csv")).unwrap(), before);
    assert_eq!(trial.node.asked(Command::CreateCoins), 1);
    assert_eq!(trial.node.asked(Command::Pown), 0);
}

#[test]
fn coins_that_fail_are_left_out_of_the_new_file() {
    let trial = Trial::new();
    trial.run(&format!("{MINT} --count 10 --denomination 1"));
    let mut stolen = read(&trial.path("coins.csv"));
    stolen.truncate(4);
    trial
        .node
        .put(stolen.iter().map(|coin| (coin.coin, An::new([9; 16]))));
    let pown = trial.run("pown coins.csv --out mine.csv");
    assert_eq!((pown.status, pown.err.as_str()), (1, ""));
    assert!(pown.out.contains("failed  1.3\n") && pown.out.contains("6 coins taken over"));
    assert_eq!(trial.held("mine.csv"), (6, 6));

    trial.node.put(
        read(&trial.path("mine.csv"))
            .iter()
            .map(|coin| (coin.coin, An::ZERO)),
    );
    let pown = trial.run("pown mine.csv --out none.csv");
    assert_eq!(pown.status, 1);
    assert!(pown.out.contains("no coin was taken over"), "{}", pown.out);
    assert!(!trial.exists("none.csv"));
}

#[test]
fn an_interrupted_pown_loses_no_number() {
    for fault in [
        Fault::Hangup,
        Fault::Nonsense,
        Fault::Refuse(Status::UNAVAILABLE),
    ] {
        let trial = Trial::new();
        trial.run(&format!("{MINT} --count 8000 --denomination 1"));
        trial.node.fail(Command::Pown, 1, fault);
        let pown = trial.run("pown coins.csv --out mine.csv");
        assert_eq!(pown.status, 2, "{fault:?}: {}", pown.out);
        let (old, new) = (
            read(&trial.path("coins.csv")),
            read(&trial.path("mine.csv")),
        );
        for coin in old {
            let held = trial.node.an(coin.coin).unwrap();
            let renewed = new.iter().find(|renewed| renewed.coin == coin.coin);
            assert!(
                held == coin.an || renewed.is_some_and(|renewed| renewed.an == held),
                "{fault:?}: the number of {} is lost",
                coin.coin
            );
        }
        let doubtful = pown.out.contains("sent and not answered");
        assert_eq!(doubtful, !matches!(fault, Fault::Refuse(_)), "{}", pown.out);
    }
}

#[test]
fn a_pown_that_nobody_would_answer_leaves_no_file() {
    let trial = Trial::new();
    trial.run(&format!("{MINT} --count 1 --denomination 1"));
    let stranger = "denomination,serial_number,authenticity_number\n\
                    2,2,00112233445566778899aabbccddeeff\n";
    std::fs::write(trial.path("key.csv"), stranger).unwrap();
    let words = "pown coins.csv --out mine.csv --encryption 4 --key-file key.csv";
    let pown = trial.run(words);
    assert_eq!(pown.status, 2);
    assert!(pown.err.contains("--key-file"), "{}", pown.err);
    assert!(!trial.exists("mine.csv"));
}

#[test]
fn coins_whose_numbers_were_not_told_are_freed_again() {
    for fault in [Fault::Hangup, Fault::Nonsense] {
        let trial = Trial::new();
        trial.node.fail(Command::CreateCoins, 1, fault);
        let mint = trial.run(&format!("{MINT} --count 3000 --denomination 1"));
        assert_eq!(mint.status, 2, "{}", mint.out);
        assert!(
            mint.err.contains("taken out of circulation again"),
            "{}",
            mint.err
        );
        assert!(mint.err.contains("1024 of 3000 coins"), "{}", mint.err);
        assert_eq!(trial.held("coins.csv"), (1_024, 1_024));
        assert_eq!(trial.node.coins(), 1_024);
    }
}

#[test]
fn nothing_is_minted_that_cannot_be_written() {
    let trial = Trial::new();
    let words = "mint --admin-key-file admin.key --count 1 --denomination 1 --out no/folder.csv";
    let mint = trial.run(words);
    assert_eq!(mint.status, 2);
    assert!(
        mint.err.contains("cannot write no/folder.csv"),
        "{}",
        mint.err
    );
    assert_eq!(trial.node.coins(), 0);
}

#[test]
fn a_denomination_without_free_numbers_ends_the_minting() {
    let trial = Trial::new();
    let all = (0..SerialNumber::COUNT - 2).map(|sn| Coin {
        denomination: Denomination::new(0).unwrap(),
        serial_number: SerialNumber::new(sn).unwrap(),
    });
    trial.node.put(all.map(|coin| (coin, An::ZERO)));
    let mint = trial.run(&format!("{MINT} --count 5 --denomination 0"));
    assert_eq!(mint.status, 2);
    assert!(
        mint.err
            .contains("no serial number of denomination 0 is free"),
        "{}",
        mint.err
    );
    assert!(mint.err.contains("2 of 5 coins were made"), "{}", mint.err);
    assert_eq!(trial.held("coins.csv"), (2, 2));
}
