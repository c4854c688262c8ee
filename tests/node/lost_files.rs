//! Files of a data folder that go missing, at rest and under a running node, and two programs on
//! one folder: the real program says so, and does not serve from a folder that has lost an answered
//! change.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::node_process::changes::Book;
use crate::node_process::{NodeProcess, PATIENCE, Serve, admin_key, mint, raida};
use raida::client::{ClientError, Outcome};
use raida::coin::{An, Coin};
use raida::protocol::Status;

const DENOMINATIONS: [i8; 2] = [0, 3];

/// A data folder with coins.
struct Trial {
    folder: tempfile::TempDir,
    serve: Serve,
    book: Book,
    next: u8,
}

impl Trial {
    fn new(shards: u16) -> (Trial, NodeProcess) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let serve = Serve::on(&data)
            .with("shards.count", shards)
            .with("storage.segment_bytes", 1 << 20)
            .with("storage.checkpoint_interval_s", 3_600);
        let node = serve.start();
        let coins = mint(&mut node.client(), &admin_key(&data), &DENOMINATIONS, 2, 8);
        let trial = Trial {
            folder,
            serve,
            book: Book::new(coins),
            next: 0,
        };
        (trial, node)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Gives all coins new numbers.
    fn change(&mut self, node: &NodeProcess) {
        self.next += 1;
        let new =
            |i: usize| An::new([self.next, i as u8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5]);
        let asked: Vec<(Coin, An, An)> = (0..self.book.coins.len())
            .map(|i| (self.book.coins[i], self.book.an(i), new(i)))
            .collect();
        for (i, asked) in asked.iter().enumerate() {
            let (outcomes, error) = node.client().pown(&[*asked]);
            assert!(error.is_none(), "{error:?}");
            assert_eq!(outcomes, [Outcome::Changed]);
            self.book.set(i, asked.2);
        }
    }

    /// Tries to give a coin a new number. Gives whether the node takes no changes.
    fn is_refused(&mut self, node: &NodeProcess) -> bool {
        let (coin, an) = self.book.coin_and_an(0);
        let new = An::new(rand::random());
        let (outcomes, error) = node.client().pown(&[(coin, an, new)]);
        match error {
            None => {
                assert_eq!(outcomes, [Outcome::Changed]);
                self.book.set(0, new);
                false
            }
            Some(ClientError::Refused(_, Status::UNAVAILABLE)) => true,
            other => panic!("{other:?}"),
        }
    }

    fn wait_until_refused(&mut self, node: &NodeProcess) {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_refused(node) {
            assert!(Instant::now() < deadline, "changes are still taken");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asserts that no program works on the folder as it is, and that each names `file`.
    fn assert_refused(&self, file: &str) {
        let ending = self.serve.try_start().err().expect("it must not start");
        assert_eq!(ending.status.code(), Some(2), "{ending:?}");
        assert!(ending.log.contains(file), "{file}: {}", ending.log);
        let (status, said) = self.check();
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(file), "{file}: {said}");
        let out = self.folder.path().join("out.csv");
        let exported = self.run(&["export", "--csv", out.to_str().unwrap()]);
        if file.starts_with("book/") {
            // Coins are read without it, and all are there.
            assert_eq!(exported.0, Some(0), "{}", exported.1);
            let lines = fs::read_to_string(&out).unwrap().lines().count();
            assert_eq!(lines, 1 + self.book.coins.len());
            fs::remove_file(&out).unwrap();
            return;
        }
        assert_ne!(exported.0, Some(0), "{}", exported.1);
    }

    fn check(&self) -> (Option<i32>, String) {
        self.run(&["check"])
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let data = self.data();
        let mut all: Vec<&OsStr> = words.iter().map(OsStr::new).collect();
        all.extend([OsStr::new("--data"), data.as_os_str()]);
        let done = raida(&all);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout) + &text(done.stderr))
    }

    /// Segments that hold changes.
    fn used_segments(&self) -> Vec<PathBuf> {
        let log = fs::read_dir(self.data().join("log")).unwrap();
        let paths = log.map(|entry| entry.unwrap().path());
        let has_changes = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap();
            bytes.starts_with(b"RAIDALOG") && bytes[4_096..4_100] == *b"BTCH"
        };
        let mut used: Vec<PathBuf> = paths.filter(has_changes).collect();
        used.sort();
        assert!(!used.is_empty());
        used
    }
}

fn relative(data: &Path, path: &Path) -> String {
    path.strip_prefix(data).unwrap().display().to_string()
}

