//! Real programs settle purchases, whatever they do, and cores only wait for wakers.

use std::{
    fs,
    future::Future,
    io::{self, Write},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex, OnceLock},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use crate::node_process::Serve;
use crate::real_node::RealNode;
use futures_util::future::join_all;
use glommio::{LocalExecutorBuilder, Placement};
use raida::runtime::run_awake;
use raida::{
    protocol::RaidaId,
    settlement::{
        Answer, Desk, Method, NotSetUp, Program, Purchase, Settlement, Variables, Verdict,
    },
};
use tempfile::TempDir;

/// Far beyond what a program here takes, so that only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Limit for what must happen at once, however busy the machine is; a hang here takes far longer.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A shell script as the operator's program, in a folder where it can leave what it has to say.
struct Script {
    folder: TempDir,
    program: Program,
}

impl Script {
    /// A script that starts in its folder, with the purchase's line in `$line`.
    fn new(text: &str) -> Script {
        Script::without_reading(&format!("read -r line\n{text}"))
    }

    fn without_reading(text: &str) -> Script {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("settle.sh");
        let cd = format!("cd '{}'\n", folder.path().display());
        fs::write(&file, cd + text).unwrap();
        // The shell is given the file, since a file that was just written cannot be executed while
        // a process that another test starts still has it open.
        let program = Program {
            path: "/bin/sh".into(),
            arguments: vec![file.into()],
            environment: Variables::default(),
            timeout: PATIENCE,
            at_most: 4,
            waiting_max: 256,
        };
        Script { folder, program }
    }

    fn timeout(mut self, timeout: Duration) -> Script {
        self.program.timeout = timeout;
        self
    }

    fn at_most(mut self, at_most: usize, waiting_max: usize) -> Script {
        (self.program.at_most, self.program.waiting_max) = (at_most, waiting_max);
        self
    }

    fn desk(&self) -> Desk {
        Desk::start(&Method::Command(self.program.clone())).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What it left in a file; nothing where it has not.
    fn left(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The numbers that it left in a file, at least this many.
    fn numbers(&self, name: &str, at_least: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        wait_until("the numbers are there", || {
            let left = self.left(name);
            // The last line may be in the middle of being written.
            let whole = left.rfind('\n').map_or("", |end| &left[..end]);
            numbers = whole.lines().map(|line| line.parse().unwrap()).collect();
            numbers.len() >= at_least
        });
        numbers
    }
}

fn purchase(receipt: u8) -> Purchase {
    Purchase {
        raida: RaidaId::new(3).unwrap(),
        currency: "bitcoin",
        value: 500_000_000,
        price: 70_000,
        seller: b"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq".to_vec(),
        transaction_id: [0xfe; 32],
        receipt_id: [receipt; 16],
        memo: "for \"you\"".into(),
        locker: [0xee; 16],
    }
}

/// The answers, waited for on a core.
fn on_a_core(answers: Vec<Answer>) -> Vec<Result<Verdict, NotSetUp>> {
    let core = thread::spawn(move || {
        let executor = LocalExecutorBuilder::new(Placement::Unbound);
        run_awake(&executor.make().unwrap(), join_all(answers))
    });
    core.join().unwrap()
}

fn verdict(settlement: &Settlement) -> Verdict {
    on_a_core(vec![settlement.ask(purchase(1))])[0].unwrap()
}

/// The answer, where it is there already.
fn now(answer: &mut Answer) -> Option<Verdict> {
    match Pin::new(answer).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(verdict) => Some(verdict.unwrap()),
        Poll::Pending => None,
    }
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process runs: a process that ended and whose parent has not waited for it does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
    state.is_some_and(|state| state != "Z" && state != "X")
}

fn wait_until_gone(pids: &[u32]) {
    wait_until("the processes are gone", || {
        pids.iter().all(|&pid| !runs(pid))
    });
}

/// All that is logged in this process.
fn log() -> &'static Arc<Mutex<Vec<u8>>> {
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    LOG.get_or_init(|| {
        let log: Arc<Mutex<Vec<u8>>> = Arc::default();
        let lines = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(move || Lines(lines.clone()))
            .init();
        log
    })
}

