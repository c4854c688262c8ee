use std::path::PathBuf;

use serde_json::{Map, json};

use super::{Config, ConfigError, KEYS, Value};
use crate::cli::CliError;
use crate::cli::output::{Answer, print, print_json};
use crate::cli::settings::SettingsArgs;
use crate::shown::Shown;

/// Check a configuration file, or print the configuration in force.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida config check /etc/raida/node.toml
  RAIDA__LOG__LEVEL=debug raida config print --config /etc/raida/node.toml")]
pub struct ConfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Say everything that is wrong with a file; exit status 1 if anything is
    #[command(after_help = "Example:
  raida config check /etc/raida/node.toml && systemctl reload raida")]
    Check {
        /// The configuration file; environment and flags are left out of it
        file: PathBuf,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print every value in force and where it comes from
    #[command(after_help = "Example:
  raida config print --config /etc/raida/node.toml --json")]
    Print {
        #[command(flatten)]
        settings: SettingsArgs,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
}

impl ConfigCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The file cannot be read; for `print`, also when anything in it is wrong.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.what {
            What::Check { file, json } => {
                let problems = match Config::load(Some(&file), std::iter::empty(), &[]) {
                    Ok(_) => vec![],
                    Err(ConfigError::Refused(problems)) => {
                        problems.iter().map(|problem| problem.to_string()).collect()
                    }
                    Err(unreadable) => return Err(unreadable.into()),
                };
                if json {
                    print_json(&json!({ "file": file, "problems": problems }))?;
                } else if problems.is_empty() {
                    print(&format!("{}: no problems\n", file.shown()))?;
                } else {
                    print(&(problems.join("\n") + "\n"))?;
                }
                Ok(if problems.is_empty() {
                    Answer::Yes
                } else {
                    Answer::No
                })
            }
            What::Print { settings, json } => {
                let config = settings.load()?;
                if json {
                    print_json(&as_json(&config))?;
                } else {
                    print(&as_toml(&config))?;
                }
                Ok(Answer::Yes)
            }
        }
    }
}

/// The configuration as a file with the same values, each line with its origin.
fn as_toml(config: &Config) -> String {
    let lines: Vec<String> = KEYS
        .iter()
        .map(|key| format!("{} = {}", key.name, key.get(config)))
        .collect();
    // A list of 25 servers would push every origin off the screen.
    let width = lines.iter().map(String::len).filter(|&len| len < 60).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    let mut section = "";
    for (key, line) in KEYS.iter().zip(&lines) {
        if key.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            text += &format!("{gap}[{}]\n", key.section);
            section = key.section;
        }
        text += &format!("{line:width$}  # {}\n", config.origin(key));
    }
    text
}

fn as_json(config: &Config) -> serde_json::Value {
    let mut sections = Map::new();
    for key in KEYS {
        let value = match key.get(config) {
            Value::Whole(number) => json!(number),
            Value::Switch(on) => json!(on),
            Value::Text(text) => json!(text),
            Value::List(texts) => json!(texts),
        };
        sections.entry(key.section).or_insert_with(|| json!({}))[key.name] =
            json!({ "value": value, "origin": config.origin(key).to_string() });
    }
    sections.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;

    fn load(text: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("node.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), std::iter::empty(), &[]).unwrap()
    }

    fn values(config: &Config) -> BTreeMap<String, String> {
        KEYS.iter()
            .map(|key| (key.to_string(), key.get(config).to_string()))
            .collect()
    }

    #[test]
    fn what_is_printed_gives_the_same_configuration_again() {
        let config = load(
            "[node]\nraida_id = 14\ndata_dir = 'a \"b\" \\c'\n[log]\nformat = \"json\"\n[peers]\nservers = []\n",
        );
        let printed = as_toml(&config);
        assert!(printed.contains("format = \"json\""), "{printed}");
        assert_eq!(values(&load(&printed)), values(&config));
    }

    #[test]
    fn json_holds_every_value_and_its_origin() {
        let printed = as_json(&load("[node]\nraida_id = 14\n"));
        assert_eq!(printed["node"]["raida_id"]["value"], 14);
        let origin = printed["node"]["raida_id"]["origin"].as_str().unwrap();
        assert!(origin.ends_with("node.toml:2"));
        assert_eq!(
            printed["shards"]["pin"],
            json!({"value": true, "origin": "default"})
        );
        let keys = printed.as_object().unwrap().values();
        let keys: usize = keys.map(|section| section.as_object().unwrap().len()).sum();
        assert_eq!(keys, KEYS.len());
    }

    #[test]
    fn the_files_in_config_are_accepted() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        for file in ["dev.toml", "node.toml"] {
            Config::load(Some(&folder.join(file)), std::iter::empty(), &[])
                .unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// A line `#key = value` of node.toml shows a default; a line without # is what a production
    /// node sets.
    #[test]
    fn node_toml_names_every_key_with_its_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/node.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let default = |line: &'_ str| line.starts_with(|c: char| c.is_ascii_lowercase());
        let shown: Vec<&str> = text
            .lines()
            .filter_map(|line| match line.strip_prefix('#') {
                Some(rest) => default(rest).then_some(rest),
                None => line.starts_with('[').then_some(line),
            })
            .collect();
        let shown = shown.join("\n");
        let config = load(&shown);
        let missing: Vec<String> = KEYS
            .iter()
            .filter(|key| config.origin(key) == &crate::cli::config::Origin::Default)
            .map(|key| key.to_string())
            .collect();
        assert_eq!(missing, [""; 0], "from:\n{shown}");

        let (mut shown, mut defaults) = (values(&config), values(&Config::default()));
        // The default is the machine's number of cores: the file shows an example.
        shown.remove("shards.count");
        defaults.remove("shards.count");
        assert_eq!(shown, defaults);
    }
}
