use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::settings::FolderArgs;
use super::{CliError, HostPort, admin_key_file};
use crate::admin::{self, Address};
use crate::client::{Client, CoinListReader, CoinRecord, Months, Options, Transport};
use crate::coin::{An, Coin};
use crate::protocol::{AdminKey, Protection, RaidaId, ResponseCounter};
use crate::shown::Shown;

/// Where a development node is.
const DEFAULT_HOST: &str = "127.0.0.1:50000";

/// A development node's number.
const DEFAULT_RAIDA: RaidaId = RaidaId::new(0).expect("0 to 24");

/// The environment variable that names the node where nothing else names one.
const HOST_VARIABLE: &str = "RAIDA_HOST";

/// Which node a command talks to, and how.
#[derive(clap::Args, Debug)]
pub struct NodeArgs {
    /// The node; without it the one that runs on the folder of --data, where a command has that,
    /// then the one that RAIDA_HOST in the environment names, then 127.0.0.1:50000
    #[arg(long, value_name = "HOST:PORT")]
    host: Option<HostPort>,
    /// Its RAIDA number, 0 without it; a node answers to no other
    #[arg(long, value_name = "N", value_parser = raida_id)]
    raida: Option<RaidaId>,
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
    #[arg(long, value_name = "TYPE", default_value = "0", value_parser = encryption_type, requires_ifs = [("1", "key_file"), ("4", "key_file"), ("5", "key_file")])]
    pub encryption: u8,
    /// CSV whose first coin (type 5: first two) is the key
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The node answers types 1 and 2 as [protocol] response_counter = "continue" has it
    #[arg(long)]
    continue_counter: bool,
}

/// Where the admin key is: a file of its own, or where the node with this data folder keeps it.
#[derive(clap::Args, Debug)]
pub struct AdminKeyArgs {
    /// File with the admin key as 32 hex digits
    #[arg(long, value_name = "FILE")]
    admin_key_file: Option<PathBuf>,
    #[command(flatten)]
    folder: FolderArgs,
}

impl AdminKeyArgs {
    /// The same as flags, each after a space.
    pub fn flags(&self) -> String {
        let file = self.admin_key_file.as_ref();
        let file = file.map(|file| format!(" --admin-key-file {}", file.shown()));
        file.unwrap_or_default() + &self.folder.flags()
    }
}

impl NodeArgs {
    /// Where it is.
    ///
    /// # Errors
    /// It is not named on the command line, and RAIDA_HOST makes no sense.
    pub fn host(&self) -> Result<HostPort, CliError> {
        if let Some(host) = &self.host {
            return Ok(host.clone());
        }
        let named = named();
        let text = named
            .as_ref()
            .map_or(DEFAULT_HOST.into(), |t| t.to_string_lossy());
        let host = text.parse();
        host.map_err(|error| CliError::Unfinished(format!("{HOST_VARIABLE} is {text}: {error}")))
    }

    /// Its RAIDA number.
    pub fn raida(&self) -> RaidaId {
        self.raida.unwrap_or(DEFAULT_RAIDA)
    }

    /// Where no node is named, names the node that runs on the data folder that was named for the
    /// admin key.
    ///
    /// # Errors
    /// No node runs there.
    pub fn name_by(&mut self, admin: &AdminKeyArgs) -> Result<(), CliError> {
        if self.host.is_some() {
            return Ok(());
        }
        let Some(folder) = admin.data_folder()? else {
            return Ok(());
        };
        self.at(admin::ask_address(&folder)?);
        Ok(())
    }

