//! The page: tables, charts, and where we lose.

pub mod chart;
pub mod format;
pub mod machine;
pub mod page;
pub mod section;
