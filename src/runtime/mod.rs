//! Everything that knows the executor or works around it: tasks and their turns, files and sockets,
//! clocks, signals between tasks. Beside it only [`node`](crate::node) and tests name glommio.

mod disk;
mod environment;
mod live;
mod prefetch;
mod pulse;
mod readiness;
mod rings;
mod signal;
mod turn;
mod wall_clock;

pub use glommio::{
    LocalExecutor, LocalExecutorBuilder, Placement, Task,
    net::{TcpStream, UdpSocket},
    spawn_local,
    timer::{Timer, sleep},
};

pub use disk::{Disk, DiskFile, SYNCED_FOLDER, quiet, remove_scratch};
pub use environment::{BLOCK_BYTES, Environment, File, Storage, is_blank};
pub use live::Live;
pub use prefetch::{LINE_BYTES, prefetch};
pub use pulse::{keep_awake, run_awake};
pub use readiness::{Interest, Readiness, Watched};
pub use rings::{Rings, TASK_WORK, Turning};
pub use signal::{Moment, Signal, yield_now};
pub use turn::{Line, LinePlace, turn, turn_in_line};
pub use wall_clock::{Moved, WallClock};
