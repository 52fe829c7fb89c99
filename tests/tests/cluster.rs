//! Hosts that lend each other memory, and what happens to them. Host 0 borrows, its pool holds a part of its disk; the others lend.

use std::{thread, time::Duration};

use anyhow::{Context, Result, ensure};
use tmem_tests::{BeyondMemory, ClusterHosts, Etcd, Membership, Tally, Traffic};

const POOL: &str = "8M";
const LENDERS_POOL: &str = "16M";

/// 48 MiB, of which the pool has a fraction.
const PAGES: u32 = 12_288;

/// A host that borrows, and so many that lend.
fn hosts(lenders: u8, more: &str) -> Result<ClusterHosts> {
    let mut hosts = ClusterHosts::new(lenders + 1)?;
    start(&mut hosts, lenders, POOL, more)?;
    Ok(hosts)
}

/// Starts those that lend, and then the one that borrows, and waits until it reaches them.
fn start(hosts: &mut ClusterHosts, lenders: u8, pool: &str, more: &str) -> Result<()> {
    for host in 1..=lenders {
        hosts.start(host, LENDERS_POOL, "")?;
    }
    hosts.start(0, pool, more)?;
    hosts.wait_until_whole(0, usize::from(lenders))
}

/// For people, who are told how long a guest would have waited.
fn say(what: &str, tally: &Tally) {
    eprintln!(
        "{what}: {} reads, {} writes, {} refused, the longest took {} ms",
        tally.reads,
        tally.writes,
        tally.refused,
        tally.longest.as_millis()
    );
}

fn check(what: &str, tally: &Tally) -> Result<()> {
    say(what, tally);
    ensure!(tally.reads > 0 && tally.wrong == 0 && tally.read_errors == 0, "{what}: {tally:?}");
    Ok(())
}

fn host_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    Ok(total.context("no MemTotal")?.parse::<u64>()? << 10)
}

/// How long cables are pulled, in seconds: `TMEM_CUT_SECONDS`, such as `1,10,60`.
fn cuts() -> Vec<u64> {
    let said = std::env::var("TMEM_CUT_SECONDS").unwrap_or_else(|_| "1,5".to_owned());
    said.split(',').filter_map(|seconds| seconds.parse().ok()).collect()
}

#[test]
fn r1_with_two_copies_nothing_is_lost_whatever_one_of_three_lenders_does() -> Result<()> {
    let mut hosts = hosts(3, "")?;
    let mut traffic = Traffic::begin(hosts.daemon(0)?, "vm", PAGES, 1)?;
    hosts.wait_for(0, "extents", |extents| extents > 100)?;
    hosts.wait_until_whole(0, 3)?;

    let (tally, ()) = traffic.during(|| {
        hosts.kill(1)?;
        thread::sleep(Duration::from_secs(4));
        hosts.wait_until_whole(0, 2)?;
        hosts.start(1, LENDERS_POOL, "")?;
        hosts.wait_until_whole(0, 3)
    })?;
    check("kill -9 of a lender, and its return", &tally)?;
    ensure!(hosts.borrowing(0, "repaired_copies")? > 0, "{:#}", hosts.report(0)?);

    for seconds in cuts() {
        let (tally, ()) = traffic.during(|| {
            hosts.network().cut(2)?;
            thread::sleep(Duration::from_secs(seconds));
            hosts.network().mend(2)?;
            hosts.wait_until_whole(0, 3)
        })?;
        check(&format!("a link that is cut for {seconds} s"), &tally)?;
    }

    let (tally, ()) = traffic.during(|| {
        hosts.set_stopped(3, true)?;
        thread::sleep(Duration::from_secs(5));
        hosts.set_stopped(3, false)?;
        hosts.wait_until_whole(0, 3)
    })?;
    check("a lender that is stopped for 5 s", &tally)?;

    let (tally, ()) = traffic.during(|| {
        let worker = hosts.daemon(1)?.kill_worker()?;
        hosts.daemon(1)?.wait_for_worker_after(worker, Duration::from_secs(30))?;
        thread::sleep(Duration::from_secs(1));
        hosts.wait_until_whole(0, 3)
    })?;
    check("kill -9 of a lender's worker", &tally)?;

    let (tally, ()) = traffic.during(|| {
        // Half of the host is left to it, and the pool has that again: nothing is lent.
        let half = format!("reserve={}", host_bytes()? / 2);
        hosts.daemon(3)?.tmem_ok(&["set", &half])?;
        hosts.wait_for_lent(3, |lent_bytes| lent_bytes == 0)?;
        hosts.wait_until(0, |report| report["borrowing"]["wanting_extents"] == 0)?;
        hosts.daemon(3)?.tmem_ok(&["set", "reserve=auto"])?;
        hosts.wait_until_whole(0, 3)
    })?;
    check("a lender that wants its memory back", &tally)?;

    let log = traffic.during(|| hosts.stop(2))?;
    check("the orderly end of a lender", &log.0)?;
    ensure!(!log.1.iter().any(|line| line.contains("lost")), "{:?}", log.1);
    hosts.start(2, LENDERS_POOL, "")?;
    hosts.wait_until_whole(0, 3)?;

    let worker = hosts.daemon(0)?.kill_worker()?;
    hosts.daemon(0)?.wait_for_worker_after(worker, Duration::from_secs(30))?;
    traffic.connect_again()?;
    check("all of it, after the death of the borrower's worker", &traffic.read_all()?)?;
    hosts.wait_until_whole(0, 3)?;

    drop(traffic);
    hosts.daemon(0)?.tmem_ok(&["disk", "rm", "vm", "--force"])?;
    for host in 1..4 {
        hosts.wait_for_lent(host, |lent_bytes| lent_bytes == 0)?;
    }
    hosts.stop(0).map(drop)
}

