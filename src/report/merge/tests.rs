use super::super::bug::NAMES;
use super::super::builds::BUILDS;
use super::super::input::{Parsed, parse};
use super::*;
use crate::record::crash::Frame;
use crate::record::summary::{Group, Summary};
use crate::record::{Head, Interval};

/// A second of the first minutes of 2026.
pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::from_unix_ns((1_767_225_600 + i128::from(second)) * 1_000_000_000).unwrap()
}

pub(crate) fn frame(symbol: Option<&str>) -> Frame {
    Frame {
        symbol: symbol.map(str::to_owned),
        module: Some("/usr/bin/myapp".to_owned()),
        build_id: Some("aa".to_owned()),
        ..Frame::default()
    }
}

pub(crate) fn group(signature: &str, count: u64) -> Group {
    Group {
        signature: Some(signature.to_owned()),
        family: None,
        estimated: false,
        signal: "SIGSEGV".to_owned(),
        code: Some("SEGV_MAPERR".to_owned()),
        disposition: Disposition::Fatal,
        comm: "myapp".to_owned(),
        uid: None,
        exe: Some("/usr/bin/myapp".to_owned()),
        build_id: Some("aa".to_owned()),
        count,
        total: 1000,
        first_seen: at(10),
        last_seen: at(20),
        last_pid: 1,
        abort_message: None,
        diagnosis: None,
        frames: Vec::new(),
        cpus: BTreeMap::new(),
    }
}

/// One hour that adds up and ends at `second`.
pub(crate) fn summary(host: &str, second: i64, groups: Vec<Group>) -> Summary {
    Summary {
        head: Head::new(Summary::KIND, at(second), host),
        interval: Interval {
            since: at(0),
            interval_seconds: 3600.0,
            kernel: "6.18".to_owned(),
            boot_id: Some("boot".to_owned()),
            last: false,
        },
        deliveries: Deliveries { matched: groups.iter().map(|group| group.count).sum::<u64>() + 2, filtered: 5 },
        groups,
        losses: BTreeMap::from([("group_table_full".to_owned(), 2)]),
        sample_losses: BTreeMap::from([("sample_budget".to_owned(), 3)]),
    }
}

/// Adds a summary as it is written and read.
pub(crate) fn add(merge: &mut Merge, summary: &Summary) -> Outcome {
    match parse(serde_json::to_string(summary).unwrap().as_bytes()) {
        Ok(Parsed::Summary(mut summary)) => {
            merge.read(&mut summary);
            merge.add(&summary)
        }
        other => panic!("{other:?}"),
    }
}

/// What is ranked in these tests.
pub(crate) fn selection(by: By, dispositions: &[Disposition]) -> Selection {
    Selection { by, dispositions: dispositions.to_vec(), ..Selection::default() }
}

fn merge(summaries: Vec<Summary>) -> (Totals, Vec<Row>) {
    merged(By::Signature, &summaries)
}

fn merged(by: By, summaries: &[Summary]) -> (Totals, Vec<Row>) {
    let mut merge = Merge::new(&selection(by, &[Disposition::Fatal, Disposition::Caught]));
    for summary in summaries {
        add(&mut merge, summary);
    }
    let merged = merge.finish(None);
    (merged.totals, merged.rows)
}

fn counts(rows: &[Row]) -> Vec<(Option<&str>, u64)> {
    rows.iter().map(|row| (row.signature.as_deref(), row.count)).collect()
}

#[test]
fn intervals_are_added_and_the_most_frequent_is_first() {
    let (totals, rows) = merge(vec![
        summary("a", 60, vec![group("1", 2), group("2", 1)]),
        summary("a", 120, vec![group("1", 1)]),
        summary("b", 60, vec![group("2", 7)]),
    ]);
    assert_eq!(counts(&rows), [(Some("2"), 8), (Some("1"), 3)], "never `total`");
    assert_eq!((rows[0].hosts, rows[1].hosts), (2, 1));
    assert_eq!(rows[0].host_names, ["b", "a"], "those with the most first");
    assert_eq!((totals.summaries, totals.hosts, totals.host_hours), (3, 2, 3.0));
    assert_eq!(totals.deliveries, Deliveries { matched: 17, filtered: 15 });
    assert_eq!((totals.losses["group_table_full"], totals.sample_losses["sample_budget"]), (6, 9));
    assert_eq!(totals.dispositions.values().sum::<u64>() + 6, 17, "matched is counted and lost");
    assert_eq!((totals.from, totals.to), (Some(at(60 - 3600)), Some(at(120))));
    assert!(totals.adds_up);
}

