//! What the policy sees: guests as they are, their swap-ins as the pool counts them, and what may be given.

use std::time::Duration;

use tmem_balance::{Demand, Limits, Scene, Subject};
use tmem_control::{Budget, ByteSize, ClientStatus, GuestAddress, GuestSpec, Reserve, Status, WholeHost};

use super::looking::{Counter, Managed};

/// A guest without a floor keeps this part of its ceiling.
const FLOOR_PART: u64 = 4;
/// A cgroup without a floor keeps so much: often its ceiling is the host.
const CGROUP_FLOOR_BYTES: u64 = 32 << 20;
/// Of the host's reserve the pool leaves all alone. Guests may take half of it: a page is worth more with them than in the pool, and so they push the pool,
/// not the other way round.
const RESERVE_PART: u64 = 2;

/// What holds for a guest that was started with so much. It cannot have more than that, whatever anybody says.
pub(super) fn limits(spec: &GuestSpec, max_bytes: u64) -> Limits {
    let ceiling_bytes = spec.ceiling.map_or(max_bytes, ByteSize::bytes).min(max_bytes);
    let usual_bytes = match spec.address {
        GuestAddress::Cgroup(_) => CGROUP_FLOOR_BYTES.min(ceiling_bytes),
        _ => ceiling_bytes / FLOOR_PART,
    };
    let floor_bytes = spec.floor.map_or(usual_bytes, ByteSize::bytes).min(max_bytes);
    Limits { floor_bytes, ceiling_bytes: ceiling_bytes.max(floor_bytes), weight: spec.weight }
}

/// Those who are there, and the scene that they make; guests by index. `status` is the daemon's, if there is one.
pub(super) fn scene(
    at: Duration,
    guests: &mut [Managed],
    status: Option<&Status>,
    budget_bytes: u64,
) -> (Vec<usize>, Scene) {
    let present = guests.iter_mut().enumerate().filter_map(|(index, guest)| {
        let client = status
            .and_then(|status| status.clients.iter().find(|client| client.name == guest.spec.name.as_str()));
        let demand = demand_of(guest, client);
        let seen = guest.seen.as_ref()?;
        let subject = Subject {
            name: guest.spec.name.to_string(),
            limits: limits(&guest.spec, seen.max_bytes),
            size_bytes: guest.counted_bytes(),
            demand,
            swapped_bytes: client.map_or(0, |client| client.logical_bytes),
            cpus: guest.cpus.filter(|_| guest.answers),
            report: seen.report.filter(|_| guest.answers),
            answers: guest.answers,
        };
        Some((index, subject))
    });
    let (indexes, subjects) = present.unzip();
    (indexes, Scene { at, budget_bytes, subjects })
}

/// As the store counts, or else the kernel. The one does not go on where the other stopped, so whoever changes begins anew.
fn demand_of(guest: &mut Managed, client: Option<&ClientStatus>) -> Option<Demand> {
    let own = guest.seen.as_ref()?.swap_ins.map(|swap_ins| (Counter::Kernel, Demand::new([], swap_ins)));
    let counted = client.map(|client| (Counter::Store, demand(client))).or(own);
    let before = std::mem::replace(&mut guest.counted_by, counted.as_ref().map(|(counter, _)| *counter));
    let (counter, demand) = counted?;
    before.is_none_or(|before| before == counter).then_some(demand)
}

fn demand(client: &ClientStatus) -> Demand {
    let distances = &client.reuse_distances;
    Demand::new(
        distances.buckets.iter().map(|bucket| (bucket.below_pages, bucket.gets)),
        distances.older_gets,
    )
}

/// What all together may have: what is set, but not more than is there; less than they have, if the host has hardly anything left.
pub(super) fn budget_bytes(
    budget: Budget,
    held_bytes: u64,
    promised_bytes: u64,
    host: &WholeHost,
    reserve: Reserve,
) -> u64 {
    let there_bytes = there_bytes(held_bytes, promised_bytes, host, reserve);
    match budget {
        Budget::Auto => there_bytes,
        Budget::Fixed(size) => size.bytes().min(there_bytes.max(held_bytes)),
    }
}

/// What they have, and what the host has beyond half of its reserve. Memory that guests got a moment ago, `promised_bytes`, they have not
/// touched yet, so the host still counts it as its own.
fn there_bytes(held_bytes: u64, promised_bytes: u64, host: &WholeHost, reserve: Reserve) -> u64 {
    // A reserve that leaves nothing is the daemon's error to report.
    let kept_bytes = reserve.bytes(host.total_bytes).unwrap_or(host.total_bytes) / RESERVE_PART;
    match host.available_bytes.checked_sub(kept_bytes) {
        Some(spare_bytes) => {
            let most_bytes = (host.total_bytes - kept_bytes).max(held_bytes);
            held_bytes.saturating_add(spare_bytes.saturating_sub(promised_bytes)).min(most_bytes)
        }
        None => held_bytes.saturating_sub((kept_bytes / 2).saturating_sub(host.available_bytes)),
    }
}

