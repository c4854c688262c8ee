//! The commands of healing as a person runs them, against real nodes.

use crate::node_network::{Network, run, serve};
use raida::client::wallet::{CoinFile, Folder, Mark};
use raida::client::{Client, CoinListReader, Months, Options, Outcome, Transport};
use raida::coin::{An, Coin};
use raida::protocol::RaidaId;
use serde_json::Value;

/// Gives a coin another number on a server, as the server's loss of it would look.
fn change(network: &Network, raida: u8, file: &CoinFile, an: An) {
    let node = network.nodes[usize::from(raida)].as_ref().unwrap();
    let raida = RaidaId::new(raida).unwrap();
    let options = Options::new(raida);
    let mut client = Client::connect(node.host(), Transport::Tcp, options).unwrap();
    let changed = client.pown(&[(file.coin, file.an(raida), an)]).0;
    assert_eq!(changed, [Outcome::Changed]);
}

#[test]
fn a_wallet_is_minted_looked_at_and_graded_on_25_nodes() {
    let mut network = Network::start();
    let mint = network.run("mint --network net --count 3 --denomination 1 -8 --wallet wallet");
    assert_eq!((mint.status, mint.err.as_str()), (0, ""));
    assert!(
        mint.out.starts_with("6 coins worth 30.00000003 in wallet"),
        "{}",
        mint.out
    );
    let minted = network.files();
    assert_eq!(minted.len(), 6);
    assert!(minted.iter().all(|(folder, _)| *folder == Folder::Bank));

    let all = network.run("detect --all --network net wallet");
    assert_eq!((all.status, all.err.as_str()), (0, ""));
    assert_eq!(all.out.matches(&"p".repeat(25)).count(), 6, "{}", all.out);
    assert!(all.out.ends_with("6 of 6 coins pass on all 25 servers\n"));
    let healthy = network.run("heal wallet --network net");
    assert_eq!(healthy.status, 0, "{}", healthy.err);

    // One coin is lost on five nodes; another one's new number was taken over by some only.
    let (lost, limbo) = (&minted[0].1, &minted[1].1);
    for raida in [1, 5, 9, 13, 24] {
        change(&network, raida, lost, An::new([0x51; 16]));
    }
    let mut proposed = limbo.clone();
    let pan = |raida: RaidaId| An::new([0x60 + raida.get(); 16]);
    for raida in RaidaId::all() {
        proposed.propose(raida, pan(raida));
        proposed.pown.0[raida] = Mark::NoAnswer;
    }
    for raida in 0..11 {
        change(&network, raida, limbo, pan(RaidaId::new(raida).unwrap()));
    }
    let name = proposed.name();
    let bank = network.wallet().join("Bank").join(&name);
    std::fs::remove_file(bank).unwrap();
    let in_limbo = network.wallet().join("Limbo").join(&name);
    std::fs::write(in_limbo, proposed.to_bytes()).unwrap();

    let before = network.files();
    let dry = network.run("heal wallet --network net --dry-run");
    assert_eq!(dry.status, 1, "{}", dry.err);
    assert!(
        dry.out.contains("would be fixed on 1 5 9 13 24"),
        "{}",
        dry.out
    );
    assert!(dry.out.ends_with("nothing was changed\n"));
    assert!(network.files() == before);

    // The other five are authentic. The one in limbo has its number for every node.
    let heal = network.run("heal wallet --hosts net/hosts --json");
    assert_eq!(heal.status, 1, "{}", heal.err);
    let report: Value = serde_json::from_str(&heal.out).unwrap();
    assert_eq!(report["coins"][0]["before"], "pfpppfpppfpppfppppppppppf");
    assert_eq!(report["coins"][0]["grade"], "fracked");
    assert_eq!(report["coins"][1]["grade"], "authentic");
    let after = network.files();
    assert_eq!(after[0].0, Folder::Fracked);
    assert_eq!(after[1].0, Folder::Bank);
    for raida in RaidaId::all() {
        let expected = match raida.get() {
            0..11 => pan(raida),
            _ => limbo.an(raida),
        };
        assert!(after[1].1.an(raida) == expected && !after[1].1.is_in_doubt());
    }

    // A node that has no ticket left is named, with its reason.
    let node = network.nodes[7].as_ref().unwrap();
    let options = Options::new(RaidaId::new(7).unwrap());
    let mut client = Client::connect(node.host(), Transport::Tcp, options).unwrap();
    let known = &minted[2].1;
    let known = (known.coin, known.an(RaidaId::new(7).unwrap()));
    while client.get_ticket(&[known]).is_ok() {}
    let heal = network.run("heal wallet --network net");
    assert!(
        heal.out.contains("RAIDA 7 gives no tickets: ") && heal.out.contains("no ticket slot"),
        "{}",
        heal.out
    );

    // A file that may be a coin and is none makes the result not clean, and so does a coin of
    // another network.
    let stray = network.wallet().join("Bank/1.77.bin");
    std::fs::write(&stray, "not a coin").unwrap();
    let coin = network.wallet().join("Fracked").join(lost.name());
    let aside = network.folder.path().join("aside.bin");
    std::fs::rename(&coin, &aside).unwrap();
    assert_eq!(network.run("detect --all --network net wallet").status, 1);
    std::fs::remove_file(&stray).unwrap();
    assert_eq!(network.run("detect --all --network net wallet").status, 0);
    let mut other = minted[2].1.clone();
    other.coin_id = 7;
    let place = network.wallet().join("Bank").join(other.name());
    let right = std::fs::read(&place).unwrap();
    std::fs::write(&place, other.to_bytes()).unwrap();
    let heal = network.run("heal wallet --network net");
    assert_eq!(heal.status, 1, "{}", heal.err);
    assert!(heal.out.contains("coin id 7, not 6"), "{}", heal.out);
    std::fs::write(&place, right).unwrap();
    std::fs::rename(&aside, &coin).unwrap();

    // With 12 nodes down it still works, with 13 it says so.
    for raida in 10..22 {
        network.stop(raida);
    }
    let twelve = network.run("detect --all --network net wallet/Bank/1.0.bin --json");
    let report: Value = serde_json::from_str(&twelve.out).unwrap();
    assert_eq!(twelve.status, 0, "{}", twelve.out);
    assert_eq!(report["silent"].as_array().unwrap().len(), 12);
    network.stop(22);
    let before = network.files();
    let heal = network.run("heal wallet --network net");
    assert_eq!((heal.status, heal.out.as_str()), (2, ""));
    assert!(
        heal.err.contains("only 12 of 25 servers answer"),
        "{}",
        heal.err
    );
    assert!(network.files() == before);
    let mint = network.run("mint --network net --count 1 --denomination 1 --wallet wallet");
    assert_eq!(mint.status, 2);
    assert!(
        mint.err.starts_with("raida: RAIDA 10: cannot reach"),
        "{}",
        mint.err
    );
    assert!(network.files() == before);
}

