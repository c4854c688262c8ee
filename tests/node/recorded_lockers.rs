//! Lockers and the marketplace against the recorded conversation with an existing server,
//! `tests/data/conversation.jsonl`: the steps of group 8, in their order, answered from coins in
//! memory (`tests/data/coins.csv`), so that what is compared is how requests are read and answers
//! are composed. The same steps are composed and read again as a client does.

use std::collections::HashMap;

use raida::{
    coin::{An, Coin, Denomination, SerialNumber},
    protocol::{
        Command, Datagram, Dialect, Frame, Key, PassFail, RaidaId, RequestHeader, Response,
        ResponseCounter, Rules, Sealing, Status, datagram, frame,
        lockers::{
            Buy, Contents, Currency, ListForSale, Listing, Peek, PeekTrade, Price, PublicIdKey,
            PutForSale, Remove, RemoveTrade, Removed, StoreAnswer, StoreMultiple, StoreSum, Stored,
            TradeKey, TradePart, Value,
        },
        open,
        pass_fail::Bitmap,
    },
};

const GROUP: u8 = 8;
const HEADER_SIZE: usize = 32;

struct Step {
    name: String,
    transport: String,
    request: Vec<u8>,
    /// As recorded: hex digits, `?` where they are not compared.
    response: String,
}

impl Step {
    fn status(&self) -> Status {
        Status::new(u8::from_str_radix(&self.response[4..6], 16).expect("hex digits"))
    }

    /// What the answer carried.
    fn payload(&self) -> Vec<u8> {
        let payload = unhex(&self.response[2 * HEADER_SIZE..]);
        match payload.strip_suffix(b">>") {
            Some(payload) => payload.to_vec(),
            None => payload,
        }
    }
}

fn rules() -> Rules {
    Rules {
        raida: RaidaId::new(14).unwrap(),
        coin_id: 6,
        dialect: Dialect::Raidax,
        response_counter: ResponseCounter::Continue,
        max_body_bytes: 65_536,
    }
}

fn unhex(digits: &str) -> Vec<u8> {
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex digits"))
        .collect()
}

/// The steps of group 8. None of them needs bytes that an earlier answer gave.
fn steps() -> Vec<Step> {
    let steps = include_str!("../data/conversation.jsonl")
        .lines()
        .map(|line| {
            let step: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let text = |field: &str| step[field].as_str().expect("a text").to_owned();
            (
                text("name"),
                text("transport"),
                text("request"),
                text("response"),
            )
        });
    steps
        .filter(|(_, _, request, _)| request[8..10] == format!("{GROUP:02x}"))
        .map(|(name, transport, request, response)| Step {
            name,
            transport,
            request: unhex(&request),
            response,
        })
        .collect()
}

fn step(name: &str) -> Step {
    steps()
        .into_iter()
        .find(|step| step.name == name)
        .unwrap_or_else(|| panic!("the recording has a step {name:?}"))
}

/// The request's header, and its payload: none of them is encrypted.
fn opened(step: &Step) -> (RequestHeader, Vec<u8>, [u8; 16]) {
    let (header, length) = match step.transport.as_str() {
        "udp" => match datagram(&step.request, &rules()) {
            Datagram::Whole { header, length } => (header, length),
            other => panic!("{}: {other:?}", step.name),
        },
        _ => match frame(&step.request, &rules()) {
            Frame::Whole { header, length } => (header, length),
            other => panic!("{}: {other:?}", step.name),
        },
    };
    let mut body = step.request[header.header_size()..length].to_vec();
    let opened = open(&header, &mut body, &Key::None, &rules()).expect("the body is right");
    (header, opened.payload.to_vec(), opened.challenge_answer)
}

/// Coins, and those that were moved, in the order of their moves.
struct Shelf {
    coins: HashMap<Coin, An>,
    moved: Vec<Coin>,
}

impl Shelf {
    fn new() -> Shelf {
        let coins = include_str!("../data/coins.csv")
            .lines()
            .skip(1)
            .map(|line| {
                let mut fields = line.split(',');
                let mut field = || fields.next().expect("four fields");
                let denomination = field().parse().ok().and_then(Denomination::new);
                let serial_number = field().parse().ok().and_then(SerialNumber::new);
                let coin = Coin {
                    denomination: denomination.expect("a denomination"),
                    serial_number: serial_number.expect("a serial number"),
                };
                let an = unhex(field()).try_into().expect("sixteen bytes");
                (coin, An::new(an))
            });
        Shelf {
            coins: coins.collect(),
            moved: vec![],
        }
    }

    fn under(&self, an: An) -> Vec<Coin> {
        let moved = self.moved.iter();
        moved
            .filter(|coin| self.coins[coin] == an)
            .copied()
            .collect()
    }

    fn is_sum(&self, coins: impl Iterator<Item = Coin>, sum: An) -> bool {
        let ans = coins.map(|coin| self.coins[&coin]);
        ans.fold(An::ZERO, |sum, an| sum ^ an) == sum
    }

