use std::path::{Path, PathBuf};

use super::config::{Config, ConfigError, Flag};
use crate::shown::Shown;

/// Which data folder a command works on.
#[derive(clap::Args, Debug, Default)]
pub struct FolderArgs {
    /// Configuration file (without one: a development node)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data folder, above the configuration's node.data_dir
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
}

/// The configuration a node would run with.
#[derive(clap::Args, Debug, Default)]
pub struct SettingsArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// RAIDA number, 0 to 24 (node.raida_id)
    #[arg(long, value_name = "N")]
    raida: Option<String>,
    /// Address and port for TCP and UDP (network.listen)
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Number of shards (shards.count)
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Least important message that is logged (log.level)
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Any other key, as in `--set storage.cache_pages=2000`; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    assignments: Vec<(String, String)>,
}

impl FolderArgs {
    /// Whether a data folder was named at all, directly or by a configuration.
    pub fn is_given(&self) -> bool {
        self.config.is_some() || self.data.is_some()
    }

    /// The flags that name the same folder, each after a space.
    pub fn flags(&self) -> String {
        let named = [
            ("--config", self.config.as_deref()),
            ("--data", self.data.as_ref().map(Path::new)),
        ];
        let flag =
            |(flag, value): (&str, Option<&Path>)| Some(format!(" {flag} {}", value?.shown()));
        named.into_iter().filter_map(flag).collect()
    }

    /// The configuration in force.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        self.load_with(vec![])
    }

    fn load_with(&self, mut flags: Vec<Flag>) -> Result<Config, ConfigError> {
        flags.extend(flag("--data", "node.data_dir", &self.data));
        Config::load(self.config.as_deref(), std::env::vars_os(), &flags)
    }
}

impl SettingsArgs {
    /// The configuration in force.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        // A flag of its own is more particular than --set, so it comes later and wins.
        let mut flags: Vec<Flag> = self
            .assignments
            .iter()
            .map(|(key, text)| Flag {
                flag: "--set",
                key: key.clone(),
                text: text.clone(),
            })
            .collect();
        flags.extend(flag("--raida", "node.raida_id", &self.raida));
        flags.extend(flag("--listen", "network.listen", &self.listen));
        flags.extend(flag("--shards", "shards.count", &self.shards));
        flags.extend(flag("--log-level", "log.level", &self.log_level));
        self.folder.load_with(flags)
    }
}

fn flag(flag: &'static str, key: &str, text: &Option<String>) -> Option<Flag> {
    text.as_ref().map(|text| Flag {
        flag,
        key: key.to_owned(),
        text: text.clone(),
    })
}

/// Reads the value of `--set`.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write SECTION.KEY=VALUE, as in storage.cache_pages=2000")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}