fn logged() -> String {
    String::from_utf8(log().lock().unwrap().clone()).unwrap()
}

#[test]
fn without_settlement_nobody_can_tell_and_with_trust_everybody_has_paid() {
    for (method, expected) in [
        (Method::None, Err(NotSetUp)),
        (Method::Trusted, Ok(Verdict::Paid)),
    ] {
        let desk = Desk::start(&method).unwrap();
        assert_eq!(
            on_a_core(vec![desk.settlement().ask(purchase(1))]),
            [expected]
        );
    }
}

#[test]
fn a_verdict_is_an_exit_status_and_all_else_is_pending() {
    for (text, expected) in [
        ("exit 0", Verdict::Paid),
        ("exit 1", Verdict::Pending),
        ("exit 2", Verdict::Refused),
        ("exit 3", Verdict::Pending),
        ("exit 4", Verdict::Seen),
        ("exit 5", Verdict::Pending),
        ("exit 255", Verdict::Pending),
        ("kill -TERM $$; exit 0", Verdict::Pending),
        ("kill -KILL $$; exit 0", Verdict::Pending),
    ] {
        let script = Script::new(text);
        assert_eq!(verdict(&script.desk().settlement()), expected, "{text}");
    }
}

#[test]
fn a_program_reads_the_purchase_to_its_end() {
    let script = Script::without_reading("cat > purchase");
    assert_eq!(verdict(&script.desk().settlement()), Verdict::Paid);
    assert_eq!(script.left("purchase"), purchase(1).line());
}

#[test]
fn the_longest_purchase_there_can_be_is_read_as_any_other() {
    let script = Script::without_reading("cat > purchase");
    let longest = Purchase {
        seller: vec![1; 128],
        memo: vec![1; 254],
        value: u64::MAX,
        price: u32::MAX,
        ..purchase(1)
    };
    let desk = script.desk();
    let answer = desk.settlement().ask(longest.clone());
    assert_eq!(on_a_core(vec![answer]), [Ok(Verdict::Paid)]);
    assert_eq!(script.left("purchase"), longest.line());
    // An empty pipe holds a page whatever its owner's other pipes hold (pipe(7)).
    assert!(longest.line().len() <= 4_096, "{}", longest.line().len());
}

