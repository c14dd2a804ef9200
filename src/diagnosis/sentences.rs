//! Walks the table of docs/diagnosis.md: each sentence there is said of a case for which it is right, and of none that looks like it. A case
//! is what the kernel program sends of a program; tests/host/alike.rs, tests/host/sentences.rs and tests/vm/sentences.rs run such programs.

#[cfg(test)]
mod aborts;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod others;
#[cfg(test)]
#[path = "../../tests/host/rows.rs"]
mod rows;

use self::rows::{Row, rows};
use super::cases::Case;
use super::{Confidence, diagnose};

/// The row of the sentence that is said of a case. `None` means that nothing is said.
fn row_of(rows: &[Row], case: &Case) -> Option<usize> {
    let found = diagnose(&case.evidence())?;
    let kind = found.kind.to_string();
    let sentence = (kind.trim_matches('"'), found.confidence == Confidence::Certain, found.text.as_str());
    rows::row_of(rows, sentence, case.abort_message.as_deref())
}

#[test]
fn each_sentence_is_said_where_it_is_right_and_not_where_it_looks_right() {
    let rows = rows();
    let cases: Vec<Case> = [memory::cases(), others::cases(), aborts::cases()].concat();
    let said: Vec<(u32, Option<usize>)> = cases.iter().map(|case| (case.signal, row_of(&rows, case))).collect();
    let mut missing = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let Some((signal, _)) = said.iter().find(|(_, row)| *row == Some(index)) else {
            missing.push(format!("{}: {}: no case", row.kind, row.sentence()));
            continue;
        };
        let alike = said.iter().filter(|(other, row)| other == signal && *row != Some(index)).count();
        if alike < 2 {
            missing.push(format!("{}: {}: {alike} look-alikes", row.kind, row.sentence()));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