/// What a sparse copy that lost its data leaves: a file as long as it was, of zeros.
#[test]
fn page_files_that_are_blank_in_part_or_all_are_named() {
    for shards in [1, 2] {
        let (mut trial, node) = Trial::new(shards);
        let mut node = Some(node);
        // Once where the last checkpoint has counted the pages, once where a recovery has.
        for is_killed in [false, true] {
            let node = node.take().unwrap_or_else(|| trial.serve.start());
            trial.book.assert_kept(&node);
            trial.change(&node);
            match is_killed {
                true => drop(node.kill()),
                false => drop(node.stop()),
            }
            for name in ["00.pages", "03.pages"] {
                let path = trial.data().join("pages").join(name);
                let whole = fs::read(&path).unwrap();
                let used = |page: usize| whole[page * 40_960..].iter().any(|&byte| byte != 0);
                assert!(used(0) && used(1), "two pages are in it");
                for blank in [0..whole.len(), 0..40_960, 40_960..whole.len()] {
                    let mut bytes = whole.clone();
                    bytes[blank].fill(0);
                    fs::write(&path, bytes).unwrap();
                    trial.assert_refused(&format!("pages/{name}"));
                }
                fs::write(&path, whole).unwrap();
            }
        }
        trial.book.assert_kept(&trial.serve.start());
    }
}

#[test]
fn a_missing_or_short_segment_is_named_and_nothing_starts_on_it_until_the_loss_is_accepted() {
    for shards in [1, 2] {
        let (mut trial, node) = Trial::new(shards);
        trial.change(&node);
        node.kill();
        for segment in trial.used_segments() {
            let name = relative(&trial.data(), &segment);
            let aside = trial.folder.path().join("aside");
            fs::rename(&segment, &aside).unwrap();
            trial.assert_refused(&name);
            fs::copy(&aside, &segment).unwrap();
            let file = File::options().write(true).open(&segment).unwrap();
            file.set_len(4_096).unwrap();
            trial.assert_refused(&name);
            fs::rename(&aside, &segment).unwrap();
        }
        // The whole folder.
        let (log, aside) = (trial.data().join("log"), trial.folder.path().join("away"));
        fs::rename(&log, &aside).unwrap();
        trial.assert_refused("log/");
        let refused = trial.serve.try_start().err().unwrap().log;
        assert!(refused.contains("--accept-loss"), "{refused}");
        // None of the attempts has changed anything.
        fs::remove_dir_all(&log).unwrap();
        fs::rename(&aside, &log).unwrap();
        let node = trial.serve.start();
        trial.book.assert_kept(&node);
        trial.change(&node);
        node.kill();

        let lost = trial.used_segments().remove(0);
        fs::remove_file(&lost).unwrap();
        let node = trial.serve.clone().flag("--accept-loss").start();
        node.wait_for_log(&relative(&trial.data(), &lost));
        assert!(node.client().echo().is_ok());
        node.kill();
        let (status, said) = trial.check();
        assert_eq!(status, Some(0), "{said}");
        assert!(trial.serve.start().stop().status.success());
    }
}

#[test]
fn nobody_misses_the_log_of_a_node_that_stopped_in_order() {
    let (mut trial, node) = Trial::new(2);
    trial.change(&node);
    assert!(node.stop().status.success());
    fs::remove_dir_all(trial.data().join("log")).unwrap();
    let (status, said) = trial.check();
    assert_eq!(status, Some(0), "{said}");
    trial.book.assert_kept(&trial.serve.start());
}

#[test]
fn other_parts_of_a_folder_that_go_missing_are_named() {
    let (mut trial, node) = Trial::new(2);
    trial.change(&node);
    assert!(node.stop().status.success());
    let data = trial.data();
    let gone = |name: &str, told: &str| {
        let (path, aside) = (data.join(name), trial.folder.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        trial.assert_refused(told);
        let _ = fs::remove_dir_all(&path);
        fs::rename(&aside, &path).unwrap();
    };
    gone("segments", "segments");
    gone("pages/00.pages", "pages/00.pages");
    gone("pages", "pages/00.pages");
    gone("book", "book/1-0-a");
    // The folder's secret: no command makes a new one for coins that are there.
    let aside = trial.folder.path().join("secret");
    fs::rename(data.join("secret"), &aside).unwrap();
    let ending = trial.serve.try_start().err().expect("no secret");
    assert!(ending.log.contains("secret is missing"), "{}", ending.log);
    assert_eq!(trial.check().0, Some(2));
    assert!(!data.join("secret").exists());
    fs::rename(&aside, data.join("secret")).unwrap();
    // Another node's folder.
    let whose = fs::read_to_string(data.join("node")).unwrap();
    fs::write(data.join("node"), "RAIDA 24, coin id 6\n").unwrap();
    let ending = trial.serve.try_start().err().expect("another node's");
    let told = "the data folder of RAIDA 24, coin id 6, and this node is RAIDA";
    assert!(ending.log.contains(told), "{}", ending.log);
    fs::write(data.join("node"), whose).unwrap();
    trial.book.assert_kept(&trial.serve.start());
    // An entirely emptied folder is a new node.
    fs::remove_dir_all(&data).unwrap();
    fs::create_dir(&data).unwrap();
    assert!(trial.serve.start().greeted("data").contains("(new)"));
}

/// Older batches in a segment that is used again are longer than those of a short run over them.
#[test]
fn after_orderly_stops_no_batch_is_said_to_be_cut_short() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let serve = Serve::on(&data).with("storage.segment_bytes", 1 << 20);
    // A batch of 140 coins takes several blocks, one of two coins takes one.
    for (pages, coins) in [(6, 140), (1, 2), (6, 140), (3, 2)] {
        let node = serve.start();
        mint(&mut node.client(), &admin_key(&data), &[0], pages, coins);
        let ending = node.stop();
        assert!(ending.status.success(), "{ending:?}");
        let check = raida(&[OsStr::new("check"), OsStr::new("--data"), data.as_os_str()]);
        let said = String::from_utf8_lossy(&check.stdout);
        assert_eq!(check.status.code(), Some(0), "{said}");
        assert!(!said.contains("cut short"), "{said}");
    }
}

