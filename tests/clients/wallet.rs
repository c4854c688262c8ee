//! Wallet folders on a real disk: nothing is lost, whatever happens in the middle of a change.

use std::fs;
use std::path::{Path, PathBuf};

use raida::client::PerRaida;
use raida::client::wallet::{
    Access, CoinFile, Filing, Folder, Mark, PownString, Step, Wallet, WalletError,
};
use raida::coin::{An, Coin, Denomination, SerialNumber};
use raida::protocol::RaidaId;

/// A wallet's folder, removed after the test.
struct Trial {
    folder: tempfile::TempDir,
}

impl Trial {
    fn new() -> Trial {
        let trial = Trial {
            folder: tempfile::tempdir().unwrap(),
        };
        drop(Wallet::open(trial.root(), Access::Create).unwrap());
        trial
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn path(&self, folder: Folder, name: &str) -> PathBuf {
        self.root().join(folder.name()).join(name)
    }

    fn put(&self, folder: Folder, file: &CoinFile) {
        fs::write(self.path(folder, &file.name()), file.to_bytes()).unwrap();
    }

    fn open(&self, access: Access) -> Wallet {
        Wallet::open(self.root(), access).unwrap()
    }

    /// Every file of the wallet with its content, by path.
    fn files(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = Folder::ALL
            .iter()
            .flat_map(|folder| fs::read_dir(self.root().join(folder.name())).unwrap())
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.clone(), fs::read(path).unwrap()))
            .collect();
        files.sort();
        files
    }

    fn names(&self) -> Vec<String> {
        let root = self.root();
        let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        self.files()
            .iter()
            .map(|(path, _)| relative(path))
            .collect()
    }
}

fn coin(sn: u32) -> Coin {
    Coin {
        denomination: Denomination::new(1).unwrap(),
        serial_number: SerialNumber::new(sn).unwrap(),
    }
}

fn file(sn: u32, mark: Mark) -> CoinFile {
    let ans = PerRaida::from_fn(|raida| An::new([raida.get() + 1; 16]));
    CoinFile::new(coin(sn), 6, ans, PownString::all(mark))
}

fn raida(number: u8) -> RaidaId {
    RaidaId::new(number).unwrap()
}

/// The first steps of a filing, this many: what is on disk after a crash there.
fn first_steps(filing: &Filing, steps: usize) {
    let done: &[Step] = &Filing::STEPS[..steps];
    done.iter().for_each(|step| step(filing).unwrap());
}

#[test]
fn a_move_that_stops_after_any_step_leaves_the_coin_and_the_next_run_ends_it() {
    for steps in 0..=Filing::STEPS.len() {
        let trial = Trial::new();
        let healed = file(7, Mark::Passed);
        trial.put(Folder::Fracked, &healed);
        let name = healed.name();
        let (from, to) = (
            trial.path(Folder::Fracked, &name),
            trial.path(Folder::Bank, &name),
        );
        first_steps(&Filing::relocate(from, to, healed.to_bytes()), steps);

        let seen = trial.open(Access::Look);
        assert_eq!(seen.coins().len(), 1, "after {steps} steps");
        assert!(seen.coins()[0].file == healed);

        let mut wallet = trial.open(Access::Change);
        assert_eq!(wallet.coins().len(), 1, "after {steps} steps");
        assert_eq!(wallet.left_alone(), []);
        wallet.file_by_grade().unwrap();
        assert_eq!(trial.names(), ["Bank/1.7.bin"], "after {steps} steps");
        assert_eq!(trial.files()[0].1, healed.to_bytes()[..]);
    }
}

#[test]
fn a_move_to_counterfeit_that_stops_after_any_step_is_ended_by_the_next_run() {
    for steps in 0..=Filing::STEPS.len() {
        let trial = Trial::new();
        let failed = file(7, Mark::Failed);
        trial.put(Folder::Fracked, &failed);
        let name = failed.name();
        let (from, to) = (
            trial.path(Folder::Fracked, &name),
            trial.path(Folder::Counterfeit, &name),
        );
        first_steps(&Filing::relocate(from, to, failed.to_bytes()), steps);
        let stopped = trial.files();
        trial.open(Access::Look);
        assert_eq!(trial.files(), stopped);

        let mut wallet = trial.open(Access::Change);
        wallet.file_by_grade().unwrap();
        assert_eq!(wallet.left_alone(), [], "after {steps} steps");
        assert_eq!(
            trial.names(),
            ["Counterfeit/1.7.bin"],
            "after {steps} steps"
        );
        assert_eq!(trial.files()[0].1, failed.to_bytes()[..]);
    }
}

