//! 25 real nodes and the program, as a person runs it beside them.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use raida::client::wallet::{Access, CoinFile, Folder, Wallet};
use raida::protocol::RaidaId;

use crate::node_process::{NodeProcess, Serve};

pub struct Run {
    pub status: i32,
    pub out: String,
    pub err: String,
}

/// Runs `raida` with these words in a folder.
pub fn run(folder: &Path, words: &str) -> Run {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_raida"))
        .current_dir(folder)
        .args(words.split(' ').map(OsStr::new))
        .output()
        .unwrap();
    Run {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

pub fn serve(data: &Path) -> Serve {
    Serve::on(data)
        .with("shards.count", 1)
        .with("shards.pin", false)
        .with("storage.segment_bytes", 1 << 20)
}

/// Tickets that a node of a network has to give.
const POOL: usize = 64;

/// 25 nodes that do not know each other: they answer their clients, and repair nothing.
pub struct Network {
    pub folder: tempfile::TempDir,
    pub nodes: Vec<Option<NodeProcess>>,
}

impl Network {
    pub fn start() -> Network {
        Network::start_with(|node| node)
    }

    pub fn start_with(more: impl Fn(Serve) -> Serve) -> Network {
        let folder = tempfile::tempdir().unwrap();
        let start = |raida: RaidaId| {
            let data = folder.path().join(format!("net/raida{raida}"));
            std::fs::create_dir_all(&data).unwrap();
            let node = serve(&data).with("node.raida_id", raida);
            Some(more(node.with("tickets.pool", POOL)).start())
        };
        let nodes: Vec<Option<NodeProcess>> = RaidaId::all().map(start).collect();
        let hosts = nodes.iter().flatten();
        let hosts: Vec<String> = hosts.map(|node| node.address.to_string()).collect();
        let text = format!("# a trial\n{}\n", hosts.join("\n"));
        std::fs::write(folder.path().join("net/hosts"), text).unwrap();
        Network { folder, nodes }
    }

    pub fn run(&self, words: &str) -> Run {
        run(self.folder.path(), words)
    }

    pub fn wallet(&self) -> PathBuf {
        self.folder.path().join("wallet")
    }

    pub fn files(&self) -> Vec<(Folder, CoinFile)> {
        let wallet = Wallet::open(&self.wallet(), Access::Look).unwrap();
        let filed = wallet.coins().iter();
        filed
            .map(|filed| (filed.folder, filed.file.clone()))
            .collect()
    }

    pub fn stop(&mut self, raida: u8) {
        let node = self.nodes[usize::from(raida)].take();
        node.expect("it runs").kill();
    }
}
