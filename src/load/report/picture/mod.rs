//! Pictures of results as SVG, one file for each. All use the same canvas, so that they look like
//! one set.

mod axis;
mod canvas;
mod over_time;
mod percentiles;
mod rates;
mod shards;
mod sweep;

pub(super) use axis::{count_in_words, micros_in_words};
pub use canvas::Heading;
pub use over_time::latency_over_time;
pub use percentiles::latency_by_percentile;
pub use rates::{RateBar, rates};
pub use shards::throughput_by_shards;
pub use sweep::rate_against_latency;

use super::LoopKind;

/// An axis of latencies states from when they count, where that is the same for all.
fn latency_from(loop_kind: Option<LoopKind>) -> &'static str {
    match loop_kind {
        Some(LoopKind::Closed) => "latency, from sending",
        Some(LoopKind::Open) => "latency, from when due",
        None => "latency",
    }
}