    /// Names the node that serves at this address.
    pub fn at(&mut self, Address { raida, listens }: Address) -> &NodeArgs {
        // Who listens everywhere listens here.
        let ip = match listens.ip() {
            ip if !ip.is_unspecified() => ip,
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        self.host = Some(SocketAddr::new(ip, listens.port()).into());
        // Another number that was named is the node's to refuse.
        self.raida = self.raida.or(RaidaId::new(raida));
        self
    }

    /// The flags that name the node, each after a space.
    pub fn flags(&self) -> String {
        let host = self.host().map(|host| format!(" --host {host}"));
        host.unwrap_or_default() + &format!(" --raida {}", self.raida())
    }

    /// The flags that name the node, without values that another command on this machine finds by
    /// itself.
    pub fn flags_needed(&self) -> String {
        let host = (self.host.iter()).filter(|host| host.to_string() != DEFAULT_HOST);
        let raida = (self.raida.iter()).filter(|&&raida| raida != DEFAULT_RAIDA);
        host.map(|host| format!(" --host {host}"))
            .chain(raida.map(|raida| format!(" --raida {raida}")))
            .collect()
    }

    /// Connects without encryption.
    ///
    /// # Errors
    /// The node cannot be reached.
    pub fn connect(&self) -> Result<Client, CliError> {
        self.connect_with(self.options(), self.udp)
    }

    /// Connects without encryption, and waits at least this long for each answer.
    ///
    /// # Errors
    /// The node cannot be reached.
    pub fn connect_patiently(&self, timeout: Duration) -> Result<Client, CliError> {
        let mut options = self.options();
        options.timeout = options.timeout.max(timeout);
        self.connect_with(options, self.udp)
    }

    /// Connects over TCP without encryption, whatever was asked for.
    ///
    /// # Errors
    /// The node cannot be reached.
    pub fn connect_tcp(&self) -> Result<Client, CliError> {
        self.connect_with(self.options(), false)
    }

    /// Connects, and encrypts what is said.
    ///
    /// # Errors
    /// The key coins cannot be read, or the node cannot be reached.
    pub fn connect_encrypted(&self, encryption: &EncryptionArgs) -> Result<Client, CliError> {
        let mut options = self.options();
        options.protection = encryption.protection()?;
        if encryption.continue_counter {
            options.response_counter = ResponseCounter::Continue;
        }
        self.connect_with(options, self.udp)
    }

    fn options(&self) -> Options {
        Options {
            coin_id: self.coin_id,
            timeout: Duration::from_millis(self.timeout_ms),
            ..Options::new(self.raida())
        }
    }

    fn connect_with(&self, options: Options, udp: bool) -> Result<Client, CliError> {
        let transport = if udp { Transport::Udp } else { Transport::Tcp };
        let host = self.host()?;
        let connected = Client::connect((host.host(), host.port()), transport, options);
        connected.map_err(|error| match self.host {
            None if named().is_some() => CliError::Unfinished(format!(
                "{error}; {HOST_VARIABLE} in the environment names that node"
            )),
            _ => error.into(),
        })
    }
}

impl EncryptionArgs {
    fn protection(&self) -> Result<Protection, CliError> {
        let Some(file) = &self.key_file else {
            return Ok(Protection::None);
        };
        Ok(match self.encryption {
            0 => {
                let what = "--key-file alone encrypts nothing, so nothing was sent: add --encryption 4, or leave it out";
                return Err(CliError::Unfinished(what.to_owned()));
            }
            1 => {
                let [(coin, an)] = key_coins(file)?;
                Protection::Coin(coin, an)
            }
            4 => {
                let [(coin, an)] = key_coins(file)?;
                Protection::CoinHmac(coin, an)
            }
            5 => {
                let [first, second] = key_coins(file)?;
                Protection::TwoCoinsHmac(first, second)
            }
            other => unreachable!("encryption type {other} was refused"),
        })
    }
}

impl AdminKeyArgs {
    /// The data folder, where one was named.
    ///
    /// # Errors
    /// There is no usable configuration.
    pub fn data_folder(&self) -> Result<Option<PathBuf>, CliError> {
        match self.folder.is_given() {
            true => Ok(Some(self.folder.load()?.node.data_dir)),
            false => Ok(None),
        }
    }

    /// The data folder in force, whether or not one was named.
    ///
    /// # Errors
    /// There is no usable configuration.
    pub fn folder_in_force(&self) -> Result<PathBuf, CliError> {
        Ok(self.folder.load()?.node.data_dir)
    }

    /// The admin key.
    ///
    /// # Errors
    /// There is no usable configuration, or the file cannot be read.
    pub fn read(&self) -> Result<AdminKey, CliError> {
        let file = match &self.admin_key_file {
            Some(file) => file.clone(),
            None => self.folder.load()?.node.admin_key_file,
        };
        Ok(admin_key_file::read(&file)?)
    }
}

/// Where the node is, according to the environment.
fn named() -> Option<OsString> {
    std::env::var_os(HOST_VARIABLE).filter(|text| !text.is_empty())
}

/// The first coins of a CSV; the rest is not read.
fn key_coins<const N: usize>(file: &Path) -> Result<[(Coin, An); N], CliError> {
    let coins = CoinListReader::open(file, Months::Optional)?
        .take(N)
        .map(|record| record.map(|CoinRecord { coin, an, .. }| (coin, an)))
        .collect::<Result<Vec<_>, _>>()?;
    let found = coins.len();
    coins.try_into().map_err(|_| CliError::TooFewCoins {
        file: file.to_owned(),
        found,
        needed: N,
    })
}

/// Reads a RAIDA number.
pub(super) fn raida_id(text: &str) -> Result<RaidaId, String> {
    (text.parse().ok())
        .and_then(RaidaId::new)
        .ok_or_else(|| "permitted is a whole number from 0 to 24".to_owned())
}

fn encryption_type(text: &str) -> Result<u8, String> {
    match text.parse() {
        Ok(kind @ (0 | 1 | 4 | 5)) => Ok(kind),
        _ => Err("permitted are 0, 1, 4 and 5".to_owned()),
    }
}
