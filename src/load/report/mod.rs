//! The files that remain of a run when it is over: the result as JSON, its histograms, its
//! pictures. This module knows what was measured; it takes no measurement.
//!
//! | room | what it is |
//! |---|---|
//! | [`Report`] | a result, as `--json` prints it and as it is read back |
//! | [`Machine`] | where it was measured |
//! | [`Trace`] | one contender's latencies, interval by interval |
//! | `hgrm`, `hlog` | traces in the two formats of HdrHistogram's tools |
//! | [`picture`] | SVG |
//! | [`folder`] | all of these in a folder, and back again |
//! | [`live`] | the line on the terminal while a run lasts |

pub mod folder;
pub mod hgrm;
pub mod hlog;
pub mod live;
mod machine;
pub mod picture;
mod result;
mod trace;
mod utc;

pub use machine::Machine;
pub use result::{
    ContenderReport, CountsReport, GeneratorReport, LatencyMicros, LoopKind, Ratio, Report, Spread,
    SweepPoint,
};
pub use trace::Trace;
pub use utc::Utc;

use std::path::PathBuf;

use crate::shown::Shown;

/// A result that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file or folder fails.
    #[error("cannot {doing} {path}: {cause}", path = .path.shown())]
    File {
        /// The step that failed, as in "cannot read".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What is wrong.
        cause: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} is not a result of `raida bench`: {what}", path = .path.shown())]
    NotAResult {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A picture cannot be drawn.
    #[error("cannot draw {picture}: {what}")]
    Picture {
        /// The picture.
        picture: &'static str,
        /// The reason.
        what: String,
    },
}
