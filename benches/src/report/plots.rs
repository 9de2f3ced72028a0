//! The plots of a report, as SVG.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::catalogue::{PARTS, Part, Plot};
use crate::report::markdown::number;
use crate::report::statistics::{Spread, cases, is_peer, metrics, ratio, servers, value};
use crate::samples::{Samples, Series};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const WIDTH: i32 = 860;
/// Where the bars begin, right of the servers' names, and where they end at the most.
const LEFT: i32 = 190;
const RIGHT: i32 = 720;
const ROW: i32 = 20;
const TEXT_SIZE: i32 = 13;

const OURS: RGBColor = RGBColor(0x1b, 0x7f, 0x4b);
const FLOOR: RGBColor = RGBColor(0x55, 0x55, 0x55);
const PEER: RGBColor = RGBColor(0x8f, 0xa8, 0xc8);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// Where the axis of ratios ends at the latest: one server that is ten times as slow would leave
/// nothing to be seen of the others. A bar that ends there says by its figure how long it is.
const RATIO_MAX: f64 = 3.0;
/// For lines of several peers, which have to be told apart.
const PEERS: [RGBColor; 8] = [
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
    RGBColor(0xe3, 0x77, 0xc2),
    RGBColor(0xbc, 0xbd, 0x22),
    RGBColor(0x17, 0xbe, 0xcf),
];
/// The percentiles that a latency has, in the order of the axis.
const PERCENTILES: [&str; 4] = ["p50 us", "p90 us", "p99 us", "p99.9 us"];

/// The plots of all parts that have samples: the part's name, the file's name and its content.
pub fn all(samples: &Samples) -> Vec<(&'static str, String, String)> {
    PARTS
        .iter()
        .filter_map(|part| {
            let svg = draw(samples, part)?;
            Some((part.name, format!("{}.svg", part.name), svg))
        })
        .collect()
}

/// One part's plot; none without samples of its metric.
fn draw(samples: &Samples, part: &Part) -> Option<String> {
    if part.plot == Plot::Percentiles {
        return percentiles(samples, part);
    }
    let groups: Vec<(&str, Vec<(&str, Spread)>)> = cases(samples, part.name)
        .into_iter()
        .map(|case| (case, bars_of(samples, part, case)))
        .filter(|(_, bars)| !bars.is_empty())
        .collect();
    if groups.is_empty() {
        return None;
    }
    let title = match part.plot {
        Plot::Ratios => format!("{}: {}, {} = 1", part.title, part.metric, part.reference),
        _ => format!("{}: {}, logarithmic", part.title, part.metric),
    };
    Some(svg(bars_height(&groups), |area| {
        bars(area, &title, &groups, part.plot)
    }))
}

/// The bars of one case, best last so that the eye finds the reference at the top.
fn bars_of<'a>(samples: &'a Samples, part: &Part, case: &'a str) -> Vec<(&'a str, Spread)> {
    servers(samples, part.name, case, part.metric)
        .into_iter()
        .filter_map(|server| {
            let series = Series {
                part: part.name,
                case,
                server,
                metric: part.metric,
            };
            let reference = Series {
                server: part.reference,
                ..series
            };
            let spread = match part.plot {
                Plot::Ratios => ratio(samples, series, reference)?,
                _ => value(samples, series)?,
            };
            Some((server, spread))
        })
        .collect()
}

/// An SVG of the usual width, drawn by `draw`.
fn svg(height: i32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut text = String::new();
    let area =
        SVGBackend::with_string(&mut text, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)
        .and_then(|()| draw(&area))
        .and_then(|()| area.present())
        .expect("drawing into a string does no I/O");
    drop(area);
    text
}

fn colour(server: &str) -> RGBColor {
    if server.starts_with("greenroom") {
        OURS
    } else if is_peer(server) {
        PEER
    } else {
        FLOOR
    }
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: i32) -> Drawn {
    area.draw(&Text::new(
        text.to_string(),
        at,
        ("sans-serif", size).into_font(),
    ))
}

fn bars_height(groups: &[(&str, Vec<(&str, Spread)>)]) -> i32 {
    let rows: usize = groups.iter().map(|(_, bars)| bars.len() + 2).sum();
    60 + ROW * rows as i32
}

