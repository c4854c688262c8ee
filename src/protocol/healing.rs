//! Group 2: tickets, find and fix (docs/protocol.md section 5). Sizes here are sizes of the
//! payload: 18 bytes (challenge and trailer) less than on that page.
//!
//! Parsing refuses with the statuses of the `raidax` dialect; [`in_dialect`] turns any status of
//! the group, and of group 4, into the node's own.

use md5::{Digest, Md5};

use super::{
    Dialect, PassFail, Passed, RaidaId, Status,
    pass_fail::Bitmap,
    records::{Claimed, Coins, Records, write},
};
use crate::coin::{An, Coin};

/// Votes of other servers that repair a coin: more than half of all.
pub const VOTES_NEEDED: usize = RaidaId::COUNT / 2 + 1;

/// The number of a ticket; others claim the ticket by it. No ticket has 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TicketId(std::num::NonZeroU32);

impl TicketId {
    /// Bytes a ticket takes.
    pub const SIZE: usize = 4;

    /// The ticket with this number; `None` for 0, which stands for no ticket.
    #[inline]
    pub const fn new(number: u32) -> Option<TicketId> {
        match std::num::NonZeroU32::new(number) {
            Some(number) => Some(TicketId(number)),
            None => None,
        }
    }

    /// The plain number.
    #[inline]
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

/// Anybody who knows the number can claim the ticket: printing it shows nothing.
impl std::fmt::Debug for TicketId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketId(secret)")
    }
}

/// A status of this group in a dialect. Other statuses stay as they are.
#[inline]
pub fn in_dialect(status: Status, dialect: Dialect) -> Status {
    if dialect == Dialect::Raidax {
        return status;
    }
    match status {
        Status::INVALID_LENGTH => Status::HEALING_INVALID_LENGTH,
        Status::OUT_OF_MEMORY => Status::HEALING_OUT_OF_MEMORY,
        Status::UNEVEN_RECORDS => Status::HEALING_UNEVEN_RECORDS,
        Status::NO_TICKET_SLOT => Status::HEALING_NO_TICKET_SLOT,
        Status::NO_SUCH_TICKET => Status::HEALING_NO_SUCH_TICKET,
        Status::TICKET_CLAIMED => Status::HEALING_TICKET_CLAIMED,
        Status::RAIDA_OUT_OF_RANGE => Status::HEALING_RAIDA_OUT_OF_RANGE,
        other => other,
    }
}

/// Get ticket: let others hear that these coins are mine. n x (DN SN AN), 21n bytes. Answered with
/// which coins passed and, if any did, with a ticket that lists those.
#[derive(Clone, Copy, Debug)]
pub struct GetTicket<'a> {
    records: Records<'a, (Claimed, An)>,
}

impl<'a> GetTicket<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<GetTicket<'a>, Status> {
        let records = Records::<(Claimed, An)>::parse(payload)?;
        match records.iter().all(|(coin, _)| coin.is_some()) {
            true => Ok(GetTicket { records }),
            false => Err(Status::INVALID_COIN),
        }
    }

    /// Appends the payload that asks for a ticket for these coins.
    pub fn compose(records: impl IntoIterator<Item = (Coin, An)>, out: &mut Vec<u8>) {
        write(records.into_iter().map(|(coin, an)| (Some(coin), an)), out);
    }

    /// Number of coins: 1 or more.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a request has at least one record"
    )]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The coin of this record, counted from 0; `None` past the last.
    #[inline]
    pub fn coin(&self, record: usize) -> Option<Coin> {
        self.records.get(record)?.0
    }

    /// The number claimed for the coin of this record, counted from 0; `None` past the last.
    #[inline]
    pub fn an(&self, record: usize) -> Option<An> {
        Some(self.records.get(record)?.1)
    }

    /// The coins and the numbers claimed for them.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = (Coin, An)> + Clone + use<'a> {
        self.records
            .iter()
            .filter_map(|(coin, an)| Some((coin?, an)))
    }
}

/// The answer to [`GetTicket`], and to a request for a ticket by sum, as a client reads it.
#[derive(Clone, Copy, Debug)]
pub struct TicketAnswer<'a> {
    /// Which coins passed.
    pub passed: Passed<'a>,
    /// The ticket that lists them; `None` where none passed.
    pub ticket: Option<TicketId>,
}

