//! docs/kernels.md: what the guests found, in tables with a column for each kernel.

use std::collections::BTreeSet;

use super::{Extent, Outcome};

const PATH: &str = "docs/kernels.md";

/// Where the part about arm64 begins.
const ARM64_PART: &str = "\n## On arm64";

/// docs/kernels.md as the results of the guests make it.
fn document(outcomes: &[(String, Outcome)]) -> String {
    "# What works on which kernel\n\nWritten by `ci/vm --all`, which fails where this page isn't what it finds. The kernels are Debian's own \
     packages.\n\n"
        .to_owned()
        + &tables(outcomes, "##")
}

/// Its part about arm64, whose tests are the same, but for those of programs that can't be built there.
fn arm64_part(outcomes: &[(String, Outcome)]) -> String {
    format!(
        "{ARM64_PART}\n\nThe guests have an emulated processor: `ci/arm64 {} --tests`.\n\n",
        names(outcomes).join(",")
    ) + &tables(outcomes, "###")
}

fn names(outcomes: &[(String, Outcome)]) -> Vec<&str> {
    outcomes.iter().map(|(name, _)| name.as_str()).collect()
}

/// What each kernel has, and what is proved there.
fn tables(outcomes: &[(String, Outcome)], level: &str) -> String {
    let names = names(outcomes);
    let head = format!(" | {} |\n| --- |{}\n", names.join(" | "), " --- |".repeat(names.len()));
    let row = |first: &str, cell: &dyn Fn(&Outcome) -> String| {
        let cells: Vec<String> = outcomes.iter().map(|(_, outcome)| cell(outcome)).collect();
        format!("| {first} | {} |\n", cells.join(" | "))
    };
    let mut text = format!(
        "{level} What each kernel has\n\nAs `faultline doctor` says for root. What is missing is named there with what is used instead.\n\n|{head}"
    );
    let known = |answer: &Option<String>| answer.clone().unwrap_or_else(|| "-".to_owned());
    text += &row("`faultline crash`", &|outcome| known(&outcome.crash));
    text += &row("the same under `lockdown=confidentiality`", &|outcome| known(&outcome.crash_locked_down));
    let questions: BTreeSet<&String> = outcomes.iter().flat_map(|(_, outcome)| outcome.doctor.keys()).collect();
    for question in questions {
        let answer = |outcome: &Outcome| outcome.doctor.get(question).cloned().unwrap_or_else(|| "-".to_owned());
        text += &row(&format!("`{question}`"), &answer);
    }
    text += &format!("\n{level} What is proved on each kernel\n\nThe tests of `tests/vm/`, by file.\n\n|{head}");
    let rooms: BTreeSet<&str> = outcomes
        .iter()
        .flat_map(|(_, outcome)| outcome.tests.keys().filter_map(|test| test.split("::").next()))
        .collect();
    for room in rooms {
        let passed = |outcome: &Outcome| {
            let all: Vec<bool> = outcome
                .tests
                .iter()
                .filter(|(test, _)| test.split("::").next() == Some(room))
                .map(|(_, passed)| *passed)
                .collect();
            format!("{} of {}", all.iter().filter(|passed| **passed).count(), all.len())
        };
        text += &row(room, &passed);
    }
    text
}

/// Compares docs/kernels.md with the results, where all tests ran; with FAULTLINE_BLESS set, writes it, if they ran everywhere. True: it is right.
pub(crate) fn compare(outcomes: &[(String, Outcome)], extent: Extent) -> bool {
    let (stands, arm64) = parts();
    let found = document(outcomes);
    match (extent, outcomes) {
        (Extent::Core, [(oldest, _), .., (newest, _)]) => {
            let outer = |text: &str| columns(text, &[oldest, newest]);
            is_right(outer(&stands) == outer(&found))
        }
        _ => settle(&stands, &found, &format!("{found}{arm64}")),
    }
}

/// The same of the part about arm64.
pub(crate) fn compare_arm64(outcomes: &[(String, Outcome)]) -> bool {
    let (x86, stands) = parts();
    let found = arm64_part(outcomes);
    settle(&stands, &found, &format!("{x86}{found}"))
}

/// The page: what comes before the part about arm64, and that part.
fn parts() -> (String, String) {
    let mut page = std::fs::read_to_string(PATH).unwrap_or_default();
    let at = page.find(ARM64_PART).unwrap_or(page.len());
    let arm64 = page.split_off(at);
    (page, arm64)
}

/// Is a part of the page what was found? With FAULTLINE_BLESS set, it is written.
fn settle(stands: &str, found: &str, page: &str) -> bool {
    if std::env::var_os("FAULTLINE_BLESS").is_some() {
        return std::fs::write(PATH, page).is_ok();
    }
    is_right(stands == found)
}

fn is_right(right: bool) -> bool {
    if !right {
        eprintln!("faultline: {PATH} is not what was found: FAULTLINE_BLESS=1 ci/vm --all writes it anew");
    }
    right
}

/// The page with what its tables say of these kernels alone.
fn columns(text: &str, kernels: &[&String]) -> Vec<String> {
    let mut places = Vec::new();
    let mut shorten = |line: &str| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if line.starts_with("| |") {
            let place = |kernel: &&String| cells.iter().position(|cell| cell == *kernel);
            places = std::iter::once(Some(1)).chain(kernels.iter().map(place)).collect();
        }
        match cells.len() {
            1 => line.to_owned(),
            _ => places
                .iter()
                .map(|place| place.and_then(|at| cells.get(at)).map_or("-", |cell| *cell))
                .collect::<Vec<_>>()
                .join(" | "),
        }
    };
    text.lines().map(&mut shorten).collect()
}
