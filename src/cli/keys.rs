use std::path::PathBuf;

use serde_json::json;

use super::CliError;
use super::output::{Answer, print, print_json};
use crate::network::{KeySet, key_file};
use crate::protocol::RaidaId;
use crate::shown::Shown;

/// Make the secrets that servers share to vouch for clients to each other.
///
/// A client that has lost a coin's number on one server gets a new number there if two other
/// servers vouch for it. Each of them gives the client a ticket, encrypted with a secret that only
/// it and the one server know.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  raida keys new --out keys")]
pub struct KeysCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    New(NewCommand),
}

/// Make a set of secrets for all 25 servers, a file for each.
///
/// The files are raida0.keys to raida24.keys, readable by their owner only. No file that is there
/// is ever written over.
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:
  raida keys new --out keys
  raida serve --set keys.file=keys/raida0.keys")]
struct NewCommand {
    /// Folder to write them to; made where it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl KeysCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The files cannot be written; none is left then.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.what {
            What::New(command) => command.run(),
        }
    }
}

impl NewCommand {
    fn run(self) -> Result<Answer, CliError> {
        KeySet::draw()?.write(&self.out)?;
        match self.json {
            true => {
                let files = RaidaId::all().map(|raida| {
                    let file = key_file(&self.out, raida);
                    json!({"raida": raida.get(), "file": file.shown().to_string()})
                });
                let files: Vec<_> = files.collect();
                print_json(&json!({"folder": self.out.shown().to_string(), "files": files}))?;
            }
            false => print(&format!(
                "wrote {count} files, raida0.keys to raida{last}.keys, into {folder}, for their owner only
Give each to the operator of its server, over a way that nobody else reads; there it is named in the
configuration, as in:
    [keys]
    file = \"/etc/raida/raida0.keys\"
Then remove the folder: who has two of the files can take coins on the other servers.
Make another set at least every 45 days: a ticket that was not used is good again after that time.
",
                count = RaidaId::COUNT,
                last = RaidaId::COUNT - 1,
                folder = self.out.shown(),
            ))?,
        }
        Ok(Answer::Yes)
    }
}