/// One other host is enough, and it may do what it wants.
#[test]
fn r1_with_a_copy_on_the_disk_nothing_is_lost_whatever_the_only_lender_does() -> Result<()> {
    let mut hosts = ClusterHosts::new(2)?;
    hosts.give_disk(0);
    start(&mut hosts, 1, POOL, "")?;
    let mut traffic = Traffic::begin(hosts.daemon(0)?, "vm", PAGES, 5)?;
    hosts.wait_for(0, "extents", |extents| extents > 100)?;
    hosts.wait_until_whole(0, 1)?;
    let status = hosts.daemon(0)?.status()?;
    let tier = &status["tiers"][0];
    ensure!(tier["kind"] == "peers+file" && tier["state"] == "ready", "{tier:#}");
    check("lender and disk", &traffic.read_all()?)?;

    let (tally, ()) = traffic.during(|| {
        hosts.kill(1)?;
        thread::sleep(Duration::from_secs(4));
        hosts.wait_until(0, |report| report["borrowing"]["peers"][0]["state"] == "away")?;
        hosts.start(1, LENDERS_POOL, "")?;
        hosts.wait_until_whole(0, 1)
    })?;
    check("kill -9 of the lender, and its return", &tally)?;
    ensure!(tally.refused == 0, "what the lender does not take is on the disk: {tally:?}");
    ensure!(hosts.borrowing(0, "repaired_copies")? > 0, "{:#}", hosts.report(0)?);

    hosts.kill(1)?;
    check("all of it, with no lender left", &traffic.read_all()?)?;
    ensure!(hosts.borrowing(0, "lost_extents")? == 0, "{:#}", hosts.report(0)?);
    let worker = hosts.daemon(0)?.kill_worker()?;
    hosts.daemon(0)?.wait_for_worker_after(worker, Duration::from_secs(30))?;
    traffic.connect_again()?;
    check("the same, after the death of the borrower's worker", &traffic.read_all()?)?;

    hosts.start(1, LENDERS_POOL, "")?;
    hosts.wait_until_whole(0, 1)?;
    let (tally, ()) = traffic.during(|| {
        hosts.network().cut(1)?;
        thread::sleep(Duration::from_secs(5));
        hosts.network().mend(1)?;
        hosts.wait_until_whole(0, 1)
    })?;
    check("a link that is cut for 5 s", &tally)?;

    drop(traffic);
    hosts.daemon(0)?.tmem_ok(&["disk", "rm", "vm", "--force"])?;
    hosts.wait_for_lent(1, |lent_bytes| lent_bytes == 0)?;
    hosts.stop(0).map(drop)
}

#[test]
fn what_a_host_has_that_will_not_come_back_is_forgotten_by_command() -> Result<()> {
    let mut hosts = hosts(1, "copies = 1")?;
    let traffic = Traffic::begin(hosts.daemon(0)?, "vm", PAGES, 6)?;
    hosts.wait_for_lent(1, |lent_bytes| lent_bytes > 1 << 20)?;
    let forget = ["cluster", "forget", "node-0"];
    let refused = hosts.daemon(1)?.tmem(&forget)?;
    ensure!(refused.code == Some(1) && refused.stderr.contains("node-0 is connected"), "{}", refused.stderr);
    drop(traffic);
    hosts.kill(0)?;
    hosts.wait_until(1, |report| report["lending"]["borrowers"][0]["address"].is_null())?;
    ensure!(hosts.report(1)?["lending"]["lent_bytes"] != 0, "it may come back");
    let told = hosts.daemon(1)?.tmem_ok(&forget)?;
    ensure!(told.contains("copies of node-0 are forgotten"), "{told}");
    hosts.wait_for_lent(1, |lent_bytes| lent_bytes == 0)?;
    let again = hosts.daemon(1)?.tmem(&forget)?;
    ensure!(again.code == Some(1) && again.stderr.contains("node-0 has nothing here"), "{}", again.stderr);
    Ok(())
}

