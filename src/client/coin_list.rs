use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use zeroize::Zeroize;

use crate::coin::{An, Coin, Denomination, Mfs, SerialNumber};
use crate::folder_lock::Locked;
use crate::hex;
use crate::plain_file;
use crate::shown::{Shown, remedy};

/// One line of a CSV of coins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoinRecord {
    /// The coin.
    pub coin: Coin,
    /// Its authenticity number on one server.
    pub an: An,
    /// When it was last changed, never [`Mfs::FREE`]; `None` where the file has no such column.
    pub mfs: Option<Mfs>,
}

impl CoinRecord {
    /// Stands for an unknown number: the server was asked to make the coin, and its answer is not
    /// in the file.
    pub const UNKNOWN_AN: An = An::ZERO;

    /// Whether the file does not say the coin's number.
    pub fn is_unknown(&self) -> bool {
        self.an == CoinRecord::UNKNOWN_AN
    }

    /// The line of a CSV. Its length does not depend on the number.
    fn line(&self) -> String {
        let months = self.mfs.filter(|mfs| !mfs.is_free());
        let months = months.expect("a coin that is written is in circulation");
        let an = u128::from_be_bytes(*self.an.expose());
        let Coin {
            denomination,
            serial_number,
        } = self.coin;
        format!(
            "{denomination},{serial_number},{an:032x},{}\n",
            months.get()
        )
    }
}

/// Whether a CSV has to have the column `months_from_start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Months {
    /// For a file that becomes the state of a server.
    Required,
    /// For a file whose coins are only asked about: the server knows the months.
    Optional,
}

/// What to do with an existing file where a new one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it, and fail: it may be the only copy of somebody's coins.
    Keep,
    /// Put the new file in its place.
    Replace,
}

/// Why a CSV of coins could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum CoinListError {
    /// The file could not be opened or read.
    #[error("cannot read {file}: {cause}{next}", file = .0.shown(), cause = .1, next = remedy(.1))]
    Unreadable(PathBuf, io::Error),
    /// A line is wrong; lines are counted from 1, the header included.
    #[error("{file}:{line}: {fault}", file = file.shown())]
    Line {
        /// The file.
        file: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong with it.
        fault: Fault,
    },
    /// The file to write exists.
    #[error("{file} exists and may hold coins; name another file", file = .0.shown())]
    Exists(PathBuf),
    /// Another process writes the file.
    #[error("{file} is being written by another process: wait for it, or name another file", file = .0.shown())]
    BeingWritten(PathBuf),
    /// The file could not be written. What was synced before, if anything, is in the second file.
    #[error(
        "cannot write {file}: {cause}{kept}{next}",
        file = .0.shown(), cause = .2, kept = kept(.1.as_deref()), next = remedy(.2)
    )]
    Unwritable(PathBuf, Option<PathBuf>, io::Error),
}

fn kept(file: Option<&Path>) -> String {
    let kept = |file: &Path| format!("; what was written before is in {}", file.shown());
    file.map(kept).unwrap_or_default()
}

/// What is wrong with a line of a CSV of coins. The text of a fault never holds an authenticity
/// number.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The first line does not name the columns.
    #[error("the first line has to be `{HEADER}`{}", if *.0 == Months::Optional { " (the last column may be missing)" } else { "" })]
    Header(Months),
    /// Too many or too few values.
    #[error("{found} values where there should be {expected}")]
    Columns {
        /// What the header promised.
        expected: usize,
        /// What the line has.
        found: usize,
    },
    /// No such denomination.
    #[error("{0:?} is not a denomination: a whole number from -8 to 6")]
    Denomination(String),
    /// No such serial number.
    #[error("{0:?} is not a serial number: a whole number from 0 to 1023999")]
    SerialNumber(String),
    /// Not an authenticity number; its length in characters.
    #[error("the authenticity number is not 32 hex digits ({0} characters)")]
    AuthenticityNumber(usize),
    /// No such month.
    #[error("{0:?} is not a number of months from start: a whole number from 1 to 255")]
    Months(String),
    /// Months 0 would mean that the coin is not in circulation.
    #[error("months from start is 0, which means that the coin is free: leave it out")]
    Free,
    /// The file already has the coin.
    #[error("coin {0} is in this file a second time")]
    Duplicate(Coin),
    /// Not text at all.
    #[error("not UTF-8 text")]
    NotText,
}

