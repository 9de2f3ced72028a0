//! Medians and ratios of samples.

use crate::rounds::median;
use crate::samples::{Samples, Series};

/// The median of the rounds, and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The result.
    pub median: f64,
    /// That of the round with the least.
    pub least: f64,
    /// That of the round with the most.
    pub most: f64,
}

impl Spread {
    /// Of at least one value.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        if values.is_empty() {
            return None;
        }
        let median = median(&mut values);
        Some(Spread {
            median,
            least: values[0],
            most: values[values.len() - 1],
        })
    }

    /// Whether `value` is one that the rounds could have had.
    pub fn contains(&self, value: f64) -> bool {
        (self.least..=self.most).contains(&value)
    }
}

/// The values of a series.
pub fn value(samples: &Samples, series: Series<'_>) -> Option<Spread> {
    Spread::of(samples.rounds(series).into_values())
}

/// Of each round that both have, the ratio of one to the other; a round in which the other has 0
/// has none.
pub fn ratio(samples: &Samples, of: Series<'_>, to: Series<'_>) -> Option<Spread> {
    let to = samples.rounds(to);
    Spread::of(
        samples
            .rounds(of)
            .into_iter()
            .filter_map(|(round, value)| Some((value, *to.get(&round)?)))
            .filter(|(_, to)| *to != 0.0)
            .map(|(value, to)| value / to),
    )
}

/// The ratio of `base`'s second instance to `base`, if the run had one: what is no more than noise.
pub fn control(samples: &Samples, base: Series<'_>) -> Option<Spread> {
    let again = format!("{} again", base.server);
    let again = Series {
        server: &again,
        ..base
    };
    ratio(samples, again, base)
}

/// Whether less of it is better.
pub fn less_is_better(metric: &str) -> bool {
    !matches!(metric, "per second" | "fairness")
}

/// The least that is possible, written for that alone; nobody's framework.
const FLOORS: [&str; 3] = ["c", "crossbeam", "eventfd"];

/// Whether `server` is somebody else's: neither greenroom in one of its settings, nor a floor, nor
/// a control.
pub fn is_peer(server: &str) -> bool {
    !server.starts_with("greenroom") && !FLOORS.contains(&server) && !server.ends_with(" again")
}

/// The peer with the best median of `metric`.
pub fn best_peer<'a>(
    samples: &'a Samples,
    part: &'a str,
    case: &'a str,
    metric: &'a str,
) -> Option<(Series<'a>, Spread)> {
    let medians = servers(samples, part, case, metric)
        .into_iter()
        .filter(|server| is_peer(server))
        .filter_map(|server| {
            let series = Series {
                part,
                case,
                server,
                metric,
            };
            Some((series, value(samples, series)?))
        });
    let by_median = |(_, a): &(_, Spread), (_, b): &(_, Spread)| a.median.total_cmp(&b.median);
    if less_is_better(metric) {
        medians.min_by(by_median)
    } else {
        medians.max_by(by_median)
    }
}

/// What differs among `values`, in the order in which it comes first.
fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut distinct = Vec::new();
    for value in values {
        if !distinct.contains(&value) {
            distinct.push(value);
        }
    }
    distinct
}

/// The cases of a part, in the order in which they ran.
pub fn cases<'a>(samples: &'a Samples, part: &str) -> Vec<&'a str> {
    distinct(
        samples
            .iter()
            .filter(|sample| sample.part == part)
            .map(|sample| sample.case.as_str()),
    )
}

/// The metrics of a part.
pub fn metrics<'a>(samples: &'a Samples, part: &str) -> Vec<&'a str> {
    distinct(
        samples
            .iter()
            .filter(|sample| sample.part == part)
            .map(|sample| sample.metric.as_str()),
    )
}

/// The servers of which there is `metric` in a case.
pub fn servers<'a>(samples: &'a Samples, part: &str, case: &str, metric: &str) -> Vec<&'a str> {
    distinct(
        samples
            .iter()
            .filter(|sample| sample.part == part && sample.case == case && sample.metric == metric)
            .map(|sample| sample.server.as_str()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = "
echo,a,c,0,cpu ns,100
echo,a,c,1,cpu ns,200
echo,a,c,2,cpu ns,400
echo,a,c again,0,cpu ns,99
echo,a,c again,1,cpu ns,204
echo,a,greenroom,0,cpu ns,110
echo,a,greenroom,1,cpu ns,210
echo,a,greenroom,2,cpu ns,400
echo,a,mio,0,cpu ns,120
echo,a,tokio,0,cpu ns,90";

    fn series(server: &str) -> Series<'_> {
        Series {
            part: "echo",
            case: "a",
            server,
            metric: "cpu ns",
        }
    }

    #[test]
    fn a_ratio_is_between_two_of_one_round() {
        let samples = Samples::parse_csv(CSV).unwrap();
        let ratio = ratio(&samples, series("greenroom"), series("c")).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (1.05, 1.0, 1.1));
        // Two rounds only: the control has no third.
        let control = control(&samples, series("c")).unwrap();
        assert_eq!((control.least, control.most), (0.99, 1.02));
    }

    #[test]
    fn the_best_peer_is_neither_ours_nor_the_floor() {
        let samples = Samples::parse_csv(CSV).unwrap();
        let (peer, spread) = best_peer(&samples, "echo", "a", "cpu ns").unwrap();
        assert_eq!((peer.server, spread.median), ("tokio", 90.0));
        assert!(best_peer(&samples, "echo", "a", "per second").is_none());
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        let samples = Samples::parse_csv("idle,a,c,0,bytes,0\nidle,a,mio,0,bytes,36").unwrap();
        let series = |server| Series {
            part: "idle",
            case: "a",
            server,
            metric: "bytes",
        };
        assert!(ratio(&samples, series("mio"), series("c")).is_none());
    }
}
