//! What is done with bytes that anyone may send, or that a disk may give back: nothing may panic,
//! and what is read and written again has to be the same. Each of these is a target of a
//! coverage-guided fuzzer (`fuzz/run`) and a property test (`tests/clients/fuzzed.rs`).

use std::path::Path;

use raida::{
    cli::config::Config,
    client::{CoinListReader, Months, wallet::CoinFile},
    coin::PageId,
    load::report::{Report, hlog},
    protocol::{
        Dialect, Encryption, Frame, RaidaId, ResponseCounter, ResponseHeader, Rules, Status,
        authentication::{Detect, DetectSum, Pown, PownDerive, PownSum},
        datagram,
        executive::{AllSns, AvailableSns, CreateCoins, DeleteCoins, FreeCoins},
        first_look, frame,
        healing::{Find, Fix, GetTicket, TicketAnswer, Validate},
        key_file,
        key_healing::{FixEncryption, GetEncryptionTicket},
        lockers::{
            Buy, ListForSale, Peek, PeekTrade, PutForSale, Remove, RemoveTrade, StoreMultiple,
            StoreSum,
        },
        status_group::Stats,
    },
    store::{SLOT_BYTES, book, record, segment, slot},
};

/// A target by its name.
pub type Target = fn(&[u8]);

/// All of them.
pub const ALL: [(&str, Target); 11] = [
    ("frame", of_frame),
    ("request", request),
    ("answer", answer),
    ("record", of_record),
    ("slot", of_slot),
    ("book", of_book),
    ("coin_file", coin_file),
    ("coin_list", coin_list),
    ("key_file", of_key_file),
    ("config", config),
    ("report", of_report),
];

fn rules(dialect: Dialect) -> Rules {
    Rules {
        raida: RaidaId::new(14).expect("0 to 24"),
        coin_id: 6,
        dialect,
        response_counter: ResponseCounter::Restart,
        max_body_bytes: 1 << 20,
    }
}

/// The start of a connection's bytes, and a datagram.
pub fn of_frame(bytes: &[u8]) {
    for dialect in [Dialect::Spec, Dialect::Raidax] {
        let rules = rules(dialect);
        // No more bytes are taken than there are.
        match frame(bytes, &rules) {
            Frame::Whole { length, .. } => assert!(length <= bytes.len()),
            Frame::Incomplete { needed } => assert!(needed > bytes.len()),
            Frame::Refused { .. } => {}
        }
        let _ = datagram(bytes, &rules);
    }
    let _ = first_look(bytes);
}

/// The payload of each request.
pub fn request(bytes: &[u8]) {
    if let Ok(detect) = Detect::parse(bytes) {
        assert_eq!(detect.records().count(), detect.len());
    }
    if let Ok(sum) = DetectSum::parse(bytes) {
        assert_eq!(sum.coins().iter().count(), sum.coins().len());
    }
    if let Ok(pown) = Pown::parse(bytes) {
        assert_eq!(pown.records().count(), pown.len());
    }
    let _ = PownSum::parse(bytes).map(|sum| sum.coins().iter().count());
    let _ = PownDerive::parse(bytes).map(|derive| derive.coins().iter().count());
    if let Ok(ticket) = GetTicket::parse(bytes) {
        assert_eq!(ticket.records().count(), ticket.len());
    }
    let _ = Validate::parse(bytes);
    if let Ok(find) = Find::parse(bytes) {
        assert_eq!(find.records().count(), find.len());
    }
    let _ = Fix::parse(bytes).map(|fix| fix.coins().iter().count());
    let _ = GetEncryptionTicket::parse(bytes);
    let _ = FixEncryption::parse(bytes).map(|fix| fix.len());
    let _ = AvailableSns::parse(bytes).map(|asked| asked.denominations().count());
    let _ = CreateCoins::parse(bytes).map(|asked| asked.coins().map(|coins| coins.len()));
    let _ = FreeCoins::parse(bytes).map(|asked| asked.coins().map(|coins| coins.len()));
    let _ = DeleteCoins::parse(bytes).map(|asked| asked.records().map(|all| all.iter().count()));
    let _ = AllSns::parse(bytes).map(|asked| asked.denomination());
    let _ = Stats::parse(bytes);
    let _ = Peek::parse(bytes);
    let _ = PeekTrade::parse(bytes);
    let _ = Remove::parse(bytes).map(|remove| remove.len());
    let _ = StoreSum::parse(bytes).map(|store| store.coins().iter().count());
    let _ = StoreMultiple::parse(bytes).map(|store| store.lockers().count());
    let _ = PutForSale::parse(bytes).map(|offer| offer.coins().iter().count());
    let _ = RemoveTrade::parse(bytes);
    let _ = ListForSale::parse(bytes);
    let _ = Buy::parse(bytes);
}

