//! The text of reports.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::diff::{Change, Diff, EVENTS, FACTOR};
use super::record::{Build, By, Report, Row, Suspect, Totals};
use crate::output::{Record, Timestamp, escape, list_losses, write_places};
use crate::record::crash::Disposition;
use crate::terminal::{Column, Style, Table};
use crate::text::counted;

/// How many frames a row shows if there are other rows.
const FRAMES: usize = 4;

/// The columns of the ranking.
const fn ranking(what: &'static str) -> [Column; 9] {
    [
        Column { heading: "#", width: 3, is_right: true, gap: 2, leaves: 0 },
        Column { heading: "COUNT", width: 9, is_right: true, gap: 2, leaves: 0 },
        Column { heading: "SHARE", width: 6, is_right: true, gap: 2, leaves: 4 },
        Column { heading: "HOSTS", width: 5, is_right: true, gap: 2, leaves: 2 },
        Column { heading: "FIRST SEEN", width: 19, is_right: false, gap: 2, leaves: 6 },
        Column { heading: "LAST SEEN", width: 19, is_right: false, gap: 2, leaves: 5 },
        Column { heading: "SIGNAL", width: 9, is_right: false, gap: 2, leaves: 1 },
        Column { heading: "PROCESS", width: 15, is_right: false, gap: 2, leaves: 0 },
        Column { heading: what, width: 16, is_right: false, gap: 2, leaves: 3 },
    ]
}

const BY_FAMILY: [Column; 9] = ranking("FAMILY");
const BY_SIGNATURE: [Column; 9] = ranking("SIGNATURE");

fn columns(by: By) -> &'static [Column] {
    match by {
        By::Family => &BY_FAMILY,
        By::Signature => &BY_SIGNATURE,
    }
}

impl Record for Report {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        let head = format!(
            "[{}] REPORT of {}: {} ({}) in {}",
            style.time(self.head.timestamp),
            extent(&self.totals),
            counted(self.ranked, "signal"),
            words(&self.selected),
            counted(self.ranked_groups as u64, "group")
        );
        writeln!(to, "{}", style.wrapped(&head, 2))?;
        let table = Table::new(columns(self.by), "PLACE", style);
        if !self.groups.is_empty() {
            writeln!(to, "{}", table.headings())?;
        }
        for (row, number) in self.groups.iter().zip(1..) {
            writeln!(to, "{}", table.line(&self.cells(row, number), &escape(&row.place)))?;
        }
        if self.ranked_groups > self.groups.len() && !self.in_detail {
            let more = self.ranked_groups - self.groups.len();
            writeln!(to, "  ... and {more} groups more: --top 0 shows all")?;
        }
        for (row, number) in self.groups.iter().zip(1..) {
            write_detail(to, style, row, number, if self.in_detail { usize::MAX } else { FRAMES })?;
        }
        write_suspects(to, style, &self.suspects)?;
        write_totals(to, style, "", &self.totals)
    }
}

impl Report {
    fn cells(&self, row: &Row, number: usize) -> [String; 9] {
        [
            number.to_string(),
            row.count.to_string(),
            format!("{:.1}%", row.count as f64 * 100.0 / self.ranked as f64),
            row.hosts.to_string(),
            row.first_seen.local_seconds(),
            row.last_seen.local_seconds(),
            escape(&row.signal),
            first_of(&row.comms),
            name(self.by, row.family.as_deref(), row.signature.as_deref()),
        ]
    }
}

/// The column of what is known of a row.
const FIELD: usize = 17;

fn write_field(to: &mut String, style: Style, name: &str, text: &str) -> std::fmt::Result {
    writeln!(to, "    {:<13}{}", format!("{name}:"), style.sentence(text, FIELD))
}

