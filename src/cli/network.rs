use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use indicatif::ProgressBar;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use super::CliError;
use super::config::{Config, Flag, KEYS, Origin};
use super::node::raida_id;
use super::output::{Answer, print, print_json, progress};
use super::settings::assignment;
use crate::network::{
    self, Event, NetworkStatus, NodeState, NodeStatus, Request, Settings, Supervisor, ask,
};
use crate::protocol::RaidaId;
use crate::shown::Shown;

/// Run all 25 nodes of a network on this machine, for trials and tests.
///
/// Each node is a process of its own, with its data, its configuration and its log in DIR/raidaN; a
/// node that ends by itself is started again. DIR/hosts lists where they are. Ctrl-C stops all
/// nodes in order. Until then, the commands below work from another terminal.
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  raida network                                   25 nodes, ports 50000 to 50024
  raida network --down 3,7,11 --set storage.durability=periodic
  raida network stop 3
  raida network status")]
pub struct NetworkCommand {
    #[command(flatten)]
    run: RunArgs,
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Args, Debug)]
struct RunArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Nodes to leave out until `raida network start N`
    #[arg(long, value_name = "N,N", value_delimiter = ',', value_parser = raida_id)]
    down: Vec<RaidaId>,
    /// Address that all nodes listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    bind: IpAddr,
    /// Port of RAIDA 0; the others have the 24 after it
    #[arg(long, value_name = "PORT", default_value_t = 50_000, value_parser = clap::value_parser!(u16).range(1..=i64::from(BASE_PORT_MAX)))]
    base_port: u16,
    /// Number of shards of each node (shards.count) [default: 1]
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// A key of every node's configuration, as in `--set storage.cache_pages=2000`; may be repeated
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", value_parser = assignment)]
    assignments: Vec<(String, String)>,
}

#[derive(clap::Args, Debug)]
struct FolderArgs {
    /// The network's folder
    #[arg(long, value_name = "DIR", default_value = DEFAULT_FOLDER)]
    dir: PathBuf,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// Stop nodes of the network that runs, in order; wait until they have
    #[command(after_help = "Example:
  raida network stop 3,7,11")]
    Stop(NodesArgs),
    /// Start nodes of the network that runs; wait until they serve
    #[command(after_help = "Example:
  raida network start 3,7,11")]
    Start(NodesArgs),
    /// Show the nodes of the network that runs; exit status 1 if one that is not down does not
    /// answer
    #[command(after_help = "Example:
  raida network status --json")]
    Status {
        #[command(flatten)]
        folder: FolderArgs,
        /// One JSON object instead of text
        #[arg(long)]
        json: bool,
    },
    /// Stop the network that runs: all nodes, and the process that watches them
    #[command(after_help = "Example:
  raida network down --dir raida-network")]
    Down(FolderArgs),
}

#[derive(clap::Args, Debug)]
struct NodesArgs {
    /// RAIDA numbers, 0 to 24
    #[arg(value_name = "N,N", value_delimiter = ',', required = true, value_parser = raida_id)]
    raidas: Vec<RaidaId>,
    #[command(flatten)]
    folder: FolderArgs,
}

const DEFAULT_FOLDER: &str = "./raida-network";
/// The highest port for RAIDA 0: above it RAIDA 24 would have no port.
const BASE_PORT_MAX: u16 = u16::MAX - (RaidaId::COUNT as u16 - 1);
/// What a network sets for each node.
const OWN_KEYS: [&str; 6] = [
    "node.raida_id",
    "node.data_dir",
    "node.admin_key_file",
    "network.listen",
    "peers.servers",
    "keys.file",
];
/// Defaults for the nodes of a network: 25 nodes share the cores.
const SHARED_CORES: [(&str, &str); 2] = [("shards.count", "1"), ("shards.pin", "false")];

