//! `config/settle-bitcoin`, the real program, against a server that answers as Bitcoin Core does.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Command, Output, Stdio},
    thread,
};

use raida::{protocol::RaidaId, settlement::Purchase};
use serde_json::{Value, json};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/settle-bitcoin");
const SELLER: &str = "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq";
const STRANGER: &str = "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2";
const SATOSHIS: u32 = 70_000;
/// The header of Bitcoin's first block, and the block's name: the one hash that everybody can
/// check.
const FIRST_HEADER: &str = "0100000000000000000000000000000000000000000000000000000000000000000000003ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a29ab5f49ffff001d1dac2b7c";
const FIRST_BLOCK: &str = "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f";

// What the program exits with.
const PAID: i32 = 0;
const PENDING: i32 = 1;
const REFUSED: i32 = 2;
const WRONG_SETUP: i32 = 3;
const SEEN: i32 = 4;

fn has_python() -> bool {
    let python = Command::new("python3").arg("--version").output();
    let is_there = python.is_ok_and(|output| output.status.success());
    if !is_there {
        eprintln!("there is no python3 here: config/settle-bitcoin was not tried");
    }
    is_there
}

/// What a Bitcoin Core node knows.
#[derive(Clone, Default)]
struct Core {
    /// The transaction, where it exists.
    transaction: Option<Value>,
    /// It is in the memory pool, or the node has an index.
    is_indexed: bool,
    /// Some of its outputs are unspent.
    is_unspent: bool,
    /// The node is starting: it refuses everything.
    is_warming_up: bool,
}

impl Core {
    fn knows(transaction: Value) -> Core {
        Core {
            transaction: Some(transaction),
            is_indexed: true,
            ..Core::default()
        }
    }

    fn without_index(self) -> Core {
        Core {
            is_indexed: false,
            is_unspent: true,
            ..self
        }
    }

    fn answer(&self, method: &str, parameters: &Value) -> Result<Value, (i32, &str)> {
        let txid = "fe".repeat(32);
        let missing = Err((
            -5,
            "No such mempool transaction. Use -txindex or provide a block hash",
        ));
        let transaction = match &self.transaction {
            _ if self.is_warming_up => return Err((-28, "Loading block index...")),
            Some(transaction) => transaction.clone(),
            None => return missing,
        };
        match method {
            "getrawtransaction" if *parameters == json!([txid, true]) => match self.is_indexed {
                true => Ok(transaction),
                false => missing,
            },
            "getrawtransaction" if *parameters == json!([txid, true, FIRST_BLOCK]) => {
                Ok(transaction)
            }
            "gettxoutproof" if *parameters == json!([[txid]]) => match self.is_unspent {
                true => Ok(json!(format!("{FIRST_HEADER}01000000016868"))),
                false => Err((-5, "Transaction not yet in block")),
            },
            _ => Err((-32601, "Method not found")),
        }
    }