#[test]
fn a_coin_whose_copy_is_where_it_belongs_already_leaves_its_old_folder() {
    let trial = Trial::new();
    let failed = file(7, Mark::Failed);
    trial.put(Folder::Fracked, &file(7, Mark::Passed));
    trial.put(Folder::Counterfeit, &failed);
    let mut wallet = trial.open(Access::Change);
    wallet.coins_mut()[0].file.pown = failed.pown;
    wallet.file_by_grade().unwrap();
    assert_eq!(wallet.left_alone(), []);
    assert_eq!(trial.names(), ["Counterfeit/1.7.bin"]);
}

#[test]
fn new_content_that_stops_after_any_step_is_the_old_or_the_new() {
    for steps in 0..=Filing::STEPS.len() {
        let trial = Trial::new();
        let old = file(7, Mark::Failed);
        trial.put(Folder::Limbo, &old);
        let mut new = old.clone();
        new.propose(raida(3), An::new([0x33; 16]));
        let place = trial.path(Folder::Limbo, &old.name());
        first_steps(&Filing::replace(place, new.to_bytes()), steps);

        let wallet = trial.open(Access::Change);
        let expected = if steps < 3 { &old } else { &new };
        assert!(wallet.coins()[0].file == *expected, "after {steps} steps");
        assert_eq!(trial.names(), ["Limbo/1.7.bin"], "after {steps} steps");
    }
}

#[test]
fn a_new_coin_is_there_as_soon_as_its_bytes_are_on_disk() {
    for steps in 1..=Filing::STEPS.len() {
        let trial = Trial::new();
        let new = file(7, Mark::Passed);
        let place = trial.path(Folder::Bank, &new.name());
        first_steps(&Filing::create(place, new.to_bytes()), steps);
        assert!(trial.open(Access::Look).coins()[0].file == new);
        let wallet = trial.open(Access::Change);
        assert!(wallet.coins()[0].file == new, "after {steps} steps");
        assert_eq!(trial.names(), ["Bank/1.7.bin"], "after {steps} steps");
    }
}

#[test]
fn a_new_coin_is_taken_back_after_any_step_and_nothing_else_is() {
    for steps in 0..=Filing::STEPS.len() {
        let trial = Trial::new();
        let new = file(7, Mark::Passed);
        let place = trial.path(Folder::Bank, &new.name());
        let filing = Filing::create(place, new.to_bytes());
        first_steps(&filing, steps);
        filing.take_back().unwrap();
        assert!(trial.names().is_empty(), "after {steps} steps");

        let other = file(7, Mark::Failed);
        trial.put(Folder::Bank, &other);
        filing.take_back().unwrap();
        assert_eq!(trial.files()[0].1, other.to_bytes()[..]);
    }
}

#[test]
fn where_one_of_several_new_coins_cannot_be_written_the_next_run_finds_none() {
    let trial = Trial::new();
    let obstacle = trial.path(Folder::Bank, ".1.3.bin.part");
    fs::create_dir(&obstacle).unwrap();
    let new = (1..=4).map(|sn| file(sn, Mark::Passed)).collect();
    let mut wallet = trial.open(Access::Change);
    let refused = wallet.add(Folder::Bank, new).unwrap_err();
    assert!(matches!(refused, WalletError::NotAdded { .. }), "{refused}");
    drop(wallet);
    fs::remove_dir(&obstacle).unwrap();
    assert!(trial.names().is_empty());
    assert_eq!(trial.open(Access::Change).coins().len(), 0);
}

#[test]
fn looking_changes_nothing_on_disk() {
    let trial = Trial::new();
    let twice = file(1, Mark::Passed);
    trial.put(Folder::Bank, &twice);
    trial.put(Folder::Fracked, &twice);
    let half = &twice.to_bytes()[..100];
    fs::write(trial.path(Folder::Bank, ".1.1.bin.part"), half).unwrap();
    fs::write(trial.path(Folder::Limbo, "notes.txt"), "mine").unwrap();
    let before = trial.files();
    let wallet = trial.open(Access::Look);
    assert_eq!(wallet.coins().len(), 1);
    assert_eq!(trial.files(), before);
}

