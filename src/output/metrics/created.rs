//! When a series began. A counter whose labels are new comes into being with a value above 0, and `increase()` doesn't see what a series
//! begins with. OpenMetrics has `_created` for that: Prometheus puts a 0 there, if it is asked to.

use std::collections::HashMap;
use std::fmt::Write;

/// The counters with labels, each with the time at which it was 0 for the last time, as far as anybody can have read it.
pub(crate) struct Created {
    /// By the series' name and labels, of those that there are.
    at: HashMap<String, f64>,
    /// When all series were written last, or when counting began. A series that is new since was 0 then.
    last: f64,
}

impl Created {
    /// Counting began at `started`, seconds since 1970.
    pub(crate) fn new(started: f64) -> Self {
        Self { at: HashMap::new(), last: started }
    }

    /// Adds a line with `_created` behind each counter that has labels, in OpenMetrics that was written `now`.
    pub(crate) fn add(&mut self, openmetrics: &str, now: f64) -> String {
        let mut text = String::with_capacity(openmetrics.len() * 2);
        let mut known = HashMap::with_capacity(self.at.len());
        for line in openmetrics.lines() {
            let _ = writeln!(text, "{line}");
            let Some((name, labels)) = line.split_once("_total{").filter(|(name, _)| !name.starts_with('#')) else {
                continue;
            };
            // A label's value may have any letter in it, but a brace that ends the labels is the last one.
            let Some((labels, _)) = labels.rsplit_once("} ") else { continue };
            let series = format!("{name}_created{{{labels}}}");
            let at = self.at.get(&series).copied().unwrap_or(self.last);
            let _ = writeln!(text, "{series} {at:.3}");
            known.insert(series, at);
        }
        // A series that has ended begins anew when it comes again.
        self.at = known;
        self.last = now;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_was_0_when_it_was_not_there() {
        let mut created = Created::new(100.0);
        let first = "# TYPE x counter\nx_total{a=\"1\"} 5\nplain_total 3\ng{a=\"1\"} 1\n";
        assert_eq!(
            created.add(first, 130.5),
            "# TYPE x counter\nx_total{a=\"1\"} 5\nx_created{a=\"1\"} 100.000\nplain_total 3\ng{a=\"1\"} 1\n"
        );
        let second = "x_total{a=\"1\"} 6\nx_total{a=\"} _total{\"} 1\n";
        assert_eq!(
            created.add(second, 160.5),
            "x_total{a=\"1\"} 6\nx_created{a=\"1\"} 100.000\nx_total{a=\"} _total{\"} 1\nx_created{a=\"} _total{\"} 130.500\n"
        );
    }
}
