use serde_json::Value;

use super::*;
use crate::diagnosis::Confidence;
use crate::diagnosis::Kind;

pub(super) fn group(signature: &str, symbol: Option<&str>) -> Group {
    let at = Timestamp::from_unix_ns(1_800_000_000_000_000_000).unwrap();
    Group {
        signature: Some(signature.to_owned()),
        family: Some("f".to_owned()),
        estimated: false,
        signal: "SIGABRT".to_owned(),
        code: None,
        disposition: Disposition::Fatal,
        comm: "comm".to_owned(),
        uid: Some(7),
        exe: Some("/exe".to_owned()),
        build_id: Some("aa".to_owned()),
        count: 2,
        total: 3,
        first_seen: at,
        last_seen: at,
        last_pid: 9,
        abort_message: Some("message".to_owned()),
        diagnosis: Some(Diagnosis {
            kind: Kind::FloatingPointDivideByZero,
            text: "sentence".to_owned(),
            confidence: Confidence::Likely,
        }),
        frames: vec![Frame { symbol: symbol.map(str::to_owned), ..Frame::default() }],
        cpus: BTreeMap::from([(0, 2)]),
    }
}

pub(super) fn summary_of(groups: Vec<Group>) -> Summary {
    let at = Timestamp::from_unix_ns(1_800_000_010_000_000_000).unwrap();
    let matched = groups.iter().map(|group| group.count).sum();
    Summary {
        head: Head::new(Summary::KIND, at, "host"),
        interval: Interval { since: at, interval_seconds: 10.0, kernel: "6.18".to_owned(), boot_id: None, last: false },
        groups,
        deliveries: Deliveries { matched, filtered: 1 },
        losses: BTreeMap::from([("group_table_full".to_owned(), 0)]),
        sample_losses: BTreeMap::new(),
    }
}

/// The groups of one line, written to this place.
fn groups(known: &mut InFile, place: Continuity, groups: Vec<Group>) -> Vec<Value> {
    known.turn_to(place);
    let text = summary(&summary_of(groups), known).unwrap();
    let line: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&line["part"], &line["parts"]), (&1.into(), &1.into()));
    line["groups"].as_array().unwrap().clone()
}

fn is_whole(group: &Value) -> bool {
    assert_eq!(group["frames"].is_array(), group["frames_in_file"] == false, "{group:#}");
    group["frames"].is_array()
}

#[test]
fn frames_are_written_once_a_file() {
    let known = &mut InFile::default();
    let bug = || vec![group("1", Some("f"))];
    let first = groups(known, Continuity::New, bug());
    assert!(is_whole(&first[0]));
    let second = groups(known, Continuity::Same, bug());
    assert!(!is_whole(&second[0]) && second[0]["frames"].is_null());
    for constant in ["exe", "build_id", "abort_message", "diagnosis"] {
        assert!(second[0].get(constant).is_none() && first[0].get(constant).is_some(), "{constant}");
    }
    let (mut left, mut whole) = (second[0].clone(), first[0].clone());
    for field in ["exe", "build_id", "abort_message", "diagnosis", "frames", "frames_in_file", "last_pid"] {
        left.as_object_mut().unwrap().remove(field);
        whole.as_object_mut().unwrap().remove(field);
    }
    assert_eq!(left, whole, "nothing else is left out");
    assert!(is_whole(&groups(known, Continuity::New, bug())[0]), "another file, or an emptied one");
    assert!(!is_whole(&groups(known, Continuity::Same, bug())[0]));
    for _ in 0..2 {
        assert!(is_whole(&groups(known, Continuity::Stream, bug())[0]), "who reads it later may lack what came before");
    }
}

#[test]
fn what_differs_is_written() {
    let known = &mut InFile::default();
    let other = || Group { exe: None, abort_message: Some("another".to_owned()), ..group("1", Some("f")) };
    let both = groups(known, Continuity::New, vec![group("1", Some("f")), other()]);
    assert!(both.iter().all(is_whole), "an earlier line, not this one");
    let both = groups(known, Continuity::Same, vec![group("1", Some("f")), other()]);
    assert!(!both.iter().any(is_whole));
    // The last one that was whole is what later lines refer to.
    assert_eq!((&both[0]["exe"], &both[0]["abort_message"]), (&"/exe".into(), &"message".into()));
    assert!(both[0].get("diagnosis").is_none() && both[0].get("build_id").is_none());
    assert!(both[1].get("exe").is_none() && both[1].get("abort_message").is_none());
    let unsigned = || vec![Group { signature: None, ..group("1", Some("f")) }];
    for place in [Continuity::New, Continuity::Same] {
        assert!(is_whole(&groups(known, place, unsigned())[0]));
    }
}