#[test]
fn the_same_summary_counts_once() {
    let mut merge = Merge::new(&selection(By::Signature, &[Disposition::Fatal]));
    let one = summary("a", 60, vec![group("1", 2)]);
    assert_eq!(add(&mut merge, &one), Outcome::Merged);
    assert_eq!(add(&mut merge, &one), Outcome::Duplicate);
    for other in [
        Summary { head: Head { host: "b".to_owned(), ..one.head.clone() }, ..one.clone() },
        Summary { interval: Interval { boot_id: None, ..one.interval.clone() }, ..one.clone() },
        Summary { interval: Interval { since: at(1), ..one.interval.clone() }, ..one.clone() },
        Summary { head: Head { timestamp: at(61), ..one.head.clone() }, ..one },
    ] {
        assert_eq!(add(&mut merge, &other), Outcome::Merged, "another time, host, boot or run");
    }
    let Merged { totals, rows, .. } = merge.finish(None);
    assert_eq!((totals.summaries, totals.duplicates, rows[0].count), (5, 1, 10));
    assert_eq!(totals.host_hours, 5.0, "a duplicate covers nothing");
}

#[test]
fn a_group_without_events_adds_nothing_but_its_name() {
    let nameless = Group { exe: None, build_id: None, ..group("1", 3) };
    let last = Group { count: 0, frames: vec![frame(Some("main"))], first_seen: at(5), ..group("1", 0) };
    let mut ended = summary("b", 90, vec![last, group("2", 0)]);
    ended.interval.last = true;
    let (_, rows) = merge(vec![summary("a", 60, vec![nameless]), ended]);
    assert_eq!(counts(&rows), [(Some("1"), 3)], "no row without events");
    assert_eq!((rows[0].hosts, rows[0].host_names.join(" ")), (1, "a".to_owned()));
    assert_eq!(rows[0].builds, BTreeMap::from([("unknown".to_owned(), 3)]));
    assert_eq!(rows[0].exes, ["/usr/bin/myapp"]);
    assert_eq!(rows[0].first_seen, at(5));
    assert_eq!(rows[0].frames[0].symbol.as_deref(), Some("main"));
}

#[test]
fn what_does_not_add_up_is_told() {
    let mut merge = Merge::new(&selection(By::Signature, &[Disposition::Fatal]));
    let wrong = Summary { deliveries: Deliveries::default(), ..summary("a", 60, vec![group("1", 2)]) };
    assert_eq!(add(&mut merge, &wrong), Outcome::Unbalanced);
    let huge = summary("a", 90, vec![group("1", 2)]);
    assert_eq!(
        add(&mut merge, &Summary { groups: vec![group("1", u64::MAX), group("2", 3)], ..huge }),
        Outcome::Unbalanced
    );
    let Merged { totals, rows, .. } = merge.finish(None);
    assert!(!totals.adds_up);
    assert_eq!(rows[0].count, u64::MAX, "a sum doesn't wrap around");
}

#[test]
fn dispositions_are_selected_and_the_totals_have_all() {
    let handled = Group { disposition: Disposition::Handled, ..group("1", 100) };
    let caught = Group { disposition: Disposition::Caught, ..group("1", 2) };
    let (totals, rows) = merge(vec![summary("a", 60, vec![group("1", 1), handled, caught])]);
    assert_eq!(counts(&rows), [(Some("1"), 3)]);
    assert_eq!(rows[0].disposition, Disposition::Caught, "of most of them");
    assert_eq!(rows[0].dispositions, BTreeMap::from([(Disposition::Fatal, 1), (Disposition::Caught, 2)]));
    assert_eq!(totals.dispositions[&Disposition::Handled], 100);
    assert_eq!(totals.dispositions[&Disposition::Ignored], 0, "zeros are shown");
}

#[test]
fn without_a_signature_all_that_is_known_must_be_the_same() {
    let unsigned = Group { signature: None, ..group("", 1) };
    let (_, rows) = merge(vec![
        summary("a", 60, vec![unsigned.clone(), Group { comm: "other".to_owned(), ..unsigned.clone() }]),
        summary(
            "b",
            60,
            vec![
                unsigned.clone(),
                Group { exe: None, ..unsigned.clone() },
                Group { code: None, ..unsigned.clone() },
                Group { disposition: Disposition::Caught, ..unsigned },
            ],
        ),
    ]);
    assert_eq!(rows.iter().map(|row| row.count).collect::<Vec<_>>(), [2, 1, 1, 1, 1]);
}