const FIRST_LINE: &str = "denomination,serial_number,authenticity_number,months_from_start\n";
const HEADER: &str = FIRST_LINE.trim_ascii_end();
const COLUMNS: usize = 4;

/// Reads a CSV of coins, a line at a time. It is an iterator; after the first error it is of no
/// more use. Memory: at most 1.9 MB, a bit for each coin that could be a duplicate.
pub struct CoinListReader<R> {
    file: PathBuf,
    lines: csv::Reader<R>,
    line: StringRecord,
    columns: usize,
    seen: SeenCoins,
}

impl CoinListReader<BufReader<File>> {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// The file cannot be read, or its header names other columns.
    pub fn open(file: &Path, months: Months) -> Result<Self, CoinListError> {
        let bytes = plain_file::open(file)
            .map_err(|cause| CoinListError::Unreadable(file.to_owned(), cause))?;
        CoinListReader::new(BufReader::new(bytes), file, months)
    }
}

impl<R: Read> CoinListReader<R> {
    /// Reads the header from `bytes`; `file` is the name used in errors.
    ///
    /// # Errors
    /// As [`CoinListReader::open`].
    pub fn new(bytes: R, file: &Path, months: Months) -> Result<Self, CoinListError> {
        let lines = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .quoting(false)
            .trim(csv::Trim::All)
            .from_reader(bytes);
        let mut reader = CoinListReader {
            file: file.to_owned(),
            lines,
            line: StringRecord::new(),
            columns: COLUMNS,
            seen: SeenCoins::default(),
        };
        let header: Vec<&str> = HEADER.split(',').collect();
        let found = reader.next_line()?;
        let names: Vec<&str> = reader.line.iter().collect();
        let enough = match months {
            Months::Required => COLUMNS,
            Months::Optional => COLUMNS - 1,
        };
        reader.columns = names.len();
        if !found || names.len() < enough || !header.starts_with(&names) {
            return Err(reader.at_line(Fault::Header(months)));
        }
        Ok(reader)
    }

    /// Whether there was another line; it is in `self.line` then.
    fn next_line(&mut self) -> Result<bool, CoinListError> {
        self.lines
            .read_record(&mut self.line)
            .map_err(|error| match error.into_kind() {
                csv::ErrorKind::Io(cause) => CoinListError::Unreadable(self.file.clone(), cause),
                csv::ErrorKind::Utf8 { pos, .. } => CoinListError::Line {
                    file: self.file.clone(),
                    line: pos.map_or(1, |pos| pos.line()),
                    fault: Fault::NotText,
                },
                other => CoinListError::Unreadable(
                    self.file.clone(),
                    io::Error::other(format!("{other:?}")),
                ),
            })
    }

    fn at_line(&self, fault: Fault) -> CoinListError {
        CoinListError::Line {
            file: self.file.clone(),
            line: self.line.position().map_or(1, |position| position.line()),
            fault,
        }
    }
}

impl<R: Read> Iterator for CoinListReader<R> {
    type Item = Result<CoinRecord, CoinListError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.next_line() {
            Ok(false) => None,
            Ok(true) => Some(
                parse(&self.line, self.columns)
                    .and_then(|record| {
                        if self.seen.insert(record.coin) {
                            Ok(record)
                        } else {
                            Err(Fault::Duplicate(record.coin))
                        }
                    })
                    .map_err(|fault| self.at_line(fault)),
            ),
            Err(error) => Some(Err(error)),
        }
    }
}

