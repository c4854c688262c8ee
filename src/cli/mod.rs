//! The subcommands of `raida`, one file each, thin: they read the command line, hand over to the
//! layer that does the work, and print what it found. Exit status 0, 1 (the answer is no) or 2 (it
//! could not be asked).

pub mod admin_key_file;
mod audit;
mod bench;
mod check;
mod coins;
pub mod config;
mod delete;
mod detect;
mod detect_all;
mod echo;
mod encryption;
mod error;
mod export;
mod find;
mod fix;
mod fix_encryption;
mod heal;
mod health;
mod import;
mod interrupt;
mod keys;
mod locker;
mod logging;
mod mint;
mod mint_network;
mod network;
mod new_numbers;
mod node;
mod output;
mod patience;
mod pown;
mod raidas;
mod said;
mod same_coins;
mod secrets;
mod serve;
mod servers;
mod settings;
mod stats;
mod ticket;
mod totals;
mod trade;
mod version;

use std::io::IsTerminal;
use std::process::ExitCode;

use crate::shown::plain;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser};

use self::output::Answer;

pub use self::error::CliError;
pub use self::logging::Logging;
pub use crate::client::{HostPort, NotHostPort};

/// A node of the RAIDA network, and the commands to work with one.
#[derive(Parser)]
#[command(name = "raida", version, disable_help_subcommand = true)]
#[command(after_help = "Examples:
  raida serve                                     a development node, data in ./raida-data
  raida mint --data raida-data --count 5 --denomination 1 --out coins.csv
  raida detect coins.csv
The node that is asked: --host, or RAIDA_HOST in the environment.
Exit status: 0, 1 (the answer is no) or 2 (it could not be asked).")]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Serve(serve::ServeCommand),
    Network(network::NetworkCommand),
    Import(import::ImportCommand),
    Export(export::ExportCommand),
    Check(check::CheckCommand),
    Audit(audit::AuditCommand),
    Config(config::ConfigCommand),
    Keys(keys::KeysCommand),
    Echo(echo::EchoCommand),
    Version(version::VersionCommand),
    Detect(detect::DetectCommand),
    Pown(pown::PownCommand),
    Ticket(ticket::TicketCommand),
    Find(find::FindCommand),
    Fix(fix::FixCommand),
    Heal(heal::HealCommand),
    FixEncryption(fix_encryption::FixEncryptionCommand),
    Health(health::HealthCommand),
    Locker(locker::LockerCommand),
    Trade(trade::TradeCommand),
    Stats(stats::StatsCommand),
    Mint(mint::MintCommand),
    Delete(delete::DeleteCommand),
    // By far the most flags of all.
    Bench(Box<bench::BenchCommand>),
}

/// The message for a command that continues when it is given again with --key.
const AGAIN: &str = "interrupted: nothing is lost; the same command again goes on";
/// The same where the command makes up the key.
const AGAIN_WITH_KEY: &str = "interrupted: nothing is lost; where it showed a secret, the same command with that secret as --key goes on, and where it did not, nothing was sent";

impl Command {
    /// The message for a person who ends the command with Ctrl-C, where something may be half done.
    fn when_interrupted(&self) -> Option<&'static str> {
        match self {
            Command::Mint(_) => Some(
                "interrupted: the coins made so far are kept; the same command again says how many those are",
            ),
            Command::Heal(_) | Command::FixEncryption(_) => Some(
                "interrupted: every number that a server may have is in the wallet; the same command again goes on",
            ),
            Command::Delete(_) => {
                Some("interrupted: the same command again takes the other coins out of circulation")
            }
            Command::Locker(command) => command.when_interrupted(),
            Command::Trade(command) => command.when_interrupted(),
            _ => None,
        }
    }
}

