//! Whether the bars are reached, and where greenroom is behind.

use crate::catalogue;
use crate::report::bars::{Against, Bar, Goal, Limit};
use crate::report::statistics::{
    Spread, best_peer, control, less_is_better, ratio, servers, value,
};
use crate::samples::{Samples, Series};

/// How a bar came out. In ascending order: of several goals, the best counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There are no samples.
    NotMeasured,
    /// Beyond the limit.
    FallsShort,
    /// Beyond the limit, by no more than the reference differs from itself.
    WithinNoise,
    /// The median meets the limit.
    Reached,
}

impl Verdict {
    /// As the report says it.
    pub fn text(self) -> &'static str {
        match self {
            Verdict::NotMeasured => "not measured",
            Verdict::FallsShort => "falls short",
            Verdict::WithinNoise => "within noise",
            Verdict::Reached => "reached",
        }
    }
}

/// How one goal of a bar came out.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The goal.
    pub goal: Goal,
    /// The server of the ratio, if the goal is a ratio.
    pub base: Option<String>,
    /// The ratio or the value, if there are samples.
    pub figure: Option<Spread>,
    /// What the reference is to itself, if it ran twice.
    pub control: Option<Spread>,
    /// Whether the figure meets the limit.
    pub verdict: Verdict,
}

/// How a bar came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Each of its goals.
    pub judged: Vec<Judged>,
    /// The best peer and its figure, of the same kind as that of the first goal.
    pub best_peer: Option<(String, Spread)>,
    /// The best of all goals.
    pub verdict: Verdict,
}

impl Bar {
    fn series(&self) -> Series<'static> {
        Series {
            part: self.part,
            case: self.case,
            server: self.server,
            metric: self.metric,
        }
    }

    /// Holds the samples against the bar.
    pub fn judge(&self, samples: &Samples) -> Outcome {
        let judged: Vec<Judged> = self
            .goals
            .iter()
            .map(|&goal| self.judge_goal(goal, samples))
            .collect();
        let verdict = judged.iter().map(|judged| judged.verdict).max();
        let best_peer =
            best_peer(samples, self.part, self.case, self.metric).and_then(|(peer, value)| {
                let figure = match self.goals[0].against {
                    Against::Server(server) if server != peer.server => {
                        ratio(samples, peer, Series { server, ..peer })?
                    }
                    _ => value,
                };
                Some((peer.server.to_string(), figure))
            });
        Outcome {
            judged,
            best_peer,
            verdict: verdict.unwrap_or(Verdict::NotMeasured),
        }
    }

    fn judge_goal(&self, goal: Goal, samples: &Samples) -> Judged {
        let ours = self.series();
        let base = match goal.against {
            Against::Itself => None,
            Against::Server(server) => Some(Series { server, ..ours }),
            Against::Case(case) => Some(Series { case, ..ours }),
            Against::BestPeer => {
                best_peer(samples, self.part, self.case, self.metric).map(|(peer, _)| peer)
            }
        };
        let figure = match (goal.against, base) {
            (Against::Itself, _) => value(samples, ours),
            (_, Some(base)) => ratio(samples, ours, base),
            (_, None) => None,
        };
        let control = base.and_then(|base| noise(samples, base));
        let verdict = match figure {
            None => Verdict::NotMeasured,
            Some(figure) if goal.limit.met(figure.median) => Verdict::Reached,
            Some(figure)
                if control
                    .is_some_and(|control| goal.limit.missed_by_noise(figure.median, control)) =>
            {
                Verdict::WithinNoise
            }
            Some(_) => Verdict::FallsShort,
        };
        Judged {
            goal,
            base: base.map(|base| match goal.against {
                Against::Case(case) => case.to_string(),
                _ => base.server.to_string(),
            }),
            figure,
            control,
            verdict,
        }
    }
}

/// What a difference to `base` has to exceed: what `base` is to itself, or the part's reference,
/// when only that one ran twice.
fn noise(samples: &Samples, base: Series<'_>) -> Option<Spread> {
    control(samples, base).or_else(|| {
        let server = catalogue::part(base.part)?.reference;
        control(samples, Series { server, ..base })
    })
}

