//! Peers' memory beside redis-server: the same compressed pages over the same path, in turns.
//!
//! `cargo run --release -p tmem-bench --example peers -- target/bench/corpus.pages [--rounds N]` (`bench/corpus` makes the pages.) Needs root, and
//! redis-server. It makes two network namespaces joined by a pair of veth: in one are lenders, each a process, and redis-server, in the other the borrower and
//! the client of redis. In each round every side takes all blocks, gives some of them one at a time, then many with 32 under way, and says how much memory
//! it needed. Everything that was started and made is ended and removed, however it ends.
//!
//! | file | job |
//! |---|---|
//! | `network` | the namespaces and the path between them |
//! | `child` | a process that ends with its value |
//! | `content` | extents of compressed pages, as the store writes them back |
//! | `interrupt` | Ctrl-C and its kin |
//! | `lender` | the process that lends |
//! | `certificates` | TLS for both |
//! | `side` | what every side is asked, and what is wanted of it |
//! | `borrower` | our side |
//! | `redis` | the rival |
//! | `report` | medians as a table |

mod borrower;
mod certificates;
mod child;
mod content;
mod interrupt;
mod lender;
mod network;
mod redis;
mod report;
mod side;

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use tmem_bench::random::Random;

use borrower::Borrowing;
use certificates::Certificates;
use content::Content;
use network::Network;
use redis::Redis;
use side::{Round, Side, Wanted};

/// Peers' memory beside redis-server.
#[derive(Parser)]
struct Arguments {
    /// A file of real pages: bench/corpus makes one
    #[arg(required_unless_present = "lend")]
    pages: Option<PathBuf>,
    /// How often each side has its turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Blocks that are read one at a time in each round
    #[arg(long, default_value_t = 20_000)]
    alone: usize,
    /// Blocks that are read with 32 under way in each round
    #[arg(long, default_value_t = 200_000)]
    together: usize,
    /// Only these sides, by the beginnings of their names
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    #[command(flatten)]
    lender: lender::LenderArguments,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // The lenders hear of it, too, and end when nobody speaks to them any more.
    interrupt::catch()?;
    if arguments.lender.lend {
        return lender::run(&arguments.lender);
    }
    let pages = arguments.pages.as_deref().context("name a file of pages: bench/corpus makes one")?;
    ensure!(arguments.rounds > 0, "--rounds: at least one");
    let content = Arc::new(Content::of(pages)?);
    eprintln!(
        "{} blocks in {} extents, {} bytes each on average",
        content.blocks.len(),
        content.extents.len(),
        content.block_bytes() / content.blocks.len() as u64
    );
    let network = Network::make()?;
    // All threads that are started from now on are where the borrower is.
    network.enter_borrower()?;
    let mut sides = sides(&arguments, &network, &content)?;
    let mut random = Random::new(1);
    let mut rounds: Vec<Vec<Round>> = sides.iter().map(|_| Vec::new()).collect();
    for number in 1..=arguments.rounds {
        let wanted = Wanted::draw(&content, &mut random, arguments.alone, arguments.together);
        for (side, rounds) in sides.iter_mut().zip(&mut rounds) {
            eprintln!("round {number} of {}: {}", arguments.rounds, side.name());
            rounds.push(side::round(side.as_mut(), &wanted)?);
        }
    }
    let names: Vec<String> = sides.iter().map(|side| side.name().to_owned()).collect();
    println!("{}", report::table(&names, &rounds));
    Ok(())
}

/// Everybody who is compared: the borrower with one copy, the rival, and the borrower in other ways.
fn sides(arguments: &Arguments, network: &Network, content: &Arc<Content>) -> Result<Vec<Box<dyn Side>>> {
    let is_wanted = |name: &str| {
        arguments.only.is_empty() || arguments.only.iter().any(|only| name.starts_with(only.as_str()))
    };
    let certificates = Certificates::make()?;
    let mut sides: Vec<Box<dyn Side>> = Vec::new();
    for (name, copies, encrypt, certificates) in [
        ("peers", 1, false, None),
        ("2 copies", 2, false, None),
        ("TLS", 1, false, Some(&certificates)),
        ("encrypted", 1, true, None),
        ("both", 1, true, Some(&certificates)),
    ] {
        if is_wanted(name) {
            sides.push(Box::new(Borrowing::start(name, copies, encrypt, certificates, network, content)?));
        }
    }
    if is_wanted("redis") {
        // Second, so that what is compared is measured one after the other.
        let second = sides.len().min(1);
        sides.insert(second, Box::new(Redis::start(network, content)?));
    }
    ensure!(!sides.is_empty(), "--only: no side has such a name");
    Ok(sides)
}
