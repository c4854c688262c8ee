use super::CliError;
use super::node::NodeArgs;
use super::output::{Answer, print, print_json};
use super::settings::FolderArgs;
use super::totals::Totals;
use crate::admin;
use crate::shown::Shown;
use crate::store::offline::OfflineFolder;

/// Count the coins in circulation, of a node or of a data folder; where a node runs on the folder,
/// ask that node.
#[derive(clap::Args, Debug)]
#[command(mut_arg("host", |arg| arg.conflicts_with_all(["data", "config"])))]
#[command(after_help = "Examples:
  raida audit --host 127.0.0.1:50000
  raida audit --data raida-data --json")]
pub struct AuditCommand {
    #[command(flatten)]
    folder: FolderArgs,
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl AuditCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or the data folder cannot be read.
    pub fn run(mut self) -> Result<Answer, CliError> {
        let coins = if self.folder.is_given() {
            let path = self.folder.load()?.node.data_dir;
            match admin::ask_address(&path) {
                Ok(address) => {
                    let theirs = address.raida;
                    if self.node.at(address).raida().get() != theirs {
                        return Err(CliError::Unfinished(format!(
                            "RAIDA {theirs} runs on {}, and --raida names another one: leave it out",
                            path.shown()
                        )));
                    }
                    self.node.connect()?.audit()?.0
                }
                // Who looks alone finds out what else is wrong.
                Err(_) => OfflineFolder::open(&path, false)?.coins()?,
            }
        } else {
            self.node.connect()?.audit()?.0
        };
        let totals = Totals(coins);
        if self.json {
            print_json(&totals.json())?;
        } else {
            print(&totals.table())?;
        }
        Ok(Answer::Yes)
    }
}
