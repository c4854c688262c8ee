//! File descriptors: the real program takes as many as it may have, admits the connections that
//! leave room for its own files, and says so.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::node_process::{NodeProcess, PATIENCE, Serve};
use raida::admin;

const SHARDS: u16 = 2;

fn connect(node: &NodeProcess, last: u8) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.unwrap();
    let from = SocketAddr::from(([127, 0, 0, last], 0));
    socket.bind(&from.into()).unwrap();
    socket.connect(&node.address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Whether an echo without a body is answered.
fn is_served(stream: &mut TcpStream) -> bool {
    let mut echo = [0; 32];
    (echo[0], echo[7]) = (1, 6);
    let sent = stream.write_all(&echo);
    sent.and_then(|()| stream.read_exact(&mut echo)).is_ok()
}

fn files(node: &NodeProcess) -> usize {
    let files = std::fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap();
    files.count()
}

fn connections(data: &Path) -> raida::net::ConnectionCounts {
    admin::ask_counts(data).unwrap().connections
}

#[test]
fn a_node_raises_its_soft_limit_and_serves_more_connections_than_that() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = Serve::on(&data)
        .with("shards.count", SHARDS)
        .with("network.max_connections", 700)
        .with_descriptors(200, 4_096)
        .start();
    assert_eq!(node.greeted("connections"), "", "{}", node.greeting);
    let mut streams: Vec<TcpStream> = (0..600).map(|_| connect(&node, 1)).collect();
    assert!(streams.iter_mut().all(is_served));
    assert!(files(&node) > 600);
    assert_eq!(connections(&data).open, 600);
    assert_eq!(connections(&data).accept_errors, 0);
}

#[test]
fn a_node_with_few_files_admits_as_many_connections_as_leave_room_for_its_own_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let limit = 700;
    let node = Serve::on(&data)
        .with("shards.count", SHARDS)
        .with_descriptors(limit, limit)
        .start();
    let said = node.greeted("connections").to_owned();
    let admitted = node.greeted_number("connections") as usize;
    assert!((100..700).contains(&admitted), "{}", node.greeting);
    assert!(said.contains("10000 of network.max_connections"), "{said}");
    assert!(said.contains("may open 700 files"), "{said}");
    node.wait_for_log("LimitNOFILE");
    // Its own files fit into the descriptors that it reserves, and every client is served.
    assert!(files(&node) <= 700 - admitted, "{} files", files(&node));
    let mut streams: Vec<TcpStream> = Vec::new();
    for last in [1, 2] {
        for _ in 0..admitted {
            let mut stream = connect(&node, last);
            assert!(is_served(&mut stream), "{} before it", streams.len());
            streams.push(stream);
        }
    }
    let counts = connections(&data);
    assert!(counts.open as usize <= admitted, "{counts:?}");
    assert_eq!(counts.most as usize, admitted);
    assert!(counts.evicted as usize >= admitted, "{counts:?}");
    assert_eq!((counts.accept_errors, counts.refused_full), (0, 0));
    assert!(files(&node) <= 700);
}

#[test]
fn what_cannot_be_accepted_is_logged_once_and_not_again_within_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    // So few that the connections which are always admitted do not all fit.
    let serve = |files: u64| {
        Serve::on(&data)
            .with("shards.count", 1)
            .with_descriptors(files, files)
            .try_start()
    };
    let roomy = serve(1_024).unwrap();
    let own = files(&roomy) as u64;
    assert!(roomy.stop().status.success());
    let node = serve(own + 8).unwrap_or_else(|ending| panic!("{ending:?}"));
    let _streams: Vec<TcpStream> = (0..16).map(|_| connect(&node, 1)).collect();
    node.wait_for_log("cannot accept connections");
    // It tries again ten times a second.
    std::thread::sleep(Duration::from_secs(2));
    let told = node.log().matches("cannot accept connections").count();
    assert_eq!(told, 1, "{}", node.log());
    drop(_streams);
    let start = Instant::now();
    while !is_served(&mut connect(&node, 1)) {
        assert!(start.elapsed() < PATIENCE, "it never recovers");
    }
}
