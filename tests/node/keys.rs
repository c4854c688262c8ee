//! Secrets between servers: made by the program, and taken by nodes, as their operators see it.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::node_process::moved_clock::MovedClock;
use crate::node_process::{Serve, admin_key, mint, options, raida};
use raida::client::{Client, ClientError, Options, Transport};
use raida::coin::An;
use raida::protocol::key_healing::{
    GetEncryptionTicket, Half, Minute, Presented, SharedSecret, Verdict, Voucher, split,
};
use raida::protocol::{Protection, RaidaId, key_file};

/// Seconds after its start until a server takes what others vouch for.
const SETTLED: u64 = 310;

/// A folder to work in.
struct Trial {
    folder: tempfile::TempDir,
}

impl Trial {
    fn new() -> Trial {
        Trial {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `raida keys new --out FOLDER FLAGS`; gives exit status, standard output and standard
    /// error.
    fn keys_new(&self, out: &Path, flags: &[&str]) -> (i32, String, String) {
        let mut words = ["keys", "new", "--out"].map(OsStr::new).to_vec();
        words.push(out.as_os_str());
        words.extend(flags.iter().map(OsStr::new));
        let output = raida(&words);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let status = output.status.code().unwrap();
        (status, text(output.stdout), text(output.stderr))
    }

    fn serve(&self, keys: &Path) -> Serve {
        Serve::on(&self.path("data"))
            .with("shards.count", 1)
            .with("shards.pin", false)
            .with("keys.file", keys.display())
    }

    /// What a node says that does not start with this file.
    fn refusal(&self, keys: &Path) -> String {
        let Err(ending) = self.serve(keys).try_start() else {
            panic!("it starts");
        };
        assert_eq!((ending.status.code(), ending.out.as_str()), (Some(2), ""));
        assert_eq!(ending.log.matches('\n').count(), 1, "{}", ending.log);
        let start = format!("raida: key file {}: ", keys.display());
        assert!(ending.log.starts_with(&start), "{}", ending.log);
        ending.log
    }
}

#[test]
fn a_set_is_made_once_and_told_without_its_secrets() {
    let trial = Trial::new();
    let out = trial.path("keys");
    let (status, said, err) = trial.keys_new(&out, &[]);
    assert_eq!((status, err.as_str()), (0, ""));
    for text in [out.to_str().unwrap(), "[keys]", "file = ", "operator"] {
        assert!(said.contains(text), "no {text:?} in {said}");
    }
    let files =
        RaidaId::all().map(|raida| fs::read_to_string(out.join(format!("raida{raida}.keys"))));
    let files: Vec<String> = files.map(Result::unwrap).collect();
    for (raida, file) in RaidaId::all().zip(&files) {
        assert!(!key_file::parse(file.as_bytes(), raida).unwrap().has_own);
        let digits = |line: &&str| line.len() == 32 && !line.starts_with("0000");
        let secrets: Vec<&str> = file.lines().filter(digits).collect();
        assert_eq!(secrets.len(), RaidaId::COUNT - 1);
        assert!(secrets.iter().all(|secret| !said.contains(secret)));
    }

    let (status, said, err) = trial.keys_new(&out, &["--json"]);
    assert_eq!((status, said.as_str()), (2, ""));
    assert!(err.contains("raida0.keys is there already"), "{err}");
    let again = fs::read_to_string(out.join("raida0.keys")).unwrap();
    assert_eq!(again, files[0]);

    let other = trial.path("other");
    let (status, said, _) = trial.keys_new(&other, &["--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, said["files"].as_array().unwrap().len()), (0, 25));
    let last = Path::new(said["files"][24]["file"].as_str().unwrap());
    assert_eq!(
        (&said["files"][24]["raida"], last.is_file()),
        (&24.into(), true)
    );
}

#[test]
fn a_node_takes_its_own_file_and_warns_of_one_that_may_be_anothers() {
    let trial = Trial::new();
    let out = trial.path("keys");
    assert_eq!(trial.keys_new(&out, &[]).0, 0);
    let node = trial.serve(&out.join("raida0.keys")).start();
    let ending = node.stop();
    assert_eq!(ending.log.matches("keys").count(), 0, "{}", ending.log);
    let node = trial.serve(&out.join("raida1.keys")).start();
    let ending = node.stop();
    assert!(
        ending.log.contains("are they another node's?"),
        "{}",
        ending.log
    );
}

#[test]
fn a_node_that_vouches_without_encryption_warns_at_its_start() {
    let trial = Trial::new();
    let serve = Serve::on(&trial.path("data")).with("shards.count", 1);
    let ending = serve.with("keys.allow_unencrypted", true).start().stop();
    for text in [" WARN ", " keys.allow_unencrypted: "] {
        assert!(ending.log.contains(text), "{}", ending.log);
    }
}

/// At its most talkative, whatever is asked of it.
#[test]
fn a_nodes_log_holds_no_secret_no_ticket_and_no_number() {
    let trial = Trial::new();
    let out = trial.path("keys");
    assert_eq!(trial.keys_new(&out, &[]).0, 0);
    let keys = out.join("raida0.keys");
    let clock = Arc::new(MovedClock::new(&trial.path("clock")));
    let serve = trial.serve(&keys).with("log.level", "trace");
    let serve = serve.by(clock.clone());
    let node = serve.with("log.healing", "debug").start();
    let data = trial.path("data");
    let (coin, an) = mint(&mut node.client(), &admin_key(&data), &[0], 1, 1)[0];

    let text = fs::read_to_string(&keys).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let secret = |raida: usize| raida::hex::read(lines[raida]).unwrap();
    let new = An::new(std::array::from_fn(|i| 0xa0 + i as u8));
    let [first, second] = split(new);
    let asked = GetEncryptionTicket {
        broken: RaidaId::new(9).unwrap(),
        coin,
        part: first,
        an: None,
    };
    let under = |an| Options {
        protection: Protection::CoinHmac(coin, an),
        ..options()
    };
    let connect = |options| Client::connect(node.host(), Transport::Tcp, options).unwrap();
    let given = connect(under(an)).get_encryption_ticket(&asked).unwrap();
    let no_proof = GetEncryptionTicket {
        an: Some(new),
        ..asked
    };
    let refused = connect(under(an)).get_encryption_ticket(&no_proof);
    assert!(matches!(refused, Err(ClientError::Refused(..))));

    // Until then it takes no tickets, which may be from before it started.
    clock.pass(SETTLED);
    let minute = Minute::of_unix_seconds(clock.unix_seconds()).low_bits();
    let ticket = |raida: u8, half, part| {
        let voucher = Voucher { part, coin, minute };
        Presented {
            helper: RaidaId::new(raida).unwrap(),
            half,
            ticket: SharedSecret::new(&secret(raida.into())).seal(&voucher),
        }
    };
    let tickets = [
        ticket(3, Half::First, first),
        ticket(7, Half::Second, second),
    ];
    let mut client = node.client();
    let [one, other] = tickets;
    // In the same order it would be the same request again, which is answered as it was.
    for (tickets, said) in [
        ([one, other], Verdict::Accepted),
        ([other, one], Verdict::Refused),
    ] {
        let fixed = client.fix_encryption(coin, &tickets).unwrap();
        assert_eq!(fixed, [said; 2]);
    }
    assert_eq!(client.detect(&[(coin, new)]).unwrap(), [true]);

    let log = node.stop().log;
    for told in [
        "encryption ticket given",
        "no encryption ticket",
        "written=true",
    ] {
        assert!(log.contains(told), "no {told:?} in {log}");
    }
    let [one, other] = tickets.map(|presented| *presented.ticket.expose());
    let known = [*an.expose(), *new.expose(), *given.expose(), one, other];
    for bytes in (1..25).map(secret).chain(known) {
        // Half of it is as bad, and may stand anywhere.
        for part in bytes.chunks(8) {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            let list = format!("{part:?}");
            let list = list.trim_matches(['[', ']']);
            assert!(!log.to_lowercase().contains(&hex), "a log with {hex}");
            assert!(!log.contains(list), "a log with {list}");
        }
    }
}

#[test]
fn a_node_with_a_bad_key_file_does_not_start_and_says_what_to_do() {
    let trial = Trial::new();
    let out = trial.path("keys");
    assert_eq!(trial.keys_new(&out, &[]).0, 0);
    let keys = out.join("raida0.keys");
    let good = fs::read_to_string(&keys).unwrap();
    let secret = good.lines().last().unwrap();

    fs::set_permissions(&keys, Permissions::from_mode(0o640)).unwrap();
    let refusal = trial.refusal(&keys);
    let chmod = format!(
        "is open to others (mode 0640): chmod 600 {}",
        keys.display()
    );
    assert!(refusal.contains(&chmod), "{refusal}");
    fs::set_permissions(&keys, Permissions::from_mode(0o600)).unwrap();

    for (text, what) in [
        (
            good.replacen(secret, "", 1),
            "24 secrets are in it where 25",
        ),
        (good.replacen(secret, &secret[1..], 1), "line 28 is neither"),
        (
            good.replace(good.lines().nth(10).unwrap(), secret),
            "RAIDA 7 and RAIDA 24 are the same",
        ),
    ] {
        fs::write(&keys, text).unwrap();
        let refusal = trial.refusal(&keys);
        assert!(refusal.contains(what), "no {what:?} in {refusal}");
        assert!(refusal.contains("`raida keys new`") && !refusal.contains(&secret[8..]));
    }
    let refusal = trial.refusal(&trial.path("none"));
    assert!(refusal.contains("No such file"), "{refusal}");
    assert!(!trial.path("data").exists(), "nothing was made");
}
