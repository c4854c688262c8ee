//! The `raida` program; what it can do is in `raida::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    give_memory_back();
    raida::cli::main()
}

/// Has the allocator give freed memory back to the system.
///
/// The C library raises both of its thresholds to the largest block that was ever freed, 32 MiB at
/// most: after a few long requests or answers, a node keeps their memory for good (seen: half as
/// much again as at rest). Fixed thresholds stay: a long block is a mapping of its own and ends
/// with its last use, and free memory at the end of a heap goes back.
#[cfg(target_env = "gnu")]
fn give_memory_back() {
    /// From here on a block is a mapping of its own, in bytes. Two calls to the system and a page
    /// fault for each 4 KiB are little beside the work on a block of this length.
    const LONG_BLOCK: libc::c_int = 64 << 10;
    /// Free memory at the end of a heap that is kept, in bytes.
    const KEPT: libc::c_int = 128 << 10;
    // SAFETY: mallopt takes two numbers and no memory, and no other thread runs yet (mallopt(3)).
    unsafe {
        // Where one is refused, memory is given back later, or not: no reason not to start.
        libc::mallopt(libc::M_MMAP_THRESHOLD, LONG_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_memory_back() {}
