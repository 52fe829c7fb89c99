//! What a balancer sees and does, as metrics. Without a balancer there are none.

use std::{collections::BTreeSet, fmt};

use prometheus_client::{encoding::DescriptorEncoder, metrics::MetricType};

use crate::{BalanceReport, BalancedGuest};

/// One family of a guest's numbers: its name without `tmem_balance_guest_`, what it says, and where it is found.
type GuestFamily = (&'static str, &'static str, fn(&BalancedGuest) -> Option<f64>);

/// Sizes stay exact: up to 2^53 bytes a float has room for each.
const GUESTS: [GuestFamily; 8] = [
    ("size_bytes", "What the guest has", |guest| Some(guest.size_bytes as f64)),
    ("target_bytes", "What the balancer wants it to have", |guest| Some(guest.target_bytes as f64)),
    ("floor_bytes", "It never gets less", |guest| Some(guest.floor_bytes as f64)),
    ("ceiling_bytes", "It never gets more", |guest| Some(guest.ceiling_bytes as f64)),
    ("weight", "What a swap-in of it counts, relative to others'", |guest| Some(f64::from(guest.weight))),
    ("answers", "1 while the balancer can reach the guest", |guest| Some(f64::from(u8::from(guest.answers)))),
    (
        "available_bytes",
        "What the guest says that it could use without swapping; absent where it does not say",
        |guest| guest.available_bytes.map(|bytes| bytes as f64),
    ),
    (
        "pressure_ratio",
        "Of the last seconds, the part in which something in the guest waited for memory; absent where it does not say",
        |guest| guest.pressure.filter(|pressure| pressure.is_finite()),
    ),
];

/// All of it.
pub(super) fn encode(report: &BalanceReport, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let help = "1, with what the balancer goes by and whether it only says what it would do as labels";
    let dry_run = if report.dry_run { "true" } else { "false" };
    encoder
        .encode_descriptor("tmem_balance_info", help, None, MetricType::Gauge)?
        .encode_family(&[("policy", report.policy.as_str()), ("dry_run", dry_run)])?
        .encode_gauge(&1u64)?;
    let help = "What all guests together may have";
    encoder
        .encode_descriptor("tmem_balance_budget_bytes", help, None, MetricType::Gauge)?
        .encode_gauge(&report.budget_bytes)?;
    for (name, help, value) in GUESTS {
        let name = format!("tmem_balance_guest_{name}");
        let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Gauge)?;
        // A sample that is there twice costs a scraper all the others.
        let mut told = BTreeSet::new();
        for guest in report.guests.iter().filter(|guest| told.insert(guest.name.as_str())) {
            if let Some(value) = value(guest) {
                family.encode_family(&[("guest", guest.name.as_str())])?.encode_gauge(&value)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Status, encode_metrics, status::tests::sample};

    fn guest(name: &str) -> BalancedGuest {
        BalancedGuest {
            name: name.to_owned(),
            size_bytes: 1 << 40,
            target_bytes: 2,
            floor_bytes: 3,
            ceiling_bytes: 4,
            weight: 100,
            answers: true,
            available_bytes: Some(5),
            pressure: Some(0.25),
            ..BalancedGuest::default()
        }
    }

    fn page(guests: Vec<BalancedGuest>) -> String {
        let report = BalanceReport {
            policy: "reuse".to_owned(),
            budget_bytes: 1 << 33,
            guests,
            ..BalanceReport::default()
        };
        encode_metrics(&Status { balance: Some(report), ..sample() })
    }

    #[test]
    fn a_balancer_has_every_number_and_none_without_one() {
        let told = page(vec![guest("vm1")]);
        for line in [
            "tmem_balance_info{policy=\"reuse\",dry_run=\"false\"} 1",
            "tmem_balance_budget_bytes 8589934592",
            "tmem_balance_guest_size_bytes{guest=\"vm1\"} 1099511627776.0",
            "tmem_balance_guest_target_bytes{guest=\"vm1\"} 2.0",
            "tmem_balance_guest_floor_bytes{guest=\"vm1\"} 3.0",
            "tmem_balance_guest_ceiling_bytes{guest=\"vm1\"} 4.0",
            "tmem_balance_guest_weight{guest=\"vm1\"} 100.0",
            "tmem_balance_guest_answers{guest=\"vm1\"} 1.0",
            "tmem_balance_guest_available_bytes{guest=\"vm1\"} 5.0",
            "tmem_balance_guest_pressure_ratio{guest=\"vm1\"} 0.25",
        ] {
            assert!(told.lines().any(|found| found == line), "{line} is not in\n{told}");
        }
        assert!(!encode_metrics(&sample()).contains("tmem_balance_"));
    }

    #[test]
    fn what_a_guest_does_not_say_is_absent() {
        let silent = BalancedGuest { available_bytes: None, pressure: None, answers: false, ..guest("a") };
        let mad = BalancedGuest { pressure: Some(f64::NAN), ..guest("b") };
        let told = page(vec![silent, mad]);
        assert!(!told.contains("tmem_balance_guest_available_bytes{guest=\"a\"}"), "{told}");
        assert!(!told.contains("tmem_balance_guest_pressure_ratio{"), "{told}");
        assert!(told.contains("tmem_balance_guest_answers{guest=\"a\"} 0.0\n"), "{told}");
    }

    #[test]
    fn names_cannot_make_samples_of_their_own() {
        let odd = "a\"} 1\ntmem_pool_used_bytes 7\n\\";
        let told = page(vec![guest(odd), guest("twice"), guest("twice")]);
        assert_eq!(
            told.lines().filter(|line| line.starts_with("tmem_pool_used_bytes ")).count(),
            1,
            "{told}"
        );
        let sample = "tmem_balance_guest_size_bytes{guest=";
        assert_eq!(told.lines().filter(|line| line.starts_with(sample)).count(), 2, "{told}");
        let escaped = format!("{sample}\"a\\\"}} 1\\ntmem_pool_used_bytes 7\\n\\\\\"}} ");
        assert!(told.lines().any(|line| line.starts_with(&escaped)), "{told}");
    }
}
