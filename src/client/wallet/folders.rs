use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::filing::{Filing, file_all, sync, take_back_all, unfinished};
use super::{CoinFile, NotACoinFile};
use crate::coin::Coin;
use crate::folder_lock::Locked;
use crate::plain_file;
use crate::shown::{Shown, remedy};

/// A folder of a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Folder {
    /// Authentic coins.
    Bank,
    /// Coins that some servers fail.
    Fracked,
    /// Coins that too little is known about.
    Limbo,
    /// Coins that were taken over and not graded yet.
    Grade,
    /// Coins received and not taken over yet: somebody else may still own them.
    Suspect,
    /// Coins that most servers fail.
    Counterfeit,
    /// Coins put into a locker or up for sale: anybody with its secret can take them, so they are
    /// no longer the wallet's. The numbers are kept until somebody takes the coins. The folder is
    /// made when it is needed.
    Lockers,
}

impl Folder {
    /// The folders that every wallet has.
    pub const ALL: [Folder; 6] = [
        Folder::Bank,
        Folder::Fracked,
        Folder::Limbo,
        Folder::Grade,
        Folder::Suspect,
        Folder::Counterfeit,
    ];
    /// The folders with the wallet's own coins. Grading a coin in Suspect would count it as the
    /// wallet's own while its giver can still spend it. Coins in Counterfeit have been judged
    /// already.
    pub const OWN: [Folder; 4] = [Folder::Bank, Folder::Fracked, Folder::Limbo, Folder::Grade];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Folder::Bank => "Bank",
            Folder::Fracked => "Fracked",
            Folder::Limbo => "Limbo",
            Folder::Grade => "Grade",
            Folder::Suspect => "Suspect",
            Folder::Counterfeit => "Counterfeit",
            Folder::Lockers => "Lockers",
        }
    }
}

/// The purpose of opening a wallet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To look: nothing on disk is touched.
    Look,
    /// To change it. An earlier change that was interrupted is completed first, and nobody else
    /// opens the wallet meanwhile.
    Change,
    /// Like `Change`; a wallet that does not exist is made.
    Create,
    /// Like `Create`; a wallet that was made is removed again where nothing was put into it.
    CreateToUse,
}

/// A coin in a wallet.
#[derive(Clone, Debug)]
pub struct Filed {
    /// The file's content, with the changes since.
    pub file: CoinFile,
    /// Its place.
    pub folder: Folder,
    saved: CoinFile,
}

impl Filed {
    /// A coin as it is on disk.
    pub fn new(file: CoinFile, folder: Folder) -> Filed {
        Filed {
            saved: file.clone(),
            file,
            folder,
        }
    }
}

/// A file that was not understood, and was therefore not touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub reason: String,
    /// Whether it is, or may be, a coin: anything named `.bin`, finished or not.
    pub may_be_coin: bool,
}

impl LeftAlone {
    fn new(file: PathBuf, reason: impl Into<String>) -> LeftAlone {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        LeftAlone {
            may_be_coin: is_coin_name(unfinished(&name).unwrap_or(&name)),
            reason: reason.into(),
            file,
        }
    }
}

fn is_coin_name(name: &str) -> bool {
    name.ends_with(".bin")
}

/// Why a wallet cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum WalletError {
    /// None of a wallet's folders is there.
    #[error("{folder} is no wallet: it has no folder Bank; name one that has, or make one with `raida mint --network`", folder = .0.shown())]
    NotAWallet(PathBuf),
    /// Another program is changing it.
    #[error("another program is at work on the wallet {folder}: wait until it has ended", folder = .0.shown())]
    InUse(PathBuf),
    /// The file to write exists.
    #[error("{file} exists already and was left as it is", file = .0.shown())]
    Exists(PathBuf),
    /// New coins could not be filed, and none of them is in the wallet.
    #[error("cannot write {file}: {cause}; the new coins were removed from the wallet again{next}", file = file.shown(), next = remedy(cause))]
    NotAdded {
        /// The file.
        file: PathBuf,
        /// The system's message.
        cause: io::Error,
    },
    /// New coins could not be filed, and some of them could not be removed again.
    #[error("cannot write {file}: {cause}; nor could all new coins be removed from the wallet again: before you go on with it, remove these files, and those of the same names with .part at the end beside them: {}", list(left), file = file.shown())]
    LeftBehind {
        /// The file.
        file: PathBuf,
        /// The system's message.
        cause: io::Error,
        /// Files that may hold coins of this attempt.
        left: Vec<PathBuf>,
    },
    /// The wallet cannot be opened, or made. Nothing was done.
    #[error("cannot {doing} {file}: {cause}{next}; nothing was done", file = file.shown(), next = remedy(cause))]
    NotOpened {
        /// The step that was tried.
        doing: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// The system's message.
        cause: io::Error,
    },
    /// The disk fails or is full. Every coin is still in a complete file.
    #[error("cannot {doing} {file}: {cause}{next}; every coin is still in a file of the wallet: do the same again when this is mended", file = file.shown(), next = remedy(cause))]
    Disk {
        /// The step that was tried.
        doing: &'static str,
        /// The file or folder.
        file: PathBuf,
        /// The system's message.
        cause: io::Error,
    },
}

