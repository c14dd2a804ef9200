//! Walks the table of docs/diagnosis.md: each sentence there is said of a case for which it is right, and of none that looks like it. A case
//! is what the kernel program sends of a program; tests/host/sentences.rs and tests/vm/sentences.rs run such programs.

#[cfg(test)]
mod aborts;
#[cfg(test)]
mod memory;
#[cfg(test)]
mod others;

use super::cases::Case;
use super::{Confidence, Diagnosis, diagnose};

/// A row of the table.
struct Row {
    kind: String,
    is_certain: bool,
    /// The parts of the sentence between what differs.
    parts: Vec<String>,
    /// The last column says when it is likely.
    may_be_likely: bool,
}

impl Row {
    fn read(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
        let [kind, confidence, sentence, evidence] = cells[..] else { panic!("{line}") };
        let sentence = sentence.trim_matches('`').trim();
        Some(Self {
            kind: kind.trim_end_matches('`').to_owned(),
            is_certain: confidence == "certain",
            parts: sentence
                .split('<')
                .map(|part| part.split_once('>').map_or(part, |(_, rest)| rest).to_owned())
                .collect(),
            may_be_likely: evidence.contains("likely"),
        })
    }

    /// How much of `text` is this sentence. `None` means that it is another one.
    fn matches(&self, text: &str) -> Option<usize> {
        let mut rest = text.strip_prefix(self.parts[0].as_str())?;
        for part in &self.parts[1..] {
            rest = &rest[rest.find(part.as_str())? + part.len()..];
        }
        Some(self.parts.iter().map(String::len).sum())
    }

    fn is_of(&self, found: &Diagnosis) -> bool {
        let confidence = match found.confidence {
            Confidence::Certain => self.is_certain,
            Confidence::Likely => !self.is_certain || self.may_be_likely,
        };
        self.kind == found.kind.to_string().trim_matches('"') && confidence
    }
}

fn rows() -> Vec<Row> {
    let rows: Vec<Row> = include_str!("../../docs/diagnosis.md").lines().filter_map(Row::read).collect();
    assert!(rows.len() > 90, "{}", rows.len());
    rows
}

/// The row of the sentence that is said of a case. `None` means that nothing is said.
fn row_of(rows: &[Row], case: &Case) -> Option<usize> {
    let found = diagnose(&case.evidence())?;
    let said = case.abort_message.as_ref().and_then(|message| found.text.strip_prefix(&format!("{message}: ")));
    let text = said.unwrap_or(&found.text);
    let matching = rows.iter().enumerate().filter(|(_, row)| row.is_of(&found));
    let best = matching.filter_map(|(index, row)| Some((row.matches(text)?, index))).max();
    assert!(best.is_some(), "docs/diagnosis.md lacks a sentence: {found:?}");
    best.map(|(_, index)| index)
}

#[test]
fn each_sentence_is_said_where_it_is_right_and_not_where_it_looks_right() {
    let rows = rows();
    let cases: Vec<Case> = [memory::cases(), others::cases(), aborts::cases()].concat();
    let said: Vec<(u32, Option<usize>)> = cases.iter().map(|case| (case.signal, row_of(&rows, case))).collect();
    let mut missing = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let Some((signal, _)) = said.iter().find(|(_, row)| *row == Some(index)) else {
            missing.push(format!("{}: {}: no case", row.kind, row.parts.join("<>")));
            continue;
        };
        let alike = said.iter().filter(|(other, row)| other == signal && *row != Some(index)).count();
        if alike < 2 {
            missing.push(format!("{}: {}: {alike} look-alikes", row.kind, row.parts.join("<>")));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
