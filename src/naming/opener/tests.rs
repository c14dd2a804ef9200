use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::evidence::FileId;
use crate::symbol::Holder;

fn asked(path: &Path, id: FileId, taken_ns: i128) -> Opening {
    Opening {
        process: Holder { pid: u32::MAX, tid: u32::MAX, parent: u32::MAX, mount_namespace: 1 },
        taken_ns,
        files: vec![FileRequest {
            path: Some(path.as_os_str().as_bytes().to_vec()),
            build_id: None,
            id,
            is_deleted: false,
            usage: Usage::Code { mapped: Some((0x1000, 0x2000)), is_executable: true },
            refused: None,
        }],
        perf_map: None,
    }
}

fn id_of(path: &Path) -> FileId {
    FileId::of(&fs::metadata(path).unwrap())
}

fn open(opening: &Opening) -> Result<bool, Failure> {
    let mut opener = Opener::new(Vec::new());
    opener.begin(opening.clone());
    opener.mapped(0).map(|file| file.is_some())
}

#[test]
fn it_must_be_the_very_file() {
    let own = std::env::current_exe().unwrap();
    let id = id_of(&own);
    let now = i128::MAX;
    assert_eq!(open(&asked(&own, id, now)), Ok(true));
    assert_eq!(open(&asked(&own, FileId { inode: id.inode + 1, ..id }, now)), Err(Failure::OtherFile));
    assert_eq!(open(&asked(&own, FileId { device: id.device + 1, ..id }, now)), Err(Failure::OtherFile));
    let mut opening = asked(&own, id, 0);
    assert_eq!(open(&opening), Err(Failure::OtherFile), "changed since");
    opening.files[0].build_id = Some(vec![1; 20]);
    assert_eq!(open(&opening), Ok(true), "the build id shows whether it was changed");
    opening.files[0].id.inode += 1;
    assert_eq!(open(&opening), Err(Failure::OtherFile), "anybody may forge a build id");
}

#[test]
fn hostile_paths_are_not_opened() {
    let own = std::env::current_exe().unwrap();
    for path in ["/dev/zero", "/proc/self/mem", "/nonexistent", "/etc", ""] {
        assert_ne!(open(&asked(Path::new(path), id_of(&own), i128::MAX)), Ok(true), "{path}");
    }
    let link = std::env::temp_dir().join(format!("faultline-opener-{}", std::process::id()));
    symlink("/etc/shadow", &link).unwrap();
    let mut opening = asked(&link, id_of(&own), i128::MAX);
    assert_ne!(open(&opening), Ok(true), "of a process in other mounts");
    opening.process.mount_namespace = host::mount_namespace().unwrap().try_into().unwrap();
    assert_eq!(open(&opening), Err(Failure::OtherFile));
    fs::remove_file(&link).unwrap();
}

#[test]
fn what_is_refused_is_not_looked_for() {
    let own = std::env::current_exe().unwrap();
    let mut opening = asked(&own, id_of(&own), i128::MAX);
    opening.files[0].refused = Some(Failure::FailedBefore);
    assert_eq!(open(&opening), Err(Failure::FailedBefore));
}

#[test]
fn a_copy_serves_where_the_file_is_gone() {
    let (own, other) = (std::env::current_exe().unwrap(), Path::new("/proc/self/status"));
    let copy = || {
        let copy = File::open(other).unwrap();
        std::iter::once(((0, FileOwner::of(&copy, &copy.metadata().unwrap())), copy))
    };
    let opened = |opening: &Opening| {
        let mut opener = Opener::new(Vec::new());
        opener.begin(opening.clone());
        opener.keep(copy());
        let found = opener.mapped(0).unwrap().unwrap();
        let is_copy = FileId::of(&found.metadata().unwrap()) == id_of(other);
        opener.begin(opening.clone());
        assert!(
            opener.mapped(0).ok().flatten().is_none_or(|found| found.metadata().unwrap().ino() != id_of(other).inode)
        );
        is_copy
    };
    assert!(!opened(&asked(&own, id_of(&own), i128::MAX)), "the file itself is there");
    assert!(opened(&asked(Path::new("/nonexistent"), id_of(&own), i128::MAX)));
    let id = FileId { inode: 1 << 40, ..id_of(&own) };
    assert!(opened(&asked(&own, id, i128::MAX)), "another one lies there");
    let mut deleted = asked(&own, id_of(&own), i128::MAX);
    deleted.files[0].is_deleted = true;
    assert!(opened(&deleted), "another one has its number");
    deleted.files[0].refused = Some(Failure::FailedBefore);
    let mut opener = Opener::new(Vec::new());
    opener.begin(deleted);
    opener.keep(copy());
    assert_eq!(opener.mapped(0).map(drop), Err(Failure::FailedBefore));
}
