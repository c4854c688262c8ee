//! The real program on a disk that does not answer: a file system on a loop device, frozen.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::net::{TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command as Program;
use std::time::{Duration, Instant};

use crate::node_process::changes::Book;
use crate::node_process::{NodeProcess, PATIENCE, Serve, admin_key, mint};
use raida::client::{ClientError, Outcome};
use raida::coin::{An, Coin};
use raida::protocol::Status;
use raida::protocol::authentication::Pown;

/// From `linux/fs.h`.
const FREEZE: libc::c_ulong = 0xc004_5877;
const THAW: libc::c_ulong = 0xc004_5878;

/// A small file system of its own on a loop device. Only this thread and the processes that it
/// starts see its mount.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    /// `None`, with a message, where none can be mounted.
    fn mount() -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(96 << 20).unwrap();
        let place = folder.path().join("disk");
        std::fs::create_dir(&place).unwrap();
        // SAFETY: unshare takes flags and no memory.
        let apart = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
        let none = std::ptr::null();
        // SAFETY: every pointer is null, where mount(2) ignores it, or a string that ends in a zero
        // byte and lives until the call returns.
        let private = apart
            && unsafe {
                let flags = libc::MS_REC | libc::MS_PRIVATE;
                libc::mount(none, c"/".as_ptr(), none, flags, none.cast()) == 0
            };
        let run = |program: &str, words: &[&Path]| {
            let done = Program::new(program).args(words).output();
            done.is_ok_and(|done| done.status.success())
        };
        let made = private
            && run("mkfs.ext4", &[Path::new("-q"), &image])
            && run("mount", &[Path::new("-oloop"), &image, &place]);
        if !made {
            println!("skipped: no file system can be mounted on a loop device here");
            return None;
        }
        Some(Disk { folder })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// From now on no write to it ends.
    fn freeze(&self) -> Frozen {
        let place = File::open(self.path()).unwrap();
        // SAFETY: the request takes no memory, and `place` keeps the descriptor open.
        assert_eq!(unsafe { libc::ioctl(place.as_raw_fd(), FREEZE, 0) }, 0);
        Frozen { place }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let path = CString::new(self.path().to_str().unwrap()).unwrap();
        // SAFETY: the string ends in a zero byte and lives until the call returns.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// A disk that does not answer, until dropped.
struct Frozen {
    place: File,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: the request takes no memory, and `place` keeps the descriptor open.
        unsafe { libc::ioctl(self.place.as_raw_fd(), THAW, 0) };
    }
}

/// Appends a pown of one coin, not encrypted.
fn plain_pown(coin: Coin, an: An, new: An) -> Vec<u8> {
    let mut payload = Vec::new();
    Pown::compose([(coin, an, new)], &mut payload);
    let mut request = vec![0; 32];
    (request[0], request[4], request[5], request[7]) = (1, 1, 20, 6);
    let length = 16 + payload.len() + 2;
    request[22..24].copy_from_slice(&(length as u16).to_be_bytes());
    let challenge = [7; 12];
    request.extend_from_slice(&challenge);
    request.extend_from_slice(&crc32fast::hash(&challenge).to_be_bytes());
    request.extend_from_slice(&payload);
    request.extend_from_slice(b">>");
    request
}

