use super::super::input::{Parsed, parse};
use super::super::merge::Merge;
use super::super::merge::tests::{frame, group, selection, summary};
use super::super::record::{By, Merged};
use crate::record::crash::Disposition;
use crate::record::lines::{self, Continuity, InFile};
use crate::record::summary::Group;

/// What an agent writes to a file in these intervals, and the same with all fields in each line.
fn written(intervals: &[Vec<Group>]) -> (String, String) {
    let mut known = InFile::default();
    let (mut short, mut whole) = (String::new(), String::new());
    for (second, groups) in (60..).step_by(60).zip(intervals) {
        known.turn_to(if short.is_empty() { Continuity::New } else { Continuity::Same });
        let summary = summary("a", second, groups.clone());
        short += std::str::from_utf8(&lines::summary(&summary, &mut known).unwrap()).unwrap();
        whole += &(serde_json::to_string(&summary).unwrap() + "\n");
    }
    (short, whole)
}

/// The blocks of a file, each merged by itself as threads do.
fn in_blocks(blocks: &[&str]) -> Merged {
    let selection = selection(By::Family, &[Disposition::Fatal]);
    let mut merge = Merge::new(&selection);
    merge.begin_file();
    for block in blocks {
        let mut part = merge.part(&selection);
        for line in block.lines() {
            match parse(line.as_bytes()) {
                Ok(Parsed::Summary(mut summary)) => {
                    part.read(&mut summary);
                    part.add(&summary);
                }
                other => panic!("{other:?}"),
            }
        }
        merge.absorb(part);
    }
    merge.finish(None)
}

fn rows(merged: Merged) -> String {
    serde_json::to_string(&merged.rows).unwrap()
}

/// Four bugs, of which two have one signature and differ in their executables, and a third has no signature.
fn repeated() -> Vec<Vec<Group>> {
    let bug = |signature: &str, exe: Option<&str>, build_id: Option<&str>, count| Group {
        family: Some(format!("family-{signature}")),
        exe: exe.map(str::to_owned),
        build_id: build_id.map(str::to_owned),
        abort_message: Some(format!("said of {signature}")),
        frames: vec![frame(Some(&format!("function_{signature}"))); 16],
        ..group(signature, count)
    };
    let nameless = Group { signature: None, family: None, ..bug("none", Some("/n"), None, 2) };
    (1..=5)
        .map(|interval| {
            vec![
                bug("1", Some("/one"), Some("aa"), 10 * interval),
                bug("2", Some("/two"), Some("bb"), 5),
                bug("2", Some("/copy/of/two"), Some("bb"), 4),
                bug("3", None, None, 3),
                nameless.clone(),
            ]
        })
        .collect()
}

/// Frames and what goes with them stand in a file once, and the report is the same.
#[test]
fn what_an_earlier_line_says_is_not_missed() {
    let (short, whole) = written(&repeated());
    assert_eq!(short.matches("function_1").count(), 16, "{short}");
    assert_eq!(short.matches("said of 1").count(), 1, "{short}");
    assert!(short.len() < whole.len() / 2);
    let wanted = in_blocks(&[&whole]);
    assert_eq!((wanted.totals.unresolved, wanted.rows[0].exes[0].as_str()), (0, "/one"));
    let (first, rest) = short.split_at(short.find('\n').unwrap() + 1);
    let all: Vec<&str> = short.split_inclusive('\n').collect();
    let wanted = rows(wanted);
    for blocks in [&[short.as_str()][..], &[first, rest], &all] {
        let merged = in_blocks(blocks);
        assert_eq!((merged.totals.unresolved, merged.totals.adds_up), (0, true));
        assert_eq!(rows(merged), wanted);
    }
}

/// A file without its beginning: the counts are there, and what isn't known is not guessed.
#[test]
fn a_reference_to_nothing_is_counted() {
    let (short, whole) = written(&repeated());
    let (_, cut) = short.split_once('\n').unwrap();
    let (_, whole) = whole.split_once('\n').unwrap();
    let (merged, wanted) = (in_blocks(&[cut]), in_blocks(&[whole]));
    assert_eq!(merged.totals.unresolved, 4 * 4, "all that have a signature");
    let count = |merged: &Merged| merged.rows.iter().map(|row| (row.signature.clone(), row.count)).collect::<Vec<_>>();
    assert_eq!(count(&merged), count(&wanted));
    let row = merged.rows.iter().find(|row| row.signature.as_deref() == Some("1")).unwrap();
    assert_eq!((row.exes.len(), row.builds.get("unknown"), row.place.as_str()), (0, Some(&140), "unknown"));
    // Another file has other lines.
    let mut merge = Merge::new(&selection(By::Family, &[Disposition::Fatal]));
    for block in [short.lines().next().unwrap(), cut] {
        merge.begin_file();
        let part = super::super::read::merge_bytes(block.as_bytes(), &selection(By::Family, &[Disposition::Fatal]));
        merge.absorb(part);
    }
    assert_eq!(merge.finish(None).totals.unresolved, 16);
}
