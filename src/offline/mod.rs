//! Names frames of records by build id and offset: later, and on any machine that has the files or can have them fetched.
//!
//! A file is used only if it has the build id, wherever it comes from. The same child parses it that parses the files of watched processes (`naming`).

mod stack;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::Result;

pub(crate) use stack::{Naked, Named, name_stack};

use crate::debuginfod::{Client, Kind, Outcome, Settings};
use crate::evidence::{FileId, Function};
use crate::naming::{FILE_ADDRESSES, Job, NamedFile, Naming, Patience, SearchPath};
use crate::symbol::unwind::Frame;
use crate::symbol::{FileRequest, Holder, Opening, Usage};

/// How long the names of one stack may take, besides what is fetched for them.
const WAIT: Duration = Duration::from_secs(60);

/// How many places are remembered with their functions; all are forgotten when there are more.
const KNOWN_MAX: usize = 1 << 16;

/// So many files of a stack are looked at.
const FILES_MAX: usize = 256;

/// The process that has the files, for the namer: no living process has these numbers.
const NOBODY: Holder = Holder { pid: u32::MAX, tid: u32::MAX, parent: u32::MAX, mount_namespace: 0 };

/// A place in the code of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// The file's.
    pub build_id: Vec<u8>,
    /// The file's path where it ran.
    pub module: Option<String>,
    /// In the file.
    pub offset: u64,
    /// It is behind the call that it belongs to.
    pub is_return_address: bool,
}

/// Names places.
pub(crate) struct Names {
    naming: Naming,
    patience: Patience,
    /// `None` means that nothing is fetched.
    client: Option<Client>,
    /// Build ids that were asked for.
    asked: HashSet<Vec<u8>>,
    known: HashMap<Place, Vec<Function>>,
}

/// A file of a job.
type Wanted = (Vec<u8>, Option<String>);

impl Names {
    /// With the servers that `settings` name. Looks in `debug_dirs` first.
    ///
    /// # Errors
    /// If the cache can't be used.
    pub(crate) fn new(debug_dirs: Vec<std::path::PathBuf>, settings: Option<Settings>) -> Result<Self> {
        let client = settings.map(Client::new).transpose()?;
        let cache = client.as_ref().map(|client| client.folder().to_owned());
        Ok(Self {
            naming: Naming::new(SearchPath { debug_dirs, cache })?,
            patience: Patience::new(),
            client,
            asked: HashSet::new(),
            known: HashMap::new(),
        })
    }

    /// May files be fetched?
    pub(crate) fn has_servers(&self) -> bool {
        self.client.is_some()
    }

    /// The functions at each of these places, innermost first. Empty: no name is certain.
    pub(crate) fn functions(&mut self, places: &[Place]) -> Vec<Vec<Function>> {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let new: Vec<Place> = places.iter().filter(|place| !self.known.contains_key(place)).cloned().collect();
        if !new.is_empty() {
            let found = self.look_up(&new);
            self.known.extend(new.into_iter().zip(found));
        }
        places.iter().map(|place| self.known.get(place).cloned().unwrap_or_default()).collect()
    }

    fn look_up(&mut self, places: &[Place]) -> Vec<Vec<Function>> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for place in places {
            let file = (place.build_id.clone(), place.module.clone());
            if !wanted.contains(&file) && wanted.len() < FILES_MAX {
                wanted.push(file);
            }
        }
        let (mut functions, files) = self.ask(places, &wanted, false);
        if self.fetch(&wanted, &files) {
            (functions, _) = self.ask(places, &wanted, true);
        }
        functions
    }

    /// Fetches what is missing of these files. True: something came.
    fn fetch(&mut self, wanted: &[Wanted], files: &[NamedFile]) -> bool {
        let Some(client) = &mut self.client else { return false };
        let mut came = false;
        for ((build_id, module), file) in wanted.iter().zip(files) {
            if file.failure.is_some() || !self.asked.insert(build_id.clone()) {
                continue;
            }
            let found = file.sources.unwrap_or_default();
            let needs = [(Kind::Executable, !found.is_placed), (Kind::Debuginfo, !found.has_lines)];
            for (kind, _) in needs.into_iter().filter(|(_, is_needed)| *is_needed) {
                match client.fetch(build_id, kind) {
                    Outcome::Here => came = true,
                    Outcome::Missing => {}
                    Outcome::Failed(why) => {
                        let module = module.as_deref().unwrap_or("a file without a path");
                        let (module, kind) = (crate::text::escape(module), kind.word());
                        say!("faultline: failed to fetch the {kind} of {module}: {why}");
                    }
                }
            }
        }
        came
    }

    fn ask(&mut self, places: &[Place], wanted: &[Wanted], is_anew: bool) -> (Vec<Vec<Function>>, Vec<NamedFile>) {
        let frame = |place: &Place| {
            let number = wanted.iter().position(|(build_id, module)| {
                *build_id == place.build_id && module.as_deref() == place.module.as_deref()
            })?;
            // Before the first byte there is no call.
            let is_inside = place.offset < FILE_ADDRESSES && !(place.is_return_address && place.offset == 0);
            let address = Job::base(number) + place.offset;
            is_inside.then_some(Frame { address, is_return_address: place.is_return_address })
        };
        let frames: Vec<Option<Frame>> = places.iter().map(frame).collect();
        let opening =
            Opening { process: NOBODY, taken_ns: 0, files: wanted.iter().map(request).collect(), perf_map: None };
        let job = Job { is_anew, ..Job::of_files(opening, frames.iter().flatten().copied().collect()) };
        self.naming.take_late();
        self.patience.begin(WAIT);
        let named = self.naming.ask(job, &mut self.patience);
        let mut found = named.described.more.into_iter();
        let functions = frames.iter().map(|frame| frame.and_then(|_| found.next()?.ok()).unwrap_or_default()).collect();
        (functions, named.files)
    }
}

fn request((build_id, module): &Wanted) -> FileRequest {
    // No file of this machine has this number: two build ids are two files.
    let inode = build_id.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte));
    FileRequest {
        path: module.as_ref().map(|module| module.clone().into_bytes()),
        build_id: Some(build_id.clone()),
        id: FileId { inode, device: u64::MAX },
        is_deleted: false,
        usage: Usage::Recorded,
        refused: None,
    }
}