fn bars(area: &Area<'_>, title: &str, groups: &[(&str, Vec<(&str, Spread)>)], plot: Plot) -> Drawn {
    let axis = Axis::of(groups, plot);
    text(area, title, (12, 10), 16)?;
    let mut y = 40;
    for (case, bars) in groups {
        text(area, case, (12, y), TEXT_SIZE)?;
        y += ROW;
        let bottom = y + ROW * bars.len() as i32;
        for tick in axis.ticks() {
            let x = axis.x(tick);
            let line = vec![(x, y), (x, bottom)];
            area.draw(&PathElement::new(line, GRID.stroke_width(1)))?;
            text(area, &label(tick), (x + 2, bottom), 10)?;
        }
        for (server, spread) in bars {
            text(area, server, (24, y + 2), TEXT_SIZE)?;
            let bar = [(LEFT, y + 3), (axis.x(spread.median), y + ROW - 4)];
            area.draw(&Rectangle::new(bar, colour(server).filled()))?;
            error_bar(area, &axis, *spread, y + ROW / 2)?;
            let figure = number(spread.median);
            text(area, &figure, (axis.x(spread.most) + 8, y + 2), TEXT_SIZE)?;
            y += ROW;
        }
        y += ROW;
    }
    Ok(())
}

/// From the least to the most of the rounds.
fn error_bar(area: &Area<'_>, axis: &Axis, spread: Spread, y: i32) -> Drawn {
    let (least, most) = (axis.x(spread.least), axis.x(spread.most));
    for line in [
        vec![(least, y), (most, y)],
        vec![(least, y - 4), (least, y + 4)],
        vec![(most, y - 4), (most, y + 4)],
    ] {
        area.draw(&PathElement::new(line, BLACK.stroke_width(1)))?;
    }
    Ok(())
}

/// Where a value stands, from LEFT to RIGHT.
struct Axis {
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Axis {
    fn of(groups: &[(&str, Vec<(&str, Spread)>)], plot: Plot) -> Axis {
        let spreads = || {
            groups
                .iter()
                .flat_map(|(_, bars)| bars.iter().map(|(_, bar)| bar))
        };
        let most = spreads().map(|spread| spread.most).fold(0.0, f64::max);
        if plot == Plot::Ratios {
            return Axis {
                from: 0.0,
                to: most.clamp(1.0, RATIO_MAX),
                logarithmic: false,
            };
        }
        let positive = spreads()
            .map(|spread| spread.least)
            .filter(|value| *value > 0.0);
        let least = positive.fold(f64::INFINITY, f64::min).min(most.max(1.0));
        let from = 10_f64.powf(least.max(1e-3).log10().floor());
        Axis {
            // A bar of the least value still has to be seen.
            from: if least == from { from / 10.0 } else { from },
            to: 10_f64.powf(most.max(1e-2).log10().ceil()).max(from * 10.0),
            logarithmic: true,
        }
    }

    fn x(&self, value: f64) -> i32 {
        let part = if self.logarithmic {
            (value.max(self.from) / self.from).log10() / (self.to / self.from).log10()
        } else {
            (value - self.from) / (self.to - self.from)
        };
        LEFT + (part.clamp(0.0, 1.0) * f64::from(RIGHT - LEFT)) as i32
    }

    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = (self.to / self.from).log10().round() as i32;
            return (0..=decades).map(|n| self.from * 10_f64.powi(n)).collect();
        }
        // Five to ten steps of 1, 2 or 5 times a power of ten.
        let rough = (self.to - self.from) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [5.0, 2.0, 1.0]
            .into_iter()
            .map(|factor| factor * power)
            .find(|step| *step <= rough)
            .unwrap_or(power);
        let count = ((self.to - self.from) / step).floor() as i32;
        (0..=count)
            .map(|n| self.from + f64::from(n) * step)
            .collect()
    }
}