impl NetworkCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The network cannot be started, or had to be given up; or no network runs that could
    /// be asked.
    pub fn run(self) -> Result<Answer, CliError> {
        match self.what {
            None => self.run.run(),
            Some(What::Stop(NodesArgs { raidas, folder })) => {
                let status = ask(&folder.dir, &Request::stop(&raidas))?;
                report(&status, &raidas, NodeState::Down)
            }
            Some(What::Start(NodesArgs { raidas, folder })) => {
                let status = ask(&folder.dir, &Request::start(&raidas))?;
                report(&status, &raidas, NodeState::Ready)
            }
            Some(What::Status { folder, json }) => {
                let status = ask(&folder.dir, &Request::Status)?;
                match json {
                    true => print_json(&status)?,
                    false => print(&table(&status))?,
                }
                Ok(yes_if(status.is_well()))
            }
            Some(What::Down(folder)) => {
                ask(&folder.dir, &Request::Down)?;
                print("stopped: no node runs any more\n")?;
                Ok(Answer::Yes)
            }
        }
    }
}

impl RunArgs {
    fn run(self) -> Result<Answer, CliError> {
        let settings = self.settings()?;
        let signals = signals()?;
        let starting = RaidaId::COUNT - settings.down.len();
        let mut voice = Voice {
            bar: progress(starting as u64, "nodes"),
            dir: &self.folder.dir,
            stage: Stage::Starting,
        };
        // What cannot be printed is no reason to stop 25 nodes; `raida network status` tells it
        // too.
        let mut tell = |event: Event| drop(voice.say(&event));
        let ended = Supervisor::new(&settings, signals, &mut tell)?.run()?;
        print(&match ended.cut_off.len() {
            0 => {
                "stopped: what was accepted is answered, what was answered is on disk\n".to_owned()
            }
            cut => format!("stopped, {cut} nodes not in order: what was answered is on disk\n"),
        })?;
        Ok(yes_if(ended.cut_off.is_empty()))
    }

    fn settings(&self) -> Result<Settings, CliError> {
        let set = |flag, key: &str, text: &str| Flag {
            flag,
            key: key.to_owned(),
            text: text.to_owned(),
        };
        let given = self.assignments.iter();
        let mut flags: Vec<Flag> = given.map(|(key, text)| set("--set", key, text)).collect();
        // A flag of its own is more particular than --set, so it comes later and wins.
        flags.extend(
            self.shards
                .iter()
                .map(|n| set("--shards", "shards.count", n)),
        );
        let config = Config::load(None, std::env::vars_os(), &flags)?;
        let mut down = self.down.clone();
        down.sort();
        down.dedup();
        Ok(Settings {
            program: std::env::current_exe().map_err(|error| {
                CliError::System("path of this program (is /proc there?)", error)
            })?,
            folder: self.folder.dir.clone(),
            address: self.bind,
            base_port: self.base_port,
            down,
            coin_id: config.node.coin_id,
            keys: keys(&config)?,
        })
    }
}

/// The settings from flags and environment; the defaults for 25 nodes otherwise.
fn keys(config: &Config) -> Result<Vec<network::Key>, CliError> {
    let mut keys = Vec::new();
    for key in KEYS {
        let name = key.to_string();
        let origin = config.origin(key);
        let shared = SHARED_CORES.iter().find(|(shared, _)| *shared == name);
        let value = match (origin, shared) {
            (Origin::Default, None) => continue,
            (Origin::Default, Some((_, value))) => (*value).to_owned(),
            _ if OWN_KEYS.contains(&&*name) => {
                return Err(CliError::NetworkKey {
                    key: name,
                    origin: origin.clone(),
                });
            }
            _ => key.get(config).to_string(),
        };
        keys.push(network::Key {
            section: key.section.to_owned(),
            name: key.name.to_owned(),
            value,
        });
    }
    Ok(keys)
}

