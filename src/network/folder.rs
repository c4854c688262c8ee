use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{KeySet, NetworkError, Settings, key_file};
use crate::{
    folder_lock::{FolderLock, LockRefused},
    plain_file,
    protocol::RaidaId,
};

/// The network's folder, held by this process alone as long as this value lives. The lock is the
/// kernel's: it goes with the process, however that ends.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    _lock: FolderLock,
}

/// The file that lists where the nodes are: 25 lines of `host:port`, RAIDA 0 first.
pub fn hosts_file(folder: &Path) -> PathBuf {
    folder.join("hosts")
}

/// A node's data folder; its configuration and its log are in it too.
pub fn node_folder(folder: &Path, raida: RaidaId) -> PathBuf {
    folder.join(format!("raida{raida}"))
}

/// A node's configuration file.
pub(super) fn node_config(folder: &Path, raida: RaidaId) -> PathBuf {
    node_folder(folder, raida).join("node.toml")
}

/// The socket where the network takes requests.
pub(super) fn control_socket(folder: &Path) -> PathBuf {
    folder.join("control.sock")
}

impl Folder {
    /// Opens the folder, making it where it is missing, and locks it.
    pub(super) fn open(path: &Path) -> Result<Folder, NetworkError> {
        make(path)?;
        // The nodes' configurations must mean the same from every working directory.
        let path = fs::canonicalize(path).map_err(|error| at(path, error))?;
        let lock = lock(&path)?;
        Ok(Folder { path, _lock: lock })
    }

    /// Removes the folder, which holds nothing but its lock yet.
    pub(super) fn remove(self) {
        // Files that somebody else put there meanwhile stay, and so does the folder.
        let _ = fs::remove_file(self.path.join("lock"));
        let _ = fs::remove_dir(&self.path);
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes what the nodes and their clients need to know: the secrets between nodes, every
    /// node's configuration, and the list of hosts.
    pub(super) fn write(&self, settings: &Settings) -> Result<(), NetworkError> {
        let keys = self.keys()?;
        let hosts: Vec<String> = RaidaId::all()
            .map(|raida| settings.host(raida).to_string())
            .collect();
        for raida in RaidaId::all() {
            make(&node_folder(&self.path, raida))?;
            let text = self.configuration(settings, raida, &hosts, &keys)?;
            replace(&node_config(&self.path, raida), &text)?;
        }
        replace(&hosts_file(&self.path), &(hosts.join("\n") + "\n"))
    }

    /// The folder of the secrets that the nodes share. It is beside the nodes' folders, since a
    /// node whose folder was removed has to know what the others know. An existing set is kept;
    /// where a file of it is missing, all secrets are made again. That loses only the tickets under
    /// way, which last ten minutes.
    fn keys(&self) -> Result<PathBuf, NetworkError> {
        let keys = self.path.join("keys");
        if RaidaId::all().all(|raida| key_file(&keys, raida).exists()) {
            return Ok(keys);
        }
        // Files of one set never stand beside those of another, nor beside half of a file, wherever
        // this is interrupted: the old files go first, and each new file appears complete.
        let partial = self.path.join("keys.partial");
        remove_keys(&partial)?;
        remove_keys(&keys)?;
        KeySet::draw()?.write(&partial)?;
        make(&keys)?;
        for raida in RaidaId::all() {
            let path = key_file(&keys, raida);
            fs::rename(key_file(&partial, raida), &path).map_err(|error| at(&path, error))?;
        }
        fs::remove_dir(&partial).map_err(|error| at(&partial, error))?;
        Ok(keys)
    }

    /// A node's configuration.
    fn configuration(
        &self,
        settings: &Settings,
        raida: RaidaId,
        hosts: &[String],
        keys: &Path,
    ) -> Result<String, NetworkError> {
        let own = [
            ("node", "raida_id", raida.to_string()),
            (
                "node",
                "data_dir",
                text_of(&node_folder(&self.path, raida))?,
            ),
            (
                "network",
                "listen",
                text(&settings.listens(raida).to_string()),
            ),
            ("peers", "servers", list(hosts)),
            ("keys", "file", text_of(&key_file(keys, raida))?),
        ];
        let given = settings.keys.iter();
        let given = given.map(|key| (&*key.section, &*key.name, key.value.clone()));
        let mut keys: Vec<(&str, &str, String)> = own.into_iter().chain(given).collect();
        // Stable: a section's keys stay in their order.
        keys.sort_by_key(|&(section, ..)| section);
        let mut toml = String::from(
            "# Written by `raida network` at each of its starts: set keys there, with --set, not here.\n",
        );
        let mut last = "";
        for (section, name, value) in keys {
            if section != last {
                let _ = write!(toml, "\n[{section}]\n");
                last = section;
            }
            let _ = writeln!(toml, "{name} = {value}");
        }
        Ok(toml)
    }
}

fn text_of(path: &Path) -> Result<String, NetworkError> {
    let not_text = || io::Error::new(io::ErrorKind::InvalidInput, "the name is not UTF-8");
    let name = path.to_str().ok_or_else(|| at(path, not_text()))?;
    Ok(text(name))
}

fn text(text: &str) -> String {
    toml::Value::from(text).to_string()
}

fn list(items: &[String]) -> String {
    let lines: String = items
        .iter()
        .map(|item| format!("    {},\n", text(item)))
        .collect();
    format!("[\n{lines}]")
}

/// Makes a folder that only its owner can look into: admin keys and authenticity numbers are in it.
fn make(folder: &Path) -> Result<(), NetworkError> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    made.map_err(|error| at(folder, error))
}