#[test]
fn a_program_that_says_yes_without_reading_has_not_said_yes() {
    log();
    for text in [
        "exit 0",
        "exit 2",
        "head -c 10 > /dev/null 2>&1; exit 0",
        "exec < /dev/null; exit 0",
    ] {
        let script = Script::without_reading(text);
        assert_eq!(
            verdict(&script.desk().settlement()),
            Verdict::Pending,
            "{text}"
        );
    }
    assert!(logged().contains("without reading the purchase to its end"));
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_its_children() {
    log();
    let timeout = Duration::from_secs(1);
    for hang in [
        "sleep 1000 & echo $! >> pids; wait",
        "trap '' TERM INT HUP; (trap '' TERM; while :; do sleep 1000; done) & echo $! >> pids; wait",
    ] {
        let script = Script::new(&format!("echo $$ >> pids; {hang}")).timeout(timeout);
        let desk = script.desk();
        let start = Instant::now();
        assert_eq!(verdict(&desk.settlement()), Verdict::Pending);
        let took = start.elapsed();
        assert!((timeout..timeout + AT_ONCE).contains(&took), "{took:?}");
        wait_until_gone(&script.numbers("pids", 2));
        assert!(logged().contains("it took longer than 1 s and was killed"));
    }
}

#[test]
fn a_program_that_never_reads_has_its_time_and_no_more() {
    let script = Script::without_reading("exec sleep 1000").timeout(Duration::from_millis(200));
    let start = Instant::now();
    assert_eq!(verdict(&script.desk().settlement()), Verdict::Pending);
    assert!(start.elapsed() < AT_ONCE);
}

#[test]
fn what_a_program_leaves_behind_ends_with_it() {
    let script = Script::new("sleep 1000 & echo $! > pids; exit 0");
    let desk = script.desk();
    assert_eq!(verdict(&desk.settlement()), Verdict::Paid);
    wait_until_gone(&script.numbers("pids", 1));
}

#[test]
fn a_program_that_writes_without_end_is_killed() {
    log();
    for flood in ["exec yes", "exec yes >&2", "yes >&2 & exec sleep 1000"] {
        let script = Script::new(&format!("echo $$ > pids; {flood}"));
        let start = Instant::now();
        assert_eq!(
            verdict(&script.desk().settlement()),
            Verdict::Pending,
            "{flood}"
        );
        assert!(start.elapsed() < AT_ONCE, "{flood}: {:?}", start.elapsed());
        wait_until_gone(&script.numbers("pids", 1));
    }
    assert!(logged().contains("it wrote more than 65536 bytes and was killed"));
}

#[test]
fn what_a_program_may_write_does_not_spoil_its_verdict() {
    let script = Script::new("head -c 65000 /dev/zero; exit 0");
    assert_eq!(verdict(&script.desk().settlement()), Verdict::Paid);
    let script = Script::new("head -c 65000 /dev/zero; head -c 1000 /dev/zero >&2; exit 0");
    assert_eq!(verdict(&script.desk().settlement()), Verdict::Pending);
}

#[test]
fn the_log_has_the_end_of_what_a_program_said_and_nothing_that_the_buyer_did() {
    log();
    let script =
        Script::new("echo 'the wallet is locked' >&2; printf '\\033[2Jfalse line' >&2; exit 9");
    assert_eq!(verdict(&script.desk().settlement()), Verdict::Pending);
    let logged = logged();
    let line = logged
        .lines()
        .find(|line| line.contains("the wallet is locked"));
    let line = line.unwrap_or_else(|| panic!("not in {logged}"));
    assert!(
        line.contains("the wallet is locked\\n\\u{1b}[2Jfalse line"),
        "{line}"
    );
    assert!(line.contains("exit status: 9"), "{line}");
    assert!(line.contains(&"ee".repeat(16)), "{line}");
    for secret in ["fefefe", "010101", "for \"you\"", "for \\\"you"] {
        assert!(!logged.contains(secret), "{secret} in {logged}");
    }
}

#[test]
fn a_hundred_at_once_are_all_settled_and_at_most_four_run_at_a_time() {
    let script = Script::new(
        "mkdir -p running; : > running/$$; ls running | wc -l >> count; sleep 0.02; rm running/$$",
    );
    let desk = script.desk();
    let settlement = desk.settlement();
    // From several cores, as a node asks.
    let cores: Vec<_> = (0..4)
        .map(|_| {
            let settlement = settlement.clone();
            thread::spawn(move || on_a_core((0..25).map(|i| settlement.ask(purchase(i))).collect()))
        })
        .collect();
    for core in cores {
        assert_eq!(core.join().unwrap(), [Ok(Verdict::Paid); 25]);
    }
    let text = script.left("count");
    let counts: Vec<u32> = text.lines().map(|n| n.trim().parse().unwrap()).collect();
    assert_eq!(counts.len(), 100);
    let most = *counts.iter().max().unwrap();
    assert!((2..=4).contains(&most), "{most} ran at a time");
}

/// Until the file `go` is there, the script does not end.
const AT_THE_GATE: &str = "echo \"$line\" >> started; while ! [ -e go ]; do sleep 0.01; done";

fn receipts(started: &str) -> Vec<u8> {
    let receipt = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        u8::from_str_radix(&line["receipt_id"].as_str().unwrap()[..2], 16).unwrap()
    };
    started.lines().map(receipt).collect()
}

