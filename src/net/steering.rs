//! The kernel's part in sharding: a classic BPF program that picks, for each datagram, the socket
//! of the shard that owns the datagram's coin, or the ticket that it claims. It is a hint and
//! nothing more: a request that arrives at another shard works the same, one message slower. So
//! datagrams whose shard cannot be told are spread at random.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use libc::sock_filter;

use crate::coin::{Denomination, SerialNumber};
use crate::protocol::Command;

/// Where the program looks, bytes from the datagram's start (docs/protocol.md sections 3 and 5).
///
/// Group and command.
const COMMAND: u32 = 4;
/// The ticket of an unencrypted claim: after header, challenge and the claimant's number.
const TICKET: u32 = 49;
/// The encryption type.
const ENCRYPTION_TYPE: u32 = 16;
/// DN, then SN, of the key coin: type 1.
const KEY_COIN: u32 = 17;
/// The same: types 4 and 5.
const KEY_COIN_LONG: u32 = 19;
/// DN, then SN, of the first record of an unencrypted request: after header and challenge.
const FIRST_RECORD: u32 = 48;
/// Bytes that DN and SN take.
const COIN: u32 = 5;

/// What stands at [`COMMAND`] in a claim of a ticket.
const CLAIM: u32 = (Command::Validate.group() as u32) << 8 | Command::Validate.code() as u32;

/// Serial numbers a page has, as a power of two.
const PAGE_SHIFT: u32 = crate::coin::COINS_PER_PAGE.trailing_zeros();

