use std::fmt;
use std::fs;

use serde::{Deserialize, Serialize};

/// The machine of a measurement: enough to tell machines apart, nothing that identifies one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// Number of CPUs online.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

impl Machine {
    /// This machine, as /proc describes it; missing values are "unknown" or 0.
    pub fn here() -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (processors, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        // Not every architecture names its model; not `available_parallelism`, which counts only
        // the CPUs that this process may use.
        let model = field(&processors, "model name").or_else(|| field(&processors, "CPU part"));
        let cpus = (processors.lines())
            .filter(|line| line.starts_with("processor"))
            .count();
        let kernel = read("/proc/sys/kernel/osrelease");
        let memory_kib =
            field(&memory, "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        Machine {
            cpu: model.unwrap_or("unknown").to_owned(),
            cpus,
            kernel: match kernel.trim() {
                "" => "unknown".to_owned(),
                release => release.to_owned(),
            },
            memory_bytes: memory_kib.unwrap_or(0) * 1024,
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine {
            cpu, cpus, kernel, ..
        } = self;
        let plural = if *cpus == 1 { "" } else { "s" };
        write!(f, "{cpu}, {cpus} CPU{plural}, Linux {kernel}")
    }
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name);
    values.next().map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_a_processor_a_kernel_and_memory() {
        let machine = Machine::here();
        assert!(
            machine.cpus > 0 && machine.memory_bytes > 1 << 20,
            "{machine:?}"
        );
        assert_ne!(machine.kernel, "unknown");
    }
}
