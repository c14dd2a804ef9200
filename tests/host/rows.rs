//! The table of docs/diagnosis.md, for the tests that hold it against what is said: of cases (`src/diagnosis/sentences.rs`) and of programs
//! (`tests/host/alike.rs`).

/// A row of the table.
pub(crate) struct Row {
    pub(crate) kind: String,
    is_certain: bool,
    /// The parts of the sentence between what differs.
    pub(crate) parts: Vec<String>,
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

    fn is_of(&self, kind: &str, is_certain: bool) -> bool {
        let confidence = if is_certain { self.is_certain } else { !self.is_certain || self.may_be_likely };
        self.kind == kind && confidence
    }

    /// Its sentence, without what differs.
    pub(crate) fn sentence(&self) -> String {
        self.parts.join("<>")
    }
}

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let rows: Vec<Row> = include_str!("../../docs/diagnosis.md").lines().filter_map(Row::read).collect();
    assert!(rows.len() > 90, "{}", rows.len());
    rows
}

/// The row of a sentence, which may stand behind what libc said.
pub(crate) fn row_of(rows: &[Row], (kind, is_certain, text): (&str, bool, &str), said: Option<&str>) -> Option<usize> {
    let without = said.and_then(|said| text.strip_prefix(said.trim_end_matches('.'))?.strip_prefix(": "));
    let text = without.unwrap_or(text);
    let matching = rows.iter().enumerate().filter(|(_, row)| row.is_of(kind, is_certain));
    let best = matching.filter_map(|(index, row)| Some((row.matches(text)?, index))).max();
    assert!(best.is_some(), "docs/diagnosis.md lacks a sentence: {kind}: {text}");
    best.map(|(_, index)| index)
}
