//! The command groups and commands.

/// What a request asks for: the command group and the command within it, bytes 4 and 5 of its
/// header (docs/protocol.md section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// 0/0: are you there?
    Echo,
    /// 0/1: which software is it?
    Version,
    /// 0/2: what has it done since it started? (admin key)
    Stats,
    /// 0/3: how many coins of each denomination are in circulation?
    Audit,
    /// 1/10: are these the coins' authenticity numbers?
    Detect,
    /// 1/11: is this the XOR of the coins' authenticity numbers?
    DetectSum,
    /// 1/20: these coins are mine; give them new authenticity numbers.
    Pown,
    /// 1/21: like pown, for coins whose XOR the client knows, all or none.
    PownSum,
    /// 1/22: like pown, for coins whose numbers the client proves to know, all or none.
    PownDerive,
    /// 2/40: a ticket for these coins, which others can claim.
    GetTicket,
    /// 2/41: like 2/40, for coins whose XOR the client knows, all or none.
    GetTicketSum,
    /// 2/50: a server claims a ticket.
    Validate,
    /// 2/60: which of two authenticity numbers have these coins?
    Find,
    /// 2/80: repair these coins as the other servers say.
    Fix,
    /// 3/120: which serial numbers are free? (admin key)
    AvailableSns,
    /// 3/130: put coins into circulation. (admin key)
    CreateCoins,
    /// 3/140: take coins out of circulation, given their authenticity numbers. (admin key)
    DeleteCoins,
    /// 3/150: take coins out of circulation. (admin key)
    FreeCoins,
    /// 3/160: which serial numbers of a denomination are in circulation? (admin key)
    AllSns,
    /// 4/44, also 2/44: vouch for me at a server that has lost my coin, for half of its new number.
    EncryptionTicket,
    /// 4/45, also 2/45: these servers vouch for the halves of my coin's new number.
    FixEncryption,
    /// 8/81: which coins are for sale in this trade locker?
    PeekTrade,
    /// 8/82: put coins into a locker, all or none.
    StoreSum,
    /// 8/83: which coins lie in this locker?
    Peek,
    /// 8/84: take coins out of a locker.
    Remove,
    /// 8/85: put coins into a trade locker, for others to buy.
    PutForSale,
    /// 8/86: which trade lockers are paid in this currency?
    ListForSale,
    /// 8/87: a trade locker is paid for; hand its coins over.
    Buy,
    /// 8/88: put coins into several lockers, each all or none.
    StoreMultiple,
    /// 8/89: take a trade locker back.
    RemoveTrade,
}

/// The highest possible command group; a request with a higher one is refused with status 5.
pub const GROUP_MAX: u8 = 15;

/// Commands that clients also ask for under another group than their own (docs/protocol.md section
/// 6).
const ALSO: [(Command, u8, u8); 2] = [
    (Command::EncryptionTicket, 2, 44),
    (Command::FixEncryption, 2, 45),
];

/// The reverse of [`Command::TABLE`] and [`ALSO`], by group and code: every request looks here.
static BY_CODES: [[Option<Command>; 256]; GROUP_MAX as usize + 1] = {
    let mut commands = [[None; 256]; GROUP_MAX as usize + 1];
    let mut i = 0;
    while i < Command::TABLE.len() {
        let (command, group, code) = Command::TABLE[i];
        commands[group as usize][code as usize] = Some(command);
        i += 1;
    }
    let mut i = 0;
    while i < ALSO.len() {
        let (command, group, code) = ALSO[i];
        commands[group as usize][code as usize] = Some(command);
        i += 1;
    }
    commands
};

impl Command {
    /// Number of commands: one more than the highest [`index`](Command::index).
    pub const COUNT: usize = Self::TABLE.len();

    /// Every command with its group and code: the only place that pairs them.
    const TABLE: [(Command, u8, u8); 30] = [
        (Command::Echo, 0, 0),
        (Command::Version, 0, 1),
        (Command::Stats, 0, 2),
        (Command::Audit, 0, 3),
        (Command::Detect, 1, 10),
        (Command::DetectSum, 1, 11),
        (Command::Pown, 1, 20),
        (Command::PownSum, 1, 21),
        (Command::PownDerive, 1, 22),
        (Command::GetTicket, 2, 40),
        (Command::GetTicketSum, 2, 41),
        (Command::Validate, 2, 50),
        (Command::Find, 2, 60),
        (Command::Fix, 2, 80),
        (Command::AvailableSns, 3, 120),
        (Command::CreateCoins, 3, 130),
        (Command::DeleteCoins, 3, 140),
        (Command::FreeCoins, 3, 150),
        (Command::AllSns, 3, 160),
        (Command::EncryptionTicket, 4, 44),
        (Command::FixEncryption, 4, 45),
        (Command::PeekTrade, 8, 81),
        (Command::StoreSum, 8, 82),
        (Command::Peek, 8, 83),
        (Command::Remove, 8, 84),
        (Command::PutForSale, 8, 85),
        (Command::ListForSale, 8, 86),
        (Command::Buy, 8, 87),
        (Command::StoreMultiple, 8, 88),
        (Command::RemoveTrade, 8, 89),
    ];