#[test]
fn r1_with_one_copy_the_pages_of_a_lender_that_is_gone_are_errors_and_no_others() -> Result<()> {
    let mut hosts = hosts(2, "copies = 1")?;
    let mut traffic = Traffic::begin(hosts.daemon(0)?, "vm", PAGES, 2)?;
    hosts.wait_for(0, "extents", |extents| extents > 100)?;
    check("both lenders there", &traffic.read_all()?)?;
    hosts.kill(1)?;
    let away = traffic.read_all()?;
    say("one of them killed", &away);
    ensure!(away.wrong == 0 && away.read_errors > 0 && away.read_errors < away.reads, "{away:?}");
    // It comes back with nothing: what it had is lost, and known to be.
    hosts.start(1, LENDERS_POOL, "")?;
    let lost = hosts.wait_for(0, "lost_extents", |lost| lost > 0)?;
    let back = traffic.read_all()?;
    say("and back, with nothing", &back);
    ensure!(back.wrong == 0 && back.read_errors > 0, "{lost} extents lost: {back:?}");
    // Those that are away are errors of the tier; those that nobody has any more count as damaged.
    let count = |field: &str| hosts.daemon(0)?.client("vm", field);
    let counted = (count("tier_errors")?, count("checksum_errors")?);
    ensure!(counted == (away.read_errors, back.read_errors), "{counted:?}");
    Ok(())
}

