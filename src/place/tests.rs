use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// A folder that is deleted when it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("faultline-place-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn mode(&self, mode: u32) -> &Path {
        fs::set_permissions(&self.0, fs::Permissions::from_mode(mode)).unwrap();
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn error<T>(result: Result<T>) -> String {
    result.map(drop).map_err(|error| format!("{error:#}")).unwrap_err()
}

#[test]
fn a_folder_that_others_may_write_to_is_refused() {
    let scratch = Scratch::new("others");
    for mode in [0o777, 0o1777, 0o775, 0o757] {
        let why = error(Folder::open(scratch.mode(mode)));
        assert!(why.contains(&format!("mode {mode:04o}")) && why.contains("mkdir -m 0700"), "{why}");
    }
    for mode in [0o755, 0o700] {
        assert!(Folder::open(scratch.mode(mode)).is_ok());
    }
    // A new one in a sticky folder is nobody else's.
    let made = scratch.mode(0o1777).join("a/b");
    Folder::open(&made).unwrap();
    assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o700);
    assert!(Folder::open(&scratch.mode(0o777).join("c")).is_ok());
}

#[test]
fn no_link_is_followed_that_others_could_have_made() {
    let (scratch, other) = (Scratch::new("links"), Scratch::new("linked"));
    symlink(other.mode(0o755), scratch.0.join("link")).unwrap();
    assert!(Folder::open(&scratch.mode(0o755).join("link/in")).is_ok());
    assert!(open(&scratch.0.join("link/file"), FILE_MODE).is_ok());
    scratch.mode(0o777);
    for path in ["link", "link/in", "link/../x"] {
        let why = error(Folder::open(&scratch.0.join(path)));
        assert!(why.contains("`link` on the way is a link in a folder that others may write to"), "{why}");
    }
    assert!(error(open(&scratch.0.join("link"), FILE_MODE)).contains("is a link"));
    assert!(error(open(&scratch.0.join("link/file"), FILE_MODE)).contains("is a link"));
    symlink("round", scratch.mode(0o755).join("round")).unwrap();
    assert!(error(open(&scratch.0.join("round"), FILE_MODE)).contains("Too many levels of symbolic links"));
}

#[test]
fn a_file_is_new_or_ours_alone() {
    let scratch = Scratch::new("files");
    let (file, second) = (scratch.0.join("file"), scratch.0.join("second"));
    scratch.mode(0o1777);
    io::Write::write_all(&mut open(&file, FILE_MODE).unwrap(), b"one").unwrap();
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    io::Write::write_all(&mut open(&file, FILE_MODE).unwrap(), b" two").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"one two");
    fs::hard_link(&file, &second).unwrap();
    assert!(error(create(&second, FILE_MODE)).contains("it has 2 names"));
    fs::remove_file(&second).unwrap();
    assert!(create(&file, FILE_MODE).is_ok() && fs::read(&file).unwrap().is_empty());
    assert!(error(open(&scratch.0, FILE_MODE)).contains("Is a directory"));
    let _socket = std::os::unix::net::UnixListener::bind(&second).unwrap();
    assert!(error(open(&second, FILE_MODE)).contains("no file that records can be written to"));
    assert!(open(Path::new("/dev/null"), FILE_MODE).is_ok() && open(Path::new("/dev/fd/1"), FILE_MODE).is_ok());
}

#[test]
fn a_pipe_that_nobody_reads_is_reported_at_once() {
    let scratch = Scratch::new("pipe");
    let pipe = scratch.0.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(is_unread(&open(&pipe, FILE_MODE).unwrap_err()));
    let folder = Folder::open(&scratch.0).unwrap();
    assert!(error(folder.append("pipe")).contains("it is no file"));
    assert!(folder.read("pipe").is_none());
}

#[test]
fn what_is_in_a_folder_is_never_followed() {
    let scratch = Scratch::new("within");
    let kept = scratch.0.join("kept");
    fs::write(&kept, "kept").unwrap();
    let folder = Folder::open(&scratch.0).unwrap();
    for name in ["link", "hard"] {
        match name {
            "link" => symlink(&kept, scratch.0.join(name)).unwrap(),
            _ => fs::hard_link(&kept, scratch.0.join(name)).unwrap(),
        }
        assert_eq!(folder.write_new(name, b"new").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(folder.append(name).is_err(), "{name}");
        folder.replace(name, b"new").unwrap();
        assert_eq!(
            (fs::read(&kept).unwrap(), fs::read(scratch.0.join(name)).unwrap()),
            (b"kept".into(), b"new".into())
        );
    }
    symlink("/", scratch.0.join("7")).unwrap();
    assert!(error(folder.folder("7")).contains("its folder is none"));
    assert!(folder.existing("7").is_none() && folder.existing("8").is_none());
    assert!(folder.folder("8").is_ok() && folder.existing("8").is_some());
}

#[test]
fn a_path_lasts_if_nobody_can_change_a_part_of_it() {
    let scratch = Scratch::new("lasting");
    let folder = scratch.0.join("a/b");
    fs::create_dir_all(&folder).unwrap();
    symlink("a", scratch.mode(0o755).join("link")).unwrap();
    assert_eq!(lasting(&folder.join("x")).unwrap(), folder.join("x"));
    assert_eq!(lasting(&scratch.0.join("link/b/x")).unwrap(), folder.join("x"), "it has no links");
    assert!(lasting(&scratch.0.join("c/x")).is_err(), "there is no such folder");
    scratch.mode(0o1777);
    assert_eq!(lasting(&folder.join("x")).unwrap(), folder.join("x"), "only we can move what is ours");
    assert!(error(lasting(&scratch.0.join("x"))).contains("others may write to"));
    scratch.mode(0o777);
    assert!(error(lasting(&folder.join("x"))).contains("others may write to"));
}