#[test]
fn coins_that_one_node_does_not_make_are_made_by_none() {
    let network = Network::start();
    let key = network.folder.path().join("net/raida24/admin.key");
    let right = std::fs::read(&key).unwrap();
    std::fs::write(&key, "0".repeat(32)).unwrap();
    let refused = network.run("mint --network net --count 2 --denomination 1 --wallet wallet");
    assert_eq!(refused.status, 2);
    assert!(refused.err.contains("RAIDA 24"), "{}", refused.err);
    assert!(!network.wallet().exists(), "nothing was made");

    // A wallet that cannot take the coins: a name is taken, by something else. Of another
    // denomination, since the nodes hold the first one's pages for the session that failed.
    std::fs::write(&key, right).unwrap();
    std::fs::create_dir_all(network.wallet().join("Bank")).unwrap();
    std::fs::write(network.wallet().join("Bank/2.0.bin"), "not a coin").unwrap();
    let taken = network.run("mint --network net --count 2 --denomination 2 --wallet wallet");
    assert_eq!(taken.status, 2);
    assert!(
        taken.err.contains("taken out of circulation again"),
        "{}",
        taken.err
    );
    for node in network.nodes.iter().flatten() {
        let raida = node.address.to_string();
        let number = network.nodes.iter().flatten();
        let number = number
            .take_while(|other| other.address != node.address)
            .count();
        let audit = network.run(&format!("audit --host {raida} --raida {number} --json"));
        let report: Value = serde_json::from_str(&audit.out).unwrap();
        assert_eq!(report["coins"], 0, "RAIDA {number}");
    }
}

