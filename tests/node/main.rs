//! One node, or a few: in this process, or as processes of their own.

mod dead_disk;
mod descriptors;
mod key_healing;
mod keys;
mod locker_keys;
mod lockers;
mod lost_files;
mod mint_killed;
#[path = "../support/node_process/mod.rs"]
mod node_process;
mod offline;
mod operator;
mod pown_derive;
#[path = "../support/real_node/mod.rs"]
mod real_node;
mod recorded;
mod recorded_frames;
mod recorded_lockers;
mod repeats;
mod settlement;
mod stats_latency;
mod tickets;
mod trades;
