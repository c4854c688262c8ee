//! Import, export, check and audit of data folders that no node serves: the program as a person
//! runs it, on real files.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use raida::coin::{An, Coin, Denomination, Mfs, PageId};
use raida::runtime::{Disk, Live, run_awake};
use raida::store::book::Notes;
use raida::store::log::{Durability, Log, LogSettings};
use raida::store::offline::{OfflineError, OfflineFolder};
use raida::store::record::{Change, PageSequence};
use raida::store::{DataFolder, NodeIdentity, PageImage, SLOT_BYTES, Slot, slot_offset};
use serde_json::Value;

const PAGE_FILE_BYTES: usize = 17_408;
const RECORD_BYTES: usize = 17;
const HEADER: &str = "denomination,serial_number,authenticity_number,months_from_start\n";

/// A folder to work in.
struct Trial {
    folder: tempfile::TempDir,
}

struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Trial {
    fn new() -> Trial {
        Trial {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs `raida` with these words in the folder.
    fn run(&self, words: &str) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_raida"))
            .current_dir(self.folder.path())
            .args(words.split(' '))
            .output()
            .unwrap();
        Run {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn succeed(&self, words: &str) -> String {
        let run = self.run(words);
        assert_eq!((run.status, run.err.as_str()), (0, ""), "{}", run.out);
        run.out
    }

    /// What `raida check --json` says, and its exit status.
    fn check(&self) -> (i32, Value) {
        let run = self.run("check --data d --json");
        assert_eq!(run.err, "");
        (run.status, serde_json::from_str(&run.out).unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn flip(&self, file: &str, offset: u64) {
        let path = self.path(file);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], offset).unwrap();
    }

    fn import_coins(&self) {
        std::fs::copy(coins_csv(), self.path("coins.csv")).unwrap();
        self.succeed("import --data d --csv coins.csv");
    }

    /// Two pages of denomination 1 with two coins each, both slots of the first one written.
    fn import_small(&self) {
        self.write(
            "a.csv",
            csv(&[(1, 5, 'a'), (1, 6, 'b'), (1, 1_024, 'c'), (1, 1_025, 'd')]),
        );
        self.write("b.csv", csv(&[(1, 7, 'e')]));
        self.succeed("import --data d --csv a.csv");
        self.succeed("import --data d --csv b.csv");
    }
}

fn coins_csv() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/coins.csv")
}

/// Lines of a CSV: denomination, serial number, and the digit that the AN is made of.
fn csv(coins: &[(i8, u32, char)]) -> String {
    let lines = coins.iter().map(|(denomination, serial_number, digit)| {
        let an = digit.to_string().repeat(32);
        format!("{denomination},{serial_number},{an},40\n")
    });
    HEADER.to_owned() + &lines.collect::<String>()
}

fn page(exponent: i8, number: u16) -> PageId {
    PageId::new(Denomination::new(exponent).unwrap(), number).unwrap()
}

/// Bytes without a pattern: the same at each run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(step).collect()
}

/// A page file of an existing server; every third coin is free, with an AN all the same.
fn raidax_page(seed: u64) -> Vec<u8> {
    let mut bytes = noise(seed, PAGE_FILE_BYTES);
    for record in bytes.chunks_exact_mut(RECORD_BYTES).step_by(3) {
        record[RECORD_BYTES - 1] = 0;
    }
    bytes
}

/// Names and contents of all files below a folder, by name.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = vec![];
    for entry in folder.read_dir().unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.clone(), std::fs::read(path).unwrap())),
        }
    }
    found.sort();
    found
}

/// The same, with names that do not say where the folder is.
fn relative(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let strip = |path: PathBuf| path.strip_prefix(root).unwrap().to_owned();
    let found = files(root).into_iter();
    found.map(|(path, bytes)| (strip(path), bytes)).collect()
}

