//! Names as their authors wrote them.
//!
//! Not blazesym's own demangling: it takes every symbol for a mangled one, and a C function `f` for the C++ type `float`.

use cpp_demangle::DemangleOptions;

/// Longer names are left as they are: mangled text comes from files that anyone may have made.
const LENGTH_MAX: usize = 4096;

/// The readable form of a Rust or C++ name; any other name as it is.
pub fn demangle(name: &str) -> String {
    if name.len() > LENGTH_MAX {
        return name.to_owned();
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // The alternate form leaves out the hash at the end.
        return format!("{rust:#}");
    }
    if name.starts_with("_Z") {
        let options = DemangleOptions::new();
        let readable =
            cpp_demangle::Symbol::new(name).ok().and_then(|symbol| symbol.demangle_with_options(&options).ok());
        if let Some(readable) = readable {
            return readable;
        }
    }
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn mangled_names_become_readable() {
        assert_eq!(demangle("_ZN3foo3barEi"), "foo::bar(int)");
        assert_eq!(demangle("_RNvC6_123foo3bar"), "123foo::bar");
        assert_eq!(demangle("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE"), "core::fmt::Write::write_fmt");
    }

    #[test]
    fn c_names_stay() {
        for name in ["f", "i", "main", "v", "_start", "_Z", ""] {
            assert_eq!(demangle(name), name);
        }
    }

    #[test]
    fn hostile_names_end() {
        let long = format!("_Z{}", "N3foo".repeat(10_000));
        assert_eq!(demangle(&long), long);
        demangle(&format!("_Z{}v", "P".repeat(4000)));
    }
}
