//! A file that moves the clocks of real processes: those of builds with debug assertions, which
//! tests run, read it at every look at a clock.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// `WallClock::FILE_VARIABLE`, which builds without debug assertions do not have.
const VARIABLE: &str = "RAIDA_MOVED_CLOCK";

/// The file. Processes that were started with it share one time.
#[derive(Debug)]
pub struct MovedClock {
    path: PathBuf,
    file: File,
}

impl MovedClock {
    /// A file under this name, which moves no clock yet.
    pub fn new(path: &Path) -> MovedClock {
        let file = File::create_new(path).unwrap();
        drop(file);
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.write_all_at(&[0; 16], 0).unwrap();
        MovedClock {
            path: path.to_owned(),
            file,
        }
    }

    /// Has a process follow the file.
    pub fn give_to(&self, command: &mut Command) {
        command.env(VARIABLE, &self.path);
    }

    /// Lets this many seconds pass, on all clocks.
    pub fn pass(&self, seconds: u64) {
        let passed = u64::from_le_bytes(self.read(0)) + seconds;
        self.file.write_all_at(&passed.to_le_bytes(), 0).unwrap();
    }

    /// Sets the clocks on the wall forward, or back. No other clock moves.
    pub fn set(&self, seconds: i64) {
        let set = i64::from_le_bytes(self.read(8)) + seconds;
        self.file.write_all_at(&set.to_le_bytes(), 8).unwrap();
    }

    /// What these processes take for the seconds since 1970.
    pub fn unix_seconds(&self) -> u64 {
        let machine = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let passed = u64::from_le_bytes(self.read(0));
        let set = i64::from_le_bytes(self.read(8));
        (machine.as_secs() + passed).saturating_add_signed(set)
    }

    fn read(&self, at: u64) -> [u8; 8] {
        let mut bytes = [0; 8];
        self.file.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }
}