/// Writes changes to a log of the data folder, a record a batch, as a node does that is killed
/// before its first checkpoint.
fn log_changes(data: &Path, changes: Vec<(PageSequence, Change)>) {
    let folder = DataFolder::open(data, true).unwrap();
    let path = folder.path().to_owned();
    let work = async move {
        let settings = LogSettings {
            shard: 0,
            segment_bytes: 1 << 20,
            durability: Durability::Commit,
            flush_interval: Duration::from_millis(1),
            run: 1,
            round: 0,
        };
        let environment = Live::new(Disk::new(&path));
        let log = Log::open(environment, settings, Rc::default())
            .await
            .unwrap();
        for (page, change) in changes {
            let appended = log
                .append(&[page], &[change], &Notes::default())
                .await
                .unwrap();
            log.durable(&appended).await.unwrap();
            log.settle(appended);
        }
        log.close().await;
    };
    let executor = LocalExecutorBuilder::new(Placement::Unbound);
    run_awake(&executor.make().unwrap(), work);
}

fn change(coin: Coin, sequence: u64, an: u8, months: u8) -> (PageSequence, Change) {
    let page = coin.page();
    let change = Change {
        coin,
        an: An::new([an; 16]),
        mfs: Mfs::new(months),
    };
    (PageSequence { page, sequence }, change)
}

#[test]
fn coins_come_back_byte_for_byte() {
    let trial = Trial::new();
    trial.import_coins();
    trial.succeed("export --data d --csv out.csv");
    assert!(trial.read("out.csv") == trial.read("coins.csv"));
    let (status, report) = trial.check();
    assert_eq!(
        (status, &report["sound"]),
        (0, &Value::Bool(true)),
        "{report}"
    );
    assert_eq!(report["warnings"], Value::Array(vec![]));
    assert_eq!(report["circulation"]["coins"], 940);
    let audit: Value = serde_json::from_str(&trial.succeed("audit --data d --json")).unwrap();
    assert_eq!(audit, report["circulation"]);
}

#[test]
fn page_files_come_back_byte_for_byte() {
    let trial = Trial::new();
    let mut all_free = raidax_page(4);
    all_free
        .chunks_exact_mut(RECORD_BYTES)
        .for_each(|record| record[16] = 0);
    for (name, bytes) in [
        ("f8/00/0000.bin", raidax_page(1)),
        ("ff/01/01ab.bin", raidax_page(2)),
        ("00/03/03e7.bin", raidax_page(3)),
        ("06/02/02ff.bin", all_free),
        ("06/03/0300.bin", vec![0; PAGE_FILE_BYTES]),
    ] {
        trial.write(&format!("Data/{name}"), bytes);
    }
    trial.succeed("import --data d --raidax-data Data");
    trial.succeed("export --data d --raidax-data Out");
    assert!(relative(&trial.path("Data")) == relative(&trial.path("Out")));
    assert_eq!(trial.check().0, 0);
}

#[test]
fn an_import_for_a_node_says_how_that_starts_and_keeps_away_from_another_ones_folder() {
    let trial = Trial::new();
    trial.import_small();
    let node = |raida: u8| {
        let text = format!("[node]\nraida_id = {raida}\ndata_dir = \"data\"\n");
        std::fs::write(trial.folder.path().join("node.toml"), text).unwrap();
    };
    node(7);
    let out = trial.succeed("import --config node.toml --csv a.csv");
    assert!(
        out.ends_with("try: raida serve --config node.toml\n"),
        "{out}"
    );
    let folder = DataFolder::open(&trial.folder.path().join("data"), false).unwrap();
    folder
        .serve_as(NodeIdentity {
            raida: 7,
            coin_id: 6,
        })
        .unwrap();
    drop(folder);
    trial.succeed("import --config node.toml --csv a.csv");
    node(3);
    let run = trial.run("import --config node.toml --csv a.csv");
    assert_eq!(run.status, 2, "{}", run.out);
    let says = "data is the data folder of RAIDA 7, coin id 6, and this node is RAIDA 3";
    assert!(run.err.contains(says), "{}", run.err);
    // Nor does a wallet become a data folder.
    std::fs::create_dir_all(trial.folder.path().join("wallet/Bank")).unwrap();
    let run = trial.run("import --data wallet --csv a.csv");
    assert_eq!(run.status, 2, "{}", run.out);
    assert!(run.err.contains("wallet is a wallet"), "{}", run.err);
}