fn parse(line: &StringRecord, columns: usize) -> Result<CoinRecord, Fault> {
    if line.len() != columns {
        return Err(Fault::Columns {
            expected: columns,
            found: line.len(),
        });
    }
    let denomination = (line[0].parse().ok())
        .and_then(Denomination::new)
        .ok_or_else(|| Fault::Denomination(line[0].to_owned()))?;
    let serial_number = (line[1].parse().ok())
        .and_then(SerialNumber::new)
        .ok_or_else(|| Fault::SerialNumber(line[1].to_owned()))?;
    let an = hex::read(&line[2])
        .map(An::new)
        .ok_or_else(|| Fault::AuthenticityNumber(line[2].chars().count()))?;
    let mfs = match line.get(3) {
        None => None,
        Some(months) => match months.parse() {
            Ok(0) => return Err(Fault::Free),
            Ok(months) => Some(Mfs::new(months)),
            Err(_) => return Err(Fault::Months(months.to_owned())),
        },
    };
    Ok(CoinRecord {
        coin: Coin {
            denomination,
            serial_number,
        },
        an,
        mfs,
    })
}

/// The coins seen so far, a bit each. A denomination's 128,000 bytes are allocated at its first
/// coin.
#[derive(Default)]
struct SeenCoins {
    denominations: [Vec<u8>; Denomination::COUNT],
}

impl SeenCoins {
    /// Whether the coin is seen for the first time.
    fn insert(&mut self, coin: Coin) -> bool {
        let bits = &mut self.denominations[coin.denomination.index()];
        if bits.is_empty() {
            bits.resize(SerialNumber::COUNT as usize / 8, 0);
        }
        let number = coin.serial_number.get() as usize;
        let (byte, bit) = (&mut bits[number / 8], 1 << (number % 8));
        let first = *byte & bit == 0;
        *byte |= bit;
        first
    }
}

/// Writes a CSV of coins so that it exists completely or not at all. It writes into a file beside
/// it, readable by its owner only (anybody who knows an authenticity number owns the coin). That
/// file takes the final name in [`CoinListWriter::finish`].
///
/// Everything before a call of [`CoinListWriter::sync`] is kept whatever happens, in that file;
/// everything after the last such call is lost with the writer.
pub struct CoinListWriter {
    file: PathBuf,
    so_far: PathBuf,
    existing: Existing,
    output: File,
    waiting: Vec<u8>,
    /// Bytes of the file up to the last [`CoinListWriter::sync`]; 0 before the first.
    synced_bytes: u64,
    /// Coins that a server was asked to make, from this position on in the file.
    asked: Option<(u64, Vec<CoinRecord>)>,
    _lock: Option<Locked>,
}

/// A line for every possible coin.
const LEFT_OVER_BYTES_MAX: usize = 1 << 30;

/// Bytes that wait in memory before they go to the file.
const WAITING_BYTES: usize = 64 * 1024;

