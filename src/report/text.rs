//! The text of reports.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::diff::{Change, Diff, EVENTS, FACTOR};
use super::record::{Report, Row, Totals};
use crate::output::frame_place;
use crate::output::{Record, Timestamp, escape};
use crate::record::crash::{Disposition, Frame};
use crate::record::summary::place;

/// How many frames a row shows if there are other rows.
const FRAMES: usize = 4;

impl Record for Report {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "[{}] REPORT of {}: {} signals ({}) in {} groups",
            self.head.timestamp.local_seconds(),
            extent(&self.totals),
            self.ranked,
            words(&self.selected),
            self.ranked_groups
        )?;
        if !self.groups.is_empty() {
            writeln!(
                to,
                "  {:>3}  {:>9}  {:>6}  {:>5}  {:<19}  {:<19}  {:<9}  {:<15}  {:<16}  PLACE",
                "#", "COUNT", "SHARE", "HOSTS", "FIRST SEEN", "LAST SEEN", "SIGNAL", "PROCESS", "SIGNATURE"
            )?;
        }
        for (row, number) in self.groups.iter().zip(1..) {
            self.write_row(to, row, number)?;
        }
        if self.ranked_groups > self.groups.len() && !self.in_detail {
            let more = self.ranked_groups - self.groups.len();
            writeln!(to, "  ... and {more} groups more: --top 0 shows all")?;
        }
        for (row, number) in self.groups.iter().zip(1..) {
            write_detail(to, row, number, if self.in_detail { usize::MAX } else { FRAMES })?;
        }
        write_totals(to, "", &self.totals)
    }
}

impl Report {
    fn write_row(&self, to: &mut String, row: &Row, number: usize) -> std::fmt::Result {
        writeln!(
            to,
            "  {number:>3}  {:>9}  {:>5.1}%  {:>5}  {:<19}  {:<19}  {:<9}  {:<15}  {:<16}  {}",
            row.count,
            row.count as f64 * 100.0 / self.ranked as f64,
            row.hosts,
            row.first_seen.local_seconds(),
            row.last_seen.local_seconds(),
            escape(&row.signal),
            first_of(&row.comms),
            escape(row.signature.as_deref().unwrap_or("-")),
            escape(&place(&row.frames))
        )
    }
}

/// Processes, hosts and frames of a row, below the table; at most `frames` of its frames.
fn write_detail(to: &mut String, row: &Row, number: usize, frames: usize) -> std::fmt::Result {
    let code = row.code.as_deref().map(|code| format!(" ({})", escape(code))).unwrap_or_default();
    writeln!(to, "  {number}. {}{code}: {}", escape(&row.signal), counts(&words_of(&row.dispositions)))?;
    writeln!(to, "    Processes:   {}", names(&row.comms))?;
    if !row.exes.is_empty() {
        writeln!(to, "    Executables: {}", names(&row.exes))?;
    }
    writeln!(to, "    Builds:      {}", counts(&by_count(&row.builds)))?;
    let more = match row.hosts - row.host_names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    writeln!(to, "    Hosts:       {}{more}", names(&row.host_names))?;
    for (index, frame) in row.frames.iter().take(frames).enumerate() {
        write_frame(to, index, frame)?;
    }
    if row.frames.len() > frames {
        writeln!(to, "    ... and {} frames more: --signature shows all", row.frames.len() - frames)?;
    }
    Ok(())
}

fn write_frame(to: &mut String, index: usize, frame: &Frame) -> std::fmt::Result {
    writeln!(to, "    {:<3} {}", format!("#{index}"), frame_place(frame))
}

/// `label` says which of two totals they are.
fn write_totals(to: &mut String, label: &str, totals: &Totals) -> std::fmt::Result {
    let adds_up = if totals.adds_up { "adds up" } else { "does NOT add up" };
    writeln!(
        to,
        "  {label}{} signals matched ({}), {} filtered out; in no group: {}; samples lost: {}; {adds_up}",
        totals.deliveries.matched,
        counts(&words_of(&totals.dispositions)),
        totals.deliveries.filtered,
        sums(&totals.losses),
        sums(&totals.sample_losses)
    )?;
    if totals.not_ranked != 0 {
        writeln!(to, "  {label}{} of them in too many groups to rank", totals.not_ranked)?;
    }
    Ok(())
}

