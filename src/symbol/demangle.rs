//! Demangles names.
//!
//! blazesym's own demangling isn't used: it takes every symbol for a mangled one, and a C function `f` for the C++ type `float`.

use std::fmt::{self, Write};

use cpp_demangle::DemangleOptions;

/// Longer names are left as they are: anybody may have made the file.
const LENGTH_MAX: usize = 4096;

/// Readable text is cut here: 200 bytes of a mangled name can stand for megabytes.
const READABLE_MAX: usize = 16 * 1024;

/// Takes text up to READABLE_MAX and then refuses more.
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > READABLE_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

/// The readable form of a Rust or C++ name; any other name as it is.
pub(super) fn demangle(name: &str) -> String {
    if name.len() > LENGTH_MAX {
        return name.to_owned();
    }
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // The alternate form leaves out the hash at the end.
        let mut readable = Bounded::default();
        return if write!(readable, "{rust:#}").is_ok() { readable.0 } else { name.to_owned() };
    }
    if name.starts_with("_Z") {
        let mut readable = Bounded::default();
        let demangled = cpp_demangle::Symbol::new(name)
            .is_ok_and(|symbol| symbol.structured_demangle(&mut readable, &DemangleOptions::new()).is_ok());
        if demangled {
            return readable.0;
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
        // Each pair refers to the one before it twice: the readable form doubles with every 8 bytes.
        let mut bomb = "_Z1f1AIiiE".to_owned();
        for n in 0..24 {
            let last = if n == 0 { "S0_".to_owned() } else { format!("S{}_", std::char::from_digit(n, 36).unwrap()) };
            bomb.push_str(&format!("S_I{last}{last}E"));
        }
        assert!(demangle(&bomb).len() <= super::READABLE_MAX);
    }
}