impl<'a> TicketAnswer<'a> {
    /// Ends an answer: a bitmap where it is mixed, then the ticket where any coin passed. Only in
    /// that case `issue` is called for it.
    ///
    /// # Errors
    /// What `issue` gives; the caller then throws the payload away.
    #[inline]
    pub fn finish(
        answer: PassFail<'_>,
        issue: impl FnOnce(&PassFail<'_>) -> Result<TicketId, Status>,
    ) -> Result<Status, Status> {
        if answer.passed() == 0 {
            return Ok(answer.finish(Bitmap::IfMixed));
        }
        let ticket = issue(&answer)?;
        Ok(answer.finish_with(Bitmap::IfMixed, &ticket.get().to_be_bytes()))
    }

    /// Reads the answer to a request of this many coins; `None` where the payload is no such
    /// answer.
    pub fn read(status: Status, payload: &'a [u8], records: usize) -> Option<TicketAnswer<'a>> {
        let passed = Passed::read(status, payload, records)?;
        let ticket = match status {
            Status::ALL_FAIL => None,
            _ => {
                let at = if status == Status::MIXED {
                    records.div_ceil(8)
                } else {
                    0
                };
                let number = payload.get(at..)?.first_chunk()?;
                Some(TicketId::new(u32::from_be_bytes(*number))?)
            }
        };
        Some(TicketAnswer { passed, ticket })
    }
}

/// Validate: a server claims a ticket in its own name. Its number (1), ticket (4): 5 bytes.
/// Answered with the coins of the ticket.
#[derive(Clone, Copy, Debug)]
pub struct Validate {
    /// The server that claims.
    pub claimant: RaidaId,
    /// The ticket; `None` for 0, which no ticket has.
    pub ticket: Option<TicketId>,
}

impl Validate {
    /// Reads a payload: 16 where it has another size, 18 where there is no such server.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Validate, Status> {
        let &[claimant, ref ticket @ ..] = payload else {
            return Err(Status::INVALID_LENGTH);
        };
        let ticket = <[u8; 4]>::try_from(ticket).map_err(|_| Status::INVALID_LENGTH)?;
        Ok(Validate {
            claimant: RaidaId::new(claimant).ok_or(Status::RAIDA_OUT_OF_RANGE)?,
            ticket: TicketId::new(u32::from_be_bytes(ticket)),
        })
    }

    /// Appends the payload.
    pub fn compose(claimant: RaidaId, ticket: TicketId, out: &mut Vec<u8>) {
        out.push(claimant.get());
        out.extend_from_slice(&ticket.get().to_be_bytes());
    }

    /// Appends the answer: the coins of the ticket.
    pub fn answer(coins: impl IntoIterator<Item = Coin>, out: &mut Vec<u8>) {
        write(coins.into_iter().map(Some), out);
    }

    /// Reads the answer: the coins of the ticket. `None` where the payload is no list of coins that
    /// can exist.
    pub fn read(payload: &[u8]) -> Option<Coins<'_>> {
        Records::<Claimed>::parse(payload).ok()?.all_possible().ok()
    }
}

/// Which of two numbers a coin has: the answer to [`Find`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Neither.
    Neither = 0,
    /// The authenticity number.
    An = 1,
    /// The proposed one.
    Pan = 2,
}

/// Find: which of two numbers has each coin, its old one or the proposed one? n x (DN SN AN PAN),
/// 37n bytes.
#[derive(Clone, Copy, Debug)]
pub struct Find<'a> {
    records: Records<'a, (Claimed, An, An)>,
}

impl<'a> Find<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Find<'a>, Status> {
        let records = Records::<(Claimed, An, An)>::parse(payload)?;
        match records.iter().all(|(coin, ..)| coin.is_some()) {
            true => Ok(Find { records }),
            false => Err(Status::INVALID_COIN),
        }
    }

    /// Appends the payload: each coin with its authenticity number and the proposed one.
    pub fn compose(records: impl IntoIterator<Item = (Coin, An, An)>, out: &mut Vec<u8>) {
        let claimed = |(coin, an, proposed)| (Some(coin), an, proposed);
        write(records.into_iter().map(claimed), out);
    }

    /// Number of coins: 1 or more.
    #[inline]
    #[expect(
        clippy::len_without_is_empty,
        reason = "a request has at least one record"
    )]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// The two numbers of the coin of this record, counted from 0; `None` past the last.
    #[inline]
    pub fn numbers(&self, record: usize) -> Option<(An, An)> {
        let (_, an, pan) = self.records.get(record)?;
        Some((an, pan))
    }

    /// The coins and their two numbers.
    #[inline]
    pub fn records(&self) -> impl Iterator<Item = (Coin, An, An)> + Clone + use<'a> {
        let all = self.records.iter();
        all.filter_map(|(coin, an, pan)| Some((coin?, an, pan)))
    }
}