/// Processes, hosts and frames of a row, below the table; at most `frames` of its frames.
fn write_detail(to: &mut String, style: Style, row: &Row, number: usize, frames: usize) -> std::fmt::Result {
    let code = row.code.as_deref().map(|code| format!(" ({})", escape(code))).unwrap_or_default();
    writeln!(to, "  {number}. {}{code}: {}", escape(&row.signal), counts(&words_of(&row.dispositions)))?;
    write_field(to, style, "Processes", &names(&row.comms))?;
    if !row.exes.is_empty() {
        write_field(to, style, "Executables", &names(&row.exes))?;
    }
    write_field(to, style, "Builds", &counts(&by_count(&row.builds)))?;
    if row.signatures.len() > 1 {
        let table = Table::new(&BUILDS, "", style);
        row.signatures.iter().try_for_each(|build| writeln!(to, "{}", table.line(&build_cells(build), "")))?;
    }
    if let Some(message) = &row.abort_message {
        write_field(to, style, "Message", &escape(message))?;
    }
    if let Some(diagnosis) = &row.diagnosis {
        write_field(to, style, "Diagnosis", &escape(diagnosis))?;
    }
    if row.estimated {
        write_field(to, style, "Estimated", "a coarse count was split between this and other groups")?;
    }
    if row.missing_at_most != 0 {
        let text = format!("up to {} more, from before it had a row", counted(row.missing_at_most, "event"));
        write_field(to, style, "Missing", &text)?;
    }
    let more = match row.hosts - row.host_names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    write_field(to, style, "Hosts", &format!("{}{more}", names(&row.host_names)))?;
    write_places(to, style, &row.frames[..row.frames.len().min(frames)])?;
    if row.frames.len() > frames {
        writeln!(to, "    ... and {} frames more: --signature shows all", row.frames.len() - frames)?;
    }
    Ok(())
}

/// The columns of a row's builds, which have no headings.
const BUILDS: [Column; 5] = [
    Column { heading: "", width: 9, is_right: true, gap: 6, leaves: 0 },
    Column { heading: "", width: 19, is_right: false, gap: 2, leaves: 2 },
    Column { heading: "", width: 19, is_right: false, gap: 2, leaves: 1 },
    Column { heading: "", width: 16, is_right: false, gap: 2, leaves: 0 },
    Column { heading: "", width: 40, is_right: false, gap: 2, leaves: 0 },
];

fn build_cells(build: &Build) -> [String; 5] {
    [
        build.count.to_string(),
        build.first_seen.local_seconds(),
        build.last_seen.local_seconds(),
        escape(build.signature.as_deref().unwrap_or("-")),
        escape(build.build_id.as_deref().unwrap_or("unknown")),
    ]
}

/// What makes a row, as a heading.
fn heading(by: By) -> &'static str {
    match by {
        By::Family => "FAMILY",
        By::Signature => "SIGNATURE",
    }
}

/// The family, or the signature where it isn't known.
fn name(by: By, family: Option<&str>, signature: Option<&str>) -> String {
    escape(family.filter(|_| by == By::Family).or(signature).unwrap_or("-"))
}

fn write_suspects(to: &mut String, style: Style, suspects: &[Suspect]) -> std::fmt::Result {
    if !suspects.is_empty() {
        let text = "SUSPECT: more different bugs strike here than chance explains. Test the processor and the memory";
        writeln!(to, "  {}", style.wrapped(text, 4))?;
    }
    for suspect in suspects {
        let host = escape(&suspect.host);
        let what = match suspect.cpu {
            Some(cpu) => format!(
                "{host}, processor {cpu}: {} of the host's {} bugs, on one of {} processors",
                suspect.bugs, suspect.of_bugs, suspect.processors
            ),
            None => format!("{host}: {} bugs, of {} on all hosts", suspect.bugs, suspect.of_bugs),
        };
        let text = format!(
            "{what}; {:.1} were to be expected at most, and so much comes by chance in {:.1e} of all reports",
            suspect.expected, suspect.chance
        );
        writeln!(to, "    {}", style.wrapped(&text, 6))?;
    }
    Ok(())
}

/// `label` says which of two totals they are.
fn write_totals(to: &mut String, style: Style, label: &str, totals: &Totals) -> std::fmt::Result {
    let mut write = |text: String| writeln!(to, "  {}", style.wrapped(&format!("{label}{text}"), 4));
    let list = |losses: &BTreeMap<String, u64>| match list_losses(losses, !style.hides_zeros()) {
        none if none.is_empty() => "none".to_owned(),
        list => escape(&list),
    };
    write(format!(
        "{} matched ({}), {} filtered out; in no group: {}; samples lost: {}; {}",
        counted(totals.deliveries.matched, "signal"),
        counts(&words_of(&totals.dispositions)),
        totals.deliveries.filtered,
        list(&totals.losses),
        list(&totals.sample_losses),
        if totals.adds_up { "adds up" } else { "does NOT add up" }
    ))?;
    if totals.not_ranked != 0 {
        write(format!(
            "{} of them in too many groups to rank, each of {} at most",
            totals.not_ranked,
            counted(totals.missing_at_most, "event")
        ))?;
    }
    if totals.unresolved != 0 {
        write(format!(
            "{} groups refer to an earlier line, which is not in their file: their executables are unknown",
            totals.unresolved
        ))?;
    }
    Ok(())
}