#[test]
fn those_that_wait_have_their_turn_in_order_and_beyond_the_bound_are_pending_at_once() {
    let script = Script::new(AT_THE_GATE).at_most(1, 4);
    let desk = script.desk();
    let settlement = desk.settlement();
    let mut answers: Vec<Answer> = (0..7).map(|i| settlement.ask(purchase(i))).collect();
    let at_once: Vec<_> = answers.iter_mut().map(now).collect();
    let pending = Some(Verdict::Pending);
    assert_eq!(at_once, [None, None, None, None, None, pending, pending]);
    fs::write(script.path("go"), "").unwrap();
    answers.truncate(5);
    assert_eq!(on_a_core(answers), [Ok(Verdict::Paid); 5]);
    assert_eq!(receipts(&script.left("started")), [0, 1, 2, 3, 4]);
    // There is room again.
    assert_eq!(verdict(&settlement), Verdict::Paid);
}

#[test]
fn a_purchase_that_waits_too_long_for_its_turn_is_pending_and_never_started() {
    log();
    let script = Script::new("echo \"$line\" >> started; exec sleep 1000")
        .at_most(1, 4)
        .timeout(Duration::from_millis(300));
    let desk = script.desk();
    let settlement = desk.settlement();
    // Each waits for the one before it, which has its whole time.
    let answers = (0..5).map(|i| settlement.ask(purchase(i))).collect();
    let start = Instant::now();
    assert_eq!(on_a_core(answers), [Ok(Verdict::Pending); 5]);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    let started = receipts(&script.left("started"));
    assert!(started.len() < 5, "{started:?}");
    assert!(logged().contains("for other programs to end"));
}

#[test]
fn a_purchase_that_nobody_waits_for_any_more_is_not_started() {
    let script = Script::new(AT_THE_GATE).at_most(1, 8);
    let desk = script.desk();
    let settlement = desk.settlement();
    let first = settlement.ask(purchase(0));
    wait_until("the first has started", || {
        !script.left("started").is_empty()
    });
    let given_up = settlement.ask(purchase(1));
    let last = settlement.ask(purchase(2));
    drop(given_up);
    fs::write(script.path("go"), "").unwrap();
    assert_eq!(on_a_core(vec![first, last]), [Ok(Verdict::Paid); 2]);
    assert_eq!(receipts(&script.left("started")), [0, 2]);
}

#[test]
fn a_program_that_is_no_program_is_refused_at_the_start_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("plain");
    fs::write(&plain, "#!/bin/sh\nexit 0\n").unwrap();
    for (path, what) in [
        (folder.path().join("missing"), "No such file"),
        (folder.path().to_owned(), "it is no file"),
        (plain, "Permission denied"),
    ] {
        let program = Program {
            path: path.clone(),
            ..Script::new("").program
        };
        let refused = Desk::start(&Method::Command(program)).err().unwrap();
        let refused = refused.to_string();
        for text in [path.to_str().unwrap(), what, "chmod +x"] {
            assert!(refused.contains(text), "no {text:?} in {refused}");
        }
    }
}

#[test]
fn a_program_that_has_gone_leaves_purchases_pending() {
    log();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("settle");
    fs::copy("/bin/sh", &path).unwrap();
    let program = Program {
        path: path.clone(),
        ..Script::new("").program
    };
    let desk = Desk::start(&Method::Command(program)).unwrap();
    fs::remove_file(path).unwrap();
    assert_eq!(verdict(&desk.settlement()), Verdict::Pending);
    assert!(logged().contains("it cannot be started: No such file"));
}

#[test]
fn a_stop_kills_what_runs_and_leaves_the_rest_pending() {
    let script = Script::new("sleep 1000 & echo $! >> pids; wait").at_most(3, 100);
    let desk = script.desk();
    let settlement = desk.settlement();
    let answers: Vec<Answer> = (0..20).map(|i| settlement.ask(purchase(i))).collect();
    let pids = script.numbers("pids", 3);
    let start = Instant::now();
    drop(desk);
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(on_a_core(answers), [Ok(Verdict::Pending); 20]);
    wait_until_gone(&pids);
    assert_eq!(
        script.numbers("pids", 3),
        pids,
        "one was started at the stop"
    );
    assert_eq!(
        now(&mut settlement.ask(purchase(1))),
        Some(Verdict::Pending)
    );
}

