//! A node of the RAIDA network: 25 independent servers that together say who owns a digital coin.
//!
//! # Where things live
//!
//! A module may use those above it in this list, never those below (`tests/layers.rs` holds it to
//! that).
//!
//! | module | what it is | does no |
//! |---|---|---|
//! | [`coin`] | denominations, serial numbers, authenticity numbers, page and shard arithmetic | I/O |
//! | [`hex`] | bytes as hexadecimal digits | I/O |
//! | [`folder_lock`] | a folder that one process at a time works in | knowledge of what is in it |
//! | [`plain_file`] | files that are opened only where they are plain, and read up to a bound | knowledge of what is in them |
//! | [`shown`] | names of files, and what the system refuses, as a person sees them | I/O |
//! | [`runtime`] | the executor, and what works around it: tasks, files, sockets, clocks | knowledge of coins |
//! | [`protocol`] | headers, bodies, statuses, ciphers, one file a command group | I/O, state |
//! | [`store`] | pages, page files, log, checkpoint, recovery, free-coin bitmap | knowledge of commands |
//! | [`shard`] | the owner of a part of the pages, fed by messages | sockets |
//! | [`mesh`] | messages between shards, batched | knowledge of commands |
//! | [`service`] | from a request to a response, through shards; one file a command group | sockets |
//! | [`net`] | TCP and UDP sockets, connections, limits, steering | knowledge of commands |
//! | [`peer`] | this node as a client of the network's other servers | counting of votes |
//! | [`settlement`] | whether a purchase has been paid, as something outside the node says | knowledge of lockers |
//! | [`admin`] | what a node tells its operator about itself, asked from outside its cores | the data path |
//! | [`node`] | one running node, put together from the above, from start to stop | decisions |
//! | [`client`] | the other side of the protocol: requests over sockets, wallets, healing of coins and keys | server modules |
//! | [`load`] | load generator | server modules |
//! | [`network`] | all 25 nodes of a network: the secrets they share; on this machine, their processes, folders and ports | commands but echo |
//! | [`cli`] | the subcommands, thin | logic |

pub mod admin;
pub mod cli;
pub mod client;
pub mod coin;
pub mod folder_lock;
pub mod hex;
pub mod load;
pub mod mesh;
pub mod net;
pub mod network;
pub mod node;
pub mod peer;
pub mod plain_file;
pub mod protocol;
pub mod runtime;
pub mod service;
pub mod settlement;
pub mod shard;
pub mod shown;
pub mod store;