/// The only copies there are, at the only lender.
#[test]
fn r1_what_a_host_lends_outlives_its_worker() -> Result<()> {
    let hosts = hosts(1, "copies = 1")?;
    let mut traffic = Traffic::begin(hosts.daemon(0)?, "vm", PAGES, 7)?;
    hosts.wait_for(0, "extents", |extents| extents > 100)?;
    let epoch = hosts.report(1)?["epoch"].clone();
    let (tally, ()) = traffic.during(|| {
        // With the one below, few enough for the keeper to go on.
        for _ in 0..3 {
            let worker = hosts.daemon(1)?.kill_worker()?;
            hosts.daemon(1)?.wait_for_worker_after(worker, Duration::from_secs(30))?;
            hosts.wait_until_whole(0, 1)?;
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    })?;
    check("kill -9 of the lender's worker, three times", &tally)?;
    let (tally, ()) = traffic.during(|| {
        for _ in 0..3 {
            hosts.daemon(1)?.tmem_ok(&["upgrade"])?;
            hosts.wait_until_whole(0, 1)?;
            thread::sleep(Duration::from_secs(1));
        }
        Ok(())
    })?;
    check("upgrades of the lender", &tally)?;
    check("all of it", &traffic.read_all()?)?;
    ensure!(hosts.borrowing(0, "lost_extents")? == 0, "{:#}", hosts.report(0)?);
    ensure!(hosts.report(1)?["epoch"] == epoch, "the epoch in which it lent goes on: {:#}", hosts.report(1)?);

    // Both at once: what each has of the other's memory is found by the next one.
    let workers = [hosts.daemon(0)?.kill_worker()?, hosts.daemon(1)?.kill_worker()?];
    for (host, worker) in [0, 1].into_iter().zip(workers) {
        hosts.daemon(host)?.wait_for_worker_after(worker, Duration::from_secs(30))?;
    }
    traffic.connect_again()?;
    hosts.wait_until_whole(0, 1)?;
    check("all of it, after the death of both workers", &traffic.read_all()?)?;

    drop(traffic);
    hosts.daemon(0)?.tmem_ok(&["disk", "rm", "vm", "--force"])?;
    hosts.wait_for_lent(1, |lent_bytes| lent_bytes == 0).map(drop)
}

#[test]
fn r1_a_lender_that_has_next_to_nothing_is_passed_over_and_a_full_cluster_refuses() -> Result<()> {
    let mut hosts = ClusterHosts::new(4)?;
    for (host, lend) in [(1, "4M"), (2, "16M"), (3, "16M")] {
        hosts.start(host, LENDERS_POOL, &format!("lend = \"{lend}\""))?;
    }
    hosts.start(0, POOL, "")?;
    hosts.wait_until_whole(0, 3)?;
    // What this disk has takes more than the pool and they have for two copies of it.
    let mut traffic = Traffic::begin(hosts.daemon(0)?, "vm", 4096, 3)?;
    let (tally, ()) = traffic.during(|| {
        thread::sleep(Duration::from_secs(3));
        Ok(())
    })?;
    check("room for all", &tally)?;
    let mut more = Traffic::new(hosts.daemon(0)?, "more", PAGES, 4)?;
    let filled = more.write_all()?;
    say("more than there is room for", &filled);
    ensure!(filled.refused > 0 && filled.refused < filled.writes, "{filled:?}");
    check("what was taken", &more.read_all()?)?;
    check("what was there before", &traffic.read_all()?)?;
    for (host, most) in [(1, 4 << 20), (2, 16 << 20), (3, 16 << 20)] {
        let lending = hosts.report(host)?["lending"].clone();
        ensure!(lending["held_bytes"].as_u64().is_some_and(|held| held <= most), "{host}: {lending:#}");
    }
    Ok(())
}

#[test]
fn etcd_that_is_gone_is_no_outage_and_no_change() -> Result<()> {
    let mut hosts = ClusterHosts::new(5)?;
    let mut etcd = Etcd::start(hosts.network(), 4)?;
    hosts.set_membership(Membership::Etcd(vec![etcd.endpoint()]));
    start(&mut hosts, 2, POOL, "")?;
    let mut traffic = Traffic::begin(hosts.daemon(0)?, "vm", PAGES, 5)?;
    let (tally, ()) = traffic.during(|| {
        etcd.kill();
        thread::sleep(Duration::from_secs(15));
        Ok(())
    })?;
    check("15 s without etcd", &tally)?;
    let report = hosts.report(0)?;
    ensure!(report["is_current"] == false && report["trouble"].is_string(), "{report:#}");
    ensure!(report["borrowing"]["peers"].as_array().is_some_and(|peers| peers.len() == 2), "{report:#}");
    // Who starts meanwhile is not known yet, and is when etcd is back.
    hosts.start(3, LENDERS_POOL, "")?;
    let (tally, ()) = traffic.during(|| {
        etcd.start_again(hosts.network())?;
        hosts.wait_until_whole(0, 3)
    })?;
    check("etcd comes back, and with it a third lender", &tally)?;
    hosts.stop(3)?;
    hosts.wait_until_known(0, 2)?;
    check("all of it", &traffic.read_all()?)
}

#[test]
fn r1_of_two_hosts_with_one_name_the_one_that_was_away_is_never_read() -> Result<()> {
    let mut hosts = ClusterHosts::new(5)?;
    let etcd = Etcd::start(hosts.network(), 4)?;
    hosts.set_membership(Membership::Etcd(vec![etcd.endpoint()]));
    start(&mut hosts, 2, POOL, "")?;
    let mut traffic = Traffic::begin(hosts.daemon(0)?, "vm", PAGES, 6)?;
    hosts.wait_until_whole(0, 2)?;
    let address_of_1 = |report: &serde_json::Value| {
        let peers = report["borrowing"]["peers"].as_array();
        let peer = peers.into_iter().flatten().find(|peer| peer["name"] == "node-1");
        peer.map(|peer| (peer["address"].to_string(), peer["state"] == "connected"))
    };
    let before = address_of_1(&hosts.report(0)?);
    let (tally, ()) = traffic.during(|| {
        // As when a host is restored from a backup elsewhere while its switch is off.
        hosts.network().cut(1)?;
        hosts.become_copy_of(1, 3)?;
        hosts.start(3, LENDERS_POOL, "")?;
        hosts.wait_until(0, |report| {
            address_of_1(report).is_some_and(|now| now.1 && before.as_ref().is_none_or(|old| old.0 != now.0))
        })?;
        hosts.network().mend(1)?;
        hosts.wait_until(1, |report| report["trouble"].is_string() || report["is_current"] == false)?;
        hosts.wait_until_whole(0, 2)
    })?;
    check("a copy of a lender while that is cut off", &tally)?;
    check("all of it", &traffic.read_all()?)?;
    // It may take a moment to learn that the connection from before the cut is none any more. One that is in use does not end.
    hosts.wait_until(1, |report| {
        let mut borrowers = report["lending"]["borrowers"].as_array().into_iter().flatten();
        !borrowers.any(|borrower| borrower["name"] == "node-0" && borrower["address"].is_string())
    })?;
    Ok(())
}

#[test]
fn r1_a_guest_swaps_into_its_neighbours_memory_while_one_of_them_is_killed() -> Result<()> {
    let mut hosts = ClusterHosts::new(4)?;
    start(&mut hosts, 3, "24M", "")?;
    hosts.daemon(0)?.add_disk("uml", "512M", &[])?;
    let guest = BeyondMemory::boot(hosts.daemon(0)?)?;
    hosts.wait_for(0, "extents", |extents| extents > 300)?;
    hosts.kill(2)?;
    // A put that the killed one has not answered holds up others for a moment; those are refused if the pool is full.
    guest.end_well_but_for_refusals(hosts.daemon(0)?)?;
    let status = hosts.daemon(0)?.status()?;
    ensure!(hosts.daemon(0)?.client("uml", "tier_gets")? > 2_000, "{status:#}");
    ensure!(hosts.borrowing(0, "lost_extents")? == 0, "{status:#}");
    Ok(())
}