impl Record for Diff {
    fn write_text(&self, to: &mut String) -> std::fmt::Result {
        writeln!(
            to,
            "[{}] CHANGES by group, of signals that were {}",
            self.head.timestamp.local_seconds(),
            words(&self.selected)
        )?;
        writeln!(to, "  Before: {}", extent(&self.before))?;
        writeln!(to, "  After:  {}", extent(&self.after))?;
        self.write_list(to, &self.new, "NEW", "events only after")?;
        self.write_list(to, &self.gone, "GONE", "events only before")?;
        self.write_list(to, &self.worse, "WORSE", &format!("{FACTOR} times the rate, {EVENTS} events or more after"))?;
        let better = format!("a rate {FACTOR} times lower, {EVENTS} events or more before");
        self.write_list(to, &self.better, "BETTER", &better)?;
        let others = self.in_both.saturating_sub(self.worse.len() + self.better.len());
        writeln!(to, "  {} groups in both, {others} of them neither worse nor better", self.in_both)?;
        write_totals(to, "Before: ", &self.before)?;
        write_totals(to, "After: ", &self.after)
    }
}

impl Diff {
    fn write_list(&self, to: &mut String, list: &[Change], title: &str, meaning: &str) -> std::fmt::Result {
        writeln!(to, "  {title}: {} ({meaning})", list.len())?;
        if !list.is_empty() {
            writeln!(
                to,
                "    {:>9}  {:>9}  {:>11}  {:>11}  {:>8}  {:<9}  {:<15}  {:<16}  PLACE",
                "BEFORE", "AFTER", "BEFORE/HOUR", "AFTER/HOUR", "FACTOR", "SIGNAL", "PROCESS", "SIGNATURE"
            )?;
        }
        for change in list.iter().take(self.text_rows) {
            let resembles = match &change.resembles {
                Some(signature) => format!(", as {} was", escape(signature)),
                None => String::new(),
            };
            writeln!(
                to,
                "    {:>9}  {:>9}  {:>11}  {:>11}  {:>8}  {:<9}  {:<15}  {:<16}  {}{resembles}",
                change.before.count,
                change.after.count,
                rate(change.before.per_host_hour),
                rate(change.after.per_host_hour),
                change.factor.map_or_else(|| "-".to_owned(), |factor| format!("x{factor:.2}")),
                escape(&change.signal),
                first_of(&change.comms),
                escape(change.signature.as_deref().unwrap_or("-")),
                escape(&place(&change.frames))
            )?;
        }
        if list.len() > self.text_rows {
            writeln!(to, "    ... and {} groups more: --top 0 shows all", list.len() - self.text_rows)?;
        }
        Ok(())
    }
}

/// How much was read, from how many hosts, and of which time.
fn extent(totals: &Totals) -> String {
    let moment = |moment: Option<Timestamp>| moment.map(Timestamp::local_seconds);
    let time = match (moment(totals.from), moment(totals.to)) {
        (Some(from), Some(to)) => format!(", {from} to {to}"),
        _ => String::new(),
    };
    let (summaries, hosts, hours) = (totals.summaries, totals.hosts, totals.host_hours);
    format!("{summaries} summaries of {hosts} hosts, {hours:.1} host-hours{time}")
}

/// Three significant digits: rates go from thousands an hour to one in a year of a thousand hosts.
fn rate(rate: Option<f64>) -> String {
    match rate {
        None => "unknown".to_owned(),
        Some(0.0) => "0".to_owned(),
        Some(rate) if rate >= 100.0 => format!("{rate:.0}"),
        Some(rate) if rate >= 1.0 => format!("{rate:.2}"),
        Some(rate) if rate >= 0.01 => format!("{rate:.4}"),
        Some(rate) => format!("{rate:.2e}"),
    }
}

fn words(dispositions: &[Disposition]) -> String {
    dispositions.iter().map(|disposition| disposition.word()).collect::<Vec<_>>().join(" and ")
}

fn words_of(dispositions: &BTreeMap<Disposition, u64>) -> Vec<(&str, u64)> {
    dispositions.iter().map(|(disposition, &count)| (disposition.word(), count)).collect()
}

fn by_count(counts: &BTreeMap<String, u64>) -> Vec<(&str, u64)> {
    let mut list: Vec<(&str, u64)> = counts.iter().map(|(name, &count)| (name.as_str(), count)).collect();
    list.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    list
}

fn sums(losses: &BTreeMap<String, u64>) -> String {
    if losses.is_empty() {
        "none".to_owned()
    } else {
        counts(&losses.iter().map(|(r, &c)| (r.as_str(), c)).collect::<Vec<_>>())
    }
}

fn counts(list: &[(&str, u64)]) -> String {
    list.iter().map(|(name, count)| format!("{} {count}", escape(name))).collect::<Vec<_>>().join(", ")
}

fn names(list: &[String]) -> String {
    list.iter().map(|name| escape(name)).collect::<Vec<_>>().join(", ")
}

fn first_of(comms: &[String]) -> String {
    comms.first().map_or_else(|| "-".to_owned(), |comm| escape(comm))
}