impl CoinListWriter {
    /// Opens the file beside `file` and writes the header.
    ///
    /// # Errors
    /// The folder cannot be written, or the file exists and [`Existing::Keep`] was asked for.
    pub fn create(file: &Path, existing: Existing) -> Result<CoinListWriter, CoinListError> {
        if existing == Existing::Keep && file.symlink_metadata().is_ok() {
            return Err(CoinListError::Exists(file.to_owned()));
        }
        let mut name = file.file_name().unwrap_or_default().to_owned();
        // The process number keeps two programs apart that write the same name.
        name.push(format!(".{}.part", std::process::id()));
        let so_far = file.with_file_name(name);
        let output = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&so_far)
            .map_err(|cause| CoinListError::Unwritable(file.to_owned(), None, cause))?;
        // Where the file system has no locks, nobody can tell whether the file is being written.
        let lock = output.try_clone().and_then(Locked::take).ok().flatten();
        Ok(CoinListWriter {
            file: file.to_owned(),
            so_far,
            existing,
            output,
            waiting: FIRST_LINE.into(),
            synced_bytes: 0,
            asked: None,
            _lock: lock,
        })
    }

    /// Finds the files beside `file` that unfinished writers left. A file that a process still
    /// writes comes without a lock. The others belong to this process for as long as their locks
    /// live.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn left_over(file: &Path) -> Result<Vec<(PathBuf, Option<Locked>)>, CoinListError> {
        let unreadable = |cause| CoinListError::Unreadable(folder_of(file).to_owned(), cause);
        let name = file.file_name().unwrap_or_default().as_encoded_bytes();
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(folder_of(file)) {
            // A missing folder is reported when a file is written there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
            entries => entries.map_err(unreadable)?,
        };
        for entry in entries {
            let entry = entry.map_err(unreadable)?;
            let other = entry.file_name();
            let number = (other.as_encoded_bytes().strip_prefix(name))
                .and_then(|rest| rest.strip_prefix(b".")?.strip_suffix(b".part"));
            if !number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit)) {
                continue;
            }
            let path = entry.path();
            let unreadable = |cause| CoinListError::Unreadable(path.clone(), cause);
            let opened = plain_file::open(&path).map_err(unreadable)?;
            let lock = Locked::take(opened).map_err(unreadable)?;
            found.push((path, lock));
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }

    /// Reads what is [left over](CoinListWriter::left_over): complete lines. A line that was cut
    /// short concerns no coin that a server was asked for.
    ///
    /// # Errors
    /// The file cannot be read, or is no CSV of coins.
    pub fn read_left_over(part: &Path) -> Result<Vec<CoinRecord>, CoinListError> {
        let unreadable = |cause| CoinListError::Unreadable(part.to_owned(), cause);
        let mut text = plain_file::read(part, LEFT_OVER_BYTES_MAX).map_err(unreadable)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n');
        text.truncate(whole.map_or(0, |last| last + 1));
        if text.is_empty() {
            return Ok(vec![]);
        }
        // Version 0.1.0 left some without it.
        if !text.starts_with(FIRST_LINE.as_bytes()) {
            text.splice(0..0, FIRST_LINE.bytes());
        }
        CoinListReader::new(text.as_slice(), part, Months::Required)?.collect()
    }

    /// Writes down coins that a server is about to be asked to make, without their numbers, and
    /// waits until that is on disk.
    ///
    /// # Errors
    /// As [`CoinListWriter::sync`].
    ///
    /// # Panics
    /// When the result of the coins before is not known yet.
    pub fn ask(&mut self, coins: &[Coin], mfs: Mfs) -> Result<(), CoinListError> {
        assert!(self.asked.is_none(), "one batch at a time");
        if !self.waiting.is_empty() {
            self.sync()?;
        }
        let at = self.synced_bytes;
        let records = self.write_unknown(coins, mfs)?;
        self.asked = Some((at, records));
        Ok(())
    }

    /// Writes down coins without their numbers, which nobody adds later, and waits until that is on
    /// disk.
    ///
    /// # Errors
    /// As [`CoinListWriter::sync`].
    pub fn write_unknown(
        &mut self,
        coins: &[Coin],
        mfs: Mfs,
    ) -> Result<Vec<CoinRecord>, CoinListError> {
        let record = |&coin| CoinRecord {
            coin,
            an: CoinRecord::UNKNOWN_AN,
            mfs: Some(mfs),
        };
        let records: Vec<CoinRecord> = coins.iter().map(record).collect();
        for record in &records {
            self.write(record)?;
        }
        self.sync()?;
        Ok(records)
    }

    /// Adds the numbers of the coins that were asked for, and waits until they are on disk.
    ///
    /// # Errors
    /// The disk fails: some of the numbers may be in the file.
    ///
    /// # Panics
    /// When no coins were asked for, or not as many.
    pub fn answered(&mut self, ans: &[An]) -> Result<(), CoinListError> {
        let (at, records) = self.asked.as_mut().expect("coins were asked for");
        assert_eq!(records.len(), ans.len(), "a number each");
        let mut lines = String::new();
        for (record, &an) in records.iter_mut().zip(ans) {
            record.an = an;
            lines += &record.line();
        }
        let written = (self.output)
            .write_all_at(lines.as_bytes(), *at)
            .and_then(|()| self.output.sync_all());
        lines.zeroize();
        written.map_err(|cause| self.failed(cause))?;
        self.asked = None;
        Ok(())
    }

    /// Removes the coins that were asked for from the file: no server has made them, or they are
    /// written down elsewhere.
    ///
    /// # Errors
    /// The disk fails: they may be in the file.
    pub fn forget(&mut self) -> Result<(), CoinListError> {
        let Some((at, _)) = self.asked.take() else {
            return Ok(());
        };
        // A file without a coin is not kept: it begins again.
        let is_without = at == FIRST_LINE.len() as u64;
        let at = if is_without { 0 } else { at };
        self.synced_bytes = at;
        (self.output.set_len(at))
            .and_then(|()| self.output.seek(SeekFrom::Start(at)))
            .and_then(|_| self.output.sync_all())
            .map_err(|cause| self.failed(cause))?;
        if is_without {
            self.waiting.extend_from_slice(FIRST_LINE.as_bytes());
        }
        Ok(())
    }

    /// The file with the content until [`CoinListWriter::finish`].
    pub fn so_far(&self) -> &Path {
        &self.so_far
    }

    /// Adds a coin.
    ///
    /// # Errors
    /// The disk is full or fails.
    ///
    /// # Panics
    /// When the record has no months, or months 0: no reader would accept the line.
    pub fn write(&mut self, record: &CoinRecord) -> Result<(), CoinListError> {
        self.waiting.extend_from_slice(record.line().as_bytes());
        if self.waiting.len() < WAITING_BYTES {
            return Ok(());
        }
        self.flush().map_err(|cause| self.failed(cause))
    }

    /// Waits until everything written so far is on disk, and keeps it from now on.
    ///
    /// # Errors
    /// The disk is full or fails; the file then ends where the last successful call left it.
    pub fn sync(&mut self) -> Result<(), CoinListError> {
        let length = self
            .flush()
            .and_then(|()| self.output.sync_all())
            .and_then(|()| self.output.metadata())
            .map(|metadata| metadata.len());
        match length {
            Ok(length) => {
                self.synced_bytes = length;
                Ok(())
            }
            Err(cause) => {
                self.waiting.zeroize();
                // The first error is the one to report; every reader refuses a line cut short.
                let _ = self.output.set_len(self.synced_bytes);
                let _ = self.output.seek(SeekFrom::Start(self.synced_bytes));
                Err(self.failed(cause))
            }
        }
    }

    /// Whether the result of the coins asked for last is unknown.
    pub fn is_in_doubt(&self) -> bool {
        self.asked.is_some()
    }

    /// Removes the file: nobody needs the coins in it any more.
    ///
    /// # Errors
    /// The folder cannot be written; the file stays.
    pub fn discard(mut self) -> Result<(), CoinListError> {
        std::fs::remove_file(&self.so_far).map_err(|cause| self.failed(cause))?;
        // The file is gone already.
        self.synced_bytes = 1;
        Ok(())
    }

    /// Waits until everything is on disk and gives the file its name.
    ///
    /// # Errors
    /// The disk is full or fails, or somebody else created a file of that name meanwhile and
    /// [`Existing::Keep`] was asked for. What was synced is kept beside it.
    pub fn finish(mut self) -> Result<(), CoinListError> {
        self.sync()?;
        match self.existing {
            Existing::Replace => {
                std::fs::rename(&self.so_far, &self.file).map_err(|cause| self.failed(cause))?;
            }
            // A rename would replace a file that appeared since `create`; a second link does not.
            Existing::Keep => {
                std::fs::hard_link(&self.so_far, &self.file).map_err(|cause| self.failed(cause))?;
                std::fs::remove_file(&self.so_far).map_err(|cause| self.failed(cause))?;
            }
        }
        sync_folder(&self.file).map_err(|cause| self.failed(cause))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.write_all(&self.waiting)?;
        self.waiting.zeroize();
        Ok(())
    }

    fn failed(&self, cause: io::Error) -> CoinListError {
        // A file without synced content is removed with this writer.
        let so_far = (self.synced_bytes > 0).then(|| self.so_far.clone());
        CoinListError::Unwritable(self.file.clone(), so_far, cause)
    }
}