#[test]
fn askers_at_the_moment_of_the_stop_all_have_an_answer() {
    let script = Script::new("exit 0");
    for _ in 0..20 {
        let desk = script.desk();
        let askers: Vec<_> = (0..2)
            .map(|_| {
                let settlement = desk.settlement();
                thread::spawn(move || {
                    on_a_core((0..100).map(|i| settlement.ask(purchase(i))).collect())
                })
            })
            .collect();
        drop(desk);
        for asker in askers {
            assert_eq!(asker.join().unwrap().len(), 100);
        }
    }
}

#[test]
fn a_node_stops_in_time_whatever_its_programs_do() {
    let script = Script::new("trap '' TERM; sleep 1000 & echo $! >> pids; wait; sleep 1000");
    let mut node = RealNode::start(&[], |settings| {
        settings.settlement = Method::Command(script.program.clone());
    });
    let control = node.node().control();
    let answers = (0..6).map(|i| control.settlement().ask(purchase(i)));
    let answers: Vec<Answer> = answers.collect();
    let pids = script.numbers("pids", 4);
    node.stop();
    assert_eq!(on_a_core(answers), [Ok(Verdict::Pending); 6]);
    wait_until_gone(&pids);
}

/// With the data folder's lock in a program's hands a node could not start again, and with its
/// files a program could change coins.
#[test]
fn a_program_is_handed_nothing_that_the_node_has_open() {
    let script = Script::new("ls -l /proc/$$/fd > open");
    let node = RealNode::start(&[], |settings| {
        settings.settlement = Method::Command(script.program.clone());
    });
    assert_eq!(verdict(node.node().control().settlement()), Verdict::Paid);
    let open = script.left("open");
    assert!(open.contains("pipe:"), "{open}");
    let data = node.settings().data.to_str().unwrap();
    for wrong in [data, "io_uring", "eventfd", "pidfd"] {
        assert!(!open.contains(wrong), "{wrong} in {open}");
    }
}

#[test]
fn a_program_gets_the_environment_that_is_named_and_nothing_of_the_nodes_own() {
    assert!(std::env::vars_os().next().is_some(), "this process has one");
    let mut script = Script::new("tr '\\0' '\\n' < /proc/$$/environ > environment");
    let named = [("BITCOIN_RPC_URL", "http://[::1]:1/"), ("EMPTY", "")];
    let named = named.map(|(name, value)| (name.into(), value.into()));
    script.program.environment = named.into_iter().collect();
    assert_eq!(verdict(&script.desk().settlement()), Verdict::Paid);
    let environment = script.left("environment");
    assert_eq!(environment, "BITCOIN_RPC_URL=http://[::1]:1/\nEMPTY=\n");
}

#[test]
fn what_a_variable_holds_is_not_shown() {
    let secret = ("BITCOIN_RPC_PASSWORD".into(), "hunter2".into());
    let shown = format!("{:?}", Variables::from_iter([secret]));
    assert_eq!(shown, "[\"BITCOIN_RPC_PASSWORD\"]");
}

fn refusal(serve: &Serve) -> String {
    let ending = serve.try_start().err().expect("it does not start");
    assert_eq!(ending.status.code(), Some(2), "{ending:?}");
    ending.log
}

#[test]
fn a_node_that_cannot_settle_as_it_should_does_not_start() {
    let data = tempfile::tempdir().unwrap();
    let serve = Serve::on(data.path()).with("trade.settlement", "command");
    let missing = refusal(&serve);
    assert!(
        missing.contains("needs a program: name it in trade.command"),
        "{missing}"
    );
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let plain = refusal(&serve.with("trade.command", plain.display()));
    assert!(plain.contains("make it executable (chmod +x)"), "{plain}");
}

#[test]
fn a_node_that_trusts_says_so_when_it_starts() {
    let data = tempfile::tempdir().unwrap();
    let node = Serve::on(data.path()).with("trade.settlement", "trusted");
    let node = node.start();
    wait_until("the warning is there", || {
        node.log().contains("every purchase counts as paid")
    });
}