#[test]
fn frames_with_names_are_better() {
    let with = |symbols: &[Option<&str>]| Group {
        frames: symbols.iter().map(|symbol| frame(*symbol)).collect(),
        ..group("1", 1)
    };
    let (_, rows) = merge(vec![
        summary("a", 60, vec![with(&[]), with(&[None])]),
        summary("b", 60, vec![with(&[None, Some("first")]), with(&[Some("second")])]),
    ]);
    assert_eq!(rows[0].frames.len(), 2);
}

#[test]
fn names_and_builds_are_capped_and_add_up() {
    let groups = (0..40).map(|number| Group {
        comm: format!("c{number:02}"),
        exe: Some(format!("/e{number:02}")),
        build_id: (number != 0).then(|| format!("b{number:02}")),
        ..group("1", 100 - number)
    });
    let (_, rows) = merge(vec![summary("a", 60, groups.collect())]);
    let row = &rows[0];
    assert_eq!((row.comms.len(), row.exes.len(), row.comms[0].as_str()), (NAMES, NAMES, "c00"));
    assert_eq!(row.builds.len(), BUILDS + 1);
    assert_eq!((row.builds["unknown"], row.builds["b15"]), (100, 85));
    assert_eq!(row.builds.values().sum::<u64>(), row.count);
}

#[test]
fn without_room_the_heaviest_stay_and_all_events_are_counted() {
    let groups: Vec<Group> = (0..=ROWS as u64).map(|number| group(&format!("{number:06}"), 1 + number % 3)).collect();
    let all: u64 = groups.iter().map(|group| group.count).sum();
    let (totals, rows) = merge(vec![summary("a", 60, groups)]);
    assert_eq!(rows.len(), ROWS / 2 + 1);
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>() + totals.not_ranked, all);
    assert_eq!(totals.missing_at_most, 2, "the median");
    assert!(rows.iter().filter(|row| row.count == 3).count() > ROWS / 3 - 2, "all of the heaviest");
    assert!(
        rows.iter().all(|row| row.missing_at_most == if row.signature.as_deref() == Some("065536") { 2 } else { 0 })
    );
}

/// A bug that comes late and strikes often was in no row: the first 65536 had them all.
#[test]
fn the_last_to_come_may_be_the_heaviest() {
    let first: Vec<Group> = (0..ROWS as u64).map(|number| group(&format!("{number:06}"), 1)).collect();
    let (_, rows) = merge(vec![summary("a", 60, first), summary("a", 120, vec![group("heavy", 1000)])]);
    assert_eq!((rows[0].signature.as_deref(), rows[0].count, rows[0].missing_at_most), (Some("heavy"), 1000, 1));
}

fn of_family(family: &str, signature: &str, build: &str, count: u64) -> Group {
    Group { family: Some(family.to_owned()), build_id: Some(build.to_owned()), ..group(signature, count) }
}

#[test]
fn a_family_is_one_row_with_its_builds() {
    let summaries = [
        summary("a", 60, vec![of_family("f", "1", "aa", 2), of_family("g", "3", "aa", 4)]),
        summary("b", 60, vec![of_family("f", "2", "bb", 5)]),
    ];
    let (_, rows) = merged(By::Family, &summaries);
    assert_eq!(
        rows.iter().map(|row| (row.family.as_deref(), row.count)).collect::<Vec<_>>(),
        [(Some("f"), 7), (Some("g"), 4)]
    );
    assert_eq!((rows[0].signature.as_deref(), rows[0].hosts), (Some("2"), 2), "of most of them");
    let builds: Vec<_> = rows[0].signatures.iter().map(|build| (build.signature.as_deref(), build.count)).collect();
    assert_eq!(builds, [(Some("2"), 5), (Some("1"), 2)]);
    assert_eq!(rows[0].builds, BTreeMap::from([("aa".to_owned(), 2), ("bb".to_owned(), 5)]));
    assert_eq!(merged(By::Signature, &summaries).1.len(), 3);
}

#[test]
fn a_host_without_names_is_told_the_family_by_another() {
    let (_, rows) = merged(
        By::Family,
        &[summary("a", 60, vec![group("1", 3), group("2", 1)]), summary("b", 60, vec![of_family("f", "1", "aa", 2)])],
    );
    assert_eq!(
        rows.iter().map(|row| (row.family.as_deref(), row.count)).collect::<Vec<_>>(),
        [(Some("f"), 5), (None, 1)]
    );
}

fn crash(signature: &str, second: i64, message: Option<&str>, diagnosis: Option<&str>) -> String {
    let diagnosis = diagnosis.map(|text| serde_json::json!({"kind": "x", "text": text, "confidence": "certain"}));
    serde_json::json!({"type": "crash", "schema": 1, "timestamp": at(second), "host": "a", "signature": signature, "family": null,
        "abort_message": message, "diagnosis": diagnosis})
    .to_string()
}

