//! Debug files that a program names in `.gnu_debuglink`.

use super::*;

/// Without a build id the checksum says whether it is the file.
#[test]
fn a_program_without_a_build_id_has_the_debug_file_of_its_checksum() {
    let built = Built::new(
        "checksum",
        "gcc -g -O1 -fno-inline -Wl,--build-id=none -o program program.c
cp program whole
objcopy --only-keep-debug program debug
strip program
objcopy --add-gnu-debuglink=debug program",
    );
    let addresses = built.addresses("whole");
    let ours = built.by_us(&addresses);
    let debug = fs::read(built.0.join("debug")).unwrap();
    // As long, and with the same symbols.
    let mut other = debug.clone();
    *other.last_mut().unwrap() ^= 1;
    fs::write(built.0.join("debug"), other).unwrap();
    assert_eq!(built.by_us(&addresses), ["none", "none", "none"], "it is another one");
    // gdb looks for debug files in other places.
    fs::rename(built.0.join("whole"), built.0.join("program")).unwrap();
    let gdb = built.by_gdb(&addresses);
    assert!(gdb.iter().all(|said| said.contains("/program.c ")), "{gdb:?}");
    assert_eq!(ours, gdb);
}