/// Composes the answer to [`Find`]. Records may be reported in any order; one that is never
/// reported has neither number.
#[derive(Debug)]
pub struct FindAnswer<'b> {
    payload: &'b mut Vec<u8>,
    start: usize,
    ans: usize,
    pans: usize,
}

impl<'b> FindAnswer<'b> {
    /// Begins an answer for this many records.
    #[inline]
    pub fn begin(payload: &'b mut Vec<u8>, records: usize) -> FindAnswer<'b> {
        let start = payload.len();
        payload.resize(start + records, Found::Neither as u8);
        FindAnswer {
            payload,
            start,
            ans: 0,
            pans: 0,
        }
    }

    /// Records what was found for a record, once for each record.
    ///
    /// # Panics
    /// When there is no such record.
    #[inline]
    pub fn found(&mut self, record: usize, found: Found) {
        self.payload[self.start + record] = found as u8;
        self.ans += usize::from(found == Found::An);
        self.pans += usize::from(found == Found::Pan);
    }

    /// Ends the answer: 209 where all have their AN, 210 where all have their PAN, 208 where all
    /// have neither, else 211 and a byte a record.
    #[inline]
    pub fn finish(self) -> Status {
        let records = self.payload.len() - self.start;
        let status = match (self.ans, self.pans) {
            (ans, _) if ans == records => Status::ALL_AN,
            (_, pans) if pans == records => Status::ALL_PAN,
            (0, 0) => Status::NEITHER,
            _ => return Status::FOUND_MIXED,
        };
        self.payload.truncate(self.start);
        status
    }

    /// Reads an answer to this many records, in their order; `None` where the payload is no such
    /// answer.
    pub fn read(status: Status, payload: &[u8], records: usize) -> Option<Vec<Found>> {
        let all = |found| Some(vec![found; records]);
        match status {
            Status::ALL_AN => all(Found::An),
            Status::ALL_PAN => all(Found::Pan),
            Status::NEITHER => all(Found::Neither),
            Status::FOUND_MIXED => payload
                .get(..records)?
                .iter()
                .map(|byte| match byte {
                    0 => Some(Found::Neither),
                    1 => Some(Found::An),
                    2 => Some(Found::Pan),
                    _ => None,
                })
                .collect(),
            _ => None,
        }
    }
}

/// The sixteen bytes that a client chooses for a fix: each server derives its own new authenticity
/// numbers from them, and so does the client. Printing them shows nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PartialGenerator([u8; 16]);

impl PartialGenerator {
    /// Number of bytes.
    pub const SIZE: usize = 16;

    /// Takes sixteen bytes, which should be random.
    #[inline]
    pub const fn new(bytes: [u8; 16]) -> PartialGenerator {
        PartialGenerator(bytes)
    }

    /// The authenticity number that a fix gives a coin on a server: MD5(server's number (1), DN, SN
    /// (4), these bytes).
    pub fn an(&self, raida: RaidaId, coin: Coin) -> An {
        let mut hash = Md5::new();
        hash.update([raida.get()]);
        hash.update(coin.to_bytes());
        hash.update(self.0);
        An::new(hash.finalize().into())
    }
}

impl std::fmt::Debug for PartialGenerator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PartialGenerator(secret)")
    }
}

/// Fix: have the others vouch for these coins, and give them new authenticity numbers. n x (DN SN),
/// PG (16), 25 tickets of 4 (0 = none): 116 + 5n bytes. Answered by [`PassFail`] with
/// [`Bitmap::IfMixed`].
#[derive(Clone, Copy, Debug)]
pub struct Fix<'a> {
    coins: Coins<'a>,
    /// What the new authenticity numbers are derived from.
    pub generator: PartialGenerator,
    tickets: &'a [[u8; TicketId::SIZE]; RaidaId::COUNT],
}