/// Runs the program: reads the command line, carries the command out, and says how it went.
pub fn main() -> ExitCode {
    let matches = taking_negative_numbers(CommandLine::command()).try_get_matches();
    let parsed = matches.and_then(|matches| CommandLine::from_arg_matches(&matches));
    let command = match parsed {
        Ok(line) => line.command,
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.exit(),
            _ => {
                eprintln!("raida: {}", plain(&one_line(&error.to_string())));
                let shows_forms = std::io::stderr().is_terminal()
                    && matches!(
                        error.kind(),
                        ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict
                    );
                if let Some(examples) = examples(std::env::args()).filter(|_| shows_forms) {
                    eprint!("{examples}");
                }
                return ExitCode::from(2);
            }
        },
    };
    if let Some(text) = command.when_interrupted()
        && let Err(error) = interrupt::tell(text.to_owned())
    {
        eprintln!("raida: no way to hear of Ctrl-C: {error}");
    }
    let answer = match command {
        Command::Serve(command) => command.run(),
        Command::Network(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Echo(command) => command.run(),
        Command::Version(command) => command.run(),
        Command::Detect(command) => command.run(),
        Command::Pown(command) => command.run(),
        Command::Ticket(command) => command.run(),
        Command::Find(command) => command.run(),
        Command::Fix(command) => command.run(),
        Command::Heal(command) => command.run(),
        Command::FixEncryption(command) => command.run(),
        Command::Health(command) => command.run(),
        Command::Locker(command) => command.run(),
        Command::Trade(command) => command.run(),
        Command::Stats(command) => command.run(),
        Command::Mint(command) => command.run(),
        Command::Delete(command) => command.run(),
        Command::Bench(command) => command.run(),
    };
    match answer {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        Ok(Answer::Failed) => ExitCode::from(2),
        Err(error) => {
            eprintln!("raida: {}", plain(&error.to_string()));
            ExitCode::from(2)
        }
    }
}

/// A number that begins with `-` is a value, not a flag: the code that reads the value says what is
/// wrong with it.
fn taking_negative_numbers(command: clap::Command) -> clap::Command {
    let takes_values = |arg: &clap::Arg| arg.get_action().takes_values();
    command
        .mut_args(|arg| match takes_values(&arg) {
            true => arg.allow_negative_numbers(true),
            false => arg,
        })
        .mut_subcommands(taking_negative_numbers)
}

/// The examples of the command that these words name: a command that has several forms shows each
/// there.
fn examples(words: impl Iterator<Item = String>) -> Option<String> {
    let mut command = CommandLine::command();
    for word in words.skip(1) {
        let Some(next) = command.find_subcommand(&word) else {
            break;
        };
        command = next.clone();
    }
    let text = command.get_after_help()?.to_string();
    let lines = text.lines().skip_while(|line| !line.starts_with("Example"));
    let examples: Vec<&str> = lines.take_while(|line| !line.is_empty()).collect();
    (!examples.is_empty()).then(|| examples.join("\n") + "\n")
}

/// The parser's message about a wrong command line, on one line: what is wrong, how to write it,
/// and where to read more.
fn one_line(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let parts: Vec<String> = message
        .split("\n\n")
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|part| !part.is_empty())
        .map(|part| part.trim_end_matches('.').to_owned())
        .collect();
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn look(command: &mut clap::Command) {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            let example = help
                .split_once("Example")
                .map_or("", |(_, example)| example);
            assert!(example.contains("raida "), "{name} has no example:\n{help}");
            assert!(
                command.get_about().is_some(),
                "{name} does not say what it does"
            );
            command.get_subcommands_mut().for_each(look);
        }
        look(&mut CommandLine::command());
    }

    #[test]
    fn every_load_of_a_scenario_is_a_command() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/perf/scenarios");
        let mut loads = 0;
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let scenario: toml::Table = text.parse().unwrap();
            let of_scenario = scenario.get("load").and_then(|load| load.as_array());
            for load in of_scenario.into_iter().flatten() {
                let mut line = format!("raida bench {}", load["bench"].as_str().unwrap());
                for baseline in load
                    .get("baseline")
                    .and_then(|b| b.as_array())
                    .into_iter()
                    .flatten()
                {
                    line += &format!(" --baseline {}", baseline.as_str().unwrap());
                }
                let parsed = CommandLine::try_parse_from(line.split(' '));
                assert!(
                    parsed.is_ok(),
                    "{}: {line}: {:?}",
                    path.display(),
                    parsed.err()
                );
                loads += 1;
            }
        }
        assert!(loads > 20, "the scenarios were not found");
    }

    #[test]
    fn a_wrong_command_line_is_one_line() {
        let error = CommandLine::try_parse_from(["raida", "serve", "--shrads", "2"]);
        let line = one_line(&error.err().unwrap().to_string());
        assert!(!line.contains('\n') && line.contains("--shards"), "{line}");
    }
}
