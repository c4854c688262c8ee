//! How long a node's requests took, as it tells on the socket in its data folder: the real program,
//! its sockets and its ends.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use crate::node_process::{PATIENCE, Serve, admin_key, mint, raida};
use raida::client::Outcome;
use raida::coin::An;
use serde_json::Value;

/// A node stops within this time, whatever its clients do.
const STOP_MAX: Duration = Duration::from_secs(10);

struct Trial {
    _folder: tempfile::TempDir,
    data: PathBuf,
}

impl Trial {
    fn new() -> Trial {
        let folder = tempfile::tempdir().unwrap();
        Trial {
            data: folder.path().join("data"),
            _folder: folder,
        }
    }

    fn serve(&self, shards: u16) -> Serve {
        Serve::on(&self.data)
            .with("shards.count", shards)
            .with("shards.pin", false)
    }

    fn socket(&self) -> PathBuf {
        self.data.join("admin.sock")
    }

    fn stats(&self, more: &[&str]) -> Output {
        let words = ["stats", "--latency", "--data"].map(OsStr::new);
        let more = more.iter().map(OsStr::new);
        let words: Vec<&OsStr> = (words.into_iter())
            .chain([self.data.as_os_str()])
            .chain(more)
            .collect();
        raida(&words)
    }

    fn report(&self, more: &[&str]) -> Value {
        let output = self.stats(more);
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// What a report says of a command.
fn of<'a>(report: &'a Value, command: &str) -> &'a Value {
    let commands = report["commands"].as_array().unwrap();
    let found = commands.iter().find(|of| of["command"] == command);
    found.unwrap_or_else(|| panic!("no {command} in {report}"))
}

fn count(of: &Value) -> u64 {
    of["requests"].as_u64().unwrap()
}

/// What comes back for these bytes.
fn exchange(socket: &Path, bytes: &[u8]) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with('\n'), "{answer}");
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn every_command_is_counted_and_timed_on_all_shards() {
    let trial = Trial::new();
    let node = trial.serve(2).start();
    let key = admin_key(&trial.data);
    let coins = mint(&mut node.client(), &key, &[0, 1], 4, 8);
    // Connections go to the shards by the kernel's choice: enough of them that each gets some.
    let mut asked = 0;
    for (round, &(coin, an)) in (0_u128..).zip(&coins) {
        let mut client = node.client();
        client.echo().unwrap();
        for _ in 0..5 {
            assert_eq!(client.detect(&[(coin, an)]).unwrap(), [true]);
        }
        let new = An::new((round + 1).to_be_bytes());
        assert_eq!(client.pown(&[(coin, an, new)]).0, [Outcome::Changed]);
        asked += 1;
    }

    let report = trial.report(&["--json", "--by-shard"]);
    assert_eq!(report["shards"], 2);
    for (command, expected) in [("echo", asked), ("detect", 5 * asked), ("pown", asked)] {
        let of = of(&report, command);
        assert_eq!(count(of), expected, "{of}");
        let by_shard = of["by_shard"].as_array().unwrap();
        assert_eq!(by_shard.len(), 2, "{of}");
        assert_eq!(by_shard.iter().map(count).sum::<u64>(), expected);
        let times = ["p50", "p90", "p99", "p99_9", "max"]
            .map(|name| of["latency_us"][name].as_f64().unwrap());
        assert!(times[0] > 0.0 && times.is_sorted(), "{of}");
    }
    assert_eq!(count(of(&report, "create coins")), 4);
    let p50 = |command| of(&report, command)["latency_us"]["p50"].as_f64();
    assert!(p50("pown") > p50("echo"), "a pown waits for the disk");

    let table = String::from_utf8(trial.stats(&[]).stdout).unwrap();
    assert!(
        table.starts_with("µs ") && table.contains("\npown  "),
        "{table}"
    );
    assert!(!table.contains("shard"), "{table}");
    let table = String::from_utf8(trial.stats(&["--by-shard"]).stdout).unwrap();
    assert!(table.contains("\n  shard 1 "), "{table}");
    assert!(node.stop().status.success());
}

#[test]
fn requests_that_are_not_measured_are_counted() {
    let trial = Trial::new();
    let node = trial.serve(2).start();
    let mut clients: Vec<_> = (0..4).map(|_| node.client()).collect();
    for _ in 0..1_500 {
        for client in &mut clients {
            client.echo().unwrap();
        }
    }
    assert_eq!(count(of(&trial.report(&["--json"]), "echo")), 6_000);
}

#[test]
fn the_socket_is_the_users_own_and_lives_as_long_as_the_node() {
    let trial = Trial::new();
    let node = trial.serve(1).start();
    let metadata = fs::metadata(trial.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

    // A node that is killed leaves it, and the next one puts its own in that place.
    node.kill();
    assert!(trial.socket().exists());
    let stale = trial.stats(&[]);
    let node = trial.serve(1).start();
    assert_eq!(trial.report(&["--json"])["shards"], 1);
    assert!(node.stop().status.success());
    assert!(!trial.socket().exists());

    let gone = trial.stats(&[]);
    for output in [stale, gone] {
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(error.starts_with("raida: no node runs on"), "{error}");
        assert!(error.contains("raida serve --data"), "{error}");
        assert_eq!(error.matches('\n').count(), 1, "{error}");
    }
}

#[test]
fn bad_questions_get_an_error_and_harm_nobody() {
    let trial = Trial::new();
    let node = trial.serve(1).start();
    for bytes in [&b"page\n"[..], b"\n", b"\xff\xfe\n", &[b'x'; 64]] {
        let answer = exchange(&trial.socket(), bytes);
        assert!(answer["error"].is_string(), "{answer}");
    }
    // A client that sends nothing delays the next one by at most a second.
    let silent = UnixStream::connect(trial.socket()).unwrap();
    assert_eq!(trial.report(&["--json"])["shards"], 1);
    drop(silent);
    assert!(node.stop().status.success());
}

#[test]
fn a_stop_does_not_wait_for_those_who_ask() {
    let trial = Trial::new();
    let node = trial.serve(2).start();
    let silent: Vec<UnixStream> = (0..4)
        .map(|_| UnixStream::connect(trial.socket()).unwrap())
        .collect();
    let start = Instant::now();
    let ending = node.stop();
    assert!(ending.status.success(), "{ending:?}");
    assert!(start.elapsed() < STOP_MAX, "it took {:?}", start.elapsed());
    assert!(!trial.socket().exists());
    drop(silent);
}

#[test]
fn a_node_without_room_for_its_socket_serves_all_the_same() {
    let trial = Trial::new();
    // A name in its place that is no file, so that it cannot be removed.
    fs::create_dir_all(trial.socket()).unwrap();
    let node = trial.serve(1).start();
    node.wait_for_log("admin.sock");
    node.client().echo().unwrap();
    assert!(node.log().contains("stats --latency"), "{}", node.log());
    let ending = node.stop();
    assert!(ending.status.success());
    assert!(trial.socket().is_dir());
}