fn send(node: &NodeProcess, request: &[u8]) -> TcpStream {
    use std::io::Write;
    let mut stream = TcpStream::connect(node.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    stream
}

/// Whether the request was refused. The node closes the connection of a change that was being
/// written without an answer, since its outcome is unknown; it may refuse a request that had only
/// waited in line, and then changes nothing.
fn was_refused(mut stream: TcpStream) -> bool {
    let mut answer = [0; 32];
    match stream.read(&mut answer).unwrap() {
        0 => false,
        _ => {
            assert_eq!(answer[2], Status::UNAVAILABLE.code());
            true
        }
    }
}

fn status(outcome: (Vec<Outcome>, Option<ClientError>)) -> Result<Vec<Outcome>, Status> {
    match outcome {
        (outcomes, None) => Ok(outcomes),
        (_, Some(ClientError::Refused(_, status))) => Err(status),
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_in_flight_are_given_up_others_refused_and_reads_answered_until_the_disk_is_back() {
    for shards in [1u16, 2] {
        let Some(disk) = Disk::mount() else { return };
        let data = disk.path().join("data");
        let serve = Serve::on(&data)
            .with("shards.count", shards)
            .with("storage.segment_bytes", 1 << 20)
            .with("storage.checkpoint_interval_s", 3_600)
            .with("storage.disk_timeout_s", 1);
        let node = serve.start();
        let coins = mint(&mut node.client(), &admin_key(&data), &[0, 3], 2, 8);
        let mut book = Book::new(coins);
        book.assert_kept(&node);
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(10)))
            .unwrap();

        let frozen = disk.freeze();
        let new = |i: usize| An::new([i as u8 + 1; 16]);
        // Each of its own coin; the last two of the same.
        let of = |book: &Book, i: usize| (book.coins[i], book.an(i));
        let mut waiting = Vec::new();
        for i in 0..6 {
            let (coin, an) = of(&book, i);
            waiting.push(send(&node, &plain_pown(coin, an, new(i))));
        }
        let (coin, an) = of(&book, 5);
        waiting.push(send(&node, &plain_pown(coin, an, new(5))));
        // Several coins, over all shards.
        let (outcomes, error) = {
            let mut client = node.client();
            let asked: Vec<_> = (6..10)
                .map(|i| (of(&book, i).0, of(&book, i).1, new(i)))
                .collect();
            client.pown(&asked)
        };
        assert!(
            error.is_some() && !outcomes.contains(&Outcome::Changed),
            "{outcomes:?} {error:?}"
        );
        let (coin, an) = of(&book, 10);
        udp.send_to(&plain_pown(coin, an, new(10)), node.address)
            .unwrap();
        let refused: Vec<bool> = waiting.into_iter().map(was_refused).collect();
        assert!(refused.contains(&false), "all were refused");
        node.wait_for_log("the disk does not answer");
        // Those that come now are refused, and readers are answered.
        let deadline = Instant::now() + PATIENCE;
        for i in 11..14 {
            let (coin, an) = of(&book, i);
            let refused = loop {
                let powned = node.client().pown(&[(coin, an, new(i))]);
                match status(powned) {
                    Err(status) => break status,
                    Ok(_) => assert!(Instant::now() < deadline, "it is changed"),
                }
            };
            assert_eq!(refused, Status::UNAVAILABLE);
        }
        for i in 0..book.coins.len() {
            let (coin, an) = of(&book, i);
            assert_eq!(
                node.client().detect(&[(coin, an)]).unwrap(),
                [true],
                "{coin}"
            );
        }
        let mut answer = [0; 64];
        // A request that had only waited in line may be refused: then it changes nothing.
        let datagram_refused = udp.recv(&mut answer).is_ok();
        if datagram_refused {
            assert_eq!(answer[2], Status::UNAVAILABLE.code());
        }

        drop(frozen);
        node.wait_for_log("the disk answers again");
        // A change under way has happened or not, for good; the rest goes on.
        let deadline = Instant::now() + PATIENCE;
        for i in 0..book.coins.len() {
            let (coin, old) = of(&book, i);
            let at_hand = [old, new(i)];
            let found = at_hand.map(|an| node.client().detect(&[(coin, an)]).unwrap()[0]);
            assert!(found[0] != found[1], "{coin}: {found:?}");
            // The last of those that waited was about the coin of the one before it.
            let is_refused = match i {
                5 => refused[5] && refused[6],
                10 => datagram_refused,
                i => refused.get(i).is_some_and(|refused| *refused),
            };
            let is_unchanged = i > 10 || is_refused;
            assert!(
                found[0] || !is_unchanged,
                "{coin} was refused and has changed"
            );
            let now = if found[0] { old } else { new(i) };
            let next = An::new([100 + i as u8; 16]);
            let changed = loop {
                match status(node.client().pown(&[(coin, now, next)])) {
                    Ok(outcomes) => break outcomes,
                    Err(_) => assert!(Instant::now() < deadline, "still refused"),
                }
            };
            assert_eq!(changed, [Outcome::Changed], "{coin}");
            book.set(i, next);
        }
        assert!(
            udp.recv(&mut answer).is_err(),
            "a late answer to a datagram"
        );
        book.assert_kept(&node);
        let told = node.log();
        let told = told.lines().filter(|line| line.contains("disk")).count();
        assert!(told <= 2 * usize::from(shards), "{}", node.log());
        let ending = node.kill();
        assert!(!ending.log.contains("impossible"), "{}", ending.log);
        book.assert_kept(&serve.start());
    }
}

#[test]
fn places_are_given_back_while_the_disk_does_not_answer() {
    let Some(disk) = Disk::mount() else { return };
    let data = disk.path().join("data");
    let serve = Serve::on(&data)
        .with("shards.count", 1)
        .with("storage.segment_bytes", 1 << 20)
        .with("storage.checkpoint_interval_s", 3_600)
        .with("storage.disk_timeout_s", 1);
    let node = serve.start();
    let coins = mint(&mut node.client(), &admin_key(&data), &[0], 2, 8);
    let book = Book::new(coins);
    let frozen = disk.freeze();
    let waiting: Vec<TcpStream> = (0..8)
        .map(|i| {
            let (coin, an) = book.coin_and_an(i);
            send(&node, &plain_pown(coin, an, An::new([9; 16])))
        })
        .collect();
    let refused: Vec<bool> = waiting.into_iter().map(was_refused).collect();
    assert!(refused.contains(&false), "all were refused");
    // A stop waits for the clients that have a place, and names those that it cuts off.
    node.signal(libc::SIGTERM);
    node.wait_for_log("the last checkpoint was not done in time");
    assert!(!node.log().contains("cut off"), "{}", node.log());
    drop(frozen);
    let ending = node.wait();
    assert!(!ending.log.contains("cut off"), "{}", ending.log);
    let node = serve.start();
    for i in 0..book.coins.len() {
        let (coin, an) = book.coin_and_an(i);
        let found =
            [an, An::new([9; 16])].map(|an| node.client().detect(&[(coin, an)]).unwrap()[0]);
        assert!(found[0] != found[1], "{coin}: {found:?}");
        let is_refused = refused.get(i).is_some_and(|&refused| refused);
        assert!(
            found[0] || !is_refused,
            "{coin} was refused and has changed"
        );
    }
}
