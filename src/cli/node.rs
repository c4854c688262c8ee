use std::path::PathBuf;
use std::time::Duration;

use super::HostPort;
use super::settings::FolderArgs;

/// Which node a command talks to, and how.
#[derive(clap::Args, Debug)]
pub struct NodeArgs {
    /// The node
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:50000")]
    pub host: HostPort,
    /// Its RAIDA number; a node answers only to its own
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..25))]
    pub raida: u8,
    /// Its coin id; 6 is CloudCoin
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub coin_id: u16,
    /// Ask over UDP instead of TCP
    #[arg(long)]
    pub udp: bool,
    /// How long to wait for an answer, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    pub timeout_ms: u64,
}

/// How a conversation with a node is encrypted.
#[derive(clap::Args, Debug)]
pub struct EncryptionArgs {
    /// 0 none; 1 AES-128; 4 AES-256 with HMAC; 5 the same with two coins
    #[arg(long, value_name = "TYPE", default_value_t = 0, value_parser = encryption_type)]
    pub encryption: u8,
    /// CSV whose first coin (type 5: first two) is the key
    #[arg(long, value_name = "FILE", required_if_eq_any = [("encryption", "1"), ("encryption", "4"), ("encryption", "5")])]
    pub key_file: Option<PathBuf>,
}

/// Where the admin key is.
#[derive(clap::Args, Debug)]
pub struct AdminKeyArgs {
    /// File with the admin key as 32 hex digits
    #[arg(long, value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub folder: FolderArgs,
}

impl NodeArgs {
    /// How long to wait for an answer.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

fn encryption_type(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(kind @ (0 | 1 | 4 | 5)) => Ok(kind),
        _ => Err("permitted are 0, 1, 4 and 5".to_owned()),
    }
}