/// A byte for each signal that asks for a stop. A terminal that is closed asks for it too.
fn signals() -> Result<UnixStream, CliError> {
    let registered = || {
        let (signals, sender) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            pipe::register(signal, sender.try_clone()?)?;
        }
        Ok(signals)
    };
    registered().map_err(|error| CliError::System("way to hear of signals", error))
}

/// Says what happens to a network: a progress bar until it is up, a table then, lines after that.
struct Voice<'a> {
    bar: ProgressBar,
    dir: &'a Path,
    stage: Stage,
}

/// What was said last of the network as a whole.
#[derive(PartialEq)]
enum Stage {
    Starting,
    Up,
    Stopping,
}

impl Voice<'_> {
    fn say(&mut self, event: &Event) -> Result<(), CliError> {
        match event {
            Event::Ready(_) if self.stage == Stage::Starting => {
                self.bar.inc(1);
                Ok(())
            }
            Event::Up(status) => {
                self.stage = Stage::Up;
                self.bar.finish_and_clear();
                print(&greeting(status, self.dir))
            }
            Event::Stopping => {
                self.stage = Stage::Stopping;
                self.bar.finish_and_clear();
                print(&format!("{event}\n"))
            }
            // All are, and those that are not in order say so.
            Event::Stopped(_) if self.stage == Stage::Stopping => Ok(()),
            event => self.bar.suspend(|| print(&format!("{event}\n"))),
        }
    }
}

fn report(
    status: &NetworkStatus,
    raidas: &[RaidaId],
    wanted: NodeState,
) -> Result<Answer, CliError> {
    let mut text = String::new();
    let mut all = true;
    for raida in raidas {
        let node = &status.nodes[usize::from(raida.get())];
        let _ = write!(text, "RAIDA {raida} is {}", node.state);
        if let (NodeState::Failed, Some(end)) = (node.state, &node.last_end) {
            let log = network::node_folder(&status.folder, *raida).join("node.log");
            let _ = write!(text, ": {end}; {} says why", log.shown());
        }
        text.push('\n');
        all &= node.state == wanted;
    }
    print(&text)?;
    Ok(yes_if(all))
}

fn yes_if(is_so: bool) -> Answer {
    match is_so {
        true => Answer::Yes,
        false => Answer::No,
    }
}

/// A line for the whole, a line a node.
fn table(status: &NetworkStatus) -> String {
    let mut text = format!(
        "{} of {} nodes are ready, in {}, watched by process {}\n",
        status.ready(),
        status.nodes.len(),
        status.folder.shown(),
        status.pid,
    );
    let hosts = status.nodes.iter().map(|node| node.host.to_string().len());
    let width = hosts.max().unwrap_or(0);
    let _ = writeln!(
        text,
        "RAIDA  {:<width$}  {:>8}  {:<8}  restarts",
        "host", "process", "state"
    );
    for node in &status.nodes {
        let process = node.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let host = node.host.to_string();
        let _ = write!(
            text,
            "{:>5}  {host:<width$}  {process:>8}  {:<8}  {:>8}",
            node.raida, node.state, node.restarts
        );
        if let Some(end) = &node.last_end {
            let _ = write!(text, "  last ended by {end}");
        }
        text.push('\n');
    }
    text
}

/// What a person sees when the network is up: how it is, and what to do next.
fn greeting(status: &NetworkStatus, dir: &Path) -> String {
    let mut to = String::new();
    if dir != Path::new(DEFAULT_FOLDER) {
        let _ = write!(to, " --dir {}", dir.shown());
    }
    let ready = |node: &&NodeStatus| node.state == NodeState::Ready;
    let mut text = table(status) + &format!("Try:  raida network status{to}\n");
    // None where all are left out.
    if let Some(node) = status.nodes.iter().rfind(ready) {
        let _ = write!(
            text,
            "      raida network stop {raida}{to}
      raida echo --host {host} --raida {raida}
",
            raida = node.raida,
            host = node.host
        );
    }
    text
}