#[cfg(test)]
mod tests {
    use tmem_actuator::Seen;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn guest(name: &str, address: GuestAddress) -> GuestSpec {
        GuestSpec { name: name.parse().unwrap(), address, floor: None, ceiling: None, weight: 100 }
    }

    fn qemu(name: &str) -> GuestSpec {
        guest(name, GuestAddress::Qemu { monitor: "/m".into(), agent: None })
    }

    #[test]
    fn a_guest_keeps_a_quarter_and_a_cgroup_a_little_unless_somebody_says_otherwise() {
        let bytes = |limits: Limits| (limits.floor_bytes / MIB, limits.ceiling_bytes / MIB);
        assert_eq!(bytes(limits(&qemu("a"), 512 * MIB)), (128, 512));
        let cgroup = guest("b", GuestAddress::Cgroup("/c".into()));
        assert_eq!(bytes(limits(&cgroup, 24 << 30)), (32, 24 << 10));
        assert_eq!(bytes(limits(&cgroup, 16 * MIB)), (16, 16));
        let size = |mib| Some(ByteSize::from_bytes(mib * MIB));
        assert_eq!(
            bytes(limits(&GuestSpec { floor: size(100), ceiling: size(200), ..qemu("a") }, 512 * MIB)),
            (100, 200)
        );
        let all = GuestSpec { floor: size(600), ceiling: size(4096), ..qemu("a") };
        assert_eq!(bytes(limits(&all, 512 * MIB)), (512, 512), "no more than it was started with");
    }

    #[test]
    fn a_guest_is_seen_with_its_client_and_one_that_is_away_is_not() {
        let mut guests =
            vec![Managed::new(qemu("away")), Managed::new(qemu("vm1")), Managed::new(qemu("hangs"))];
        let report = Some(tmem_balance::Report { available_bytes: Some(5), ..Default::default() });
        let seen = Seen { size_bytes: 7, max_bytes: 8, report, swap_ins: None, cpu_time: None };
        guests[1].seen = Some(seen.clone());
        guests[1].answers = true;
        guests[2].seen = Some(Seen { swap_ins: Some(3), ..seen });
        let (indexes, scene) = scene(Duration::from_secs(1), &mut guests, None, 99);
        assert_eq!(indexes, [1, 2]);
        let [vm1, hangs] = &scene.subjects[..] else { panic!("{scene:?}") };
        assert_eq!(
            (vm1.name.as_str(), vm1.answers, vm1.demand.clone(), vm1.report),
            ("vm1", true, None, report)
        );
        assert_eq!((hangs.answers, hangs.report), (false, None), "what it said before is old");
        assert_eq!(hangs.demand, Some(Demand::new([], 3)));
    }

    #[test]
    fn the_budget_is_what_is_there() {
        let host =
            |available_mib: u64| WholeHost { total_bytes: 4096 * MIB, available_bytes: available_mib * MIB };
        let budget = |budget, promised, available| {
            budget_bytes(budget, 1000 * MIB, promised * MIB, &host(available), Reserve::Auto) / MIB
        };
        // The reserve is 256 MiB.
        let auto = |available| budget(Budget::Auto, 0, available);
        assert_eq!((auto(1128), auto(128), auto(100), auto(64)), (2000, 1000, 1000, 1000));
        assert_eq!(auto(24), 960, "the host gets back what it lacks");
        assert_eq!(budget(Budget::Auto, 600, 1128), 1400, "what was given a moment ago is not given again");
        assert_eq!(auto(4000), 3968, "no more than the host has");
        let fixed =
            |mib: u64, available| budget(Budget::Fixed(ByteSize::from_bytes(mib * MIB)), 0, available);
        assert_eq!((fixed(1500, 4000), fixed(1500, 328), fixed(500, 328)), (1500, 1200, 500));
    }

    #[test]
    fn who_counts_somewhere_else_begins_anew() {
        let mut guests = [Managed::new(guest("web", GuestAddress::Cgroup("/c".into())))];
        let (size_bytes, max_bytes) = (7, 8);
        guests[0].seen =
            Some(Seen { size_bytes, max_bytes, report: None, swap_ins: Some(3), cpu_time: None });
        guests[0].answers = true;
        let kernels = Some(Demand::new([], 3));
        assert_eq!(demand_of(&mut guests[0], None), kernels);
        assert_eq!(demand_of(&mut guests[0], None), kernels);
        guests[0].counted_by = Some(Counter::Store);
        assert_eq!(demand_of(&mut guests[0], None), None);
        assert_eq!(demand_of(&mut guests[0], None), kernels);
    }
}