    fn move_to(&mut self, coins: impl Iterator<Item = Coin>, an: An) {
        for coin in coins {
            self.moved.retain(|&other| other != coin);
            self.moved.push(coin);
            self.coins.insert(coin, an);
        }
    }

    fn store(&mut self, store: &StoreSum<'_>) -> Status {
        if !self.is_sum(store.coins().iter(), store.sum) {
            return Status::ALL_FAIL;
        }
        self.move_to(store.coins().iter(), store.key.an());
        Status::ALL_PASS
    }

    fn trade_lockers(&self, currency: Currency) -> Vec<(TradeKey, Value)> {
        let mut keys: Vec<TradeKey> = vec![];
        for an in self.moved.iter().map(|coin| self.coins[coin]) {
            let key = TradeKey::new(an).filter(|key| key.currency() == currency);
            keys.extend(key.filter(|key| !keys.contains(key)));
        }
        let value = |key: &TradeKey| Value::of(self.under(key.an())).expect("eight bytes hold it");
        keys.iter().map(|key| (*key, value(key))).collect()
    }

    fn carry_out(
        &mut self,
        command: Command,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Status, Status> {
        match command {
            Command::StoreSum => Ok(self.store(&StoreSum::parse(payload)?)),
            Command::StoreMultiple => {
                let request = StoreMultiple::parse(payload)?;
                let mut answer = StoreAnswer::begin(out, request.len(), rules().dialect);
                for (locker, store) in request.lockers().enumerate() {
                    if store.is_ok_and(|store| self.store(&store) == Status::ALL_PASS) {
                        answer.stored(locker);
                    }
                }
                Ok(answer.finish())
            }
            Command::Peek => {
                let coins = self.under(Peek::parse(payload)?.key.an());
                Ok(Contents::answer(coins, out))
            }
            Command::PeekTrade => {
                let coins = self.under(PeekTrade::parse(payload)?.name.as_key().an());
                Ok(Contents::answer(coins, out))
            }
            Command::Remove => {
                let request = Remove::parse(payload)?;
                let inside = self.under(request.key.an());
                if inside.is_empty() {
                    return Err(Status::ALL_FAIL);
                }
                let mut answer = PassFail::begin(out, request.len());
                for (record, (coin, an)) in request.records().enumerate() {
                    if let Some(coin) = coin.filter(|coin| inside.contains(coin)) {
                        self.move_to([coin].into_iter(), an);
                        answer.pass(record);
                    }
                }
                Ok(answer.finish(Bitmap::Always))
            }
            Command::PutForSale => {
                let request = PutForSale::parse(payload)?;
                if !self.is_sum(request.coins().iter(), request.sum) {
                    return Err(Status::ALL_FAIL);
                }
                self.move_to(request.coins().iter(), request.key.an());
                Ok(Status::ALL_PASS)
            }
            Command::ListForSale => {
                let request = ListForSale::parse(payload)?;
                let lockers = self.trade_lockers(request.currency);
                let ids = PublicIdKey::new([7; PublicIdKey::SIZE]);
                let listed = lockers
                    .into_iter()
                    .map(|(key, value)| (key.public_id(&ids), value));
                Ok(request.answer(listed, rules().dialect, out))
            }
            Command::Buy => {
                let offer = Buy::parse(payload)?.offer;
                let lockers = self.trade_lockers(offer.currency);
                let is_it = |(key, value): &(TradeKey, Value)| {
                    (*value, key.price()) == (offer.value, offer.price)
                };
                assert!(!lockers.iter().any(is_it), "the recording buys nothing");
                Err(Status::NO_SUCH_OFFER)
            }
            Command::RemoveTrade => {
                let request = RemoveTrade::parse(payload)?;
                assert_eq!(request.into, None, "the existing server knows one key only");
                let coins = self.under(request.key.an());
                self.move_to(coins.iter().copied(), An::ZERO);
                Ok(match coins.is_empty() {
                    true => Status::ALL_FAIL,
                    false => Status::ALL_PASS,
                })
            }
            other => panic!("{other:?} is of another group"),
        }
    }

    fn answer(&mut self, step: &Step) -> Vec<u8> {
        let (header, payload, challenge_answer) = opened(step);
        let mut out = vec![];
        let mut response = Response::begin(&mut out, &header);
        let done = self.carry_out(header.command, &payload, response.payload());
        response.finish(Sealing {
            rules: &rules(),
            status: done.unwrap_or_else(|refusal| refusal),
            key: &Key::None,
            challenge_answer,
            execution_micros: 1,
            nonce: [0; 22],
        });
        out
    }
}

/// What a client would have sent to ask the same; `None` where the server refused to read it.
fn composed_again(command: Command, payload: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![];
    match command {
        Command::StoreSum => {
            let request = StoreSum::parse(payload).ok()?;
            StoreSum::compose(request.coins().iter(), request.sum, request.key, &mut out);
        }
        Command::StoreMultiple => {
            let request = StoreMultiple::parse(payload).ok()?;
            let lockers: Vec<_> = request.lockers().collect::<Result<_, _>>().ok()?;
            let parts = lockers.iter().map(|l| (l.coins().iter(), l.sum, l.key));
            StoreMultiple::compose(parts, &mut out);
        }
        Command::Peek => Peek::compose(Peek::parse(payload).ok()?.key, &mut out),
        Command::PeekTrade => PeekTrade::compose(
            PeekTrade::parse(payload).ok()?.name,
            TradePart::Coins,
            &mut out,
        ),
        Command::Remove => {
            let request = Remove::parse(payload).ok()?;
            let records = request.records().map(|(coin, an)| (coin.unwrap(), an));
            Remove::compose(request.key, records, &mut out);
        }
        Command::PutForSale => {
            let request = PutForSale::parse(payload).ok()?;
            let PutForSale {
                sum, key, address, ..
            } = request;
            PutForSale::compose(request.coins().iter(), sum, key, &address, &mut out);
        }
        Command::ListForSale => ListForSale::parse(payload).ok()?.compose(&mut out),
        Command::Buy => Buy::parse(payload).ok()?.compose(&mut out),
        Command::RemoveTrade => {
            let request = RemoveTrade::parse(payload).ok()?;
            RemoveTrade::compose(request.key, request.into, &mut out);
        }
        other => panic!("{other:?} is of another group"),
    }
    Some(out)
}

#[test]
fn every_recorded_step_of_the_group_is_answered_as_recorded() {
    let mut shelf = Shelf::new();
    let steps = steps();
    assert_eq!(steps.len(), 40);
    for step in steps {
        let answer = shelf.answer(&step);
        let digits: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut both = digits.chars().zip(step.response.chars());
        let same = digits.len() == step.response.len()
            && both.all(|(got, recorded)| recorded == '?' || got == recorded);
        let Step { name, response, .. } = step;
        assert!(same, "{name}\n  want {response}\n  got  {digits}");
    }
}

#[test]
fn every_recorded_request_that_can_be_read_is_composed_to_the_same_bytes() {
    let mut composed = 0;
    for step in steps() {
        let (header, payload, _) = opened(&step);
        if let Some(again) = composed_again(header.command, &payload) {
            assert_eq!(again, payload, "{}", step.name);
            composed += 1;
        }
    }
    // 14 are refused as they are read, and one has a locker with a wrong key.
    assert_eq!(composed, 40 - 14 - 1);
}

#[test]
fn a_recorded_locker_is_read_in_the_order_it_was_stored_in() {
    let stored = step("store six");
    let (_, payload, _) = opened(&stored);
    let request = StoreSum::parse(&payload).unwrap();
    let peeked = step("peek lists them");
    let answer = peeked.payload();
    let contents = Contents::read(peeked.status(), &answer).unwrap();
    assert!(contents.coins().eq(request.coins().iter()));

    let gone = step("the empty locker is gone");
    let contents = Contents::read(gone.status(), &[]).unwrap();
    assert!(matches!(contents, Contents::Nothing));
}

#[test]
fn recorded_answers_tell_which_coins_left_and_which_lockers_were_stored() {
    let mixed = step("remove two, one not in it");
    let answer = mixed.payload();
    let Some(Removed::Records(passed)) = Removed::read(mixed.status(), &answer, 2) else {
        panic!("it has a bitmap");
    };
    assert!(passed.iter().eq([true, false]));
    let none = step("remove from a locker that does not exist");
    let read = Removed::read(none.status(), &[], 1);
    assert_eq!((none.payload(), read), (vec![], Some(Removed::NoLocker)));

    let three =
        step("store three lockers, the second with a wrong sum, the third with a wrong key");
    let answer = three.payload();
    let stored = Stored::read(three.status(), &answer, 3).unwrap();
    assert!(
        (0..3)
            .map(|locker| stored.stored(locker))
            .eq([true, false, false])
    );
    let two = step("store two lockers, both right");
    let answer = two.payload();
    let stored = Stored::read(two.status(), &answer, 2).unwrap();
    assert!((0..2).all(|locker| stored.stored(locker)));
}

#[test]
fn a_recorded_listing_tells_the_terms_that_the_sold_key_says() {
    let sold = step("sell four for bitcoin");
    let (_, payload, _) = opened(&sold);
    let sale = PutForSale::parse(&payload).unwrap();
    assert_eq!(sale.key.currency(), Currency::Bitcoin);
    assert_eq!(sale.key.price(), Price::new(1_234));
    let address = b"bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4";
    assert_eq!(sale.address.as_bytes(), address);

    let listed = step("list bitcoin");
    let answer = listed.payload();
    let listing = Listing::read(listed.status(), &answer, Currency::Bitcoin).unwrap();
    let offers: Vec<_> = listing.iter().collect();
    let [offer] = offers[..] else {
        panic!("one is on offer: {offers:?}");
    };
    assert_eq!((offer.id, offer.offer.price), (None, sale.key.price()));
    assert_eq!(Some(offer.offer.value), Value::of(sale.coins().iter()));

    let none = step("list monero");
    let answer = none.payload();
    let listing = Listing::read(none.status(), &answer, Currency::Monero).unwrap();
    assert!(listing.is_empty());
}
