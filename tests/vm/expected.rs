//! What the header of a program of `tests/programs` says about its end.
#![allow(dead_code)] // other packages of tests include this file and use a part

use std::fs;
use std::path::Path;

use super::arch;

/// Is this field, whose name has dots, another one or a part of it?
fn is_part(field: &str, of: &str) -> bool {
    field.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The source of a program of `tests/programs`.
pub(crate) fn source(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(format!("{name}.c"));
    fs::read_to_string(path).unwrap()
}

/// Is the program built for this architecture? Its header says where it isn't, and why.
pub(crate) fn is_built(name: &str) -> bool {
    !source(name).contains(&format!("\n * only on {}: ", arch::ELSEWHERE))
}

/// What a program's header says about it.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    pub flags: Vec<String>,
    pub exit: Option<i32>,
    pub records: Option<usize>,
    pub frames: Vec<String>,
    pub fields: Vec<(String, String)>,
}

/// What stands for a value that the program says itself, or that nobody knows.
const ANY: &str = "any";

impl Expected {
    /// Does the program say how it ends, and can it be built here? The others are run by the tests that they name.
    pub(crate) fn is_said(name: &str) -> bool {
        source(name).contains("\n * expect: exit ") && is_built(name)
    }

    pub(crate) fn read(name: &str) -> Self {
        let text = source(name);
        let mut expected = Self::default();
        for line in text.lines().take_while(|line| !line.starts_with('#')) {
            if let Some(flags) = line.strip_prefix(" * flags: ") {
                expected.flags.extend(flags.split_whitespace().map(str::to_owned));
            }
            if let Some(fact) = line.strip_prefix(" * expect: ") {
                expected.take(fact);
            }
            if let Some(fact) = arch::DIFFERENT.and_then(|begin| line.strip_prefix(begin)?.strip_prefix(": ")) {
                expected.take(fact);
            }
        }
        expected.fields.retain(|(field, value)| value != ANY && !arch::is_elsewhere(field));
        assert!(!expected.fields.is_empty() && expected.exit.is_some(), "{name}.c says nothing about its end");
        expected
    }

    /// A fact takes the place of an earlier one of that field, of a part of it, or of what it is a part of.
    fn take(&mut self, fact: &str) {
        match fact.trim().split_once(' ').unwrap() {
            ("exit", status) => self.exit = Some(status.parse().unwrap()),
            ("records", count) => self.records = Some(count.parse().unwrap()),
            ("frames", names) => self.frames = names.split(' ').map(str::to_owned).collect(),
            (field, value) => {
                self.fields.retain(|(known, _)| !is_part(known, field) && !is_part(field, known));
                self.fields.push((field.to_owned(), value.to_owned()));
            }
        }
    }
}