fn list(files: &[PathBuf]) -> String {
    let files = files.iter().map(|file| file.shown().to_string());
    files.collect::<Vec<_>>().join(" ")
}

/// A wallet's own coins ([`Folder::OWN`]), one file each.
///
/// A change of a file writes a new file beside it, which takes its name. A move to another folder
/// writes the file there before it is removed here; its content does not change on the way. So
/// after a crash there is at worst a second copy of the same bytes, and it does not matter which
/// one goes: the one that stays is where the coin's marks say it belongs, which finishes the move.
/// Two files of a coin that differ come from somewhere else, for example from a restored backup.
/// Either may hold numbers that the other does not have, so both are left alone.
#[derive(Debug)]
pub struct Wallet {
    root: PathBuf,
    coins: Vec<Filed>,
    left_alone: Vec<LeftAlone>,
    lock: Option<Locked>,
    /// Folders that are removed again where nothing is in them, each after the folder that it is
    /// in.
    made: Vec<PathBuf>,
}

impl Drop for Wallet {
    fn drop(&mut self) {
        let is_empty = |folder: &PathBuf| {
            let inside = std::fs::read_dir(folder).into_iter().flatten();
            inside.flatten().all(|one| self.made.contains(&one.path()))
        };
        if !self.made.is_empty() && is_empty(&self.root) && self.made.iter().all(is_empty) {
            for folder in self.made.iter().rev() {
                let _ = std::fs::remove_dir(folder);
            }
        }
    }
}

impl Wallet {
    /// Opens a wallet and reads its coins.
    ///
    /// # Errors
    /// It is no wallet, somebody else is changing it, or the disk fails. A file that cannot be read
    /// or understood is no error: see [`Wallet::left_alone`].
    pub fn open(root: &Path, access: Access) -> Result<Wallet, WalletError> {
        let is_there = Folder::OWN
            .iter()
            .any(|folder| root.join(folder.name()).is_dir());
        let made = match access {
            Access::Create => {
                make_folders(root)?;
                vec![]
            }
            Access::CreateToUse => make_folders(root)?,
            Access::Look | Access::Change if is_there => vec![],
            Access::Look | Access::Change => {
                // Its folders may exist, and this user may not see them.
                return Err(match root.join(Folder::OWN[0].name()).try_exists() {
                    Err(cause) => WalletError::NotOpened {
                        doing: "read",
                        file: root.to_owned(),
                        cause,
                    },
                    Ok(_) => WalletError::NotAWallet(root.to_owned()),
                });
            }
        };
        let changes = access != Access::Look;
        let mut wallet = Wallet {
            root: root.to_owned(),
            coins: vec![],
            left_alone: vec![],
            lock: changes.then(|| lock(root)).transpose()?,
            made,
        };
        let unfinished = wallet.read_folders()?;
        wallet.drop_copies(changes)?;
        for file in unfinished {
            wallet.finish(file, changes)?;
        }
        wallet.coins.sort_by_key(|filed| filed.file.coin);
        Ok(wallet)
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The coins, by rising denomination and serial number.
    pub fn coins(&self) -> &[Filed] {
        &self.coins
    }

    /// The coins, mutable; [`Wallet::save`] brings the changes to disk.
    pub fn coins_mut(&mut self) -> &mut [Filed] {
        &mut self.coins
    }

    /// Leaves the coins of other networks alone: no server of this one knows them.
    pub fn keep_only(&mut self, coin_id: u16) {
        let (kept, others) = (self.coins.drain(..))
            .partition::<Vec<Filed>, _>(|filed| filed.file.coin_id == coin_id);
        self.coins = kept;
        for filed in others {
            let theirs = filed.file.coin_id;
            let reason = format!(
                "it is a coin of the network with coin id {theirs}, not {coin_id}: ask that network about it, with --coin-id {theirs}"
            );
            let file = self.path(&filed);
            self.left_alone.push(LeftAlone::new(file, reason));
        }
    }

    /// Leaves coins out of everything done to the wallet from here on; nothing of them is touched.
    pub fn keep_where(&mut self, mut kept: impl FnMut(&Filed) -> bool) {
        self.coins.retain(|filed| kept(filed));
    }

    /// Counts the coins in Counterfeit as the wallet's own from here on, to be judged again:
    /// servers may pass now what most of them failed once, for example where some lied. A coin in
    /// Counterfeit that the wallet also has elsewhere stays there.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn judge_counterfeits_again(&mut self) -> Result<(), WalletError> {
        let place = self.root.join(Folder::Counterfeit.name());
        let own: BTreeSet<Coin> = self.coins.iter().map(|filed| filed.file.coin).collect();
        for name in names(&place)? {
            let file = place.join(&name);
            match read(&file, &name) {
                // An unfinished file was handled when the wallet was opened.
                _ if unfinished(&name).is_some() => {}
                Ok(coin) if own.contains(&coin.coin) => {}
                Ok(coin) => self.coins.push(Filed::new(coin, Folder::Counterfeit)),
                Err(reason) => self.left_alone.push(LeftAlone::new(file, reason)),
            }
        }
        self.coins.sort_by_key(|filed| filed.file.coin);
        Ok(())
    }

