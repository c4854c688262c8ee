//! `raida network`: real processes, watched, killed and started again for real.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Output;
use std::time::{Duration, Instant};

use crate::network_process::{Network, NetworkProcess, PATIENCE, is_alive, kill_node};
use raida::protocol::RaidaId;
use serde_json::Value;

const RAIDAS: std::ops::Range<u8> = 0..RaidaId::COUNT as u8;

fn states(status: &Value) -> Vec<&str> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.map(|node| node["state"].as_str().unwrap()).collect()
}

fn pids(network: &NetworkProcess) -> Vec<u32> {
    RAIDAS.filter_map(|raida| network.pid(raida)).collect()
}

fn error(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn all_25_are_started_asked_and_stopped_together() {
    let network = Network::new().start();
    let greeting = network.said();
    assert!(
        greeting.starts_with("25 of 25 nodes are ready"),
        "{greeting}"
    );
    assert!(greeting.lines().count() <= 30, "{greeting}");
    let status = network.status();
    assert_eq!(states(&status), ["ready"; 25]);

    let hosts = fs::read_to_string(network.dir().join("hosts")).unwrap();
    let hosts: Vec<&str> = hosts.lines().collect();
    assert_eq!(hosts.len(), 25);
    for raida in RAIDAS {
        assert_eq!(
            hosts[usize::from(raida)],
            network.address(raida).to_string()
        );
        network.client(raida).echo().unwrap();
        let log = fs::read_to_string(network.data(raida).join("node.log")).unwrap();
        assert!(log.contains(&format!("RAIDA {raida} for coin 6")), "{log}");
    }

    let before = pids(&network);
    network.signal(libc::SIGTERM);
    let (ended, network) = network.ended();
    assert_eq!(ended.code(), Some(0));
    assert!(before.iter().all(|&pid| !is_alive(pid)));
    for raida in RAIDAS {
        let log = fs::read_to_string(network.data(raida).join("node.log")).unwrap();
        assert!(
            log.contains("stopped: what was accepted is answered"),
            "{log}"
        );
    }
    assert!(!network.dir().join("control.sock").exists());
}

#[test]
fn nodes_left_out_or_stopped_can_be_started_and_stopped_again() {
    let network = Network::new().only(&[0, 3, 4]).start();
    let mut expected = ["down"; 25];
    for up in [0, 3, 4] {
        expected[up] = "ready";
    }
    assert_eq!(states(&network.status()), expected);
    assert_eq!(network.ask(&["status"]).status.code(), Some(0));
    network.client(4).echo().unwrap();

    let (three, four) = (network.pid(3).unwrap(), network.pid(4).unwrap());
    let stopped = network.ask(&["stop", "3,4"]);
    assert_eq!(stopped.status.code(), Some(0), "{stopped:?}");
    assert!(!is_alive(three) && !is_alive(four));
    assert_eq!(network.node(3)["state"], "down");
    assert_eq!(network.node(3)["last_end"], Value::Null, "it was asked to");

    let started = network.ask(&["start", "3,24"]);
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    network.client(3).echo().unwrap();
    network.client(24).echo().unwrap();
    assert_eq!(network.node(3)["restarts"], 0);
    assert_eq!(network.node(4)["state"], "down");
}

#[test]
fn a_node_that_is_killed_is_reported_and_started_again() {
    let network = Network::new().only(&[5, 6]).start();
    let (killed, other) = (network.pid(5).unwrap(), network.pid(6));
    kill_node(killed);
    network.wait_until_said("RAIDA 5 is ready");
    let said = network.said();
    for text in [
        "RAIDA 5 ended by itself: signal: 9",
        "starts again in 200 ms",
        "raida detect",
    ] {
        assert!(said.contains(text), "no {text:?} in {said}");
    }
    network.client(5).echo().unwrap();
    let node = network.node(5);
    assert_eq!(
        (&node["state"], &node["restarts"]),
        (&"ready".into(), &1.into())
    );
    assert_ne!(network.pid(5), Some(killed));
    assert_eq!(network.pid(6), other);
    // What the killed run had to say is kept beside what the next one says.
    let log = fs::read_to_string(network.data(5).join("node.log.1")).unwrap();
    assert!(log.contains("RAIDA 5 for coin 6"), "{log}");
}

#[test]
fn a_node_that_cannot_start_is_given_up_and_can_be_started_once_it_is_repaired() {
    let network = Network::new().only(&[0]);
    fs::create_dir_all(network.data(1)).unwrap();
    fs::write(network.data(1).join("admin.key"), "no key").unwrap();
    let network = network.start();

    let started = network.ask(&["start", "1"]);
    assert_eq!(started.status.code(), Some(1), "{started:?}");
    let said = String::from_utf8(started.stdout).unwrap();
    assert!(
        said.starts_with("RAIDA 1 is failed: exit status: 2"),
        "{said}"
    );
    let said = network.said();
    assert!(said.contains("5 times in a row"), "{said}");
    assert!(
        said.contains("admin key file"),
        "the end of its log: {said}"
    );
    assert_eq!(network.node(1)["restarts"], 4);
    assert_eq!(network.ask(&["status"]).status.code(), Some(1));
    network.client(0).echo().unwrap();

    fs::remove_file(network.data(1).join("admin.key")).unwrap();
    let started = network.ask(&["start", "1"]);
    assert_eq!(started.status.code(), Some(0), "{started:?}");
    network.client(1).echo().unwrap();
    assert_eq!(network.ask(&["status"]).status.code(), Some(0));
}

#[test]
fn a_killed_supervisor_leaves_no_orphan_and_its_folder_serves_again() {
    let network = Network::new().only(&[0, 1, 2, 3]).start();
    let nodes = pids(&network);
    assert_eq!(nodes.len(), 4);
    let killed = Instant::now();
    network.signal(libc::SIGKILL);
    let (ended, network) = network.ended();
    assert_eq!(ended.signal(), Some(libc::SIGKILL));
    while nodes.iter().any(|&pid| is_alive(pid)) {
        assert!(
            killed.elapsed() < Duration::from_secs(5),
            "orphans: {nodes:?}"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        network.dir().join("control.sock").exists(),
        "it was left behind"
    );
    let network = network.start();
    for raida in 0..4 {
        network.client(raida).echo().unwrap();
    }
    let down = network.ask(&["down"]);
    assert_eq!(down.status.code(), Some(0), "{down:?}");
    // The folder is free as soon as `down` has answered.
    let refused = network
        .command()
        .args(["--bind", "192.0.2.1"])
        .output()
        .unwrap();
    assert!(error(&refused).contains("192.0.2.1"), "{refused:?}");
    assert_eq!(network.ended().0.code(), Some(0));
}

#[test]
fn what_cannot_work_is_refused_before_anything_starts() {
    let network = Network::new().only(&[0, 9]).start();
    let again = error(&network.command().output().unwrap());
    let owner = format!("process {}", network.id());
    assert!(
        again.contains("runs in") && again.contains(&owner),
        "{again}"
    );

    let other = Network::new();
    let refused = |flags: &[&str]| error(&other.command().args(flags).output().unwrap());
    let crowded = Network::new().on_ports_from(network.address(0).port());
    let taken = error(&crowded.command().output().unwrap());
    let expected = format!("{} (TCP) is in use, and 1 more", network.address(0));
    assert!(taken.contains(&expected), "{taken}");
    assert!(!crowded.dir().exists(), "nothing is left behind");
    let own = refused(&["--set", "network.listen=127.0.0.1:1"]);
    assert!(own.contains("network.listen is each node's own"), "{own}");
    let secrets = refused(&["--set", "keys.file=somewhere"]);
    assert!(secrets.contains("keys.file is each node's"), "{secrets}");
    let unknown = refused(&["--set", "storage.cache_page=1"]);
    assert!(unknown.contains("nearest is `cache_pages`"), "{unknown}");
    let beyond = refused(&["--down", "25"]);
    assert!(beyond.contains("0 to 24"), "{beyond}");
    let mut few = other.command();
    // SAFETY: between fork and exec this makes a system call and nothing else.
    unsafe {
        few.pre_exec(|| {
            let limit = libc::rlimit {
                rlim_cur: 100,
                rlim_max: 100,
            };
            match libc::setrlimit(libc::RLIMIT_NOFILE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    };
    let few = error(&few.output().unwrap());
    assert!(
        few.contains("100 open files") && few.contains("ulimit -n"),
        "{few}"
    );
    assert!(!other.data(0).exists(), "nothing was started");
    let nobody = refused_ask(&other);
    assert!(nobody.contains("no network runs in"), "{nobody}");
    network.client(0).echo().unwrap();
}

fn refused_ask(network: &Network) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_raida"));
    command
        .args(["network", "status", "--dir"])
        .arg(network.dir());
    error(&command.output().unwrap())
}

#[test]
fn a_client_of_the_socket_that_makes_no_sense_harms_nobody() {
    let network = Network::new().only(&[0]).start();
    let connect = || {
        let stream = UnixStream::connect(network.dir().join("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    };
    let _silent: Vec<UnixStream> = (0..4).map(|_| connect()).collect();
    let _gone = connect().write_all(b"{\"do\":\"start\",\"raidas\":[1]}\n");
    for question in [
        "what\n",
        "{\"do\":\"stop\",\"raidas\":[25]}\n",
        &"x".repeat(4_096),
    ] {
        let mut stream = connect();
        // It may be cut off before it has said it all.
        let _ = stream.write_all(question.as_bytes());
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let is_refusal = answer.starts_with("{\"error\":");
        assert!(is_refusal || read.is_err(), "{question:?}: {answer}");
    }
    assert_eq!(network.node(0)["state"], "ready");
    network.client(0).echo().unwrap();
}