    /// Serves until the test ends.
    fn serve(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for client in listener.incoming() {
                self.converse(client.unwrap());
            }
        });
        address
    }

    fn converse(&self, mut client: TcpStream) {
        let mut reader = BufReader::new(client.try_clone().unwrap());
        let (mut length, mut is_known) = (0, false);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let lower = line.trim().to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            // "alice:secret"
            is_known |= line.trim() == "Authorization: Basic YWxpY2U6c2VjcmV0";
            if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        let question: Value = serde_json::from_slice(&body).unwrap();
        let (status, body) = if is_known {
            match self.answer(question["method"].as_str().unwrap(), &question["params"]) {
                // An amount as Bitcoin Core writes it has eight digits; as a number of this library
                // it would lose them.
                Ok(result) => {
                    let text = format!(r#"{{"result":{result},"error":null,"id":"settle"}}"#);
                    ("200 OK", text.replace("\"BTC ", "").replace(" BTC\"", ""))
                }
                Err((code, message)) => {
                    let error = json!({"code": code, "message": message});
                    let body = json!({"result": null, "error": error, "id": "settle"});
                    ("500 Internal Server Error", body.to_string())
                }
            }
        } else {
            ("401 Unauthorized", String::new())
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        client.write_all((head + &body).as_bytes()).unwrap();
    }
}

/// An output; `bitcoins` with its eight digits.
fn output(bitcoins: &str, address: &str) -> Value {
    json!({"value": format!("BTC {bitcoins} BTC"), "scriptPubKey": {"type": "witness_v0_keyhash", "address": address}})
}

/// What the purchase below is paid with.
fn payment(confirmations: u32) -> Value {
    let outputs = [output("1.00000000", STRANGER), output("0.00070000", SELLER)];
    match confirmations {
        0 => json!({"vout": outputs}),
        _ => json!({"vout": outputs, "confirmations": confirmations}),
    }
}

fn purchase() -> Purchase {
    Purchase {
        raida: RaidaId::new(3).unwrap(),
        currency: "bitcoin",
        value: 500_000_000,
        price: SATOSHIS,
        seller: SELLER.into(),
        transaction_id: [0xfe; 32],
        receipt_id: [1; 16],
        memo: vec![0xff],
        locker: [0xee; 16],
    }
}

/// Asks the program, which asks the server there. It has the environment that a node gives it by
/// default: of its own only what names where programs are.
fn settle(purchase: &Purchase, server: SocketAddr, environment: &[(&str, &str)]) -> Output {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut program = Command::new(PROGRAM)
        .env_clear()
        .env("PATH", path)
        .env("BITCOIN_RPC_URL", format!("http://{server}/"))
        .env("BITCOIN_RPC_USER", "alice")
        .env("BITCOIN_RPC_PASSWORD", "secret")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = program.stdin.take().unwrap();
    stdin.write_all(purchase.line().as_bytes()).unwrap();
    drop(stdin);
    program.wait_with_output().unwrap()
}

#[track_caller]
fn assert_settled(core: Core, environment: &[(&str, &str)], expected: i32, says: &str) {
    let output = settle(&purchase(), core.serve(), environment);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(expected), "{said}");
    assert!(said.contains(says), "no {says:?} in {said:?}");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_payment_counts_when_it_has_its_confirmations() {
    if !has_python() {
        return;
    }
    for (confirmations, expected) in [(0, SEEN), (1, SEEN), (2, SEEN), (3, PAID), (9, PAID)] {
        assert_settled(Core::knows(payment(confirmations)), &[], expected, "");
    }
    let one = [("BITCOIN_CONFIRMATIONS", "1")];
    assert_settled(Core::knows(payment(0)), &one, SEEN, "");
    assert_settled(Core::knows(payment(1)), &one, PAID, "");
}

#[test]
fn a_payment_in_a_block_that_was_replaced_is_not_seen_any_more() {
    if !has_python() {
        return;
    }
    let mut replaced = payment(0);
    replaced["confirmations"] = json!(-1);
    assert_settled(Core::knows(replaced), &[], PENDING, "");
}

#[test]
fn a_node_without_an_index_finds_it_by_an_unspent_output() {
    if !has_python() {
        return;
    }
    assert_settled(Core::knows(payment(3)).without_index(), &[], PAID, "");
    assert_settled(Core::knows(payment(2)).without_index(), &[], SEEN, "");
    let spent = Core {
        is_unspent: false,
        ..Core::knows(payment(3)).without_index()
    };
    assert_settled(spent, &[], PENDING, "");
}

#[test]
fn too_little_or_to_someone_else_is_refused() {
    if !has_python() {
        return;
    }
    let pays = |outputs: Value| Core::knows(json!({"vout": outputs, "confirmations": 100}));
    let little = pays(json!([output("0.00069999", SELLER)]));
    assert_settled(little.clone(), &[], REFUSED, "pays 69999 satoshis");
    assert_settled(little.without_index(), &[], REFUSED, "pays 69999 satoshis");
    let other = pays(json!([output("1.00000000", STRANGER)]));
    assert_settled(other, &[], REFUSED, "pays 0 satoshis");
    let data = json!([{"value": "BTC 1.00000000 BTC", "scriptPubKey": {"type": "nulldata"}}]);
    assert_settled(pays(data), &[], REFUSED, "pays 0 satoshis");
    let shared =
        json!([{"value": "BTC 1.00000000 BTC", "scriptPubKey": {"addresses": [SELLER, STRANGER]}}]);
    assert_settled(pays(shared), &[], REFUSED, "pays 0 satoshis");
    // The program refuses a payment before anything is confirmed.
    let early = Core::knows(json!({"vout": [output("1.00000000", STRANGER)]}));
    assert_settled(early, &[], REFUSED, "pays 0 satoshis");
}

#[test]
fn outputs_to_the_seller_add_up_to_the_last_satoshi() {
    if !has_python() {
        return;
    }
    let outputs = [output("0.00030001", SELLER), output("0.00039999", SELLER)];
    let core = Core::knows(json!({"vout": outputs, "confirmations": 3}));
    assert_settled(core.clone(), &[], PAID, "");
    let dearer = [("BITCOIN_SATOSHIS_PER_PRICE", "1000")];
    assert_settled(core, &dearer, REFUSED, "the price is 70000000");
    let old = json!([{"value": "BTC 0.00070000 BTC", "scriptPubKey": {"addresses": [SELLER]}}]);
    let old = Core::knows(json!({"vout": old, "confirmations": 3}));
    assert_settled(old, &[], PAID, "");
}

#[test]
fn what_the_node_does_not_know_or_cannot_say_is_pending() {
    if !has_python() {
        return;
    }
    assert_settled(Core::default(), &[], PENDING, "");
    let starting = Core {
        is_warming_up: true,
        ..Core::default()
    };
    assert_settled(starting, &[], PENDING, "Loading block index");
    let stranger = [("BITCOIN_RPC_USER", "mallory")];
    assert_settled(Core::knows(payment(3)), &stranger, PENDING, "401");
    let missing = [("BITCOIN_RPC_COOKIE", "/nowhere/.cookie")];
    assert_settled(
        Core::knows(payment(3)),
        &missing,
        PENDING,
        "/nowhere/.cookie",
    );

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
    let output = settle(&purchase(), nobody.unwrap(), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(PENDING), "{said}");
    assert!(said.contains("is it running"), "{said}");
}

#[test]
fn the_cookie_of_the_node_opens_it() {
    if !has_python() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cookie = folder.path().join(".cookie");
    std::fs::write(&cookie, "alice:secret\n").unwrap();
    let environment = [
        ("BITCOIN_RPC_COOKIE", cookie.to_str().unwrap()),
        ("BITCOIN_RPC_PASSWORD", "wrong"),
    ];
    assert_settled(Core::knows(payment(3)), &environment, PAID, "");
}

#[test]
fn a_wrong_setup_gives_no_verdict() {
    if !has_python() {
        return;
    }
    let wrong = [("BITCOIN_CONFIRMATIONS", "0")];
    assert_settled(
        Core::knows(payment(3)),
        &wrong,
        WRONG_SETUP,
        "BITCOIN_CONFIRMATIONS=0",
    );
    let monero = Purchase {
        currency: "monero",
        ..purchase()
    };
    let output = settle(&monero, Core::knows(payment(3)).serve(), &[]);
    assert_eq!(output.status.code(), Some(WRONG_SETUP), "{output:?}");
    let strange = Core::knows(json!({"vout": 5}));
    assert_settled(strange, &[], WRONG_SETUP, "TypeError");
}
