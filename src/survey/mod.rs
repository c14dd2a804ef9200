//! `faultline doctor --symbols PATH|PID`: what the names of each file come from, what is missing, and what would get it.
//!
//! The children that name crashes look for the files as they do for a crash, so that the answer is what a crash would have.

mod modules;
mod packages;
mod record;
mod system;

use std::path::PathBuf;

use anyhow::Result;

use self::modules::{Module, modules};
use self::record::{Source, Surveyed};
use self::system::System;
pub(crate) use record::Survey;

use crate::debuginfod::Settings;
use crate::evidence::Failure;
use crate::hex::digits;
use crate::host;
use crate::naming::{Job, NamedFile, Naming, Patience, SearchPath};
use crate::output::Timestamp;
use crate::record::Head;
use crate::symbol::unwind::Frame;
use crate::symbol::{Opening, Sources};

/// How long the children may take.
const WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// Looks for the names of a file, or of all that a process runs.
///
/// # Errors
/// If there is no such file or process, or DEBUGINFOD_URLS and its kin can't be understood.
pub(crate) fn examine(target: &str, debug_dirs: Vec<PathBuf>) -> Result<Survey> {
    let (holder, modules) = modules(target)?;
    let settings = Settings::from_environment()?;
    let cache = settings.as_ref().map(|settings| settings.cache.clone());
    let mut naming = Naming::new(SearchPath { debug_dirs, cache })?;
    let mut patience = Patience::new();
    patience.begin(WAIT);
    let opening = Opening {
        process: holder,
        taken_ns: Timestamp::now().unix_ns(),
        files: modules.iter().map(|module| module.request.clone()).collect(),
        perf_map: None,
    };
    // What is there doesn't matter: to name a place of a file, it is read.
    let first = |number| Frame { address: Job::base(number), is_return_address: false };
    let job = Job::of_files(opening, (0..modules.len()).map(first).collect());
    let named = naming.ask(job, &mut patience);
    let surveyed = modules.iter().zip(&named.files).map(|(module, named)| survey(module, named, settings.as_ref()));
    Ok(Survey {
        head: Head::new("symbols", Timestamp::now(), &host::name()),
        target: target.to_owned(),
        modules: surveyed.collect(),
    })
}

fn survey(module: &Module, named: &NamedFile, settings: Option<&Settings>) -> Surveyed {
    let found = named.sources.unwrap_or_default();
    let source = source(found);
    let mut missing = Vec::new();
    match (named.failure, named.sources) {
        (Some(failure), _) => missing.push(format!("the file: {}", record::reason(failure))),
        (None, None) => missing.push("the file: nothing leads to it any more".to_owned()),
        (None, Some(_)) => {}
    }
    if !found.has_symbols {
        missing.push("names".to_owned());
    } else if !found.has_all_symbols && !found.has_lines {
        missing.push("names of the functions that it doesn't export".to_owned());
    }
    if !found.has_lines {
        missing.push("files and lines".to_owned());
    }
    let cures = match (&named.build_id, found.has_lines) {
        (_, true) => Vec::new(),
        // What is there is more than is read, and would be again.
        _ if named.failure == Some(Failure::TooLarge) => Vec::new(),
        (None, false) => vec!["link it with -Wl,--build-id: a debug file is known by that".to_owned()],
        (Some(build_id), false) => cures(&digits(build_id), is_systems(&module.name), settings),
    };
    Surveyed { module: module.name.clone(), build_id: named.build_id.as_deref().map(digits), source, missing, cures }
}

fn source(found: Sources) -> Source {
    match found {
        Sources { has_lines: true, has_debug_file: true, .. } => Source::DebugFile,
        Sources { has_lines: true, .. } => Source::DebugInformation,
        Sources { has_all_symbols: true, .. } => Source::Symbols,
        Sources { has_symbols: true, .. } => Source::ExportedSymbols,
        _ => Source::Nothing,
    }
}

/// Is the file in a folder of the system's own packages?
fn is_systems(path: &str) -> bool {
    let folders = ["/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/"];
    folders.iter().any(|folder| path.starts_with(folder)) && !path.starts_with("/usr/local/")
}

/// What gets a debug file of this build id. `is_systems`: the file is in a folder of the system's own packages.
fn cures(build_id: &str, is_systems: bool, settings: Option<&Settings>) -> Vec<String> {
    let system = is_systems.then(System::of_this_host).flatten();
    let archive = || Some(system.as_ref()?.archive()).filter(|_| packages::is_by_apt()).flatten();
    let mut cures: Vec<String> = packages::installing(build_id).or_else(archive).into_iter().collect();
    match settings {
        Some(settings) => cures.extend(
            settings
                .urls
                .iter()
                .map(|url| format!("faultline symbolize, which asks {url}/buildid/{build_id}/debuginfo")),
        ),
        None => {
            let server = system.as_ref().and_then(System::server);
            let own = server.map(|url| format!("; that of this system is {url}")).unwrap_or_default();
            cures.push(format!("faultline symbolize, with a server in DEBUGINFOD_URLS{own}"));
        }
    }
    if let Some((first, rest)) = build_id.split_at_checked(2) {
        cures.push(format!("a debug file at /usr/lib/debug/.build-id/{first}/{rest}.debug, or below --debug-dir"));
    }
    cures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_has_debug_files_of_its_own_packages_only() {
        assert!(["/usr/bin/x", "/bin/x", "/lib/x86_64-linux-gnu/x"].into_iter().all(is_systems));
        assert!(!["/usr/local/bin/x", "/opt/x", "/home/usr/bin/x", "/libx"].into_iter().any(is_systems));
    }

    #[test]
    fn the_source_is_the_best_that_was_found() {
        let found = |has_symbols, has_lines, has_debug_file| Sources {
            is_placed: true,
            has_symbols,
            has_all_symbols: has_symbols,
            has_lines,
            has_debug_file,
        };
        assert_eq!(source(found(true, true, true)), Source::DebugFile);
        assert_eq!(source(found(true, true, false)), Source::DebugInformation);
        assert_eq!(source(found(true, false, true)), Source::Symbols);
        assert_eq!(source(Sources { has_all_symbols: false, ..found(true, false, false) }), Source::ExportedSymbols);
        assert_eq!(source(found(false, false, false)), Source::Nothing);
    }
}
