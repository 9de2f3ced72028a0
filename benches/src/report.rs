//! From samples to the report: tables, verdicts and plots.

pub mod bars;
pub mod machine;
pub mod markdown;
pub mod measure;
pub mod plots;
pub mod runs;
pub mod statistics;
pub mod verdicts;
