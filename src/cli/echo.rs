use std::time::{Duration, Instant};

use serde_json::json;

use super::CliError;
use super::node::{EncryptionArgs, NodeArgs};
use super::output::{Answer, print, print_json};

/// Ask a node whether it is there, and how long it takes to say so.
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  raida echo
  raida echo --host raida7.example.com:50007 --raida 7 --udp --count 10")]
pub struct EchoCommand {
    /// How many times to ask, one after another
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    #[command(flatten)]
    node: NodeArgs,
    #[command(flatten)]
    encryption: EncryptionArgs,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl EchoCommand {
    /// Carries the command out.
    ///
    /// # Errors
    /// The node gives no answer, or refuses.
    pub fn run(self) -> Result<Answer, CliError> {
        let mut client = self.node.connect_encrypted(&self.encryption)?;
        let mut times: Vec<Duration> = Vec::with_capacity(self.count as usize);
        for _ in 0..self.count {
            let asked = Instant::now();
            client.echo()?;
            times.push(asked.elapsed());
        }
        times.sort();
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let (least, median, most) = (
            micros(times[0]),
            micros(times[times.len() / 2]),
            micros(times[times.len() - 1]),
        );
        if self.json {
            print_json(&json!({
                "raida": self.node.raida().get(),
                "host": self.node.host()?.to_string(),
                "echoes": times.len(),
                "round_trip_us": { "least": least, "median": median, "most": most },
            }))?;
        } else {
            let (raida, host) = (self.node.raida(), self.node.host()?);
            let mut text =
                format!("RAIDA {raida} at {host} answers: {median:.0} µs there and back");
            if times.len() > 1 {
                text += &format!(
                    " (median of {}, least {least:.0}, most {most:.0})",
                    times.len()
                );
            }
            print(&(text + "\n"))?;
        }
        Ok(Answer::Yes)
    }
}
