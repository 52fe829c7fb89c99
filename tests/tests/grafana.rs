//! The Grafana dashboard shows what a daemon gives: every metric and label that it names is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::Value;
use tmem_tests::Daemon;

type Labels = BTreeSet<String>;

/// What whoever scrapes adds.
const SCRAPERS: [&str; 2] = ["instance", "job"];

fn dashboard() -> Result<Value> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/grafana-dashboard.json");
    serde_json::from_str(&fs::read_to_string(file)?).context("the dashboard is no JSON")
}

/// Every value of that name, wherever it is.
fn all<'a>(value: &'a Value, name: &str) -> Vec<&'a Value> {
    match value {
        Value::Object(fields) => {
            let here = fields.get(name);
            here.into_iter().chain(fields.values().flat_map(|field| all(field, name))).collect()
        }
        Value::Array(elements) => elements.iter().flat_map(|element| all(element, name)).collect(),
        _ => Vec::new(),
    }
}

/// The metrics that a page for scrapers has, each with its labels.
fn given(page: &str) -> BTreeMap<String, Labels> {
    let mut given = BTreeMap::<String, Labels>::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap_or(line.len()));
        let labels = given.entry(name.to_owned()).or_default();
        labels.extend(matchers(rest).0.into_iter().map(|(label, _)| label));
    }
    given
}

/// The labels with their values of `{a="b",c=~"d"}`, if the text begins so, and what follows.
fn matchers(text: &str) -> (Vec<(String, String)>, &str) {
    let (mut labels, Some(mut rest)) = (Vec::new(), text.strip_prefix('{')) else {
        return (Vec::new(), text);
    };
    while let Some((label, after)) = rest.split_once('"') {
        let Some((value, after)) = after.split_once('"') else { panic!("no end of a value: {text}") };
        labels.push((label.trim_matches([' ', ',', '=', '~', '!']).to_owned(), value.to_owned()));
        rest = after;
        if let Some(after) = rest.strip_prefix('}') {
            rest = after;
            break;
        }
    }
    (labels, rest)
}

/// The metrics of a query, each with the labels that it asks for.
fn asked(query: &str) -> Vec<(String, Labels)> {
    let mut asked = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(['t', '{']) {
        rest = &rest[start..];
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, after) = rest.split_at(rest.find(|c| !of_a_name(c)).unwrap_or(rest.len()));
        if !name.is_empty() && !name.starts_with("tmem_") {
            rest = after;
            continue;
        }
        let (labels, after) = matchers(after);
        let names = labels.iter().find(|(label, _)| label == "__name__").map(|(_, names)| names.as_str());
        let labels: Labels =
            labels.iter().filter(|(label, _)| label != "__name__").map(|(label, _)| label.clone()).collect();
        asked.extend(names.unwrap_or(name).split('|').map(|name| (name.to_owned(), labels.clone())));
        rest = after.strip_prefix('{').unwrap_or(after);
    }
    asked
}

/// The labels of a legend such as `{{client}}, failed`.
fn legend(text: &str) -> Labels {
    text.split("{{")
        .skip(1)
        .filter_map(|part| part.split_once("}}"))
        .map(|(label, _)| label.to_owned())
        .collect()
}

/// The labels that `by (…)` leaves, if the query has that.
fn kept(query: &str) -> Option<Labels> {
    let (_, after) = query.split_once(" by (")?;
    let (labels, _) = after.split_once(')')?;
    Some(labels.split(',').map(|label| label.trim().to_owned()).collect())
}

#[test]
fn queries_are_read() {
    let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Labels>();
    let read = asked(
        "sum by (x) (rate(tmem_a_total{instance=~\"$i\", client=\"t\"}[$__rate_interval])) / (tmem_b > 0)",
    );
    let expected =
        [("tmem_a_total".to_owned(), labels(&["instance", "client"])), ("tmem_b".to_owned(), labels(&[]))];
    assert_eq!(read, expected);
    let read = asked("query_result({__name__=~\"tmem_a|tmem_b\", instance=~\"$i\"})");
    let expected = ["tmem_a", "tmem_b"].map(|name| (name.to_owned(), labels(&["instance"])));
    assert_eq!(read, expected);
    assert_eq!(legend("{{a}}, of {{b}}"), labels(&["a", "b"]));
    assert_eq!(kept("sum by (a, b) (x)"), Some(labels(&["a", "b"])));
}

#[test]
fn every_metric_and_label_of_the_dashboard_is_one_that_a_daemon_gives() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let tier = directory.path().join("tier");
    let tier = tier.to_str().context("no UTF-8")?.to_owned();
    let more = ["--tier".to_owned(), tier, "--tier-size".to_owned(), "64M".to_owned()];
    let daemon = Daemon::start_with("64M", &more, None)?;
    daemon.add_disk("vm1", "64M", &[])?;
    daemon.report_balance("vm1", "idle")?;
    let given = given(&daemon.admin("GET /metrics", "")?);
    assert!(given.len() > 40, "{given:?}");

    let dashboard = dashboard()?;
    let check = |query: &str, legend: &Labels| {
        let metrics = asked(query);
        assert!(!metrics.is_empty(), "no metric: {query}");
        for (name, labels) in metrics {
            let known = given.get(&name).unwrap_or_else(|| panic!("no metric {name}: {query}"));
            let of_scrapers: Labels = SCRAPERS.map(str::to_owned).into();
            let kept = kept(query);
            for label in labels.iter().chain(kept.iter().flatten()) {
                assert!(
                    known.contains(label) || of_scrapers.contains(label),
                    "{name} has no {label}: {query}"
                );
            }
            for label in legend {
                let is_there = kept.as_ref().map_or_else(
                    || known.contains(label) || of_scrapers.contains(label),
                    |kept| kept.contains(label),
                );
                assert!(is_there, "no {label} for the legend: {query}");
            }
        }
    };
    let targets: Vec<_> =
        all(&dashboard, "targets").into_iter().filter_map(Value::as_array).flatten().collect();
    assert!(targets.len() > 30, "{}", targets.len());
    for target in targets {
        let text = |name: &str| target[name].as_str().with_context(|| format!("no {name}: {target}"));
        check(text("expr")?, &legend(text("legendFormat")?));
    }
    for variable in dashboard["templating"]["list"].as_array().context("no variables")? {
        if variable["type"] == "query" {
            check(variable["definition"].as_str().context("no query")?, &Labels::new());
            assert_eq!(variable["definition"], variable["query"]["query"]);
        }
    }
    Ok(())
}

#[test]
fn panels_have_numbers_of_their_own_and_data_from_where_one_chooses() -> Result<()> {
    let dashboard = dashboard()?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let numbers: BTreeSet<_> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(numbers.len(), panels.len());
    let places: BTreeSet<_> = panels.iter().map(|panel| panel["gridPos"].to_string()).collect();
    assert_eq!(places.len(), panels.len(), "no two in one place");
    for source in all(&dashboard, "datasource") {
        assert_eq!(source["uid"], "${datasource}");
    }
    let variables: Vec<_> =
        all(&dashboard["templating"], "name").into_iter().filter_map(Value::as_str).collect();
    assert_eq!(variables, ["datasource", "instance", "guest"]);
    assert!(dashboard["schemaVersion"].as_u64() >= Some(36) && dashboard["id"].is_null());
    Ok(())
}