    /// The command that these two header bytes name; `None` where there is none.
    #[inline]
    pub fn from_codes(group: u8, code: u8) -> Option<Command> {
        BY_CODES.get(usize::from(group))?[usize::from(code)]
    }

    /// Every command, in the order of groups and codes.
    pub fn all() -> impl ExactSizeIterator<Item = Command> {
        Self::TABLE.iter().map(|&(command, _, _)| command)
    }

    /// Its position among [all](Command::all): for tables with one row for each command.
    #[inline]
    pub const fn index(self) -> usize {
        // Variants stand in the table's order; the tests check that.
        self as usize
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Command::Echo => "echo",
            Command::Version => "version",
            Command::Stats => "stats",
            Command::Audit => "audit",
            Command::Detect => "detect",
            Command::DetectSum => "detect sum",
            Command::Pown => "pown",
            Command::PownSum => "pown sum",
            Command::PownDerive => "pown derive",
            Command::GetTicket => "get ticket",
            Command::GetTicketSum => "get ticket sum",
            Command::Validate => "validate",
            Command::Find => "find",
            Command::Fix => "fix",
            Command::AvailableSns => "available sns",
            Command::CreateCoins => "create coins",
            Command::DeleteCoins => "delete coins",
            Command::FreeCoins => "free coins",
            Command::AllSns => "all sns",
            Command::EncryptionTicket => "get encryption ticket",
            Command::FixEncryption => "fix encryption",
            Command::PeekTrade => "peek trade locker",
            Command::StoreSum => "store sum",
            Command::Peek => "peek",
            Command::Remove => "remove",
            Command::PutForSale => "put for sale",
            Command::ListForSale => "list for sale",
            Command::Buy => "buy",
            Command::StoreMultiple => "store multiple",
            Command::RemoveTrade => "remove trade locker",
        }
    }

    /// Whether it heals coins or keys: the number of these that an address may send is limited.
    #[inline]
    pub const fn heals(self) -> bool {
        matches!(
            self,
            Command::GetTicket
                | Command::GetTicketSum
                | Command::Validate
                | Command::Find
                | Command::Fix
                | Command::EncryptionTicket
                | Command::FixEncryption
        )
    }

    /// Whether a request that changes something is carried out once, however often it comes within
    /// 10 seconds (docs/protocol.md, "Repeats").
    #[inline]
    pub const fn is_carried_out_once(self) -> bool {
        // A client that deletes or frees coins a second time finds them free.
        let finds_them_free = matches!(self, Command::DeleteCoins | Command::FreeCoins);
        self.changes() && !finds_them_free
    }

    /// Whether it may change something, and so has to wait for the log.
    #[inline]
    pub const fn changes(self) -> bool {
        match self {
            Command::Pown
            | Command::PownSum
            | Command::PownDerive
            | Command::Fix
            | Command::CreateCoins
            | Command::DeleteCoins
            | Command::FreeCoins
            | Command::FixEncryption
            | Command::StoreSum
            | Command::Remove
            | Command::PutForSale
            | Command::Buy
            | Command::StoreMultiple
            | Command::RemoveTrade => true,
            Command::Echo
            | Command::Version
            | Command::Stats
            | Command::Audit
            | Command::Detect
            | Command::DetectSum
            | Command::GetTicket
            | Command::GetTicketSum
            | Command::Validate
            | Command::Find
            | Command::AvailableSns
            | Command::AllSns
            | Command::EncryptionTicket
            | Command::PeekTrade
            | Command::Peek
            | Command::ListForSale => false,
        }
    }

    /// The command group: byte 4 of a request as this program sends it.
    #[inline]
    pub const fn group(self) -> u8 {
        Self::TABLE[self.index()].1
    }

    /// The command within its group: byte 5 of a request.
    #[inline]
    pub const fn code(self) -> u8 {
        Self::TABLE[self.index()].2
    }

    /// Whether a request with a body of length 0 is allowed (docs/protocol.md section 3).
    #[inline]
    pub fn takes_no_body(self) -> bool {
        matches!(self, Command::Echo | Command::Version | Command::Audit)
    }

    /// Whether the answer never has a payload.
    #[inline]
    pub fn answers_nothing(self) -> bool {
        matches!(self, Command::Echo)
    }

    /// Whether the response may be longer than a datagram holds, so that it needs TCP.
    #[inline]
    pub fn needs_stream(self) -> bool {
        matches!(self, Command::AllSns)
    }
}

/// Whether a group has such a command: headers are checked against this. Groups that are not served
/// have none.
#[inline]
pub fn command_is_known(group: u8, code: u8) -> bool {
    Command::from_codes(group, code).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_in_the_order_of_the_variants() {
        for (index, (command, group, code)) in Command::TABLE.into_iter().enumerate() {
            assert_eq!(command as usize, index);
            assert_eq!((command.group(), command.code()), (group, code));
            assert_eq!(Command::from_codes(group, code), Some(command));
        }
    }

    #[test]
    fn only_served_groups_have_commands() {
        let known = (0..=255u8)
            .flat_map(|group| (0..=255u8).map(move |code| (group, code)))
            .filter(|&(group, code)| command_is_known(group, code))
            .count();
        assert_eq!(known, Command::all().len() + ALSO.len());
    }
}