#[test]
fn one_node_gives_tickets_finds_numbers_and_repairs_nothing_without_votes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let node = serve(&data).start();
    let host = node.address;
    let ask = |words: &str| run(folder.path(), &format!("{words} --host {host}"));
    let mint = ask("mint --data data --count 4000 --denomination 1 --out coins.csv");
    assert_eq!(mint.status, 0, "{}", mint.err);

    let ticket = ask("ticket coins.csv");
    assert_eq!((ticket.status, ticket.err.as_str()), (0, ""));
    let coins = |line: &str| {
        let (_, coins) = line.split_once(" for ").unwrap();
        coins.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let sizes: Vec<usize> = ticket.out.lines().map(coins).collect();
    assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (2, 4_000));

    let pown = ask("pown coins.csv --out mine.csv");
    assert_eq!(pown.status, 0, "{}", pown.err);
    let mine = CoinListReader::open(&folder.path().join("mine.csv"), Months::Optional).unwrap();
    let mine = mine.map(|record| record.unwrap());
    let (coins, ans): (Vec<Coin>, Vec<An>) = mine.map(|coin| (coin.coin, coin.an)).unzip();
    let sum = ans.into_iter().fold(An::ZERO, |sum, an| sum ^ an);
    let mut client = node.client();
    assert!(client.get_ticket_sum(&coins, sum).unwrap().is_some());
    let wrong = sum ^ An::new([1; 16]);
    assert!(client.get_ticket_sum(&coins, wrong).unwrap().is_none());
    let datagrams = ask("find coins.csv --proposed mine.csv --udp");
    assert!(
        datagrams.out.contains(" 4000 that in mine.csv"),
        "{}",
        datagrams.err
    );

    let find = ask("find coins.csv --proposed mine.csv --json");
    let report: Value = serde_json::from_str(&find.out).unwrap();
    assert_eq!((find.status, &report["new"]), (0, &4_000.into()));
    let find = ask("find mine.csv --proposed coins.csv --json");
    let report: Value = serde_json::from_str(&find.out).unwrap();
    assert_eq!((find.status, &report["old"]), (0, &4_000.into()));
    let find = ask("find coins.csv --proposed coins.csv");
    assert_eq!(find.status, 1);
    assert!(
        find.out.ends_with("4000 neither\n"),
        "{}",
        &find.out[find.out.len() - 90..]
    );

    let old = ask("ticket coins.csv");
    assert_eq!(old.status, 1);
    assert!(old.out.ends_with("no ticket: no coin passes\n"));

    // The others are down, and none says that a ticket is its own.
    let tickets: String = (1..14)
        .map(|raida| format!(" --ticket {raida}=77"))
        .collect();
    let fix = ask(&format!("fix mine.csv --out fixed.csv{tickets}"));
    assert_eq!((fix.status, fix.err.as_str()), (1, ""));
    assert!(fix.out.contains("no coin was repaired\n"), "{}", fix.out);
    assert!(!folder.path().join("fixed.csv").exists());
    let detect = ask("detect mine.csv");
    assert_eq!(detect.out, "4000 of 4000 coins pass\n");
    let half = ask("detect mine.csv --all");
    assert_eq!(half.status, 2);
    assert!(
        half.err.contains("--hosts <FILE>|--network <DIR>"),
        "{}",
        half.err
    );
    let both = ask("detect mine.csv --network net");
    assert_eq!(both.status, 2);
    assert!(both.err.contains("cannot be used with"), "{}", both.err);
    let wrong = ask("fix mine.csv --out fixed.csv --ticket 25=77");
    assert_eq!(wrong.status, 2);
    assert!(wrong.err.contains("7=1893742"), "{}", wrong.err);
}