#[test]
fn damaged_and_unknown_files_are_left_alone_and_told_of() {
    let trial = Trial::new();
    let good = file(1, Mark::Passed);
    trial.put(Folder::Bank, &good);
    let damaged = &good.to_bytes()[..438];
    fs::write(trial.path(Folder::Bank, "1.2.bin"), damaged).unwrap();
    fs::write(trial.path(Folder::Bank, "1.3.bin"), good.to_bytes()).unwrap();
    fs::write(trial.path(Folder::Limbo, "notes.txt"), "mine").unwrap();
    fs::write(trial.path(Folder::Limbo, ".1.4.bin.part"), damaged).unwrap();
    let before = trial.files();
    let mut wallet = trial.open(Access::Change);
    assert_eq!(wallet.coins().len(), 1);
    let reasons: Vec<&str> = (wallet.left_alone().iter())
        .map(|left| left.reason.as_str())
        .collect();
    assert_eq!(reasons.len(), 4);
    assert!(reasons[0].contains("438 bytes"), "{reasons:?}");
    assert!(reasons[1].contains("holds the coin of 1.1.bin"));
    assert!(reasons[2].contains("no coin file"));
    assert!(reasons[3].contains("never finished"));
    let coins: Vec<bool> = (wallet.left_alone().iter())
        .map(|left| left.may_be_coin)
        .collect();
    assert_eq!(coins, [true, true, false, true], "notes are no coin");
    wallet.file_by_grade().unwrap();
    assert_eq!(trial.files(), before);
}

#[test]
fn two_files_of_a_coin_that_differ_are_both_left_alone() {
    let trial = Trial::new();
    trial.put(Folder::Bank, &file(1, Mark::Passed));
    trial.put(Folder::Fracked, &file(1, Mark::Failed));
    let before = trial.files();
    let mut wallet = trial.open(Access::Change);
    assert_eq!(wallet.coins().len(), 0);
    assert_eq!(wallet.left_alone().len(), 2);
    wallet.file_by_grade().unwrap();
    assert_eq!(trial.files(), before);
}

#[test]
fn a_coin_is_never_moved_over_another_file() {
    let trial = Trial::new();
    let mut coin = file(1, Mark::Passed);
    trial.put(Folder::Bank, &coin);
    fs::write(trial.path(Folder::Counterfeit, "1.1.bin"), "something").unwrap();
    let mut wallet = trial.open(Access::Change);
    wallet.coins_mut()[0].file.pown = PownString::all(Mark::Failed);
    wallet.file_by_grade().unwrap();
    assert_eq!(wallet.left_alone().len(), 1);
    coin.pown = PownString::all(Mark::Failed);
    assert_eq!(
        fs::read(trial.path(Folder::Bank, "1.1.bin")).unwrap(),
        coin.to_bytes()[..]
    );
    let other = fs::read(trial.path(Folder::Counterfeit, "1.1.bin")).unwrap();
    assert_eq!(other, b"something");
    assert!(matches!(
        wallet.add(Folder::Bank, vec![coin]),
        Err(WalletError::Exists(_))
    ));
}

#[test]
fn coins_in_suspect_and_counterfeit_are_nobodys_to_grade() {
    let trial = Trial::new();
    trial.put(Folder::Suspect, &file(1, Mark::Untried));
    trial.put(Folder::Counterfeit, &file(2, Mark::Failed));
    let before = trial.files();
    let mut wallet = trial.open(Access::Change);
    assert_eq!(wallet.coins().len(), 0);
    wallet.file_by_grade().unwrap();
    assert_eq!(trial.files(), before);
}

#[test]
fn a_wallet_is_changed_by_one_program_at_a_time() {
    let trial = Trial::new();
    let first = trial.open(Access::Change);
    let second = Wallet::open(trial.root(), Access::Change);
    assert!(matches!(second, Err(WalletError::InUse(_))));
    drop(first);
    trial.open(Access::Change);
}

#[test]
fn a_folder_without_a_wallet_is_refused() {
    let empty = tempfile::tempdir().unwrap();
    for access in [Access::Look, Access::Change] {
        let refused = Wallet::open(empty.path(), access);
        assert!(matches!(refused, Err(WalletError::NotAWallet(_))));
    }
}