impl<'a> Fix<'a> {
    /// Reads a payload: 16 where it is too short, 39 where it does not divide, 40 where a coin
    /// cannot exist.
    pub fn parse(payload: &'a [u8]) -> Result<Fix<'a>, Status> {
        const TICKETS: usize = RaidaId::COUNT * TicketId::SIZE;
        let (rest, tickets) =
            (payload.split_last_chunk::<TICKETS>()).ok_or(Status::INVALID_LENGTH)?;
        let (coins, generator) = rest.split_last_chunk().ok_or(Status::INVALID_LENGTH)?;
        let (tickets, _) = tickets.as_chunks();
        Ok(Fix {
            coins: Records::<Claimed>::parse(coins)?.all_possible()?,
            generator: PartialGenerator(*generator),
            tickets: tickets.try_into().expect("25 times 4 bytes"),
        })
    }

    /// Appends the payload; `ticket` gives the ticket of each server that issued one.
    pub fn compose(
        coins: impl IntoIterator<Item = Coin>,
        generator: &PartialGenerator,
        ticket: impl Fn(RaidaId) -> Option<TicketId>,
        out: &mut Vec<u8>,
    ) {
        write(coins.into_iter().map(Some), out);
        out.extend_from_slice(&generator.0);
        for raida in RaidaId::all() {
            let number = ticket(raida).map_or(0, TicketId::get);
            out.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// The coins.
    #[inline]
    pub fn coins(&self) -> Coins<'a> {
        self.coins
    }

    /// The ticket that this server issued, if the client has one.
    #[inline]
    pub fn ticket(&self, raida: RaidaId) -> Option<TicketId> {
        TicketId::new(u32::from_be_bytes(self.tickets[usize::from(raida.get())]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::samples::{any_an, any_coin, coin};
    use proptest::prelude::*;

    #[test]
    fn requests_of_each_length_are_refused_by_their_own_status() {
        // A coin of zeros can exist.
        let status = |length: usize| {
            let zeros = vec![0; length];
            [
                GetTicket::parse(&zeros).map(drop).err(),
                Validate::parse(&zeros).map(drop).err(),
                Find::parse(&zeros).map(drop).err(),
                Fix::parse(&zeros).map(drop).err(),
            ]
        };
        let (short, uneven) = (Some(Status::INVALID_LENGTH), Some(Status::UNEVEN_RECORDS));
        assert_eq!(status(0), [short; 4]);
        assert_eq!(status(5), [short, None, short, short]);
        assert_eq!(status(21), [None, short, short, short]);
        assert_eq!(status(37), [uneven, short, None, short]);
        assert_eq!(status(116), [uneven, short, uneven, short]);
        assert_eq!(status(121), [uneven, short, uneven, None]);
        assert_eq!(status(122), [uneven, short, uneven, uneven]);
    }

    #[test]
    fn coins_that_cannot_exist_are_refused() {
        let mut list = vec![0; 42];
        list[21] = 0x7f;
        assert_eq!(GetTicket::parse(&list).map(drop), Err(Status::INVALID_COIN));
        let mut list = vec![0; 37];
        list[0] = 0x7f;
        assert_eq!(Find::parse(&list).map(drop), Err(Status::INVALID_COIN));
        let mut fix = vec![0; 121];
        fix[0] = 0x7f;
        assert_eq!(Fix::parse(&fix).map(drop), Err(Status::INVALID_COIN));
    }

    #[test]
    fn servers_from_25_on_do_not_exist() {
        let status = |number| Validate::parse(&[number, 0, 0, 0, 1]).map(drop);
        assert_eq!(status(24), Ok(()));
        assert_eq!(status(25), Err(Status::RAIDA_OUT_OF_RANGE));
        assert_eq!(Validate::parse(&[0; 5]).unwrap().ticket, None);
    }

    #[test]
    fn each_dialect_has_its_own_statuses() {
        for (raidax, spec) in [
            (16, 0xe0),
            (254, 0xe1),
            (39, 0xe2),
            (42, 0xe3),
            (43, 0xe4),
            (44, 0xe5),
            (18, 0xe6),
        ] {
            let status = Status::new(raidax);
            assert_eq!(in_dialect(status, Dialect::Raidax), status);
            assert_eq!(in_dialect(status, Dialect::Spec), Status::new(spec));
        }
        for same in [Status::ALL_PASS, Status::INVALID_COIN, Status::UNAVAILABLE] {
            assert_eq!(in_dialect(same, Dialect::Spec), same);
        }
    }

    #[test]
    fn an_answer_with_a_ticket_is_read_as_it_was_composed() {
        for (passed, status) in [
            (vec![], Status::ALL_FAIL),
            (vec![0, 8], Status::MIXED),
            ((0..9).collect(), Status::ALL_PASS),
        ] {
            let mut out = vec![];
            let ticket = TicketId::new(0x0102_0304);
            let mut answer = PassFail::begin(&mut out, 9);
            passed.iter().for_each(|&record| answer.pass(record));
            let finished = TicketAnswer::finish(answer, |answer| {
                assert_eq!(answer.passing().collect::<Vec<_>>(), passed);
                Ok(ticket.unwrap())
            });
            assert_eq!(finished, Ok(status));
            let answer = TicketAnswer::read(status, &out, 9).unwrap();
            assert_eq!(answer.ticket.is_some(), !passed.is_empty());
            assert!(answer.ticket.is_none() || answer.ticket == ticket);
            for record in 0..9 {
                assert_eq!(answer.passed.passed(record), passed.contains(&record));
            }
            if !out.is_empty() {
                let short = &out[..out.len() - 1];
                assert!(TicketAnswer::read(status, short, 9).is_none());
            }
        }
        let mut out = vec![];
        let mut answer = PassFail::begin(&mut out, 1);
        answer.pass(0);
        let refused = TicketAnswer::finish(answer, |_| Err(Status::NO_TICKET_SLOT));
        assert_eq!(refused, Err(Status::NO_TICKET_SLOT));
    }

    #[test]
    fn find_says_it_in_one_byte_where_it_can() {
        use Found::{An, Neither, Pan};
        for (found, status) in [
            ([An, An], Status::ALL_AN),
            ([Pan, Pan], Status::ALL_PAN),
            ([Neither, Neither], Status::NEITHER),
            ([An, Neither], Status::FOUND_MIXED),
            ([Pan, An], Status::FOUND_MIXED),
        ] {
            let mut out = vec![];
            let mut answer = FindAnswer::begin(&mut out, 2);
            answer.found(1, found[1]);
            answer.found(0, found[0]);
            assert_eq!(answer.finish(), status);
            assert_eq!(out.len(), if status == Status::FOUND_MIXED { 2 } else { 0 });
            assert_eq!(FindAnswer::read(status, &out, 2), Some(found.to_vec()));
        }
        assert_eq!(FindAnswer::read(Status::FOUND_MIXED, &[1, 3], 2), None);
        assert_eq!(FindAnswer::read(Status::FOUND_MIXED, &[1], 2), None);
        assert_eq!(FindAnswer::read(Status::ALL_PASS, &[], 2), None);
    }

    /// The result of md5sum for 0e 01 00 00 03 e8 and sixteen times 07.
    #[test]
    fn a_fixed_number_is_the_hash_of_server_coin_and_generator() {
        let generator = PartialGenerator::new([7; 16]);
        let an = generator.an(RaidaId::new(14).unwrap(), coin(1, 1_000));
        let expected = 0x0d1a_e8f6_0d1c_f622_7bea_c118_0f0a_d17c_u128;
        assert_eq!(an.expose(), &expected.to_be_bytes());
    }

    proptest! {
        #[test]
        fn a_fix_is_read_as_it_was_composed(
            coins in prop::collection::vec(any_coin(), 1..20),
            generator in any::<[u8; 16]>(),
            tickets in prop::collection::vec(any::<u32>(), RaidaId::COUNT),
        ) {
            let ticket = |raida: RaidaId| TicketId::new(tickets[usize::from(raida.get())]);
            let generator = PartialGenerator::new(generator);
            let mut payload = vec![];
            Fix::compose(coins.iter().copied(), &generator, ticket, &mut payload);
            let fix = Fix::parse(&payload).unwrap();
            prop_assert_eq!(fix.coins().iter().collect::<Vec<_>>(), coins);
            prop_assert!(fix.generator == generator);
            for raida in RaidaId::all() {
                prop_assert_eq!(fix.ticket(raida), ticket(raida));
            }
        }

        #[test]
        fn tickets_and_finds_are_read_as_they_were_composed(
            records in prop::collection::vec((any_coin(), any_an(), any_an()), 1..20),
        ) {
            let mut payload = vec![];
            Find::compose(records.iter().copied(), &mut payload);
            prop_assert_eq!(Find::parse(&payload).unwrap().records().collect::<Vec<_>>(), records.clone());
            payload.clear();
            let coins = records.iter().map(|&(coin, an, _)| (coin, an));
            GetTicket::compose(coins.clone(), &mut payload);
            prop_assert!(GetTicket::parse(&payload).unwrap().records().eq(coins.clone()));
            payload.clear();
            Validate::answer(coins.clone().map(|(coin, _)| coin), &mut payload);
            let read = Validate::read(&payload).unwrap();
            prop_assert!(read.iter().eq(coins.map(|(coin, _)| coin)));
        }
    }
}