impl Limit {
    fn met(self, value: f64) -> bool {
        match self {
            Limit::AtMost(limit) => value <= limit,
            Limit::AtLeast(limit) => value >= limit,
        }
    }

    /// Whether a ratio beyond the limit could as well be that of two equals, when `control` is.
    /// Where more is asked for than to be equal, whether it could be that of two which differ by
    /// the limit.
    fn missed_by_noise(self, ratio: f64, control: Spread) -> bool {
        match self {
            Limit::AtMost(limit) => control.contains(ratio / limit.min(1.0)),
            Limit::AtLeast(limit) => control.contains(ratio / limit.max(1.0)),
        }
    }
}

impl Judged {
    /// Whether the reference differs from itself by as much as this figure from 1.
    pub fn is_noise(&self) -> bool {
        match (self.figure, self.control) {
            (Some(figure), Some(control)) => control.contains(figure.median),
            _ => false,
        }
    }
}

/// A case in which somebody is ahead of greenroom.
#[derive(Clone, Debug)]
pub struct Loss<'a> {
    /// Of greenroom.
    pub series: Series<'a>,
    /// Who is ahead.
    pub ahead: &'a str,
    /// greenroom's figure to theirs.
    pub ratio: Spread,
    /// Whether greenroom was behind in each round, not in the median only.
    pub in_each_round: bool,
}

/// All cases and metrics in which a peer or the floor has a better median, worst first.
pub fn losses(samples: &Samples) -> Vec<Loss<'_>> {
    let mut seen: Vec<Series<'_>> = Vec::new();
    for sample in samples.iter() {
        let series = Series {
            part: &sample.part,
            case: &sample.case,
            server: &sample.server,
            metric: &sample.metric,
        };
        if series.server.starts_with("greenroom") && !seen.contains(&series) {
            seen.push(series);
        }
    }
    let mut losses: Vec<Loss<'_>> = seen
        .into_iter()
        .filter_map(|ours| loss(samples, ours))
        .collect();
    let badness = |loss: &Loss<'_>| {
        let ratio = loss.ratio.median;
        if less_is_better(loss.series.metric) {
            ratio
        } else {
            1.0 / ratio
        }
    };
    losses.sort_by(|a, b| badness(b).total_cmp(&badness(a)));
    losses
}