#[test]
fn an_import_again_writes_nothing() {
    let trial = Trial::new();
    trial.import_coins();
    let before = files(&trial.path("d/pages"));
    let said: Value =
        serde_json::from_str(&trial.succeed("import --data d --csv coins.csv --json")).unwrap();
    assert_eq!((&said["new"], &said["unchanged"]), (&0.into(), &940.into()));
    assert_eq!(said["pages_written"], 0);
    assert!(files(&trial.path("d/pages")) == before);
}

#[test]
fn an_import_that_is_killed_is_finished_by_the_next() {
    let trial = Trial::new();
    for number in 0..600 {
        let name = format!("Data/01/{:02x}/{number:04x}.bin", number >> 8);
        trial.write(&name, raidax_page(number));
    }
    let mut import = Command::new(env!("CARGO_BIN_EXE_raida"))
        .current_dir(trial.folder.path())
        .args(["import", "--data", "d", "--raidax-data", "Data"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pages = trial.path("d/pages/01.pages");
    let has_begun = || pages.metadata().is_ok_and(|file| file.blocks() > 0);
    while !has_begun() && import.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    import.kill().unwrap();
    import.wait().unwrap();
    let (status, report) = trial.check();
    assert_eq!(
        (status, &report["can_start"]),
        (0, &Value::Bool(true)),
        "{report}"
    );

    trial.succeed("import --data d --raidax-data Data");
    let (_, report) = trial.check();
    assert_eq!(report["pages_written"], 600, "{report}");
    assert_eq!(report["warnings"], Value::Array(vec![]));
    trial.succeed("export --data d --raidax-data Out");
    assert!(relative(&trial.path("Data")) == relative(&trial.path("Out")));
}

#[test]
fn a_coin_of_somebody_else_is_not_overwritten_unless_that_is_asked_for() {
    let trial = Trial::new();
    trial.import_small();
    trial.write(
        "other.csv",
        csv(&[(1, 5, 'f'), (1, 1_024, 'c'), (2, 1, 'a')]),
    );
    let before = files(&trial.path("d/pages"));
    let refused = trial.run("import --data d --csv other.csv");
    assert_eq!((refused.status, refused.err.as_str()), (1, ""));
    assert!(
        refused.out.contains("1 coin in circulation"),
        "{}",
        refused.out
    );
    assert!(
        refused
            .out
            .contains("coin 1.5 has another authenticity number"),
        "{}",
        refused.out
    );
    assert!(files(&trial.path("d/pages")) == before);

    trial.succeed("import --data d --csv other.csv --replace");
    trial.succeed("export --data d --csv out.csv");
    let all = [
        (1, 5, 'f'),
        (1, 6, 'b'),
        (1, 7, 'e'),
        (1, 1_024, 'c'),
        (1, 1_025, 'd'),
        (2, 1, 'a'),
    ];
    assert_eq!(String::from_utf8(trial.read("out.csv")).unwrap(), csv(&all));
}

#[test]
fn a_page_that_frees_a_coin_is_a_conflict() {
    let trial = Trial::new();
    trial.import_small();
    trial.write("Data/01/00/0000.bin", vec![0; PAGE_FILE_BYTES]);
    let refused = trial.run("import --data d --raidax-data Data --json");
    let said: Value = serde_json::from_str(&refused.out).unwrap();
    assert_eq!((refused.status, &said["conflicts"]), (1, &3.into()));
    assert_eq!(said["examples"][0]["what"], "is free in the input");
    trial.succeed("import --data d --raidax-data Data --replace");
    trial.succeed("export --data d --csv out.csv");
    let left = csv(&[(1, 1_024, 'c'), (1, 1_025, 'd')]);
    assert_eq!(String::from_utf8(trial.read("out.csv")).unwrap(), left);
}

#[test]
fn a_wrong_line_at_the_end_of_the_input_keeps_all_of_it_out() {
    let trial = Trial::new();
    trial.write("a.csv", csv(&[(1, 5, 'a'), (7, 6, 'b')]));
    let refused = trial.run("import --data d --csv a.csv");
    assert_eq!((refused.status, refused.out.as_str()), (2, ""));
    assert!(
        refused.err.starts_with("raida: a.csv:3: "),
        "{}",
        refused.err
    );
    assert!(!trial.path("d").exists());
}

#[test]
fn what_the_log_holds_counts_for_export_check_audit_and_import() {
    let trial = Trial::new();
    trial.import_small();
    let (coin, free) = (page(1, 0).coin(5), page(3, 9).coin(8));
    log_changes(
        &trial.path("d"),
        vec![
            change(coin, 3, 0x11, 41),
            change(coin, 4, 0x22, 42),
            change(page(1, 1).coin(0), 2, 0x33, 0),
            change(free, 1, 0x44, 43),
        ],
    );
    let before = files(&trial.path("d/pages"));
    let (status, report) = trial.check();
    assert_eq!(status, 0, "{report}");
    assert_eq!(report["log"]["batches"], 4);
    assert_eq!(report["log"]["pending_changes"], 3);
    assert_eq!(report["circulation"]["coins"], 5);
    assert_eq!(report["pages_written"], 3);
    let audit: Value = serde_json::from_str(&trial.succeed("audit --data d --json")).unwrap();
    assert_eq!(audit, report["circulation"]);
    trial.succeed("export --data d --csv out.csv");
    let lines = |numbered: [&str; 2]| {
        let lines = csv(&[(1, 6, 'b'), (1, 7, 'e'), (1, 1_025, 'd')]);
        let lines = lines.strip_prefix(HEADER).unwrap().to_owned();
        format!("{HEADER}{}\n{lines}{}\n", numbered[0], numbered[1])
    };
    let all = lines([
        "1,5,22222222222222222222222222222222,42",
        "3,9224,44444444444444444444444444444444,43",
    ]);
    assert_eq!(String::from_utf8(trial.read("out.csv")).unwrap(), all);
    assert!(files(&trial.path("d/pages")) == before);

    trial.write("c.csv", csv(&[(1, 8, 'f')]));
    trial.succeed("import --data d --csv c.csv");
    trial.succeed("export --data d --csv out.csv --overwrite");
    let with_it = all.replace("1,1025,", &format!("1,8,{},40\n1,1025,", "f".repeat(32)));
    assert_eq!(String::from_utf8(trial.read("out.csv")).unwrap(), with_it);
    let (status, report) = trial.check();
    assert_eq!(
        (status, &report["log"]["segments"]),
        (0, &0.into()),
        "{report}"
    );
}

#[test]
fn damage_of_the_newest_slot_is_named_by_file_and_offset() {
    // The first page of denomination 1 was written twice: its newest slot is the second.
    let slot = slot_offset(page(1, 0), Slot::B);
    assert_eq!(slot, SLOT_BYTES as u64);
    for (flipped, named) in [(20, 0), (3_072 + 5, 0), (4_096 + 17, 4_096)] {
        let trial = Trial::new();
        trial.import_small();
        trial.flip("d/pages/01.pages", slot + flipped);
        let before = files(&trial.path("d"));
        let (status, report) = trial.check();
        assert_eq!(status, 1, "{report}");
        assert_eq!(report["faults"].as_array().unwrap().len(), 1, "{report}");
        assert_eq!(report["faults"][0]["file"], "pages/01.pages");
        assert_eq!(report["faults"][0]["offset"], slot + named);
        assert_eq!(report["can_start"], true);
        assert_eq!(report["circulation"]["coins"], 2, "the other page's");
        let text = trial.run("check --data d");
        assert_eq!(text.status, 1);
        let line = format!("damage   pages/01.pages at byte {}: ", slot + named);
        assert!(text.out.contains(&line), "{}", text.out);

        let refused = trial.run("export --data d --csv out.csv");
        assert_eq!((refused.status, refused.out.as_str()), (2, ""));
        assert!(
            refused.err.contains("raida check --data d"),
            "{}",
            refused.err
        );
        assert!(!trial.path("out.csv").exists());
        let unchanged = |(path, bytes): &(PathBuf, Vec<u8>)| {
            path.ends_with("lock") || std::fs::read(path).unwrap() == *bytes
        };
        assert!(
            before.iter().all(unchanged),
            "check and export change nothing"
        );
        let refused = trial.run("import --data d --csv a.csv --replace");
        assert_eq!(refused.status, 2, "{}", refused.out);
    }
}

#[test]
fn damage_of_a_page_written_once_does_not_pass_for_a_page_never_written() {
    let trial = Trial::new();
    trial.import_small();
    let slot = slot_offset(page(1, 1), Slot::A);
    trial.flip("d/pages/01.pages", slot + 3_072);
    let (status, report) = trial.check();
    assert_eq!(
        (status, &report["faults"][0]["offset"]),
        (1, &slot.into()),
        "{report}"
    );
}

#[test]
fn damage_of_an_older_slot_is_a_warning() {
    for flipped in [3_072, SLOT_BYTES as u64 - 1] {
        let trial = Trial::new();
        trial.import_small();
        trial.flip("d/pages/01.pages", flipped);
        let (status, report) = trial.check();
        assert_eq!(
            (status, &report["sound"]),
            (0, &Value::Bool(true)),
            "{report}"
        );
        assert_eq!(report["warnings"][0]["file"], "pages/01.pages");
        assert_eq!(report["warnings"][0]["offset"], 0);
        assert_eq!(report["circulation"]["coins"], 5);
    }
}

#[test]
fn damage_in_the_middle_of_the_log_is_damage_and_at_its_end_a_note() {
    const BATCH: u64 = 4_096;
    let segment = "log/0-000000.segment";
    let coin = page(1, 0).coin(5);
    for (flipped, damaged) in [(BATCH + 50, true), (3 * BATCH + 50, false), (20, true)] {
        let trial = Trial::new();
        trial.import_small();
        let changes = (1..=3).map(|i| change(coin, 2 + i, i as u8, 41)).collect();
        log_changes(&trial.path("d"), changes);
        trial.flip(&format!("d/{segment}"), flipped);
        let (status, report) = trial.check();
        assert_eq!(status, i32::from(damaged), "{report}");
        assert_eq!(report["can_start"], !damaged);
        let found = &report[if damaged { "faults" } else { "warnings" }][0];
        assert_eq!(found["file"], segment, "{report}");
        assert_eq!(found["offset"], flipped / BATCH * BATCH, "{report}");
        assert_eq!(report["log"]["torn_batches"], i32::from(!damaged));
    }
}

#[test]
fn a_page_file_that_is_gone_or_cut_short_is_damage() {
    let trial = Trial::new();
    trial.import_small();
    trial.write("c.csv", csv(&[(2, 5, 'a')]));
    trial.succeed("import --data d --csv c.csv");
    let file = OpenOptions::new()
        .write(true)
        .open(trial.path("d/pages/02.pages"))
        .unwrap();
    file.set_len(4_096).unwrap();
    std::fs::remove_file(trial.path("d/pages/01.pages")).unwrap();
    let (status, report) = trial.check();
    assert_eq!((status, &report["can_start"]), (1, &Value::Bool(false)));
    for (fault, file, end) in [(0, "pages/01.pages", 0), (1, "pages/02.pages", 4_096)] {
        assert_eq!(report["faults"][fault]["file"], file);
        assert_eq!(report["faults"][fault]["offset"], end);
    }
    let refused = trial.run("import --data d --csv a.csv");
    assert_eq!(refused.status, 2);
    assert!(!trial.path("d/pages/01.pages").exists());
}

/// Whether this process was started for this test alone. If not, it starts such a process, which
/// has to succeed: no other test changes the counts there.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "RAIDA_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let run = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(ALONE, "")
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&run.stdout);
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{out}{error}");
    assert!(out.contains("1 passed"), "there is no test {test}: {out}");
    false
}

