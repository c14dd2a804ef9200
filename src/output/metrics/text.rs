//! How the numbers are written: OpenMetrics, and the older text format for those who don't ask for it.

use std::collections::HashMap;
use std::fmt::Write;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// All metrics as OpenMetrics 1.0.
pub(crate) fn openmetrics(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = encode(&mut text, registry);
    text
}

/// The same in Prometheus' text format 0.0.4, which has no unit, no end, and a counter's suffix in its family's name.
pub(crate) fn text_format(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut suffix = HashMap::new();
    for line in openmetrics.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            suffix.insert(
                name,
                if kind == "counter" {
                    "_total"
                } else if kind == "info" {
                    "_info"
                } else {
                    ""
                },
            );
        }
    }
    for line in openmetrics.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            let _ = writeln!(text, "{line}");
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        if let (Some(word @ ("HELP" | "TYPE")), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) {
            let rest = if word == "TYPE" && rest == "info" { "gauge" } else { rest };
            let _ = writeln!(text, "# {word} {name}{} {rest}", suffix.get(name).copied().unwrap_or_default());
        }
    }
    text
}