/// What can be known from the line before, and digits that nobody needs, were more than a half of a compressed file.
#[test]
fn what_a_group_that_goes_on_has_said_is_not_written_again() {
    let known = &mut InFile::default();
    let at =
        |milliseconds: i128| Timestamp::from_unix_ns(1_800_000_000_000_000_000 + milliseconds * 1_000_000).unwrap();
    let bug = |count, total, last| Group { count, total, last_seen: at(last), ..group("1", Some("f")) };
    let mut write = |place, group: Group| groups(known, place, vec![group]).remove(0);
    let first = write(Continuity::New, bug(2, 3, 1230));
    assert_eq!((&first["total"], &first["last_seen"]), (&3.into(), &serde_json::to_value(at(1230)).unwrap()));
    let second = write(Continuity::Same, bug(4, 7, 11_230));
    assert!(second.get("total").is_none() && second["count"] == 4, "{second:#}");
    assert_eq!(second["last_seen"], serde_json::to_value(at(10_000)).unwrap());
    assert!(second.get("last_pid").is_none() && first["last_pid"] == 9);
    write(Continuity::Same, group("2", None));
    let again = write(Continuity::Same, bug(1, 8, 12_340));
    assert!(again.get("total").is_none(), "by the line before, whole or not");
    let whole_second = serde_json::to_value(at(12_000)).unwrap();
    assert_eq!(
        (&again["last_seen"], &again["last_pid"]),
        (&whole_second, &9.into()),
        "it was not in the summary before"
    );
    assert_eq!(write(Continuity::Same, bug(1, 30, 13_000))["total"], 30, "another group of this signature");
    let young = Group { first_seen: at(14_200), ..bug(1, 31, 14_230) };
    assert_eq!(write(Continuity::Same, young)["last_seen"], serde_json::to_value(at(14_200)).unwrap());
    let mut last = summary_of(vec![bug(1, 32, 15_230)]);
    last.interval.last = true;
    let text = summary(&last, known).unwrap();
    let last: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!((&last["groups"][0]["total"], &last["groups"][0]["frames_in_file"]), (&32.into(), &true.into()));
    assert_eq!(last["groups"][0]["last_seen"], serde_json::to_value(at(15_230)).unwrap());
    assert_eq!(last["groups"][0]["last_pid"], 9);
}

#[test]
fn frames_with_names_are_written_after_those_without() {
    let known = &mut InFile::default();
    assert!(is_whole(&groups(known, Continuity::New, vec![group("1", None)])[0]));
    assert!(!is_whole(&groups(known, Continuity::Same, vec![group("1", None)])[0]));
    assert!(is_whole(&groups(known, Continuity::Same, vec![group("1", Some("f"))])[0]));
    assert!(!is_whole(&groups(known, Continuity::Same, vec![group("1", None)])[0]));
}

#[test]
fn what_is_known_of_a_file_is_bounded() {
    let known = &mut InFile::default();
    known.turn_to(Continuity::New);
    for signature in 0..=SIGNATURES {
        known.summaries += 1;
        known.line(&group(&signature.to_string(), None), false);
    }
    assert!(known.bases.len() <= SIGNATURES);
}

#[test]
fn a_long_summary_is_several_lines() {
    let whole = summary_of((0..100).map(|number| group(&number.to_string(), Some("f"))).collect());
    let mut known = InFile::default();
    known.turn_to(Continuity::New);
    let text = divided(&whole, &mut known, 5000).unwrap();
    assert_eq!(text.last(), Some(&b'\n'));
    let lines: Vec<&[u8]> = text[..text.len() - 1].split(|byte| *byte == b'\n').collect();
    assert!(lines.len() > 5 && lines.iter().all(|line| line.len() <= 5000));
    let records: Vec<Value> = lines.iter().map(|line| serde_json::from_slice(line).unwrap()).collect();
    let mut seen = Vec::new();
    for (number, record) in (1..).zip(&records) {
        assert_eq!((&record["part"], &record["parts"]), (&Value::from(number), &lines.len().into()));
        assert_eq!((&record["type"], &record["interval_seconds"]), (&"summary".into(), &10.0.into()));
        let is_last = number == lines.len();
        for sum in ["deliveries", "losses", "sample_losses"] {
            assert_eq!(record[sum].is_null(), !is_last, "{sum}");
        }
        seen.extend(record["groups"].as_array().unwrap().iter().map(|group| group["signature"].clone()));
    }
    assert_eq!(records.last().unwrap()["deliveries"]["matched"], 200);
    assert_eq!(seen, (0..100).map(|number| Value::from(number.to_string())).collect::<Vec<_>>());
    let none = summary(&summary_of(Vec::new()), &mut known).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&none).unwrap()["groups"], serde_json::json!([]));
    let alone = divided(&summary_of(vec![group("a", None), group("b", None)]), &mut known, 1).unwrap();
    assert_eq!(alone.iter().filter(|byte| **byte == b'\n').count(), 2, "what is longer by itself is alone");
}