/// A tick's value without digits that say nothing.
fn label(tick: f64) -> String {
    if tick.abs() >= 10.0 {
        return number(tick);
    }
    let text = format!("{tick:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The latency of each server over the percentiles, a panel for each case.
fn percentiles(samples: &Samples, part: &Part) -> Option<String> {
    let panels: Vec<(&str, Vec<Line<'_>>)> = cases(samples, part.name)
        .into_iter()
        .map(|case| (case, lines(samples, part, case)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    if panels.is_empty() {
        return None;
    }
    let height = 340;
    Some(svg(height * panels.len() as i32, |area| {
        let panes = area.split_evenly((panels.len(), 1));
        for (pane, (case, lines)) in panes.iter().zip(&panels) {
            panel(pane, &format!("{}: {case}", part.title), lines)?;
        }
        Ok(())
    }))
}

/// A server's medians, with the percentile's place on the axis.
struct Line<'a> {
    server: &'a str,
    points: Vec<(usize, Spread)>,
}

fn lines<'a>(samples: &'a Samples, part: &Part, case: &'a str) -> Vec<Line<'a>> {
    let known = metrics(samples, part.name);
    servers(samples, part.name, case, part.metric)
        .into_iter()
        .map(|server| Line {
            server,
            points: PERCENTILES
                .into_iter()
                .enumerate()
                .filter(|(_, metric)| known.contains(metric))
                .filter_map(|(place, metric)| {
                    let series = Series {
                        part: part.name,
                        case,
                        server,
                        metric,
                    };
                    Some((place, value(samples, series)?))
                })
                .collect(),
        })
        .collect()
}

fn panel(area: &Area<'_>, title: &str, lines: &[Line<'_>]) -> Drawn {
    let spreads = || {
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(|(_, spread)| spread))
    };
    let most = spreads().map(|spread| spread.most).fold(1.0, f64::max);
    let least = spreads().map(|spread| spread.least).fold(most, f64::min);
    let (top, bottom) = (50, 290);
    let (from, to) = (least.max(1e-3).log10().floor(), most.log10().ceil());
    let to = to.max(from + 1.0);
    let y = |us: f64| {
        bottom - ((us.max(1e-3).log10() - from) / (to - from) * f64::from(bottom - top)) as i32
    };
    let x = |place: usize| 90 + 170 * place as i32;

    text(area, &format!("{title}, us, logarithmic"), (12, 10), 16)?;
    for decade in from as i32..=to as i32 {
        let us = 10_f64.powi(decade);
        let line = vec![(x(0), y(us)), (x(3), y(us))];
        area.draw(&PathElement::new(line, GRID.stroke_width(1)))?;
        text(area, &label(us), (12, y(us) - 7), TEXT_SIZE)?;
    }
    for (place, name) in PERCENTILES.into_iter().enumerate() {
        let name = name.trim_end_matches(" us");
        text(area, name, (x(place) - 12, bottom + 12), TEXT_SIZE)?;
    }
    let mut peers = PEERS.into_iter().cycle();
    for (n, line) in lines.iter().enumerate() {
        let colour = match colour(line.server) {
            PEER => peers.next().unwrap_or(PEER),
            known => known,
        };
        let width = if colour == OURS { 3 } else { 2 };
        let points: Vec<(i32, i32)> = line
            .points
            .iter()
            .map(|(place, spread)| (x(*place), y(spread.median)))
            .collect();
        area.draw(&PathElement::new(points, colour.stroke_width(width)))?;
        for (place, spread) in &line.points {
            let range = vec![(x(*place), y(spread.least)), (x(*place), y(spread.most))];
            area.draw(&PathElement::new(range, colour.stroke_width(1)))?;
        }
        let row = top + 18 * n as i32;
        let swatch = vec![(640, row + 7), (664, row + 7)];
        area.draw(&PathElement::new(swatch, colour.stroke_width(width)))?;
        text(area, line.server, (672, row), TEXT_SIZE)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(csv: &str) -> Vec<(&'static str, String, String)> {
        all(&Samples::parse_csv(csv).unwrap())
    }

    #[test]
    fn each_part_with_samples_has_a_plot() {
        let plots = drawn(
            "echo,a,c,0,cpu ns,100\necho,a,greenroom & co,0,cpu ns,150
latency,b,c,0,p50 us,10\nlatency,b,c,0,p99 us,1000
idle,c,c,0,bytes,0\nidle,c,greenroom,0,bytes,48",
        );
        let names: Vec<&str> = plots.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!(names, ["echo.svg", "latency.svg", "idle.svg"]);
        for (_, name, svg) in &plots {
            assert!(svg.starts_with("<svg "), "{name}");
            assert!(svg.trim_end().ends_with("</svg>"), "{name}");
        }
        assert!(plots[0].2.contains("greenroom &amp; co"));
        assert!(plots[0].2.contains("1.500"));
    }

    #[test]
    fn a_value_of_nothing_has_a_place_on_a_logarithmic_axis() {
        for csv in ["idle,a,c,0,bytes,0", "idle,a,c,0,bytes,-5"] {
            assert_eq!(drawn(csv).len(), 1);
        }
    }

    #[test]
    fn ticks_are_round_numbers_within_the_axis() {
        let axis = |from, to, logarithmic| Axis {
            from,
            to,
            logarithmic,
        };
        assert_eq!(axis(0.0, 1.1, false).ticks().len(), 6);
        assert_eq!(axis(1.0, 1000.0, true).ticks(), [1.0, 10.0, 100.0, 1000.0]);
        assert_eq!(axis(1.0, 100.0, true).x(10.0), (LEFT + RIGHT) / 2);
    }
}
