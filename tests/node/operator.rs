//! What an operator reads when something prevents a start: which file or port, why, and what to do.
//! And what a program reads that collects the log.

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader, ErrorKind},
    net::TcpListener,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
};

use crate::node_process::{PATIENCE, Serve};
use rustix::process::{Pid, Signal, geteuid, kill_process};

/// A user without permissions of its own.
const NOBODY: u32 = 65_534;
const ROOT: u32 = 0;

fn raida(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_raida"));
    command.current_dir(folder);
    command
}

/// Standard error of a command that cannot be carried out.
fn refusal(command: &mut Command) -> String {
    let output = loop {
        match command.output() {
            // A program that another test just started has a copy of the descriptor by which this
            // one was written, until it is executed.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => thread::yield_now(),
            output => break output.unwrap(),
        }
    };
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{command:?}: {error}");
    error
}

#[track_caller]
fn assert_says(error: &str, texts: &[&str]) {
    for text in texts {
        assert!(error.contains(text), "no {text:?} in {error}");
    }
}

#[test]
fn a_port_that_is_taken_is_told_with_its_key_and_leaves_no_folder_behind() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut serve = raida(folder.path());
    serve.args(["serve", "--data", "new/data", "--listen"]);
    let error = refusal(serve.arg(address.to_string()));
    let ss = format!("ss -ltnup 'sport = :{}'", address.port());
    let says = [&address.to_string(), "network.listen", "--listen", &*ss];
    assert_says(&error, &says);
    let left: Vec<_> = folder.path().read_dir().unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_folder_that_a_node_serves_is_told_before_the_port_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let node = Serve::on(folder.path()).start();
    let mut serve = raida(folder.path());
    serve.args(["serve", "--data", ".", "--listen"]);
    let error = refusal(serve.arg(node.address.to_string()));
    let process = format!("in use by process {}", node.id());
    assert_says(&error, &[&process, "--data"]);
}

#[test]
fn a_log_in_json_has_no_line_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut serve = raida(folder.path());
    serve.args(["serve", "--data", "data", "--listen", "127.0.0.1:0"]);
    serve.args(["--set", "log.format=json", "--set", "shards.count=1"]);
    let mut child = serve
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (lines, collected) = channel();
    let mut readers = Vec::new();
    // As systemd collects them: both together.
    let outputs: [Box<dyn std::io::Read + Send>; 2] = [
        Box::new(child.stdout.take().unwrap()),
        Box::new(child.stderr.take().unwrap()),
    ];
    for output in outputs {
        let lines = lines.clone();
        readers.push(thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                lines.send(line.unwrap()).unwrap();
            }
        }));
    }
    drop(lines);
    let mut messages = Vec::new();
    while let Ok(line) = collected.recv_timeout(PATIENCE) {
        let object: serde_json::Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{line:?} is no JSON: {error}"));
        let message = object["message"].as_str().unwrap().to_owned();
        if message == "serves" {
            assert!(
                object["address"]
                    .as_str()
                    .unwrap()
                    .starts_with("127.0.0.1:")
            );
            assert_eq!(
                (&object["raida"], &object["shards"]),
                (&0.into(), &1.into())
            );
            kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        }
        messages.push(message);
    }
    assert!(child.wait().unwrap().success());
    for reader in readers {
        reader.join().unwrap();
    }
    assert_eq!(messages.iter().filter(|text| *text == "serves").count(), 1);
    assert!(
        messages.last().unwrap().starts_with("stopped: "),
        "{messages:?}"
    );
}

#[test]
fn a_node_that_cannot_start_says_so_in_json_where_its_log_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let _node = Serve::on(folder.path()).start();
    let mut serve = raida(folder.path());
    serve.args(["serve", "--data", ".", "--listen", "127.0.0.1:0", "--set"]);
    let error = refusal(serve.arg("log.format=json"));
    let object: serde_json::Value = serde_json::from_str(&error).unwrap();
    assert_eq!(object["level"], "ERROR");
    assert_says(object["error"].as_str().unwrap(), &["in use by process"]);
    // The message comes even where nothing is logged.
    let error = refusal(serve.args(["--log-level", "off"]));
    assert_says(&error, &["raida: ", "in use by process"]);
}

