//! Has debug files fetched while crashes are named: by a thread of its own, so that no record waits for a server while another one waits
//! for its names.

use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::job::{Job, MappedImage, Named};
use crate::debuginfod::{Client, Kind, Outcome};

/// How long a record waits for what its files lack, while no other one waits.
const WAIT: Duration = Duration::from_secs(10);

/// How often the thread looks whether another record waits.
const LOOK: Duration = Duration::from_millis(50);

/// So many build ids may wait to be fetched. Anybody can make programs with new ones: further ones are not asked for.
const WAITING_MAX: usize = 64;

/// A build id is asked for once in this time.
const PAUSE: Duration = Duration::from_secs(600);

/// How many of them are remembered; in each [`PAUSE`] no more are asked for.
const ASKED_MAX: usize = 1024;

/// A build id, and what there is to be fetched of it.
type Order = (Vec<u8>, Vec<Kind>);

/// The near end of the thread.
pub(super) struct Fetching {
    orders: SyncSender<Order>,
    /// Build ids that were asked for, and whether something came.
    done: Receiver<(Vec<u8>, bool)>,
    /// When each was asked for last.
    asked: HashMap<Vec<u8>, Instant>,
    /// Something has come that the namer has not seen yet.
    has_news: bool,
}

impl Fetching {
    /// Starts the thread. `None` means that there can't be one.
    pub(super) fn start(mut client: Client) -> Option<Self> {
        Self::with(move |build_id, kind| client.fetch(build_id, kind) == Outcome::Here)
    }

    fn with(mut fetch: impl FnMut(&[u8], Kind) -> bool + Send + 'static) -> Option<Self> {
        let (orders, to_do) = mpsc::sync_channel::<Order>(WAITING_MAX);
        let (results, done) = mpsc::channel();
        let work = move || {
            for (build_id, kinds) in to_do {
                let mut came = false;
                for kind in kinds {
                    came |= fetch(&build_id, kind);
                }
                if results.send((build_id, came)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name("debuginfod".to_owned()).spawn(work).ok()?;
        Some(Self { orders, done, asked: HashMap::new(), has_news: false })
    }

    /// Has something come since the last call?
    pub(super) fn take_news(&mut self) -> bool {
        while let Ok((_, came)) = self.done.try_recv() {
            self.has_news |= came;
        }
        std::mem::take(&mut self.has_news)
    }

    /// Asks for what the files of a record lack, and waits for it while nobody else waits, which `has_others` says. True: something came.
    pub(super) fn fetch(&mut self, job: &Job, named: &Named, has_others: &dyn Fn() -> bool) -> bool {
        let mut waiting: Vec<Vec<u8>> = Vec::new();
        for (build_id, kinds) in lacking(job, named) {
            if self.may_ask(&build_id) && self.orders.try_send((build_id.clone(), kinds)).is_ok() {
                self.asked.insert(build_id.clone(), Instant::now());
                waiting.push(build_id);
            }
        }
        let until = Instant::now() + WAIT;
        while !waiting.is_empty() && Instant::now() < until && !has_others() {
            match self.done.recv_timeout(LOOK) {
                Ok((build_id, came)) => {
                    waiting.retain(|waiting| *waiting != build_id);
                    self.has_news |= came;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        std::mem::take(&mut self.has_news)
    }

    fn may_ask(&mut self, build_id: &[u8]) -> bool {
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, when| when.elapsed() < PAUSE);
        }
        self.asked.len() < ASKED_MAX && self.asked.get(build_id).is_none_or(|when| when.elapsed() >= PAUSE)
    }
}

/// What the files that the process ran code of lack.
fn lacking(job: &Job, named: &Named) -> Vec<Order> {
    let mut orders: Vec<Order> = Vec::new();
    for (number, (wanted, file)) in job.opening.files.iter().zip(&named.files).enumerate() {
        let is_used = job.mappings.iter().any(|mapping| mapping.image == MappedImage::File(number));
        let Some(build_id) = file.build_id.clone().or_else(|| wanted.build_id.clone()) else { continue };
        // If a file is there, but was not asked for names, nothing is known to be missing.
        let is_known = file.sources.is_some() || file.build_id.is_none();
        if !is_used || !is_known || orders.iter().any(|(known, _)| *known == build_id) {
            continue;
        }
        let found = file.sources.unwrap_or_default();
        let needs = [(Kind::Executable, !found.is_placed), (Kind::Debuginfo, !found.has_lines)];
        let kinds: Vec<Kind> = needs.into_iter().filter_map(|(kind, is_needed)| is_needed.then_some(kind)).collect();
        if !kinds.is_empty() {
            orders.push((build_id, kinds));
        }
    }
    orders
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::job::NamedFile;
    use crate::naming::job::tests::job;
    use crate::symbol::Sources;

    fn named(sources: Option<Sources>) -> Named {
        let file = NamedFile { build_id: sources.map(|_| vec![1; 20]), sources, ..NamedFile::default() };
        Named { files: vec![file, NamedFile::default()], ..Named::default() }
    }

    const LINES: Sources =
        Sources { is_placed: true, has_symbols: true, has_all_symbols: true, has_lines: true, has_debug_file: false };

    #[test]
    fn what_a_used_file_lacks_is_asked_for() {
        let lacks = |sources| lacking(&job(), &named(sources)).into_iter().map(|(_, kinds)| kinds).collect::<Vec<_>>();
        assert_eq!(lacks(Some(LINES)), Vec::<Vec<Kind>>::new());
        assert_eq!(lacks(Some(Sources { has_lines: false, ..LINES })), [[Kind::Debuginfo]]);
        assert_eq!(lacks(None), [[Kind::Executable, Kind::Debuginfo]], "it is gone: its build id was in memory");
        let mut unasked = named(None);
        unasked.files[0].build_id = Some(vec![1; 20]);
        assert!(lacking(&job(), &unasked).is_empty(), "nothing is known of it");
    }

    #[test]
    fn a_record_waits_while_nobody_else_does() {
        let mut fetching = Fetching::with(|_, kind| kind == Kind::Debuginfo).unwrap();
        assert!(fetching.fetch(&job(), &named(None), &|| false));
        assert!(!fetching.fetch(&job(), &named(None), &|| false), "it was asked for just now");
        assert!(!fetching.take_news());
        let (begin, wait) = mpsc::channel::<()>();
        let mut slow = Fetching::with(move |_, _| wait.recv().is_ok()).unwrap();
        assert!(!slow.fetch(&job(), &named(None), &|| true), "another one waits");
        begin.send(()).unwrap();
        begin.send(()).unwrap();
        while !slow.take_news() {
            thread::yield_now();
        }
    }

    #[test]
    fn new_build_ids_without_end_are_not_all_asked_for() {
        let mut fetching = Fetching::with(|_, _| false).unwrap();
        for number in 0..ASKED_MAX as u64 {
            fetching.asked.insert(number.to_le_bytes().to_vec(), Instant::now());
        }
        assert!(!fetching.may_ask(&[1; 20]));
        fetching.asked.clear();
        assert!(fetching.may_ask(&[1; 20]));
    }
}
