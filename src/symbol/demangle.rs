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
    use std::time::Duration;

    use nix::time::{ClockId, clock_gettime};

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
        // With as much stack as the namer has.
        let namer = std::thread::Builder::new().stack_size(8 << 20);
        let demangled = namer
            .spawn(|| bombs().into_iter().map(|(what, bomb)| (what, spent(|| demangle(&bomb)))).collect::<Vec<_>>());
        for (what, (spent, readable)) in demangled.unwrap().join().unwrap() {
            assert!(readable.len() <= super::READABLE_MAX, "{what}");
            assert!(spent < Duration::from_secs(2), "{what}: {spent:?}");
        }
    }

    /// The time on a processor.
    fn spent<T>(of: impl FnOnce() -> T) -> (Duration, T) {
        let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        let before = now();
        let done = of();
        (now() - before, done)
    }

    /// Names of at most `LENGTH_MAX` that stand for very much, are nested deeply, or take long for a short readable form.
    fn bombs() -> Vec<(&'static str, String)> {
        let most = |begins: &str, repeated: &str, end: &str| {
            let count = (super::LENGTH_MAX - begins.len() - end.len()) / repeated.len();
            format!("{begins}{}{end}", repeated.repeat(count))
        };
        // Each pair refers to the one before it twice: the readable form doubles with every 8 bytes.
        let mut pairs = "_Z1f1AIiiE".to_owned();
        for n in 0..24 {
            let last = if n == 0 { "S0_".to_owned() } else { format!("S{}_", std::char::from_digit(n, 36).unwrap()) };
            pairs.push_str(&format!("S_I{last}{last}E"));
        }
        // Each argument is twice the one before it, and the first is empty: 2^200 parts that stand for nothing.
        let packs: String = (0..200).map(|number| format!("JT{number}_T{number}_E")).collect();
        // The same in Rust's way, where a number is how far from the beginning something stands.
        let mut tuples = "_RINvC1a1fTuuE".to_owned();
        let mut last = 7;
        while tuples.len() < super::LENGTH_MAX - 16 {
            let at = tuples.len() - 2;
            let back = format!("B{}_", base_62(last - 1));
            tuples.push_str(&format!("T{back}{back}E"));
            last = at;
        }
        vec![
            ("pairs", pairs),
            ("packs", format!("_Z1fIJEJT_T_E{packs}EvT200_")),
            ("tuples", format!("{tuples}E")),
            ("pointers", most("_Z1f", "P", "v")),
            ("functions", most("_Z1f", "PF", "v")),
            ("names within names", most("_Z", "N1a", "")),
            ("arguments within arguments", most("_Z1f", "1aI", "v")),
            ("expressions", most("_Z1fIXad", "szad", "EEvv")),
            ("lambdas", most("_Z", "ZN", "")),
            ("tuples within tuples", most("_RINvC1a1f", "T", "E")),
            ("slices within slices", most("_RINvC1a1f", "S", "uE")),
            ("impls within impls", most("_R", "X", "")),
            ("a path that is its own beginning", "_RB_".to_owned()),
            ("a type that is its own part", "_RINvC1a1fTB7_EE".to_owned()),
            ("binders", most("_RINvC1a1f", "FG_", "EuE")),
            ("constants", most("_RINvC1a1f", "KV1a", "E")),
            ("Punycode", format!("_RNvC1au2000{}", "9".repeat(2000))),
        ]
    }

    fn base_62(mut value: usize) -> String {
        const DIGITS: &[u8; 62] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut digits = vec![char::from(DIGITS[value % 62])];
        while value >= 62 {
            value /= 62;
            digits.push(char::from(DIGITS[value % 62]));
        }
        digits.iter().rev().collect()
    }
}
