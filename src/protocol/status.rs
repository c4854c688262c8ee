//! The byte that says how a request went. Statuses that depend on the dialect (groups 2 and 4) are
//! chosen by their command groups; the statuses here mean the same everywhere.

/// How a request went: one byte of every response (docs/protocol.md sections 3 to 6).
///
/// Printing one gives a sentence for the person who sent the request:
///
/// ```
/// use raida::protocol::Status;
/// assert_eq!(Status::MIXED.name(), "mixed");
/// assert_eq!(
///     Status::WRONG_CHALLENGE.to_string(),
///     "wrong challenge: the request was encrypted with another key, or damaged on its way"
/// );
/// assert_eq!(Status::new(99).to_string(), "status 99, which this program does not know");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(u8);

impl Status {
    /// Takes any byte: a client must be able to hold statuses that it does not know.
    #[inline]
    pub const fn new(code: u8) -> Status {
        Status(code)
    }

    /// The byte of the wire.
    #[inline]
    pub const fn code(self) -> u8 {
        self.0
    }

    /// Whether the node did what was asked and this is the outcome. All other statuses are
    /// refusals.
    #[inline]
    pub fn is_verdict(self) -> bool {
        matches!(
            self,
            Status::ALL_PASS
                | Status::ALL_FAIL
                | Status::MIXED
                | Status::SUCCESS
                | Status::NEITHER
                | Status::ALL_AN
                | Status::ALL_PAN
                | Status::FOUND_MIXED
        )
    }

    /// Whether the header itself was refused. A response with such a status names no command group
    /// and carries nothing that only a reader of the request's body could know.
    #[inline]
    pub fn is_header_refusal(self) -> bool {
        matches!(
            self,
            Status::UNKNOWN_VERSION
                | Status::WRONG_SPLIT
                | Status::WRONG_RAIDA
                | Status::WRONG_SHARD
                | Status::UNKNOWN_GROUP
                | Status::UNKNOWN_COMMAND
                | Status::WRONG_COIN_ID
                | Status::UNKNOWN_ENCRYPTION
        )
    }
}

