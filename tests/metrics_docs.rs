//! Compares docs/metrics.md and the dashboard with the existing metrics.

#![allow(missing_docs)]

use std::collections::BTreeSet;

use piecework_api::State;
use piecework_http::metrics::families::{DAEMON, PROCESS, TRACKER};
use piecework_http::metrics::{Family, Kind};
use piecework_swarm::Cause;
use serde_json::Value;

const DOCS: &str = include_str!("../docs/metrics.md");
const DASHBOARD: &str = include_str!("../docs/grafana-dashboard.json");

#[test]
fn every_figure_is_described_where_it_belongs_and_no_other() {
    for (heading, families) in
        [("## The daemon", DAEMON), ("## The tracker", TRACKER), ("## Both", PROCESS)]
    {
        let (_, section) = DOCS.split_once(heading).unwrap();
        let section = section.split("\n## ").next().unwrap();
        let described: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let expected: Vec<String> = families.iter().map(row).collect();
        assert_eq!(described, expected, "{heading}");
    }
}

fn row(family: &Family) -> String {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    let label = family.label.map(|label| format!("`{label}`")).unwrap_or_default();
    format!("| `{}` | {kind} | {label} | {} |", family.name, family.help)
}

#[test]
fn every_label_is_described_with_its_values() {
    let described = |label: &str| {
        let row = DOCS.lines().find(|line| line.starts_with(&format!("| `{label}` | ")));
        row.unwrap_or_else(|| panic!("docs/metrics.md says nothing of label {label}"))
    };
    for family in [DAEMON, TRACKER, PROCESS].into_iter().flatten() {
        family.label.map(described);
    }
    for (label, word) in State::ALL.map(|state| ("state", state.word())) {
        assert!(described(label).contains(&format!("`{word}`")), "{word}");
    }
    for (label, word) in Cause::ALL.map(|cause| ("cause", cause.word())) {
        assert!(described(label).contains(&format!("`{word}`")), "{word}");
    }
}

#[test]
fn the_dashboard_asks_for_all_figures_and_for_no_other() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39);
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert!(variables.iter().any(|it| it["name"] == "datasource" && it["type"] == "datasource"));
    let panels = dashboard["panels"].as_array().unwrap();
    let title = |kind: &str| {
        let of_kind = panels.iter().filter(|panel| (panel["type"] == "row") == (kind == "row"));
        of_kind.map(|panel| panel["title"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(title("row"), ["Daemon", "Tracker", "Processes"]);
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");

    let mut asked = BTreeSet::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        for target in panel["targets"].as_array().unwrap() {
            asked.extend(names(target["expr"].as_str().unwrap()));
        }
    }
    for variable in variables.iter().filter_map(|it| it["definition"].as_str()) {
        asked.extend(names(variable));
    }
    let families = [DAEMON, TRACKER, PROCESS].into_iter().flatten();
    let mut there: BTreeSet<String> = families.map(|family| family.name.to_owned()).collect();
    let unknown: Vec<_> = asked.difference(&there).collect();
    assert!(unknown.is_empty(), "the dashboard asks for {unknown:?}, which there is not");
    // Unused address space is not worth a panel.
    there.remove("process_virtual_memory_bytes");
    let unseen: Vec<_> = there.difference(&asked).collect();
    assert!(unseen.is_empty(), "the dashboard does not show {unseen:?}");
}

/// Returns the names of metrics in a query.
fn names(query: &str) -> impl Iterator<Item = String> + '_ {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = |word: &&str| word.starts_with("piecework_") || word.starts_with("process_");
    words.filter(ours).map(str::to_owned)
}