    /// Number of coins in Counterfeit.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn counterfeits(&self) -> Result<usize, WalletError> {
        let names = names(&self.root.join(Folder::Counterfeit.name()))?;
        let is_coin = |name: &&String| is_coin_name(name) && unfinished(name).is_none();
        Ok(names.iter().filter(is_coin).count())
    }

    /// Files that were not understood, coins of other networks, and coins that could not be moved.
    pub fn left_alone(&self) -> &[LeftAlone] {
        &self.left_alone
    }

    /// Brings every change to disk, durably, each file in its place.
    ///
    /// # Errors
    /// The disk fails or is full; of each file there is the old content or the new.
    pub fn save(&mut self) -> Result<(), WalletError> {
        let changed: Vec<Filing> = (self.coins.iter())
            .filter(|filed| filed.file != filed.saved)
            .map(|filed| Filing::replace(self.path(filed), filed.file.to_bytes()))
            .collect();
        carry_out(&changed)?;
        for filed in &mut self.coins {
            filed.saved.clone_from(&filed.file);
        }
        Ok(())
    }

    /// Saves, and moves each coin to the folder of its grade. Where a file of that name is there
    /// already, the coin stays where it is, and is listed in [`Wallet::left_alone`].
    ///
    /// # Errors
    /// As [`Wallet::save`]; a coin may be in its old folder, the new one, or both.
    pub fn file_by_grade(&mut self) -> Result<(), WalletError> {
        self.save()?;
        let mut moves = vec![];
        for filed in &mut self.coins {
            let folder = filed.file.grade().folder();
            if folder == filed.folder {
                continue;
            }
            let name = filed.file.name();
            let from = self.root.join(filed.folder.name()).join(&name);
            let target = self.root.join(folder.name()).join(&name);
            if holds(&target, &filed.file) {
                // It was moved already, except for the last step.
                remove_copy(&from, &target)?;
                filed.folder = folder;
                continue;
            }
            if target.symlink_metadata().is_ok() {
                let reason = format!(
                    "it belongs to {}, where there is another file of this name: look which one is right, and move it",
                    folder.name()
                );
                // Listed once, however often the wallet is filed.
                if !self.left_alone.iter().any(|left| left.file == from) {
                    self.left_alone.push(LeftAlone::new(from, reason));
                }
                continue;
            }
            moves.push(Filing::relocate(from, target, filed.file.to_bytes()));
            filed.folder = folder;
        }
        make_folders(&self.root)?;
        carry_out(&moves)
    }

    /// Puts new coins into a folder, durably: all of them or none, so that the caller that made
    /// them can unmake them where this fails.
    ///
    /// # Errors
    /// There is a file of that name in it, or the disk fails. The error names the files that could
    /// not be taken back.
    pub fn add(&mut self, folder: Folder, coins: Vec<CoinFile>) -> Result<(), WalletError> {
        let place = self.root.join(folder.name());
        let filings: Vec<Filing> = coins
            .iter()
            .map(|file| Filing::create(place.join(file.name()), file.to_bytes()))
            .collect();
        if let Some(taken) = (filings.iter()).find(|f| f.target().symlink_metadata().is_ok()) {
            return Err(WalletError::Exists(taken.target().to_owned()));
        }
        if let Err((file, cause)) = file_all(&filings) {
            let left = take_back_all(&filings);
            return Err(match left.is_empty() {
                true => WalletError::NotAdded { file, cause },
                false => WalletError::LeftBehind { file, cause, left },
            });
        }
        let filed = coins.into_iter().map(|file| Filed::new(file, folder));
        self.coins.extend(filed);
        self.coins.sort_by_key(|filed| filed.file.coin);
        Ok(())
    }

    /// Saves, and moves coins that are in a locker now from the wallet's own folders into the
    /// folder Lockers. An older file of theirs there belongs to another locker, which they have
    /// left since.
    ///
    /// # Errors
    /// As [`Wallet::save`]; a coin may be in its old folder, the new one, or both.
    pub fn hand_over(&mut self, coins: &BTreeSet<Coin>) -> Result<(), WalletError> {
        self.save()?;
        if coins.is_empty() {
            return Ok(());
        }
        let place = self.root.join(Folder::Lockers.name());
        if !place.is_dir() {
            std::fs::create_dir(&place).map_err(|cause| disk("make", &place, cause))?;
            sync(&self.root).map_err(|cause| disk("sync", &self.root, cause))?;
        }
        let handed: Vec<Filing> = (self.coins.iter())
            .filter(|filed| coins.contains(&filed.file.coin))
            .map(|filed| {
                let target = place.join(filed.file.name());
                Filing::supersede(self.path(filed), target, filed.file.to_bytes())
            })
            .collect();
        carry_out(&handed)?;
        self.keep_where(|filed| !coins.contains(&filed.file.coin));
        Ok(())
    }

    /// Writes a file that is no coin into the wallet's folder itself, durably: at every moment the
    /// old file or the new one is there.
    ///
    /// # Errors
    /// The disk fails or is full.
    ///
    /// # Panics
    /// When the wallet was opened to look: somebody else may be changing it.
    pub fn keep_beside(&self, name: &str, bytes: Zeroizing<Vec<u8>>) -> Result<(), WalletError> {
        assert!(
            self.lock.is_some(),
            "a wallet opened to look is not changed"
        );
        carry_out(&[Filing::replace(self.root.join(name), bytes)])
    }

    /// Removes a file that [`Wallet::keep_beside`] wrote, durably, where there is one.
    ///
    /// # Errors
    /// The disk fails.
    ///
    /// # Panics
    /// When the wallet was opened to look: somebody else may be changing it.
    pub fn drop_beside(&self, name: &str) -> Result<(), WalletError> {
        assert!(
            self.lock.is_some(),
            "a wallet opened to look is not changed"
        );
        let file = self.root.join(name);
        match file.symlink_metadata() {
            Ok(_) => remove_durably(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(disk("read", &file, cause)),
        }
    }

    /// The coins in the folder Lockers. Files that cannot be read there are skipped.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn handed_over(&self) -> Result<Vec<CoinFile>, WalletError> {
        let place = self.root.join(Folder::Lockers.name());
        let names = names(&place)?;
        let read = |name: &String| read(&place.join(name), name).ok();
        Ok(names.iter().filter_map(read).collect())
    }

    /// Removes files of the folder Lockers whose coins have left their locker: the wallet has the
    /// coins back.
    ///
    /// # Errors
    /// The disk fails.
    pub fn forget_handed_over(
        &mut self,
        coins: impl IntoIterator<Item = Coin>,
    ) -> Result<(), WalletError> {
        let place = self.root.join(Folder::Lockers.name());
        let files = coins
            .into_iter()
            .map(|coin| place.join(CoinFile::name_of(coin)));
        let mut removed = false;
        for file in files {
            match std::fs::remove_file(&file) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(cause) => return Err(disk("remove", &file, cause)),
            }
        }
        match removed {
            true => sync(&place).map_err(|cause| disk("sync", &place, cause)),
            false => Ok(()),
        }
    }

    fn path(&self, filed: &Filed) -> PathBuf {
        self.root.join(filed.folder.name()).join(filed.file.name())
    }

    /// Reads the content of the folders; returns the unfinished files.
    fn read_folders(&mut self) -> Result<Vec<Unfinished>, WalletError> {
        let mut found = vec![];
        // Coins in Counterfeit are not graded, but a move to that folder may have been interrupted.
        for folder in Folder::OWN.into_iter().chain([Folder::Counterfeit]) {
            let path = self.root.join(folder.name());
            for name in names(&path)? {
                let file = path.join(&name);
                if let Some(name) = unfinished(&name) {
                    let target = path.join(name);
                    found.push(Unfinished {
                        file,
                        target,
                        folder,
                    });
                    continue;
                }
                if !Folder::OWN.contains(&folder) {
                    continue;
                }
                match read(&file, &name) {
                    Ok(coin) => self.coins.push(Filed::new(coin, folder)),
                    Err(reason) => self.left_alone.push(LeftAlone::new(file, reason)),
                }
            }
        }
        Ok(found)
    }

    /// Leaves one of several files of a coin, or none where they differ. A copy that a move to
    /// Counterfeit left behind is superfluous as well.
    fn drop_copies(&mut self, remove: bool) -> Result<(), WalletError> {
        let mut by_coin: BTreeMap<Coin, Vec<Filed>> = BTreeMap::new();
        for filed in self.coins.drain(..) {
            by_coin.entry(filed.file.coin).or_default().push(filed);
        }
        for mut copies in by_coin.into_values() {
            if copies.iter().any(|copy| copy.file != copies[0].file) {
                for copy in &copies {
                    let reason = "there is another file of this coin, and they differ: keep the right one, or make two wallets of them and heal both";
                    let file = self.path(copy);
                    self.left_alone.push(LeftAlone::new(file, reason));
                }
                continue;
            }
            let belongs = copies[0].file.grade().folder();
            let place = copies.iter().position(|copy| copy.folder == belongs);
            let moved = (self.root.join(belongs.name())).join(copies[0].file.name());
            let is_elsewhere = !Folder::OWN.contains(&belongs) && holds(&moved, &copies[0].file);
            let stays = match is_elsewhere {
                true => moved,
                false => {
                    let stays = copies.swap_remove(place.unwrap_or(0));
                    let path = self.path(&stays);
                    self.coins.push(stays);
                    path
                }
            };
            if remove {
                for copy in &copies {
                    remove_copy(&self.path(copy), &stays)?;
                }
            }
        }
        Ok(())
    }

    /// Completes what a crash interrupted before the file had its name. Where the coin has a file,
    /// nothing was ever done that only the unfinished one knows of, since every request waits for
    /// the name. Where it has none, as in minting, the unfinished file is the only record of the
    /// coin.
    fn finish(&mut self, unfinished: Unfinished, change: bool) -> Result<(), WalletError> {
        let Unfinished {
            file,
            target,
            folder,
        } = unfinished;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let is_known = Folder::ALL
            .iter()
            .any(|folder| self.root.join(folder.name()).join(&*name).exists());
        if is_known {
            return match change {
                true => remove_durably(&file),
                false => Ok(()),
            };
        }
        match read(&file, &name) {
            Ok(coin) => {
                if change {
                    std::fs::rename(&file, &target)
                        .and_then(|()| sync(&self.root.join(folder.name())))
                        .map_err(|cause| disk("rename", &file, cause))?;
                }
                if Folder::OWN.contains(&folder) {
                    self.coins.push(Filed::new(coin, folder));
                }
            }
            // Nothing was ever in it.
            Err(_) if change && file.metadata().is_ok_and(|file| file.len() == 0) => {
                remove_durably(&file)?;
            }
            Err(reason) => {
                let reason = format!("a file that was never finished: {reason}");
                self.left_alone.push(LeftAlone::new(file, reason));
            }
        }
        Ok(())
    }
}