/// What a server may answer to a client.
pub fn answer(bytes: &[u8]) {
    for encryption in [
        Encryption::None,
        Encryption::CoinKey,
        Encryption::CoinKeyHmac,
    ] {
        let _ = ResponseHeader::parse(bytes, encryption);
    }
    for status in [Status::ALL_PASS, Status::ALL_FAIL, Status::MIXED] {
        for records in [1, 2, 8, 9, 1_000] {
            let _ = TicketAnswer::read(status, bytes, records);
        }
    }
    let _ = Validate::read(bytes).map(|coins| coins.iter().count());
}

/// The records of a batch of the log, and the headers before them.
pub fn of_record(bytes: &[u8]) {
    let _ = record::decode_all(bytes, |record| {
        let _ = record.ranked().count();
    });
    if let Some(head) = segment::decode_batch_head(bytes) {
        let _ = segment::decode_batch(bytes, &head);
    }
}

/// A slot of a page file, whose head's checksum is right.
pub fn of_slot(bytes: &[u8]) {
    const HEAD_BYTES: usize = 64;
    let mut block = vec![0; SLOT_BYTES];
    let some = bytes.len().min(SLOT_BYTES);
    block[..some].copy_from_slice(&bytes[..some]);
    let crc = crc32c::crc32c(&block[..HEAD_BYTES - 4]);
    block[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&crc.to_le_bytes());
    let page = PageId::from_index(usize::from(block[12]) << 8 | usize::from(block[13]));
    let Some(page) = page else { return };
    if let Ok(Some(meta)) = slot::decode_meta(&block, page) {
        let mut image = slot::PageImage::blank();
        let _ = slot::decode(&block, &meta, &mut image);
    }
}

/// The entries of a book.
pub fn of_book(bytes: &[u8]) {
    let _ = book::decode_entries(bytes, |entry| {
        let _ = format!("{entry:?}");
    });
}

/// A coin of a wallet.
pub fn coin_file(bytes: &[u8]) {
    if let Ok(coin) = CoinFile::parse(bytes) {
        let written = coin.to_bytes();
        let again = CoinFile::parse(&written).expect("what is written can be read");
        assert!(
            again == coin,
            "a coin file changes when it is written again"
        );
        let _ = (coin.name(), coin.grade());
    }
}

/// A CSV of coins.
pub fn coin_list(bytes: &[u8]) {
    for months in [Months::Required, Months::Optional] {
        if let Ok(reader) = CoinListReader::new(bytes, Path::new("list.csv"), months) {
            let _ = reader.take(10_000).filter(Result::is_ok).count();
        }
    }
}

/// The secrets that 25 servers share.
pub fn of_key_file(bytes: &[u8]) {
    let _ = key_file::parse(bytes, RaidaId::new(3).expect("0 to 24"));
}

/// The configuration of a node.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Err(refused) = Config::parse(Path::new("node.toml"), text)
    {
        let _ = refused.to_string();
    }
}

/// The results of a measurement.
pub fn of_report(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Report::parse(text);
        let _ = hlog::parse("latencies.hlog", text);
    }
}
