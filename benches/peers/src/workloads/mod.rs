//! What the systems are asked. Each workload starts systems of its own, on empty disks, and may
//! fail without the others.

pub mod births;
pub mod claims;
pub mod failover;
pub mod idle;
pub mod many;
pub mod reads;

use std::time::Duration;

use crate::report::chart::Bar;
use crate::report::format;
use crate::report::section::{Figure, OURS};
use crate::samples::Samples;

/// The names that `--only` takes, in the order in which they run.
pub const NAMES: [&str; 7] = [
    "claims",
    "births",
    "idle",
    "failover",
    "reads",
    "many-cells",
    "many-slots",
];

/// The median of samples, as a figure.
fn median(system: &'static str, case: &str, samples: &Samples) -> Option<Figure> {
    let median = samples.median()?;
    Some(Figure {
        system,
        case: case.into(),
        value: median.as_secs_f64(),
        shown: format::duration(median),
    })
}

fn bar(figure: &Figure, mark: Option<Duration>) -> Bar {
    Bar {
        label: format!("{}, {}", figure.system, figure.case),
        value: figure.value,
        mark: mark.map(|mark| mark.as_secs_f64()),
        shown: match mark {
            // Both ends: the text stands beside the far one.
            Some(mark) => format!("{} to {}", figure.shown, format::duration(mark)),
            None => figure.shown.clone(),
        },
        ours: figure.system == OURS,
    }
}

fn shown(duration: Option<Duration>) -> String {
    duration.map_or("-".into(), format::duration)
}