/// Against the one that is furthest ahead of `ours`, if anybody is.
fn loss<'a>(samples: &'a Samples, ours: Series<'a>) -> Option<Loss<'a>> {
    let Series {
        part, case, metric, ..
    } = ours;
    let less = less_is_better(metric);
    let behind = |ratio: f64| if less { ratio > 1.0 } else { ratio < 1.0 };
    servers(samples, part, case, metric)
        .into_iter()
        .filter(|server| !server.starts_with("greenroom") && !server.ends_with(" again"))
        .filter_map(|server| Some((server, ratio(samples, ours, Series { server, ..ours })?)))
        .filter(|(_, ratio)| behind(ratio.median))
        .max_by(|(_, a), (_, b)| {
            let order = a.median.total_cmp(&b.median);
            if less { order } else { order.reverse() }
        })
        .map(|(ahead, ratio)| Loss {
            series: ours,
            ahead,
            ratio,
            in_each_round: behind(ratio.least) && behind(ratio.most),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::bars::Against;

    /// The C loop once at 100 and once at 200, its control 3 % off, a peer, and ours.
    fn samples(ours: [f64; 2]) -> Samples {
        let csv = format!(
            "echo,a,c,0,cpu ns,100
echo,a,c,1,cpu ns,200
echo,a,c again,0,cpu ns,97
echo,a,c again,1,cpu ns,206
echo,a,mio,0,cpu ns,105
echo,a,mio,1,cpu ns,210
echo,a,greenroom,0,cpu ns,{}
echo,a,greenroom,1,cpu ns,{}",
            ours[0], ours[1]
        );
        Samples::parse_csv(&csv).unwrap()
    }

    fn bar(goals: &'static [Goal]) -> Bar {
        Bar {
            work: "echo",
            what: "a",
            server: "greenroom",
            part: "echo",
            case: "a",
            metric: "cpu ns",
            goals,
        }
    }

    const AT_MOST_1_02: &[Goal] = &[Goal {
        against: Against::Server("c"),
        limit: Limit::AtMost(1.02),
    }];

    fn verdict(ours: [f64; 2]) -> Verdict {
        bar(AT_MOST_1_02).judge(&samples(ours)).verdict
    }

    #[test]
    fn a_median_within_the_limit_reaches_it() {
        assert_eq!(verdict([90.0, 180.0]), Verdict::Reached);
        let judged = bar(AT_MOST_1_02).judge(&samples([90.0, 180.0])).judged;
        assert!(!judged[0].is_noise(), "0.9 lies outside 0.97 to 1.03");
        let judged = bar(AT_MOST_1_02).judge(&samples([101.0, 202.0])).judged;
        assert_eq!(judged[0].verdict, Verdict::Reached);
        assert!(judged[0].is_noise());
    }

    #[test]
    fn beyond_the_limit_and_inside_the_control_is_noise() {
        assert_eq!(verdict([102.5, 205.0]), Verdict::WithinNoise);
        assert_eq!(verdict([104.0, 208.0]), Verdict::FallsShort);
    }

    #[test]
    fn without_samples_nothing_is_said() {
        let empty = bar(AT_MOST_1_02).judge(&Samples::new());
        assert_eq!(empty.verdict, Verdict::NotMeasured);
        assert!(empty.best_peer.is_none());
    }

    #[test]
    fn one_goal_of_several_is_enough() {
        let goals: &[Goal] = &[
            Goal {
                against: Against::Server("c"),
                limit: Limit::AtMost(0.1),
            },
            Goal {
                against: Against::Itself,
                limit: Limit::AtMost(151.0),
            },
        ];
        let outcome = bar(goals).judge(&samples([100.0, 200.0]));
        assert_eq!(outcome.verdict, Verdict::Reached);
        assert_eq!(outcome.judged[0].verdict, Verdict::FallsShort);
    }

    #[test]
    fn the_noise_of_a_peer_is_that_of_the_reference() {
        let goals: &[Goal] = &[Goal {
            against: Against::BestPeer,
            limit: Limit::AtMost(1.0),
        }];
        // 2 % slower than mio, while the C loop differs from itself by 3 %.
        let outcome = bar(goals).judge(&samples([107.1, 214.2]));
        assert_eq!(outcome.judged[0].base.as_deref(), Some("mio"));
        assert_eq!(outcome.verdict, Verdict::WithinNoise);
        assert_eq!(
            bar(goals).judge(&samples([80.0, 160.0])).verdict,
            Verdict::Reached
        );
    }

    #[test]
    fn a_loss_names_who_is_furthest_ahead() {
        let behind = samples([110.0, 220.0]);
        let losses = losses(&behind);
        assert_eq!(losses.len(), 1);
        assert_eq!(losses[0].ahead, "c");
        assert!(losses[0].in_each_round);
        assert!(super::losses(&samples([90.0, 180.0])).is_empty());
    }

    #[test]
    fn more_is_better_for_rates() {
        let samples = Samples::parse_csv(
            "messages,a,tokio,0,per second,10\nmessages,a,greenroom,0,per second,15",
        )
        .unwrap();
        let bar = |limit| Bar {
            part: "messages",
            metric: "per second",
            goals: limit,
            ..bar(&[])
        };
        let reached: &[Goal] = &[Goal {
            against: Against::Server("tokio"),
            limit: Limit::AtLeast(1.2),
        }];
        let missed: &[Goal] = &[Goal {
            against: Against::Server("tokio"),
            limit: Limit::AtLeast(20.0),
        }];
        assert_eq!(bar(reached).judge(&samples).verdict, Verdict::Reached);
        assert_eq!(bar(missed).judge(&samples).verdict, Verdict::FallsShort);
        assert!(losses(&samples).is_empty());
    }
}