/// Has the kernel pick among `shards` sockets that share the address of `socket`, in the order in
/// which they were bound.
///
/// # Errors
/// What setsockopt says: the kernel refused the program (SO_ATTACH_REUSEPORT_CBPF, socket(7)).
pub(super) fn attach(socket: &UdpSocket, shards: u16) -> io::Result<()> {
    let mut program = owner_of_datagram(shards);
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort, // a few dozen
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the pointer and length describe a live sock_fprog, which is what the option takes; it
    // points at `len` instructions that outlive the call, and the kernel copies them.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The program: (page number + denomination index) mod shards, as in `PageId::owner`; for a claim,
/// the ticket's number mod shards.
///
/// A load beyond the datagram's end ends the program with 0, which would send every short datagram
/// to shard 0. So the length is checked before every load.
fn owner_of_datagram(shards: u16) -> Vec<sock_filter> {
    let mut program = Assembler::default();
    program.load_length();
    program.jump_unless_at_least(KEY_COIN_LONG + COIN, Label::Random);
    program.load_byte(ENCRYPTION_TYPE);
    program.jump_if_equal(0, Label::Plain);
    program.jump_if_equal(4, Label::Long);
    program.jump_if_equal(5, Label::Long);
    program.jump_if_equal(1, Label::Short);
    program.jump(Label::Random); // 2: a locker's key, whose shard takes a hash to find

    program.mark(Label::Plain);
    program.load_length();
    program.jump_unless_at_least(FIRST_RECORD + COIN, Label::Random);
    program.load_half_word(COMMAND);
    program.jump_if_equal(CLAIM, Label::Claim);
    program.load_coin(FIRST_RECORD);
    program.jump(Label::Owner);

    program.mark(Label::Claim);
    program.load_word(TICKET);
    program.modulo(u32::from(shards));
    program.give();

    program.mark(Label::Long);
    program.load_coin(KEY_COIN_LONG);
    program.jump(Label::Owner);

    program.mark(Label::Short);
    program.load_coin(KEY_COIN);

    program.mark(Label::Owner);
    program.jump_if_at_least(SerialNumber::COUNT, Label::Random);
    program.shift_right(PAGE_SHIFT);
    program.add_index();
    program.modulo(u32::from(shards));
    program.give();

    program.mark(Label::Random);
    program.load_random();
    program.modulo(u32::from(shards));
    program.give();
    program.assemble()
}

/// Instructions with jumps to labels. The accumulator is A, the index register X.
#[derive(Default)]
struct Assembler {
    instructions: Vec<Instruction>,
    marks: Vec<(Label, usize)>,
}

#[derive(Clone, Copy, PartialEq)]
enum Label {
    Plain,
    Claim,
    Short,
    Long,
    Owner,
    Random,
}

enum Instruction {
    Plain {
        code: u32,
        operand: u32,
    },
    Jump {
        to: Label,
    },
    Branch {
        code: u32,
        operand: u32,
        to: Label,
        when: bool,
    },
}

impl Assembler {
    /// A = the datagram's length.
    fn load_length(&mut self) {
        self.plain(libc::BPF_LD | libc::BPF_W | libc::BPF_LEN, 0);
    }

    /// A = the byte at an offset.
    fn load_byte(&mut self, at: u32) {
        self.plain(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at);
    }

    /// A = the two bytes at an offset, big-endian.
    fn load_half_word(&mut self, at: u32) {
        self.plain(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, at);
    }

    /// A = the four bytes at an offset, big-endian.
    fn load_word(&mut self, at: u32) {
        self.plain(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, at);
    }

    /// A = a random number (SKF_AD_RANDOM, linux/filter.h).
    fn load_random(&mut self) {
        let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
        self.load_word(random);
    }

    /// X = the denomination's index and A = the serial number of the coin at an offset; a
    /// denomination that does not exist goes to [`Label::Random`].
    fn load_coin(&mut self, at: u32) {
        self.load_byte(at);
        // From the signed byte -8 to 6 to the index 0 to 14: arithmetic of one byte.
        self.plain(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K, 8);
        self.plain(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0xff);
        self.jump_if_at_least(Denomination::COUNT as u32, Label::Random);
        self.plain(libc::BPF_MISC | libc::BPF_TAX, 0);
        self.load_word(at + 1);
    }

    /// A = A / 2^bits.
    fn shift_right(&mut self, bits: u32) {
        self.plain(libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K, bits);
    }

    /// A = A + X.
    fn add_index(&mut self) {
        self.plain(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X, 0);
    }

    /// A = A mod a number that is not 0.
    fn modulo(&mut self, by: u32) {
        self.plain(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, by);
    }

    /// Ends the program with A.
    fn give(&mut self) {
        self.plain(libc::BPF_RET | libc::BPF_A, 0);
    }

    fn jump(&mut self, to: Label) {
        self.instructions.push(Instruction::Jump { to });
    }

    fn jump_if_equal(&mut self, operand: u32, to: Label) {
        self.branch(libc::BPF_JEQ, operand, to, true);
    }

    fn jump_if_at_least(&mut self, operand: u32, to: Label) {
        self.branch(libc::BPF_JGE, operand, to, true);
    }

    fn jump_unless_at_least(&mut self, operand: u32, to: Label) {
        self.branch(libc::BPF_JGE, operand, to, false);
    }

    /// The place that jumps to `label` lead to.
    fn mark(&mut self, label: Label) {
        self.marks.push((label, self.instructions.len()));
    }

    fn plain(&mut self, code: u32, operand: u32) {
        self.instructions.push(Instruction::Plain { code, operand });
    }

    fn branch(&mut self, comparison: u32, operand: u32, to: Label, when: bool) {
        self.instructions.push(Instruction::Branch {
            code: libc::BPF_JMP | comparison | libc::BPF_K,
            operand,
            to,
            when,
        });
    }

    /// Turns labels into distances, which count from the instruction after the jump.
    fn assemble(self) -> Vec<sock_filter> {
        let distance = |from: usize, to: Label| {
            let mark = self.marks.iter().find(|(label, _)| *label == to);
            let (_, mark) = mark.expect("every label is marked in the program above");
            u8::try_from(mark - from - 1).expect("the program is shorter than 256 instructions")
        };
        let instructions = self.instructions.iter().enumerate();
        instructions
            .map(|(at, instruction)| match *instruction {
                Instruction::Plain { code, operand } => filter(code, 0, 0, operand),
                Instruction::Jump { to } => {
                    let distance = u32::from(distance(at, to));
                    filter(libc::BPF_JMP | libc::BPF_JA, 0, 0, distance)
                }
                Instruction::Branch {
                    code,
                    operand,
                    to,
                    when,
                } => {
                    let distance = distance(at, to);
                    let (yes, no) = if when { (distance, 0) } else { (0, distance) };
                    filter(code, yes, no, operand)
                }
            })
            .collect()
    }
}

fn filter(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16, // all codes are below 256
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::coin::{Coin, PageId};
    use crate::net::{Sockets, bind};

    /// Sends each datagram, marked with its number, and returns which shard's socket got it.
    fn received_by(datagrams: &[Vec<u8>], shards: u16) -> Vec<usize> {
        let sockets: Vec<Sockets> = bind(SocketAddr::from(([127, 0, 0, 1], 0)), shards).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        for pair in &sockets {
            pair.udp
                .set_read_timeout(Some(Duration::from_millis(1)))
                .unwrap();
        }
        let receive = |length: usize| {
            let mut bytes = vec![0; 2_048];
            for _ in 0..10_000 {
                for pair in &sockets {
                    if let Ok(received) = pair.udp.recv(&mut bytes) {
                        assert_eq!(received, length);
                        return pair.shard().index();
                    }
                }
            }
            panic!("the datagram did not arrive");
        };
        let send_and_receive = |datagram: &Vec<u8>| {
            client.send_to(datagram, sockets[0].address()).unwrap();
            receive(datagram.len())
        };
        datagrams.iter().map(send_and_receive).collect()
    }

    fn datagram(encryption_type: u8, at: u32, coin: [u8; 5], length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length).map(|i| (i * 37 + 11) as u8).collect();
        bytes[ENCRYPTION_TYPE as usize] = encryption_type;
        bytes[at as usize..][..5].copy_from_slice(&coin);
        bytes
    }

    #[test]
    fn a_datagram_goes_to_the_owner_of_its_coin() {
        let pages = PageId::all().step_by(331);
        let coins: Vec<Coin> = pages.map(|page| page.coin(page.index() % 1_024)).collect();
        let mut datagrams = Vec::new();
        let mut owners = Vec::new();
        for coin in &coins {
            for (encryption_type, at, length) in [
                (0, FIRST_RECORD, 53),
                (0, FIRST_RECORD, 71),
                (0, FIRST_RECORD, 1_400),
                (1, KEY_COIN, 32),
                (4, KEY_COIN_LONG, 48),
                (5, KEY_COIN_LONG, 500),
            ] {
                datagrams.push(datagram(encryption_type, at, coin.to_bytes(), length));
                owners.push(coin.page().owner(3).index());
            }
        }
        assert_eq!(received_by(&datagrams, 3), owners);
    }

    #[test]
    fn a_claim_goes_to_the_shard_that_issued_the_ticket() {
        let tickets = [
            1,
            2,
            3,
            0x7fff_ffff,
            0xffff_fffe,
            0xffff_ffff,
            123_456_789_u32,
        ];
        let claims: Vec<Vec<u8>> = tickets
            .iter()
            .map(|ticket| {
                let mut claim = datagram(0, FIRST_RECORD, [24, 0, 0, 0, 0], 55);
                claim[COMMAND as usize..][..2].copy_from_slice(&[2, 50]);
                claim[TICKET as usize..][..4].copy_from_slice(&ticket.to_be_bytes());
                claim
            })
            .collect();
        let owners: Vec<usize> = tickets
            .iter()
            .map(|ticket| ticket % 3)
            .map(|o| o as usize)
            .collect();
        assert_eq!(received_by(&claims, 3), owners);
    }

    #[test]
    fn what_names_no_coin_is_spread_over_all_shards() {
        let none = [7, 0, 0, 0, 0]; // no such denomination
        let past = [0, 0x00, 0x0f, 0xa0, 0x00]; // serial number 1,024,000
        for shape in [
            vec![],
            vec![7; 16],
            datagram(1, KEY_COIN, [0; 5], 23),
            datagram(0, KEY_COIN, [0; 5], 32),
            datagram(0, KEY_COIN, [0; 5], 52),
            datagram(0, FIRST_RECORD, none, 71),
            datagram(0, FIRST_RECORD, past, 71),
            datagram(1, KEY_COIN, none, 71),
            datagram(2, KEY_COIN, [0; 5], 71),
            datagram(3, KEY_COIN, [0; 5], 71),
            datagram(4, KEY_COIN_LONG, past, 71),
            datagram(0xff, KEY_COIN, [0; 5], 71),
        ] {
            // All 60 at fewer than three shards has a chance of 3 x (2/3)^60, 10^-10.
            let received = received_by(&vec![shape.clone(); 60], 3);
            for shard in 0..3 {
                assert!(received.contains(&shard), "none of {shape:?} at {shard}");
            }
        }
    }
}