/// Removes the files of a set, however many there are, and nothing else: the folder may be
/// somebody's.
fn remove_keys(folder: &Path) -> Result<(), NetworkError> {
    for raida in RaidaId::all() {
        let path = key_file(folder, raida);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path, error)),
            _ => {}
        }
    }
    Ok(())
}

/// Writes a file so that a reader sees either the old text or the new one.
fn replace(path: &Path, text: &str) -> Result<(), NetworkError> {
    let partial = path.with_extension("partial");
    let written = || {
        plain_file::create_anew(&partial)?.write_all(text.as_bytes())?;
        fs::rename(&partial, path)
    };
    written().map_err(|error| at(path, error))
}

fn lock(folder: &Path) -> Result<FolderLock, NetworkError> {
    FolderLock::take(folder).map_err(|refused| match refused {
        LockRefused::Taken { process } => NetworkError::InUse {
            folder: folder.to_owned(),
            process,
        },
        LockRefused::Io { path, error } => at(&path, error),
    })
}

pub(super) fn at(path: &Path, error: io::Error) -> NetworkError {
    NetworkError::File {
        path: path.to_owned(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Key;
    use super::*;

    fn settings(folder: &Path) -> Settings {
        let key = |section: &str, name: &str, value: &str| Key {
            section: section.to_owned(),
            name: name.to_owned(),
            value: value.to_owned(),
        };
        Settings {
            program: "raida".into(),
            folder: folder.to_owned(),
            address: [0, 0, 0, 0].into(),
            base_port: 20_000,
            down: vec![],
            coin_id: 6,
            keys: vec![
                key("shards", "count", "1"),
                key("network", "max_connections", "9"),
            ],
        }
    }

    #[test]
    fn a_folder_has_one_network_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let first = Folder::open(place.path()).unwrap();
        let refused = Folder::open(place.path()).unwrap_err().to_string();
        let process = format!("process {}", std::process::id());
        assert!(refused.contains(&process), "{refused}");
        fs::remove_file(place.path().join("lock")).unwrap();
        Folder::open(place.path()).unwrap_err();
        drop(first);
        Folder::open(place.path()).unwrap();
    }

    #[test]
    fn every_node_is_told_its_own_number_and_all_hosts() {
        let place = tempfile::tempdir().unwrap();
        let odd = place.path().join("a \"folder\"\\");
        let folder = Folder::open(&odd).unwrap();
        folder.write(&settings(&odd)).unwrap();
        let hosts = fs::read_to_string(hosts_file(folder.path())).unwrap();
        let hosts: Vec<&str> = hosts.lines().collect();
        assert_eq!(hosts.len(), RaidaId::COUNT);
        assert_eq!(hosts[24], "127.0.0.1:20024");
        for raida in RaidaId::all() {
            let text = fs::read_to_string(node_config(folder.path(), raida)).unwrap();
            let keys: toml::Table = text.parse().unwrap();
            let data = node_folder(folder.path(), raida);
            assert_eq!(
                keys["node"]["raida_id"].as_integer(),
                Some(raida.get().into())
            );
            assert_eq!(keys["node"]["data_dir"].as_str(), data.to_str());
            let shared = key_file(&folder.path().join("keys"), raida);
            assert_eq!(keys["keys"]["file"].as_str(), shared.to_str());
            let listen = format!("0.0.0.0:{}", 20_000 + u16::from(raida.get()));
            assert_eq!(keys["network"]["listen"].as_str(), Some(&*listen));
            assert_eq!(keys["network"]["max_connections"].as_integer(), Some(9));
            assert_eq!(keys["shards"]["count"].as_integer(), Some(1));
            let servers = keys["peers"]["servers"].as_array().unwrap();
            let servers: Vec<&str> = servers.iter().map(|s| s.as_str().unwrap()).collect();
            assert_eq!(servers, hosts);
        }
    }

    #[test]
    fn the_nodes_keep_their_secrets_over_starts_until_one_of_them_is_missing() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let keys = folder.path().join("keys");
        let all = || -> Vec<Vec<u8>> {
            let read = |raida| fs::read(key_file(&keys, raida)).unwrap();
            RaidaId::all().map(read).collect()
        };
        let write = || folder.write(&settings(place.path()));
        write().unwrap();
        let first = all();
        write().unwrap();
        assert_eq!(all(), first);
        fs::remove_dir_all(node_folder(folder.path(), RaidaId::new(3).unwrap())).unwrap();
        write().unwrap();
        assert_eq!(all(), first);

        // As a start leaves it that was killed half-way.
        fs::remove_file(key_file(&keys, RaidaId::new(20).unwrap())).unwrap();
        let partial = folder.path().join("keys.partial");
        fs::create_dir(&partial).unwrap();
        fs::write(partial.join("raida0.keys"), "").unwrap();
        fs::write(keys.join("notes"), "theirs").unwrap();
        write().unwrap();
        assert!(all().iter().zip(&first).all(|(new, old)| new != old));
        assert!(!partial.exists() && keys.join("notes").exists());
    }
}