impl Record for Diff {
    fn write_text(&self, to: &mut String, style: Style) -> std::fmt::Result {
        writeln!(
            to,
            "[{}] CHANGES by {}, of signals that were {}",
            style.time(self.head.timestamp),
            heading(self.by).to_lowercase(),
            words(&self.selected)
        )?;
        writeln!(to, "  Before: {}", style.wrapped(&extent(&self.before), 10))?;
        writeln!(to, "  After:  {}", style.wrapped(&extent(&self.after), 10))?;
        self.write_list(to, style, &self.new, "NEW", "events only after")?;
        self.write_list(to, style, &self.gone, "GONE", "events only before")?;
        let worse = format!("{FACTOR} times the rate, {EVENTS} events or more after");
        self.write_list(to, style, &self.worse, "WORSE", &worse)?;
        let better = format!("a rate {FACTOR} times lower, {EVENTS} events or more before");
        self.write_list(to, style, &self.better, "BETTER", &better)?;
        let others = self.in_both.saturating_sub(self.worse.len() + self.better.len());
        writeln!(to, "  {} in both, {others} of them neither worse nor better", counted(self.in_both as u64, "group"))?;
        write_totals(to, style, "Before: ", &self.before)?;
        write_totals(to, style, "After: ", &self.after)
    }
}

/// The columns of the lists of changes.
const fn changes(what: &'static str) -> [Column; 8] {
    [
        Column { heading: "BEFORE", width: 9, is_right: true, gap: 4, leaves: 0 },
        Column { heading: "AFTER", width: 9, is_right: true, gap: 2, leaves: 0 },
        Column { heading: "BEFORE/HOUR", width: 11, is_right: true, gap: 2, leaves: 4 },
        Column { heading: "AFTER/HOUR", width: 11, is_right: true, gap: 2, leaves: 3 },
        Column { heading: "FACTOR", width: 8, is_right: true, gap: 2, leaves: 1 },
        Column { heading: "SIGNAL", width: 9, is_right: false, gap: 2, leaves: 2 },
        Column { heading: "PROCESS", width: 15, is_right: false, gap: 2, leaves: 0 },
        Column { heading: what, width: 16, is_right: false, gap: 2, leaves: 5 },
    ]
}

impl Diff {
    fn write_list(
        &self,
        to: &mut String,
        style: Style,
        list: &[Change],
        title: &str,
        meaning: &str,
    ) -> std::fmt::Result {
        writeln!(to, "  {title}: {} ({meaning})", list.len())?;
        let table = Table::new(&changes(heading(self.by)), "PLACE", style);
        if !list.is_empty() {
            writeln!(to, "{}", table.headings())?;
        }
        for change in list.iter().take(self.text_rows) {
            let cells = [
                change.before.count.to_string(),
                change.after.count.to_string(),
                rate(change.before.per_host_hour),
                rate(change.after.per_host_hour),
                change.factor.map_or_else(|| "-".to_owned(), |factor| format!("x{factor:.2}")),
                escape(&change.signal),
                first_of(&change.comms),
                name(self.by, change.family.as_deref(), change.signature.as_deref()),
            ];
            writeln!(to, "{}", table.line(&cells, &escape(&change.place)))?;
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
    let (summaries, hosts) = (counted(totals.summaries, "summary"), counted(totals.hosts as u64, "host"));
    format!("{summaries} of {hosts}, {:.1} host-hours{time}", totals.host_hours)
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

fn counts(list: &[(&str, u64)]) -> String {
    list.iter().map(|(name, count)| format!("{} {count}", escape(name))).collect::<Vec<_>>().join(", ")
}

fn names(list: &[String]) -> String {
    list.iter().map(|name| escape(name)).collect::<Vec<_>>().join(", ")
}

fn first_of(comms: &[String]) -> String {
    comms.first().map_or_else(|| "-".to_owned(), |comm| escape(comm))
}
