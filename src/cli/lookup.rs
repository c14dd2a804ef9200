//! How names of users and hosts are looked up. libc asks the libraries that /etc/nsswitch.conf names, which a statically linked program can't
//! load: they are of another build of libc, or not there at all. It has what reads /etc/passwd and /etc/hosts, and asks servers of names, in
//! itself.

use crate::host;

/// To be called before anything is looked up, in each process.
pub(super) fn settle() {
    if host::is_static() {
        without_libraries();
    }
}

#[cfg(target_env = "gnu")]
fn without_libraries() {
    unsafe extern "C" {
        // <nss.h>; the crate libc doesn't have it.
        fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
    }
    for (database, services) in [(c"hosts", c"files dns"), (c"passwd", c"files")] {
        // If it is refused, names are looked up as the file says.
        // SAFETY: both are texts that end with a 0, which libc reads and copies. No other thread looks anything up yet.
        let _ = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}

/// Other libcs load nothing for it.
#[cfg(not(target_env = "gnu"))]
fn without_libraries() {}
