use super::output::Answer;
use super::settings::SettingsArgs;
use super::{CliError, Logging};

/// Run a node.
///
/// Without any configuration: a development node, RAIDA 0 on 127.0.0.1:50000, data in ./raida-data.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida serve
  raida serve --config /etc/raida/node.toml
  raida serve --raida 14 --listen 127.0.0.1:50014 --data raida14 --set protocol.dialect=raidax")]
pub struct ServeCommand {
    #[command(flatten)]
    settings: SettingsArgs,
}

impl ServeCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node cannot start, or had to stop because of an impossible state or a failed disk.
    pub fn run(self) -> Result<Answer, CliError> {
        let config = self.settings.load()?;
        let _logging = Logging::start(&config.log)?;
        Err(CliError::NotWired("serve"))
    }
}
