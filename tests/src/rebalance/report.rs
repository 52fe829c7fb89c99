//! The page.

use std::{fmt::Write, fs, path::Path};

use anyhow::{Context, Result};

use super::{figures::Figures, plot, run::Run, scenario::Scenario};

/// Writes `rebalance.md` and its pictures.
pub(super) fn write(docs: &Path, scenario: &Scenario, runs: &[Run], figures: &Figures) -> Result<()> {
    let pictures = docs.join("rebalance");
    fs::create_dir_all(&pictures).with_context(|| format!("cannot make {}", pictures.display()))?;
    let most = plot::most(runs);
    for run in runs {
        plot::draw(&pictures.join(format!("{}.svg", run.arrangement.name())), scenario, run, most)?;
    }
    let page = docs.join("rebalance.md");
    fs::write(&page, text(scenario, figures)).with_context(|| format!("cannot write {}", page.display()))
}

fn text(scenario: &Scenario, figures: &Figures) -> String {
    let phase = scenario.phase.as_secs();
    let mut text = format!(
        "# Machines of the wrong size become right\n\n\
         `scripts/rebalance-demo` writes this page. Two QEMU guests (a stock 6.12 kernel, emulated, so that code runs about 13 times slower than \
         native) swap to one pool. Both were started with {ceiling} MiB and never have less than {floor}; together they may have {budget}. Each runs a program that has filled \
         {set} MiB. While it is busy it takes page after page at random, goes over it {passes} times and changes it: an operation. While it is idle it sleeps. Every page is \
         compared at the end.\n\n\
         The guest called *large* has {large} MiB at first and is idle; the one called *small* has {small} and is busy. After {phase} s they change roles, for \
         another {phase} s. Times are those of the clock on the wall. A balancer decides every five seconds, and every two while memory moves, as everywhere.\n\n\
         - *ideal*: the right sizes from the start, and roles never change. There cannot be more work.\n\
         - *none*: no balancer. *static*: one that changes nothing.\n\
         - *committed-as*: what Xen's self-ballooning did. *reuse*: ours. See [balancer.md](balancer.md).\n\n\
         | arrangement | operations | of ideal | swap-ins | full speed after the change of roles | given up while idle |\n\
         |---|---|---|---|---|---|\n",
        ceiling = scenario.ceiling_mib,
        floor = scenario.floor_mib,
        budget = scenario.budget_mib(),
        set = scenario.working_set_mib,
        passes = 8,
        large = scenario.large_mib,
        small = scenario.small_mib,
    );
    for row in &figures.rows {
        // Writing to a `String` cannot fail.
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.0}% |",
            row.arrangement.name(),
            row.work,
            figures.of_ideal(row.arrangement).map_or("-".to_owned(), |part| format!("{part:.2}")),
            row.swap_ins,
            row.recovery.map_or("never".to_owned(), |time| format!("{} s", time.as_secs())),
            row.given_up * 100.0
        );
    }
    text.push_str(
        "\nFull speed is nine tenths of the ideal arrangement's, over five seconds. Given up is the most of what the first idle guest had above its floor.\n",
    );
    for row in &figures.rows {
        let name = row.arrangement.name();
        let _ = write!(text, "\n![Memory, work and swap-ins under {name}](rebalance/{name}.svg)\n");
    }
    text
}