#[test]
fn crash_records_say_what_their_bug_is() {
    let mut merge = Merge::new(&selection(By::Family, &[Disposition::Fatal]));
    let lines = [
        crash("1", 30, Some("later"), Some("later")),
        crash("1", 20, Some("free(): invalid pointer"), Some("freed twice")),
        crash("1", 10, None, None),
        crash("9", 5, Some("of no group"), None),
    ];
    for line in &lines[..2] {
        match parse(line.as_bytes()) {
            Ok(Parsed::Crash(crash)) => merge.add_crash(&crash),
            other => panic!("{other:?}"),
        }
    }
    add(&mut merge, &summary("b", 60, vec![of_family("f", "1", "aa", 2)]));
    for line in &lines[2..] {
        match parse(line.as_bytes()) {
            Ok(Parsed::Crash(crash)) => merge.add_crash(&crash),
            other => panic!("{other:?}"),
        }
    }
    let Merged { totals, rows, .. } = merge.finish(None);
    assert_eq!((totals.summaries, rows.len(), rows[0].count), (1, 1, 2), "records count nothing");
    assert_eq!(rows[0].abort_message.as_deref(), Some("free(): invalid pointer"));
    assert_eq!(rows[0].diagnosis.as_deref(), Some("freed twice"));
}

/// What threads merge apart, and then one after the other, is what one thread merges.
#[test]
fn parts_are_the_whole() {
    let summaries: Vec<Summary> = (0..40)
        .map(|number| {
            let host = ["a", "b", "c"][number as usize % 3];
            let frames = if number == 31 { vec![frame(Some("named"))] } else { vec![frame(None)] };
            let one = Group {
                frames,
                comm: format!("c{number}"),
                ..of_family("f", &format!("{}", number % 5), "aa", 1 + number)
            };
            summary(host, 60 + number as i64, vec![one, group("loner", 2)])
        })
        .collect();
    let whole = merged(By::Family, &summaries);
    let selection = selection(By::Family, &[Disposition::Fatal, Disposition::Caught]);
    let mut merge = Merge::new(&selection);
    for some in summaries.chunks(7) {
        let mut part = merge.part(&selection);
        some.iter().for_each(|summary| assert_eq!(add(&mut part, summary), Outcome::Merged));
        some.iter().for_each(|summary| assert_eq!(add(&mut part, summary), Outcome::Duplicate));
        merge.absorb(part);
    }
    let Merged { totals, rows, .. } = merge.finish(None);
    assert_eq!(totals.duplicates, 40);
    let json = |totals: &Totals, rows: &[Row]| {
        serde_json::to_string(&(Totals { duplicates: 0, ..totals.clone() }, rows)).unwrap()
    };
    assert_eq!(json(&totals, &rows), json(&whole.0, &whole.1));
    assert_eq!(rows[0].frames[0].symbol.as_deref(), Some("named"));
}

/// One interval on two lines: the last one has the sums.
#[test]
fn an_interval_may_have_several_lines() {
    let mut merge = Merge::new(&selection(By::Family, &[Disposition::Fatal]));
    let whole = summary("a", 60, vec![group("1", 3)]);
    let mut lines = Vec::new();
    for part in 1..=2 {
        let mut line = serde_json::to_value(&whole).unwrap();
        (line["part"], line["parts"]) = (part.into(), 2.into());
        if part == 1 {
            line.as_object_mut()
                .unwrap()
                .retain(|name, _| !matches!(name.as_str(), "deliveries" | "losses" | "sample_losses"));
        } else {
            line["groups"] = serde_json::json!([]);
        }
        lines.push(line.to_string());
    }
    for line in lines.iter().chain(&lines) {
        match parse(line.as_bytes()) {
            Ok(Parsed::Summary(summary)) => assert_ne!(merge.add(&summary), Outcome::Unbalanced),
            other => panic!("{other:?}"),
        }
    }
    let Merged { totals, rows, .. } = merge.finish(None);
    assert_eq!((totals.summaries, totals.duplicates, totals.host_hours, rows[0].count), (1, 2, 1.0, 3));
    assert!(totals.adds_up);
}

#[test]
fn equals_keep_one_order() {
    let there = merge(vec![summary("a", 60, vec![group("1", 2), group("2", 2)])]).1;
    let back = merge(vec![summary("a", 60, vec![group("2", 2), group("1", 2)])]).1;
    assert_eq!(counts(&there), counts(&back));
}