#[test]
fn a_command_asks_the_node_that_runs_on_the_folder_it_is_given() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Serve::on(&data).with("node.raida_id", 7).start();
    let run = |arguments: &[&str]| {
        let mut command = raida(folder.path());
        command.env_remove("RAIDA_HOST").args(arguments);
        command
    };
    let minted = "mint --data data --count 3 --denomination 1 --out coins.csv";
    let minted = run(&minted.split(' ').collect::<Vec<_>>());
    let next = assert_succeeds(minted);
    let (_, next) = next.split_once("try: raida ").unwrap();
    let next = assert_succeeds(run(&next.split_whitespace().collect::<Vec<_>>()));
    assert_says(&next, &["3"]);
    let counted = assert_succeeds(run(&["stats", "--data", "data"]));
    assert_says(&counted, &["requests"]);
    assert_succeeds(run(&["delete", "coins.csv", "--data", "data"]));
    // The command asks the named node, and reports a folder without a node.
    let address = node.address.to_string();
    let named = [
        "stats", "--data", "data", "--host", &address, "--raida", "7",
    ];
    assert_succeeds(run(&named));
    drop(node);
    let error = refusal(&mut run(&["stats", "--data", "data"]));
    assert_says(&error, &["no node runs on the data folder data"]);
    let mut command = run(&["detect", "coins.csv"]);
    let error = refusal(command.env("RAIDA_HOST", "nowhere"));
    assert_says(&error, &["RAIDA_HOST is nowhere", "127.0.0.1:50000"]);
}

#[track_caller]
fn assert_succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A folder with what a user may not read, and a program that this user can start.
struct Closed {
    folder: tempfile::TempDir,
    program: PathBuf,
}

impl Closed {
    fn new() -> Closed {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("raida");
        // Where this one lies, that user may not be allowed to look.
        fs::copy(env!("CARGO_BIN_EXE_raida"), &program).unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        Closed { folder, program }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn close(&self, name: &str) {
        if geteuid().as_raw() == ROOT {
            chown(self.at(name), Some(ROOT), Some(ROOT)).unwrap();
        }
        fs::set_permissions(self.at(name), Permissions::from_mode(0o000)).unwrap();
    }

    fn own(&self, name: &str) {
        if geteuid().as_raw() == ROOT {
            chown(self.at(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// As a user who is not root: root may everything.
    fn run(&self, words: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.folder.path())
            .args(words.split(' '));
        if geteuid().as_raw() == ROOT {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        // Else nobody but root could remove it.
        for entry in self.folder.path().read_dir().unwrap() {
            let _ = fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o700));
        }
    }
}

#[test]
fn what_may_not_be_read_or_written_is_named_with_the_reason_and_what_to_do() {
    let closed = Closed::new();
    fs::create_dir(closed.at("locked")).unwrap();
    for file in ["file", "hosts"] {
        fs::write(closed.at(file), "").unwrap();
    }
    for name in ["locked", "file", "hosts"] {
        closed.close(name);
    }
    let denied = "Permission denied";
    for (words, file) in [
        (
            "serve --listen 127.0.0.1:0 --data locked/data",
            "locked/data",
        ),
        ("check --data locked", "locked/secret"),
        ("audit --data locked", "locked/secret"),
        ("detect file", "file"),
        ("detect --all --network . file", "./hosts"),
        ("import --csv file --data locked/data", "file"),
        ("import --raidax-data locked --data data", "locked"),
        ("keys new --out locked/keys", "locked/keys"),
        (
            "network --dir locked/network --base-port 36200",
            "locked/network",
        ),
        ("health locked", "locked"),
    ] {
        let error = refusal(&mut closed.run(words));
        assert_says(&error, &[file, denied, "this user may not", "namei -l"]);
    }
    let error = refusal(&mut closed.run("network status --dir locked"));
    assert_says(&error, &["locked/control.sock", "ask as the user"]);
}

#[test]
fn a_file_of_a_data_folder_that_may_not_be_read_is_named() {
    let closed = Closed::new();
    fs::create_dir(closed.at("data")).unwrap();
    closed.own("data");
    let node = "serve --listen 127.0.0.1:0 --set shards.count=1 --data data";
    let imported = closed.run("import --csv coins.csv --data data");
    let header = "denomination,serial_number,authenticity_number,months_from_start";
    let coin = "1,0,00112233445566778899aabbccddeeff,40";
    fs::write(closed.at("coins.csv"), format!("{header}\n{coin}\n")).unwrap();
    assert!({ imported }.output().unwrap().status.success());
    for name in ["round", "segments", "book", "log", "pages/01.pages"] {
        let file = closed.at("data").join(name);
        let before = fs::metadata(&file).unwrap().permissions();
        closed.close(&format!("data/{name}"));
        for words in [node, "check --data data", "audit --data data"] {
            let error = refusal(&mut closed.run(words));
            let all = [&format!("data: {name}"), "Permission denied", "namei -l"];
            assert_says(&error, &all);
            assert!(!error.contains("says more"), "no check helps: {error}");
        }
        fs::set_permissions(&file, before).unwrap();
        closed.own(&format!("data/{name}"));
    }
}
