//! The report as text.

use std::fmt::Write as _;

use crate::catalogue::{PARTS, Part};
use crate::report::bars::{Against, Bar, Limit};
use crate::report::machine;
use crate::report::runs::Notes;
use crate::report::statistics::{Spread, best_peer, cases, metrics, ratio, servers, value};
use crate::report::verdicts::{Judged, Loss, Outcome, losses};
use crate::samples::{Samples, Series};

/// How many losses are listed; the tables of the parts have all figures.
const LOSSES_MAX: usize = 60;

/// The whole report; `plots` are the names of the SVG files beside it, by part.
pub fn report(
    samples: &Samples,
    notes: &Notes,
    bars: &[Bar],
    plots: &[(&'static str, String)],
) -> String {
    let mut text = String::from(
        "# The comparison\n\n\
         Written by `cargo run --release -p greenroom-benches --bin report`; the raw data is in \
         [raw.csv](raw.csv), when and of what the parts were measured in [runs.csv](runs.csv). \
         `report --from benches/report/raw.csv` renders it again without measuring.\n\n\
         All figures are medians of rounds, with the least and the most of them in parentheses. \
         A ratio is always between two servers in the same round. The control is a second instance \
         of the reference, measured like any other server: **a difference that lies inside the \
         control's range is noise**. `c` is a C epoll loop written by hand.\n\n",
    );
    text.push_str("## What is to be reached\n\n");
    text.push_str(&table(samples, bars));
    text.push_str("\n## Where greenroom is behind\n\n");
    text.push_str(&behind(&losses(samples)));
    for part in &PARTS {
        if samples.iter().any(|sample| sample.part == part.name)
            || notes.of_part(part.name).next().is_some()
        {
            text.push_str(&section(samples, notes, part, plots));
        }
    }
    text.push_str("\n## Machine and versions\n\n");
    for note in notes.of_part(machine::PART) {
        let _ = writeln!(text, "- {}: {}", note.kind, note.text);
    }
    text
}

/// The bars and how they came out, a row for each; the work stands in the first row of its own.
pub fn table(samples: &Samples, bars: &[Bar]) -> String {
    let mut rows = Rows::new(&[
        "work",
        "measured",
        "to reach",
        "greenroom",
        "control",
        "best peer",
        "verdict",
    ]);
    let mut last_work = "";
    for bar in bars {
        let outcome = bar.judge(samples);
        let work = if bar.work == last_work { "" } else { bar.work };
        last_work = bar.work;
        rows.push([
            work.to_string(),
            bar.what.to_string(),
            goals(bar),
            figures(bar, &outcome),
            controls(&outcome),
            peer(bar, &outcome),
            verdict(&outcome),
        ]);
    }
    rows.to_string()
}

/// The same without ranges, for the front page.
pub fn summary(samples: &Samples, bars: &[Bar]) -> String {
    let mut rows = Rows::new(&["work", "to reach", "greenroom", "best peer", "verdict"]);
    for bar in bars {
        let outcome = bar.judge(samples);
        let medians: Vec<String> = outcome
            .judged
            .iter()
            .filter_map(|judged| Some(median(judged.figure?, judged.base.is_some(), bar.metric)))
            .collect();
        let peer = outcome.best_peer.as_ref().map(|(peer, spread)| {
            format!(
                "{peer} {}",
                median(*spread, peer_is_ratio(bar, peer), bar.metric)
            )
        });
        rows.push([
            format!("{}; {}", bar.work, bar.what),
            goals(bar),
            if medians.is_empty() {
                "-".to_string()
            } else {
                medians.join("; ")
            },
            peer.unwrap_or_else(|| "-".to_string()),
            outcome.verdict.text().to_string(),
        ]);
    }
    rows.to_string()
}

fn median(spread: Spread, is_ratio: bool, metric: &str) -> String {
    if is_ratio {
        return format!("{:.2}", spread.median);
    }
    with_unit(spread.median, metric)
}

/// Whether the best peer's figure is a ratio. Of the peer that is itself the base it would be 1,
/// which says nothing: its value does.
fn peer_is_ratio(bar: &Bar, peer: &str) -> bool {
    matches!(bar.goals[0].against, Against::Server(base) if base != peer)
}

/// What was measured in the cases of one run, for whoever watches: the metric that counts, and the
/// ratio to the reference.
pub fn progress(samples: &Samples, part: &Part) -> String {
    let mut text = String::new();
    let mut metrics = metrics(samples, part.name);
    metrics.sort_by_key(|metric| *metric != part.metric);
    for case in cases(samples, part.name) {
        let measured = |metric: &&str| !servers(samples, part.name, case, metric).is_empty();
        let Some(metric) = metrics.iter().copied().find(measured) else {
            continue;
        };
        let _ = writeln!(text, "  {case}: {metric}, ratio to {}", part.reference);
        for server in servers(samples, part.name, case, metric) {
            let series = Series {
                part: part.name,
                case,
                server,
                metric,
            };
            let reference = Series {
                server: part.reference,
                ..series
            };
            let median = value(samples, series).map_or_else(String::new, |v| number(v.median));
            let ratio = ratio(samples, series, reference)
                .map_or_else(String::new, |spread| figure(spread, true, metric));
            let line = format!("    {server:22} {median:>14}   {ratio}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

fn goals(bar: &Bar) -> String {
    let goals: Vec<String> = bar
        .goals
        .iter()
        .map(|goal| {
            let (words, limit) = match goal.limit {
                Limit::AtMost(limit) => ("at most", limit),
                Limit::AtLeast(limit) => ("at least", limit),
            };
            match goal.against {
                Against::Itself => format!("{words} {}", limit_text(limit, bar.metric)),
                Against::Server(server) => format!("{words} {limit:.2} of {server}"),
                Against::BestPeer => format!("{words} {limit:.2} of the best peer"),
                Against::Case(case) => format!("{words} {limit:.2} of `{case}`"),
            }
        })
        .collect();
    goals.join(", or ")
}

fn figures(bar: &Bar, outcome: &Outcome) -> String {
    let figures: Vec<String> = outcome
        .judged
        .iter()
        .filter_map(|judged| Some(figure(judged.figure?, judged.base.is_some(), bar.metric)))
        .collect();
    if figures.is_empty() {
        return "-".to_string();
    }
    format!("**{}**", figures.join("; "))
}

fn controls(outcome: &Outcome) -> String {
    let control = outcome.judged.iter().find_map(|judged| judged.control);
    control.map_or("-".to_string(), |Spread { least, most, .. }| {
        format!("{least:.3} to {most:.3}")
    })
}

fn peer(bar: &Bar, outcome: &Outcome) -> String {
    let Some((peer, spread)) = &outcome.best_peer else {
        return "-".to_string();
    };
    format!(
        "{peer} {}",
        figure(*spread, peer_is_ratio(bar, peer), bar.metric)
    )
}

fn verdict(outcome: &Outcome) -> String {
    let best = outcome.judged.iter().max_by_key(|judged| judged.verdict);
    let noise = best.is_some_and(Judged::is_noise);
    let text = outcome.verdict.text();
    match text {
        "reached" if noise => "reached; the difference to the reference is noise".to_string(),
        _ => text.to_string(),
    }
}

fn figure(spread: Spread, is_ratio: bool, metric: &str) -> String {
    let Spread {
        median,
        least,
        most,
    } = spread;
    if is_ratio {
        return format!("{median:.3} ({least:.3} to {most:.3})");
    }
    format!(
        "{} ({} to {})",
        with_unit(median, metric),
        number(least),
        number(most)
    )
}

fn behind(losses: &[Loss<'_>]) -> String {
    if losses.is_empty() {
        return "Nowhere in what was measured.\n".to_string();
    }
    let mut rows = Rows::new(&[
        "part",
        "case",
        "metric",
        "server",
        "ratio",
        "to",
        "in each round",
    ]);
    for loss in losses.iter().take(LOSSES_MAX) {
        rows.push([
            loss.series.part.to_string(),
            loss.series.case.to_string(),
            loss.series.metric.to_string(),
            loss.series.server.to_string(),
            figure(loss.ratio, true, loss.series.metric),
            loss.ahead.to_string(),
            if loss.in_each_round { "yes" } else { "no" }.to_string(),
        ]);
    }
    let mut text = format!(
        "Each figure in which a peer or the floor has the better median, worst first: greenroom's \
         ratio to the one that is furthest ahead.\n\n{rows}"
    );
    if losses.len() > LOSSES_MAX {
        let _ = writeln!(text, "\nAnd {} more.", losses.len() - LOSSES_MAX);
    }
    text
}

fn section(
    samples: &Samples,
    notes: &Notes,
    part: &Part,
    plots: &[(&'static str, String)],
) -> String {
    let mut text = format!("\n## {}\n\n{}\n\n", part.title, part.what);
    for note in notes.of_part(part.name) {
        let _ = writeln!(text, "- {}: {}", note.kind, note.text);
    }
    text.push('\n');
    for (_, file) in plots.iter().filter(|(name, _)| *name == part.name) {
        let _ = writeln!(text, "![{}]({file})\n", part.title);
    }
    let mut names = metrics(samples, part.name);
    // The one that counts comes first, the others are folded away.
    names.sort_by_key(|metric| *metric != part.metric);
    for metric in names {
        let table = metric_table(samples, part, metric);
        if metric == part.metric {
            let _ = writeln!(text, "### {metric}\n\n{table}");
        } else {
            let _ = writeln!(
                text,
                "<details><summary>{metric}</summary>\n\n{table}\n</details>\n"
            );
        }
    }
    text
}

fn metric_table(samples: &Samples, part: &Part, metric: &str) -> String {
    let to_reference = format!("ratio to {}", part.reference);
    let mut rows = Rows::new(&[
        "case",
        "server",
        metric,
        "least to most",
        &to_reference,
        "ratio to the best peer",
    ]);
    for case in cases(samples, part.name) {
        let best = best_peer(samples, part.name, case, metric).map(|(series, _)| series);
        for (n, server) in servers(samples, part.name, case, metric)
            .into_iter()
            .enumerate()
        {
            let series = Series {
                part: part.name,
                case,
                server,
                metric,
            };
            let Some(spread) = value(samples, series) else {
                continue;
            };
            let reference = Series {
                server: part.reference,
                ..series
            };
            let ratio_to = |base: Option<Series<'_>>| {
                if base == Some(series) {
                    return "1".to_string();
                }
                base.and_then(|base| ratio(samples, series, base))
                    .map_or("-".to_string(), |spread| figure(spread, true, metric))
            };
            rows.push([
                if n == 0 { case } else { "" }.to_string(),
                server.to_string(),
                number(spread.median),
                format!("{} to {}", number(spread.least), number(spread.most)),
                ratio_to(Some(reference)),
                ratio_to(best),
            ]);
        }
    }
    rows.to_string()
}

/// A value with the unit that its metric names.
fn with_unit(value: f64, metric: &str) -> String {
    format!("{} {}", number(value), unit(metric))
}

/// A limit, which has no digits of precision to show.
fn limit_text(limit: f64, metric: &str) -> String {
    let digits = if limit >= 1000.0 {
        number(limit)
    } else {
        limit.to_string()
    };
    format!("{digits} {}", unit(metric))
}

fn unit(metric: &str) -> &str {
    match metric {
        "per second" => "a second",
        "fairness" => "of the mean",
        "syscalls" | "lost" => metric,
        "bytes used" => "bytes",
        _ => metric.rsplit(' ').next().unwrap_or(metric),
    }
}

/// Three or more significant digits; thousands are grouped.
pub fn number(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude == 0.0 {
        return "0".to_string();
    }
    if magnitude < 10.0 {
        return format!("{value:.3}");
    }
    if magnitude < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{magnitude:.0}");
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if value < 0.0 {
        format!("-{grouped}")
    } else {
        grouped
    }
}

/// A Markdown table with columns padded, which can be read as it is too.
struct Rows {
    rows: Vec<Vec<String>>,
}

impl Rows {
    fn new(header: &[&str]) -> Rows {
        Rows {
            rows: vec![header.iter().map(|cell| cell.to_string()).collect()],
        }
    }

    fn push<const N: usize>(&mut self, row: [String; N]) {
        assert_eq!(N, self.rows[0].len(), "a row has a cell for each column");
        self.rows.push(row.to_vec());
    }
}

impl std::fmt::Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for (n, row) in self.rows.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if n == 0 {
                for width in &widths {
                    write!(f, "|{}", "-".repeat(width + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits_and_group_thousands() {
        let numbers = [0.0, 1.0194, 42.26, 999.6, 1234567.0, -1500.0].map(number);
        assert_eq!(
            numbers,
            ["0", "1.019", "42.3", "1,000", "1,234,567", "-1,500"]
        );
    }

    #[test]
    fn the_table_says_what_is_reached() {
        use crate::report::bars::BARS;

        let case = "echo,64 B; 100 connections";
        let csv = format!(
            "{case},c,0,cpu ns,100\n{case},c again,0,cpu ns,101\n{case},greenroom,0,cpu ns,90
{case},mio,0,cpu ns,105
echo,16 KiB; 100 connections,c,0,cpu ns,100
echo,16 KiB; 100 connections,greenroom,0,cpu ns,120"
        );
        let samples = Samples::parse_csv(&csv).unwrap();
        let table = table(&samples, &BARS);
        let row = |what: &str| {
            let row = table.lines().find(|line| line.contains(what)).unwrap();
            let words: Vec<&str> = row.split_whitespace().collect();
            words.join(" ")
        };
        assert!(row("| 100 connections").ends_with(
            "| 100 connections | at most 1.02 of c | **0.900 (0.900 to 0.900)** | 1.010 to 1.010 \
             | mio 1.050 (1.050 to 1.050) | reached |"
        ));
        assert!(row("| 16 KiB").ends_with("| - | - | falls short |"));
        assert!(row("| 1,000 connections").ends_with("| - | - | - | not measured |"));
        assert_eq!(table.lines().count(), BARS.len() + 2);
        assert!(summary(&samples, &BARS).contains("| mio 1.05"));
    }

    #[test]
    fn the_report_has_each_part_with_its_failures() {
        let samples = Samples::parse_csv(
            "http,a,hyper,0,cpu ns,800\nhttp,a,greenroom,0,cpu ns,1000\nhttp,a,hyper,0,p99 us,5",
        )
        .unwrap();
        let mut notes = Notes::new();
        notes.push("http", "failed", "ntex: does not answer");
        let plots = [("http", "http.svg".to_string())];
        let report = report(&samples, &notes, &[], &plots);
        for part in [
            "## HTTP",
            "- failed: ntex: does not answer",
            "![HTTP](http.svg)",
            "<details><summary>p99 us</summary>",
            "1.250 (1.250 to 1.250) | hyper",
        ] {
            assert!(report.contains(part), "no {part:?} in\n{report}");
        }
        assert!(!report.contains("## Echo"));
    }

    #[test]
    fn a_metric_names_its_unit() {
        assert_eq!(with_unit(400.0, "cpu ns"), "400 ns");
        assert_eq!(with_unit(48.0, "bytes used"), "48.0 bytes");
        assert_eq!(with_unit(0.0, "lost"), "0 lost");
    }
}