impl Drop for CoinListWriter {
    fn drop(&mut self) {
        if self.synced_bytes == 0 {
            // Nothing in it matters, and there is nobody to report to.
            let _ = std::fs::remove_file(&self.so_far);
        }
        self.waiting.zeroize();
    }
}

fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn sync_folder(file: &Path) -> io::Result<()> {
    File::open(folder_of(file))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn record(dn: i8, sn: u32, an: u8, months: u8) -> CoinRecord {
        CoinRecord {
            coin: Coin {
                denomination: Denomination::new(dn).unwrap(),
                serial_number: SerialNumber::new(sn).unwrap(),
            },
            an: An::new([an; 16]),
            mfs: Some(Mfs::new(months)),
        }
    }

    fn read(text: &str, months: Months) -> Result<Vec<CoinRecord>, String> {
        CoinListReader::new(text.as_bytes(), Path::new("c.csv"), months)
            .and_then(|reader| reader.collect())
            .map_err(|error| error.to_string())
    }

    fn refusal(lines: &str) -> String {
        read(&format!("{HEADER}\n{lines}"), Months::Required).unwrap_err()
    }

    const HEX: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn a_list_that_was_forgotten_begins_once_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coins.csv");
        let coins = |sn: u32| [record(1, sn, 0, 9).coin, record(1, sn + 1, 0, 9).coin];
        let mut writer = CoinListWriter::create(&file, Existing::Keep).unwrap();
        let part = writer.so_far().to_owned();
        for sn in 0..4 {
            writer.ask(&coins(sn), Mfs::new(9)).unwrap();
            let left = CoinListWriter::read_left_over(&part).unwrap();
            let left: Vec<Coin> = left.iter().map(|record| record.coin).collect();
            assert_eq!(left, coins(sn));
            writer.forget().unwrap();
            assert_eq!(CoinListWriter::read_left_over(&part).unwrap().len(), 0);
        }
        writer.ask(&coins(7), Mfs::new(9)).unwrap();
        // As earlier versions left it.
        let text = std::fs::read_to_string(&part).unwrap();
        std::fs::write(&part, text.strip_prefix(FIRST_LINE).unwrap()).unwrap();
        assert_eq!(CoinListWriter::read_left_over(&part).unwrap().len(), 2);
        writer.forget().unwrap();
        drop(writer);
        assert!(!part.exists());
    }

    #[test]
    fn a_sorted_file_is_written_as_it_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coins.csv");
        let text = format!("{HEADER}\n-8,0,{HEX},1\n-8,1023999,{HEX},255\n6,7,{HEX},40\n");
        let coins = read(&text, Months::Required).unwrap();
        assert_eq!(coins[1].an.expose()[..2], [0x00, 0x11]);

        let mut writer = CoinListWriter::create(&file, Existing::Keep).unwrap();
        for coin in &coins {
            writer.write(coin).unwrap();
        }
        assert!(!file.exists());
        writer.finish().unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn a_line_that_is_no_coin_is_refused_with_its_number() {
        for (lines, fault) in [
            (
                format!("-9,1,{HEX},40"),
                "c.csv:2: \"-9\" is not a denomination: a whole number from -8 to 6",
            ),
            (
                format!("1,1,{HEX},40\n1,1024000,{HEX},40"),
                "c.csv:3: \"1024000\" is not a serial number: a whole number from 0 to 1023999",
            ),
            (
                format!("1,1,{},40", &HEX[1..]),
                "c.csv:2: the authenticity number is not 32 hex digits (31 characters)",
            ),
            (
                format!("1,1,+{},40", &HEX[1..]),
                "c.csv:2: the authenticity number is not 32 hex digits (32 characters)",
            ),
            (
                format!("1,1,{HEX},0"),
                "c.csv:2: months from start is 0, which means that the coin is free: leave it out",
            ),
            (
                format!("1,1,{HEX},256"),
                "c.csv:2: \"256\" is not a number of months from start: a whole number from 1 to 255",
            ),
            (
                format!("1,1,{HEX}"),
                "c.csv:2: 3 values where there should be 4",
            ),
            (
                format!("1,1,{HEX},40\n\n2,1,{HEX},40\n1,1,{HEX},41"),
                "c.csv:5: coin 1.1 is in this file a second time",
            ),
        ] {
            assert_eq!(refusal(&lines), fault);
        }
    }

    #[test]
    fn an_error_never_shows_an_authenticity_number() {
        let secret = "5ec1e7";
        for lines in [
            format!("1,1,{secret},40"),
            format!("1,1,{secret},40,{secret}"),
            format!("1,1,{secret}{secret}{secret}{secret}{secret}xx,40"),
        ] {
            assert!(!refusal(&lines).contains(secret), "{}", refusal(&lines));
        }
    }

    #[test]
    fn months_may_be_missing_only_where_they_are_optional() {
        let text = format!("denomination,serial_number,authenticity_number\r\n1,1,{HEX}\r\n");
        assert_eq!(read(&text, Months::Optional).unwrap()[0].mfs, None);
        assert_eq!(
            read(&text, Months::Required).unwrap_err(),
            format!("c.csv:1: the first line has to be `{HEADER}`")
        );
        assert!(read("", Months::Optional).unwrap_err().contains("c.csv:1"));
        assert!(read(&format!("1,1,{HEX}\n"), Months::Optional).is_err());
    }

    #[test]
    fn an_existing_file_is_replaced_only_when_that_is_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coins.csv");
        std::fs::write(&file, "mine").unwrap();
        let refused = CoinListWriter::create(&file, Existing::Keep);
        assert!(matches!(refused.err(), Some(CoinListError::Exists(_))));

        CoinListWriter::create(&file, Existing::Replace)
            .unwrap()
            .finish()
            .unwrap();
        assert_eq!(
            std::fs::read_to_string(&file).unwrap(),
            format!("{HEADER}\n")
        );
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_kept_and_so_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coins.csv");
        let mut writer = CoinListWriter::create(&file, Existing::Keep).unwrap();
        writer.write(&record(1, 2, 3, 4)).unwrap();
        let so_far = writer.so_far().to_owned();
        std::fs::write(&file, "mine").unwrap();
        let error = writer.finish().unwrap_err().to_string();
        assert!(error.contains(&so_far.display().to_string()), "{error}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(
            CoinListReader::open(&so_far, Months::Required)
                .unwrap()
                .count(),
            1
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_not_named_as_what_was_written_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coins.csv");
        let mut writer = CoinListWriter::create(&file, Existing::Keep).unwrap();
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let before = writer.failed(full()).to_string();
        writer.sync().unwrap();
        let after = writer.failed(full()).to_string();
        let part = writer.so_far().display().to_string();
        assert!(!before.contains(&part), "{before}");
        assert!(after.contains(&part), "{after}");
        for error in [before, after] {
            assert!(error.contains(&file.display().to_string()), "{error}");
            assert!(error.contains("make room"), "{error}");
        }
        let nowhere = folder.path().join("none/coins.csv");
        let error = CoinListWriter::create(&nowhere, Existing::Keep).err();
        let error = error.unwrap().to_string();
        assert!(!error.contains(".part"), "{error}");
    }

    #[test]
    fn a_writer_that_is_dropped_leaves_nothing_unless_synced() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("coins.csv");
        drop(CoinListWriter::create(&file, Existing::Keep).unwrap());
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        let mut writer = CoinListWriter::create(&file, Existing::Keep).unwrap();
        writer.sync().unwrap();
        drop(writer);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
    }
}