/// Writes each status once, so that its constant, its name and its sentence stay together.
macro_rules! statuses {
    ($($(#[$doc:meta])* $constant:ident = $code:literal, $name:literal, $sentence:literal;)*) => {
        impl Status {
            $($(#[$doc])* pub const $constant: Status = Status($code);)*

            /// A short name for listings, logs and metrics; "unknown" where there is none.
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($code => $name,)*
                    _ => "unknown",
                }
            }

            /// Whether this program knows what it means.
            #[inline]
            pub fn is_known(self) -> bool {
                matches!(self.0, $($code)|*)
            }

            fn sentence(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($sentence),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    /// Byte 1 of the header is not 0.
    WRONG_SPLIT = 2, "wrong split",
        "wrong split: the header's second byte must be 0";
    /// Byte 2 of the header is another node's number.
    WRONG_RAIDA = 3, "wrong raida",
        "wrong RAIDA: the request names another server than the one it was sent to";
    /// Byte 3 of the header is over 3.
    WRONG_SHARD = 4, "wrong shard",
        "wrong shard: the header's shard id must be 0 to 3";
    /// Byte 4 of the header is over 15.
    UNKNOWN_GROUP = 5, "unknown group",
        "unknown command group: the server has no such group of commands";
    /// Byte 5 of the header is no command of that group.
    UNKNOWN_COMMAND = 6, "unknown command",
        "unknown command: the server has no such command in that group";
    /// Bytes 6-7 of the header are not the coin this node serves.
    WRONG_COIN_ID = 7, "wrong coin id",
        "wrong coin: the server serves another coin than the request names";
    /// The body is shorter or longer than the command, the datagram or the limits allow.
    INVALID_LENGTH = 16, "invalid length",
        "invalid length: the request is too short or too long for what it asks";
    /// Validate, encryption tickets, `raidax`: a server's number is over 24, or no secret is shared
    /// with it.
    RAIDA_OUT_OF_RANGE = 18, "raida out of range",
        "no such RAIDA: servers have the numbers 0 to 24, and for keys the two have to share a secret";
    /// Types 4 and 5: the key coin cannot exist or is not known here.
    UNKNOWN_KEY_COIN = 25, "unknown key coin",
        "unknown key coin: the server does not hold the coin whose key encrypts the request";
    /// Byte 16 of the header is no known encryption type.
    UNKNOWN_ENCRYPTION = 27, "unknown encryption",
        "unknown encryption: the server takes encryption types 0, 1, 2, 4 and 5";
    /// The body does not end in `>>`.
    WRONG_TRAILER = 33, "wrong trailer",
        "wrong end: the request's body does not end in two '>', it was cut or its length is wrong";
    /// Types 1 and 2: the key coin or locker cannot exist or is not known here.
    KEY_NOT_FOUND = 34, "key not found",
        "key not found: the server knows no such coin or locker to decrypt the request with";
    /// No body, where the command needs one.
    EMPTY_BODY = 36, "empty body",
        "empty request: this command needs a body and there is none";
    /// The CRC in the challenge does not fit the challenge.
    WRONG_CHALLENGE = 37, "wrong challenge",
        "wrong challenge: the request was encrypted with another key, or damaged on its way";
    /// The admin key is not this node's.
    WRONG_ADMIN_KEY = 38, "wrong admin key",
        "not allowed: the admin key is not this server's";
    /// The payload does not divide into records.
    UNEVEN_RECORDS = 39, "uneven records",
        "invalid length: the request's records do not divide evenly";
    /// A DN or SN that cannot exist; "create coins": a coin that is in circulation already.
    INVALID_COIN = 40, "invalid coin",
        "invalid coin: a coin of the request cannot exist, or is in circulation already";
    /// A coin's page is not reserved by the session.
    NOT_RESERVED = 41, "not reserved",
        "not reserved: ask for available serial numbers first, and use them within 16 seconds";
    /// Get ticket, fix encryption, `raidax`: no room for more tickets.
    NO_TICKET_SLOT = 42, "no ticket slot",
        "no ticket slot: the server has issued as many tickets as it keeps track of, or as one address or one coin may have; they end after some minutes";
    /// Validate, `raidax`: no such ticket, or it has expired.
    NO_SUCH_TICKET = 43, "no such ticket",
        "no such ticket: the server did not issue it, or its time is over";
    /// Validate, `raidax`: this server has claimed the ticket before.
    TICKET_CLAIMED = 44, "ticket claimed",
        "ticket claimed already: each server claims a ticket once";
    /// Put for sale, list, buy: there is no such currency, or it is not accepted here.
    UNKNOWN_CURRENCY = 50, "unknown currency",
        "unknown currency: the server has no offers in it; there are cloudcoin, bitcoin and monero";
    /// Buy: no trade locker has exactly this currency, value and price.
    NO_SUCH_OFFER = 51, "no such offer",
        "no such offer: nothing of just that value is for sale at that price, list what is";
    /// Put for sale: a trade locker has the same currency, value and price already.
    OFFER_EXISTS = 148, "offer exists",
        "on offer already: coins of the same value are for sale at the same price, ask another price";
    /// Buy: the payment is not confirmed yet.
    PAYMENT_PENDING = 150, "payment pending",
        "payment pending: it is not confirmed yet, ask again with the same transaction id";
    /// Too many requests from one address.
    TOO_MANY_REQUESTS = 160, "too many requests",
        "too many requests: the server takes fewer a second from one address, try later";
    /// Buy: the node has nothing that checks payments.
    NO_SETTLEMENT = 180, "no settlement",
        "no settlement: the server is not set up to check payments, so nothing can be bought there";
    /// Over UDP: the answer is not sent, since it would be too many times longer than the request.
    ASK_OVER_TCP = 191, "ask over tcp",
        "ask over TCP: the answer is longer than the server sends over UDP to a request of this length";
    /// Storage cannot take a change now: the disk is full, or a page is damaged.
    UNAVAILABLE = 194, "unavailable",
        "unavailable: the server's storage cannot take this now; nothing was changed, try later";
    /// Group 8: an impossible number of lockers, length or buyer's locker key.
    INVALID_PARAMETER = 198, "invalid parameter",
        "invalid parameter: a count, a length or a key of the request is none that can be";
    /// Store, put for sale: the key does not have the mark of a locker's or a trade locker's key.
    WRONG_LOCKER_KEY = 199, "wrong locker key",
        "wrong key: a locker's key ends in FF FF FF FF, a trade locker's in EE EE";
    /// Buy: the payment was checked and is not what it should be.
    PAYMENT_REFUSED = 203, "payment refused",
        "payment refused: it was not made, or not of this amount, or not to the seller's address";
    /// Types 4 and 5: the HMAC of the ciphertext is wrong.
    WRONG_HMAC = 204, "wrong hmac",
        "wrong HMAC: the request was encrypted with another key, or altered on its way";
    /// Find: all coins have neither number.
    NEITHER = 208, "neither",
        "neither: no coin has its authenticity number or the proposed one";
    /// Find: all coins have their AN.
    ALL_AN = 209, "all an",
        "all AN: every coin has its authenticity number";
    /// Find: all coins have their PAN.
    ALL_PAN = 210, "all pan",
        "all PAN: every coin has the proposed number";
    /// Find: the response carries what each coin has.
    FOUND_MIXED = 211, "found mixed",
        "mixed: coins have different ones of their two numbers";
    /// Group 2, `spec`: like [`Status::INVALID_LENGTH`].
    HEALING_INVALID_LENGTH = 0xe0, "invalid length",
        "invalid length: the request is too short or too long for what it asks";
    /// Group 2, `spec`: like [`Status::OUT_OF_MEMORY`].
    HEALING_OUT_OF_MEMORY = 0xe1, "out of memory",
        "out of memory: the server cannot hold what the request needs, try later";
    /// Group 2, `spec`: like [`Status::UNEVEN_RECORDS`].
    HEALING_UNEVEN_RECORDS = 0xe2, "uneven records",
        "invalid length: the request's coins do not divide evenly";
    /// Group 2, `spec`: like [`Status::NO_TICKET_SLOT`].
    HEALING_NO_TICKET_SLOT = 0xe3, "no ticket slot",
        "no ticket slot: the server has issued as many tickets as it keeps track of, or as one address or one coin may have; they end after some minutes";
    /// Group 2, `spec`: like [`Status::NO_SUCH_TICKET`].
    HEALING_NO_SUCH_TICKET = 0xe4, "no such ticket",
        "no such ticket: the server did not issue it, or its time is over";
    /// Group 2, `spec`: like [`Status::TICKET_CLAIMED`].
    HEALING_TICKET_CLAIMED = 0xe5, "ticket claimed",
        "ticket claimed already: each server claims a ticket once";
    /// Group 2, `spec`: like [`Status::RAIDA_OUT_OF_RANGE`].
    HEALING_RAIDA_OUT_OF_RANGE = 0xe6, "raida out of range",
        "no such RAIDA: servers have the numbers 0 to 24, and for keys the two have to share a secret";
    /// Every record passed.
    ALL_PASS = 241, "all pass",
        "all pass: every coin passed";
    /// No record passed.
    ALL_FAIL = 242, "all fail",
        "all fail: no coin passed";
    /// Some records passed: the response carries which.
    MIXED = 243, "mixed",
        "mixed: some coins passed and some failed";
    /// Done.
    SUCCESS = 250, "success",
        "success";
    /// Groups 2 and 4, `raidax`: no memory for what the request needs.
    OUT_OF_MEMORY = 254, "out of memory",
        "out of memory: the server cannot hold what the request needs, try later";
    /// Byte 0 of the header is no known version.
    UNKNOWN_VERSION = 255, "unknown version",
        "unknown version: the server does not speak this version of the protocol";
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.sentence() {
            Some(sentence) => f.write_str(sentence),
            None => write!(f, "status {}, which this program does not know", self.0),
        }
    }
}

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Status({} {})", self.0, self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_status_has_a_sentence() {
        for code in 0..=255 {
            let status = Status::new(code);
            assert_eq!(status.sentence().is_some(), status.name() != "unknown");
            assert_eq!(status.sentence().is_some(), status.is_known());
        }
    }

    #[test]
    fn a_refused_header_is_no_verdict() {
        for code in 0..=255 {
            let status = Status::new(code);
            assert!(!(status.is_verdict() && status.is_header_refusal()));
        }
    }
}