/// A file that does not have its name yet.
struct Unfinished {
    file: PathBuf,
    target: PathBuf,
    folder: Folder,
}

/// The names in a folder, sorted; none where there is no folder.
fn names(folder: &Path) -> Result<Vec<String>, WalletError> {
    let failed = |cause| disk("read", folder, cause);
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(failed(error)),
    };
    let mut names = entries
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<String>>>()
        .map_err(failed)?;
    names.sort();
    Ok(names)
}

/// The coin in a file that has, or should get, this name.
fn read(file: &Path, name: &str) -> Result<CoinFile, String> {
    if !is_coin_name(name) {
        return Err("it is no coin file: those end in .bin".to_owned());
    }
    let coin = CoinFile::read(file).map_err(|error| error.to_string())?;
    match coin.name() == name {
        true => Ok(coin),
        false => Err(format!("it holds the coin of {}", coin.name())),
    }
}

/// Whether the file is there with exactly these bytes.
fn holds(file: &Path, coin: &CoinFile) -> bool {
    CoinFile::read(file).is_ok_and(|other| other == *coin)
}

/// Why a coin could not be read from a file.
#[derive(Debug, thiserror::Error)]
pub enum UnreadableCoin {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Disk(#[from] io::Error),
    /// The file holds something else.
    #[error(transparent)]
    NotACoin(#[from] NotACoinFile),
}

impl CoinFile {
    /// Reads a file, whatever its name.
    ///
    /// # Errors
    /// It cannot be read, or holds something else than a coin.
    pub fn read(file: &Path) -> Result<CoinFile, UnreadableCoin> {
        // Reading one byte more than any coin file has reveals longer files.
        let most = CoinFile::SIZE_WITH_PANS + 1;
        let mut bytes = Zeroizing::new(Vec::with_capacity(most));
        plain_file::open(file)?
            .take(most as u64)
            .read_to_end(&mut bytes)?;
        Ok(CoinFile::parse(&bytes)?)
    }
}

/// Makes the missing folders of a wallet. Returns those that it made, each after the folder that it
/// is in.
fn make_folders(root: &Path) -> Result<Vec<PathBuf>, WalletError> {
    // A new folder is durable once its parent folder is synced.
    let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.is_dir();
    let above: Vec<&Path> = root.ancestors().take_while(missing).collect();
    let mut made: Vec<PathBuf> = above.iter().rev().map(|&folder| folder.into()).collect();
    for folder in Folder::ALL {
        let path = root.join(folder.name());
        if !path.is_dir() {
            let mut private = DirBuilder::new();
            let created = private.recursive(true).mode(0o700).create(&path);
            created.map_err(|cause| WalletError::NotOpened {
                doing: "make",
                file: path.clone(),
                cause,
            })?;
            made.push(path);
        }
    }
    for folder in above {
        let parent = match folder.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        sync(parent).map_err(|cause| disk("sync", parent, cause))?;
    }
    sync(root).map_err(|cause| disk("sync", root, cause))?;
    Ok(made)
}

fn lock(root: &Path) -> Result<Locked, WalletError> {
    let folder = File::open(root).map_err(|cause| disk("open", root, cause))?;
    match Locked::take(folder).map_err(|cause| disk("lock", root, cause))? {
        Some(folder) => Ok(folder),
        None => Err(WalletError::InUse(root.to_owned())),
    }
}

fn remove_durably(file: &Path) -> Result<(), WalletError> {
    let folder = file.parent().expect("a coin file stands in a folder");
    std::fs::remove_file(file)
        .and_then(|()| sync(folder))
        .map_err(|cause| disk("remove", file, cause))
}

/// Removes a file that has a copy. The copy's name may be only in memory yet.
fn remove_copy(file: &Path, stays: &Path) -> Result<(), WalletError> {
    let folder = stays.parent().expect("a coin file stands in a folder");
    sync(folder).map_err(|cause| disk("sync", folder, cause))?;
    remove_durably(file)
}

fn carry_out(filings: &[Filing]) -> Result<(), WalletError> {
    file_all(filings).map_err(|(file, cause)| disk("write", &file, cause))
}

fn disk(doing: &'static str, file: &Path, cause: io::Error) -> WalletError {
    WalletError::Disk {
        doing,
        file: file.to_owned(),
        cause,
    }
}
