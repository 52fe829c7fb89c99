//! What came of it: medians of all rounds as a table.

use crate::side::{Memory, Round};

/// What was aimed at.
enum Goal {
    /// At most so many times what redis has.
    AtMost(f64),
    /// At least so many times what redis has.
    AtLeast(f64),
    /// At most this, whatever redis has.
    OwnAtMost(f64),
    Nothing,
}

struct Figure {
    name: &'static str,
    digits: usize,
    goal: Goal,
    of: fn(&Round) -> f64,
}

const FIGURES: [Figure; 9] = [
    Figure {
        name: "get of one page, nothing else under way, p50 us",
        digits: 1,
        goal: Goal::AtMost(0.8),
        of: |round| percentile_us(round, 50),
    },
    Figure { name: "the same, p99 us", digits: 1, goal: Goal::Nothing, of: |round| percentile_us(round, 99) },
    Figure {
        name: "pages/s out: extents in batches of 16; redis: SETs in one pipeline",
        digits: 0,
        goal: Goal::AtLeast(3.0),
        of: |round| round.pages_per_second_out,
    },
    Figure {
        name: "pages/s in, one thread: 32 blocks in one call; redis: GETs in a pipeline of 32, the better of two ways",
        digits: 0,
        goal: Goal::AtLeast(2.0),
        of: |round| round.pages_per_second_in,
    },
    Figure {
        name: "pages/s in, 32 threads, one block each; redis: each with a connection of its own",
        digits: 0,
        goal: Goal::Nothing,
        of: |round| round.pages_per_second_by_threads,
    },
    Figure {
        name: "memory at one lender : its blocks, as it counts it",
        digits: 3,
        goal: Goal::OwnAtMost(1.05),
        of: |round| ratio(round.whole, |memory| memory.said_bytes),
    },
    Figure {
        name: "the same, by what the process has grown",
        digits: 3,
        goal: Goal::OwnAtMost(1.05),
        of: |round| ratio(round.whole, |memory| memory.resident_bytes),
    },
    Figure {
        name: "memory when a random half has died, as it counts it",
        digits: 3,
        goal: Goal::OwnAtMost(1.05),
        of: |round| ratio(round.half, |memory| memory.said_bytes),
    },
    Figure {
        name: "the same, by what the process has grown",
        digits: 3,
        goal: Goal::Nothing,
        of: |round| ratio(round.half, |memory| memory.resident_bytes),
    },
];

fn percentile_us(round: &Round, percent: usize) -> f64 {
    let last = round.alone_ns.len().saturating_sub(1);
    round.alone_ns.get(last * percent / 100).map_or(0.0, |ns| *ns as f64 / 1000.0)
}

fn ratio(memory: Memory, of: fn(&Memory) -> u64) -> f64 {
    of(&memory) as f64 / memory.blocks_bytes.max(1) as f64
}

fn median(rounds: &[Round], of: fn(&Round) -> f64) -> f64 {
    let mut values: Vec<f64> = rounds.iter().map(of).collect();
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A line for each figure, a column for each side, in Markdown.
pub(crate) fn table(names: &[String], rounds: &[Vec<Round>]) -> String {
    let find = |wanted: &str| names.iter().position(|name| name == wanted);
    let (ours, redis) = (find("peers"), find("redis"));
    let mut lines = vec![
        format!("| figure | {} | peers : redis | goal |", names.join(" | ")),
        format!("|{}", "---|".repeat(names.len() + 3)),
    ];
    for figure in &FIGURES {
        let values: Vec<f64> = rounds.iter().map(|rounds| median(rounds, figure.of)).collect();
        let said: Vec<String> = values.iter().map(|value| format!("{value:.*}", figure.digits)).collect();
        let (compared, goal) = match (ours, redis) {
            (Some(ours), Some(redis)) => {
                let ratio = values[ours] / values[redis];
                (format!("{ratio:.2}"), verdict(&figure.goal, ratio, values[ours]))
            }
            _ => (String::new(), String::new()),
        };
        lines.push(format!("| {} | {} | {compared} | {goal} |", figure.name, said.join(" | ")));
    }
    lines.join("\n")
}

fn verdict(goal: &Goal, ratio: f64, own: f64) -> String {
    let (is_reached, goal) = match *goal {
        Goal::AtMost(most) => (ratio <= most, format!("at most {most} of redis")),
        Goal::AtLeast(least) => (ratio >= least, format!("at least {least} times redis")),
        Goal::OwnAtMost(most) => (own <= most, format!("at most {most}")),
        Goal::Nothing => return String::new(),
    };
    format!("{goal}: {}", if is_reached { "reached" } else { "not reached" })
}