#[test]
fn a_segment_that_is_removed_under_a_node_stops_changes_and_loses_none() {
    for shards in [1, 2] {
        let (mut trial, node) = Trial::new(shards);
        trial.change(&node);
        for segment in trial.used_segments() {
            fs::remove_file(segment).unwrap();
        }
        trial.wait_until_refused(&node);
        assert!(trial.is_refused(&node));
        trial.book.assert_kept(&node);
        node.wait_for_log("removed or moved away");
        let ending = node.stop();
        assert!(ending.status.success(), "{ending:?}");
        let told = ending.log.matches("removed or moved away").count();
        assert!((1..=usize::from(shards)).contains(&told), "{}", ending.log);
        let (status, said) = trial.check();
        assert_eq!(status, Some(0), "{said}");
        let node = trial.serve.start();
        trial.book.assert_kept(&node);
        trial.change(&node);
    }
}

#[test]
fn a_log_folder_that_is_replaced_under_a_node_stops_changes() {
    let (mut trial, node) = Trial::new(1);
    trial.change(&node);
    let log = trial.data().join("log");
    fs::rename(&log, trial.data().join("log-before")).unwrap();
    fs::create_dir(&log).unwrap();
    trial.wait_until_refused(&node);
    trial.book.assert_kept(&node);
    node.kill();
    // A checkpoint saved all that was answered, or the loss is noticed.
    match trial.serve.try_start() {
        Ok(node) => {
            trial.book.assert_kept(&node);
            node.kill();
        }
        Err(_) => trial.assert_refused("log/"),
    }
    fs::remove_dir_all(&log).unwrap();
    fs::rename(trial.data().join("log-before"), &log).unwrap();
    trial.book.assert_kept(&trial.serve.start());
}

#[test]
fn a_folder_whose_lock_file_is_removed_is_still_one_nodes() {
    let (trial, node) = Trial::new(1);
    for _ in 0..2 {
        fs::remove_file(trial.data().join("lock")).unwrap();
        let ending = trial.serve.try_start().err().expect("a second node");
        assert_eq!(ending.status.code(), Some(2), "{ending:?}");
        assert!(ending.log.contains("in use"), "{}", ending.log);
        let csv = trial.folder.path().join("coins.csv");
        let csv = csv.to_str().unwrap();
        let coins = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/coins.csv");
        for words in [
            &["check"][..],
            &["check", "--rebuild"],
            &["export", "--csv", csv],
            &["import", "--csv", coins],
        ] {
            let (status, said) = trial.run(words);
            assert_eq!(status, Some(2), "{words:?}: {said}");
            assert!(said.contains("in use"), "{words:?}: {said}");
        }
        // It asks the node that has the folder.
        let (status, said) = trial.run(&["audit"]);
        assert_eq!(status, Some(0), "{said}");
        // Leftovers of the refused programs must not let the next one in.
        let _ = File::create(trial.data().join("lock")).unwrap();
    }
    trial.book.assert_kept(&node);
    node.kill();
    trial.book.assert_kept(&trial.serve.start());
}

#[test]
fn what_is_no_plain_file_is_named_and_nothing_hangs_on_it() {
    let (mut trial, node) = Trial::new(1);
    trial.change(&node);
    node.kill();
    let assert_named = |trial: &Trial, name: &str| {
        let ending = trial.serve.try_start().err().expect("it must not start");
        assert_eq!(ending.status.code(), Some(2), "{ending:?}");
        let (status, said) = trial.check();
        assert_eq!(status, Some(2), "{said}");
        for said in [ending.log, said] {
            assert!(
                said.contains(name) && said.contains("not a plain file"),
                "{said}"
            );
        }
    };
    let data = trial.data();
    let mut names = vec!["pages/00.pages".to_owned(), "segments".to_owned()];
    names.extend(
        trial
            .used_segments()
            .iter()
            .map(|path| relative(&data, path)),
    );
    for name in names {
        let (path, aside) = (data.join(&name), trial.folder.path().join("aside"));
        fs::rename(&path, &aside).unwrap();
        let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path is a string that ends with 0.
        assert_eq!(unsafe { libc::mkfifo(text.as_ptr(), 0o600) }, 0);
        assert_named(&trial, &name);
        fs::remove_file(&path).unwrap();
        // Nor is it read to its end.
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_named(&trial, &name);
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    trial.book.assert_kept(&trial.serve.start());
}