/// The open descriptors of this process.
fn open_files() -> Vec<PathBuf> {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = descriptors.map(|entry| std::fs::read_link(entry.unwrap().path()));
    // The folder's own descriptor is closed by now.
    let mut files: Vec<PathBuf> = links.filter_map(Result::ok).collect();
    files.sort();
    files
}

#[test]
fn no_operation_on_a_folder_leaves_a_file_open() {
    if !is_alone("offline::no_operation_on_a_folder_leaves_a_file_open") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let folder = OfflineFolder::open(&place.path().join("data"), true).unwrap();
    let operations: [(&str, &dyn Fn()); 4] = [
        ("rebuild", &|| drop(folder.rebuild().unwrap())),
        ("coins", &|| assert_eq!(folder.coins().unwrap(), [0; 15])),
        ("verify", &|| drop(folder.verify(|_, _| ()).unwrap())),
        ("for_each_page", &|| {
            let each = |_, _: &PageImage| Ok::<(), OfflineError>(());
            folder.for_each_page(|_| (), each).unwrap();
        }),
    ];
    // The first executor of a process opens descriptors that all share.
    folder.coins().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let before = open_files();
    for _ in 0..3 {
        for (name, operation) in operations {
            operation();
            // Threads of an executor end some time after it.
            while open_files().len() > before.len() {
                let now = open_files();
                assert!(Instant::now() < deadline, "{name}: {now:?}, not {before:?}");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

#[test]
fn a_file_that_does_not_belong_there_is_a_warning() {
    let trial = Trial::new();
    trial.import_small();
    trial.write("d/log/notes.txt", "mine");
    let (status, report) = trial.check();
    assert_eq!(
        (status, &report["warnings"][0]["file"]),
        (0, &"log/notes.txt".into())
    );
}

/// Three coins in two lockers, one under a trade key, and two elsewhere; then all is as after a
/// start.
fn import_lockers(trial: &Trial) {
    let coin = |sn: u32, an: &str| format!("1,{sn},{an},40\n");
    let [one, two] = ['a', 'b'].map(|digit| digit.to_string().repeat(24) + "ffffffff");
    let trade = "c".repeat(26) + "02eeee";
    let lines = [
        coin(5, &one),
        coin(6, &one),
        coin(1_024, &two),
        coin(1_025, &trade),
        coin(1_026, &"d".repeat(32)),
        coin(1_027, &("e".repeat(26) + "03eeee")),
    ];
    trial.write("lockers.csv", HEADER.to_owned() + &lines.concat());
    trial.succeed("import --data d --csv lockers.csv");
    trial.succeed("import --data d --csv lockers.csv");
}

#[test]
fn check_counts_what_is_in_lockers() {
    let trial = Trial::new();
    import_lockers(&trial);
    let (status, report) = trial.check();
    assert_eq!(status, 0, "{report}");
    let wanted = serde_json::json!({
        "lockers": 2, "coins": 3, "coins_without_order": 3, "trade_coins": 1,
        "offers": 0, "payments": 0,
    });
    assert_eq!(report["lockers"], wanted);
    let text = trial.succeed("check --data d");
    let line =
        "lockers  2 lockers of 3 coins, 1 coin under trade keys, 0 offers, 0 used payments\n";
    assert!(text.contains(line), "{text}");
    trial.succeed("export --data d --csv out.csv");
    assert!(trial.read("out.csv") == trial.read("lockers.csv"));
}

#[test]
fn a_damaged_book_is_named_and_rebuilt_where_that_is_asked_for() {
    let trial = Trial::new();
    import_lockers(&trial);
    trial.flip("d/book/1-0-a", 40);
    let before = files(&trial.path("d/book"));
    let (status, report) = trial.check();
    assert_eq!((status, &report["can_start"]), (1, &Value::Bool(false)));
    assert_eq!(report["faults"][0]["file"], "book/1-0-a");
    let text = trial.run("check --data d").out;
    assert!(text.contains("`raida check --rebuild --data d`"), "{text}");
    let refused = trial.run("import --data d --csv lockers.csv");
    assert_eq!(refused.status, 2);
    assert!(refused.err.contains("book/1-0-a"), "{}", refused.err);
    assert!(
        files(&trial.path("d/book")) == before,
        "nothing was changed"
    );

    let text = trial.succeed("check --data d --rebuild");
    for part in [
        "rebuilt  book/1-0-a at byte 0: ",
        "lost     the order of lists: of 3 coins in lockers, 3 come first",
        "lost     an unknown number of used payments: a payment made before now could be used again",
        "d is sound\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(trial.check().0, 0);
    trial.succeed("import --data d --csv lockers.csv");
    let text = trial.succeed("check --data d --rebuild");
    assert!(text.starts_with("nothing had to be rebuilt\n"), "{text}");
}

#[test]
fn a_count_in_a_head_that_is_wrong_is_named_and_rebuilt() {
    let trial = Trial::new();
    import_lockers(&trial);
    let slot = slot_offset(page(1, 1), Slot::A);
    for (at, kind) in [(40, "locker"), (42, "trade")] {
        let mut bytes = trial.read("d/pages/01.pages");
        let head = &mut bytes[slot as usize..][..512];
        head[at] ^= 2;
        let crc = crc32c::crc32c(&head[..508]).to_le_bytes();
        head[508..].copy_from_slice(&crc);
        trial.write("d/pages/01.pages", &bytes);
        let (status, report) = trial.check();
        assert_eq!((status, &report["rebuildable"]), (1, &1.into()), "{report}");
        assert_eq!(report["faults"][0]["offset"], slot + at as u64);
        let run = trial.run("check --data d --rebuild --json");
        let report: Value = serde_json::from_str(&run.out).unwrap();
        assert_eq!((run.status, &report["rebuilt"]["done"]), (0, &true.into()));
        let what = report["rebuilt"]["repaired"][0]["what"].as_str().unwrap();
        assert!(what.contains(&format!("{kind} coins")), "{what}");
        assert_eq!(report["lockers"]["coins"], 3);
        // The page is in its other slot now: start over.
        std::fs::remove_dir_all(trial.path("d")).unwrap();
        import_lockers(&trial);
    }
}

#[test]
fn a_damaged_log_cannot_be_rebuilt_and_stays_as_it_is() {
    let trial = Trial::new();
    import_lockers(&trial);
    let coin = page(1, 0).coin(5);
    let changes = (1..=3).map(|i| change(coin, 2 + i, i as u8, 41)).collect();
    log_changes(&trial.path("d"), changes);
    trial.flip("d/log/0-000000.segment", 4_096 + 50);
    let before = files(&trial.path("d/pages"));
    let run = trial.run("check --data d --rebuild");
    assert_eq!((run.status, run.err.as_str()), (1, ""));
    let start =
        "not rebuilt, since it follows from nothing else: log/0-000000.segment at byte 4096";
    assert!(run.out.starts_with(start), "{}", run.out);
    assert!(files(&trial.path("d/pages")) == before);
}

#[test]
fn a_folder_in_use_is_refused_with_the_process_number() {
    let trial = Trial::new();
    trial.import_small();
    let _in_use = DataFolder::open(&trial.path("d"), false).unwrap();
    for words in [
        "check --data d",
        "check --data d --rebuild",
        "audit --data d",
        "import --data d --csv a.csv",
        "export --data d --csv out.csv",
    ] {
        let refused = trial.run(words);
        assert_eq!((refused.status, refused.out.as_str()), (2, ""), "{words}");
        let process = format!("in use by process {}", std::process::id());
        assert!(refused.err.contains(&process), "{}", refused.err);
    }
}

#[test]
fn a_folder_that_is_none_is_refused_and_not_made() {
    let trial = Trial::new();
    for words in [
        "check --data d",
        "audit --data d",
        "export --data d --csv out.csv",
    ] {
        let refused = trial.run(words);
        assert_eq!((refused.status, refused.out.as_str()), (2, ""), "{words}");
        assert!(
            refused.err.contains("d is not a data folder"),
            "{}",
            refused.err
        );
    }
    assert!(!trial.path("d").exists() && !trial.path("out.csv").exists());
}

#[test]
fn what_exists_is_overwritten_only_where_that_is_asked_for() {
    let trial = Trial::new();
    trial.import_small();
    trial.write("out.csv", "mine");
    trial.write("Out/01/00/0005.bin", raidax_page(1));
    for words in [
        "export --data d --csv out.csv",
        "export --data d --raidax-data Out",
    ] {
        let refused = trial.run(words);
        assert_eq!((refused.status, refused.out.as_str()), (2, ""));
        assert!(refused.err.contains("exists"), "{}", refused.err);
        trial.succeed(&format!("{words} --overwrite"));
    }
    assert!(trial.read("out.csv").starts_with(HEADER.as_bytes()));
    assert!(!trial.path("Out/01/00/0005.bin").exists());
    assert_eq!(files(&trial.path("Out")).len(), 2);
}
