//! One name for a function, the same for any compiler, optimization and demangler: without offset, parameters, template and generic
//! arguments, return type, ABI tags, and the suffixes of clones.

use std::iter::Peekable;
use std::str::Chars;

/// How deep brackets are parsed; what is deeper is left out.
const DEPTH_MAX: usize = 8;

/// What compilers put behind the names of functions that they have copied, split or renamed, after a dot.
const CLONES: [&str; 9] = ["cold", "part", "isra", "constprop", "llvm", "lto_priv", "localalias", "__uniq", "_omp_fn"];

/// What a closure is called.
const CLOSURE: &str = "{closure}";

/// Operators whose names would be taken for something else, the longest first.
const OPERATORS: [&str; 16] =
    ["()", "[]", "<<=", ">>=", "<=>", "->*", "<<", ">>", "<=", ">=", "->", "<", ">", "&&", "&", "*"];

/// The name of a function that counts.
pub(super) fn normalize(name: &str) -> String {
    let name = without_version(name);
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '$'));
    let is_go = name.contains(".(*") || name.contains('/') || (name.contains('[') && !name.contains([':', '(']));
    let path = if is_plain || is_go { without_brackets(name) } else { path_of(name, 0) };
    let path = if is_go { path } else { without_clones(&path).to_owned() };
    without_hash(&path).to_owned()
}

/// How a family has the function of this name, whose normalized path is `path`. Of C++ only the last part: debug information has no
/// more of functions that are local to a file, so that it would depend on the compiler and on what is inlined. C++ is what has
/// parameters.
pub(super) fn short(name: &str, path: String) -> String {
    let is_cxx = path.contains("operator") || (name.contains('(') && !name.contains(".(*") && !name.starts_with('<'));
    let Some(last) = path.rsplit("::").next().filter(|_| is_cxx) else { return path };
    // What a lambda and a function object are called by.
    if last == "operator()" { CLOSURE.to_owned() } else { last.to_owned() }
}

/// Has a function of this name, as [`short`] makes it, no name of its own?
pub(super) fn is_closure(name: &str) -> bool {
    name.ends_with(CLOSURE)
}

/// Without the version of a symbol, and without the prefix of those that glibc calls itself by.
fn without_version(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    name.strip_prefix("__GI_").unwrap_or(name)
}

/// Go's type arguments.
fn without_brackets(name: &str) -> String {
    let mut depth = 0_u32;
    let mut keep = |c: char| {
        depth += u32::from(c == '[');
        let is_kept = depth == 0;
        depth -= u32::from(c == ']' && depth > 0);
        is_kept
    };
    name.chars().filter(|&c| keep(c)).collect()
}

/// `f.part.0.cold` is f, and so is `f.1`. Names of Go have dots of their own.
fn without_clones(name: &str) -> &str {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let is_clone = |part: &str| CLONES.contains(&part);
    match name
        .char_indices()
        .skip(1)
        .find(|&(at, c)| c == '.' && is_clone(name[at + 1..].split('.').next().unwrap_or_default()))
    {
        Some((at, _)) => &name[..at],
        None => name
            .split_once('.')
            .filter(|(begin, rest)| !begin.is_empty() && is_number(rest))
            .map_or(name, |(begin, _)| begin),
    }
}

/// `core::f::h0123456789abcdef` is core::f.
fn without_hash(name: &str) -> &str {
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.rsplit_once("::h").filter(|(_, hash)| is_hash(hash)).map_or(name, |(name, _)| name)
}

/// A path of C++ or Rust, without everything that stands in brackets.
fn path_of(name: &str, depth: usize) -> String {
    let mut path = String::new();
    let mut rest = name.chars().peekable();
    let mut is_cut = false;
    while let Some(&c) = rest.peek() {
        let starts = |text: &str| rest.clone().zip(text.chars()).filter(|(a, b)| a == b).count() == text.len();
        if let Some(operator) = operator(&path, &starts) {
            rest.by_ref().take(operator.chars().count()).for_each(drop);
            path.push_str(operator);
            continue;
        }
        match c {
            '<' => angle(&mut path, &inside(&mut rest, '<', '>'), depth),
            '(' if starts("(anonymous namespace)") => {
                inside(&mut rest, '(', ')');
                path.push_str("{anonymous}");
            }
            '(' => {
                inside(&mut rest, '(', ')');
                is_cut = true;
            }
            '{' => path.push_str(&braces(&inside(&mut rest, '{', '}'))),
            '[' => drop(inside(&mut rest, '[', ']')),
            // What stood before is a return type, or behind are the function's qualifiers.
            ' ' => {
                rest.next();
                let word = rest.clone().take_while(|c| c.is_ascii_alphanumeric() || *c == '[').collect::<String>();
                match word.as_str() {
                    "const" | "volatile" | "noexcept" if is_cut => rest.by_ref().take(word.len()).for_each(drop),
                    _ if word.starts_with('[') => {}
                    _ if path.ends_with("operator") => path.push(' '),
                    // `operator< <int>`
                    _ if rest.peek() == Some(&'<') => {}
                    _ if is_cut && rest.peek().is_none_or(|c| matches!(c, '&' | '[')) => {}
                    _ => (path, is_cut) = (String::new(), false),
                }
            }
            '&' | '*' if is_cut || path.is_empty() => drop(rest.next()),
            _ => {
                rest.next();
                // Behind the parameters of the function that a local one belongs to.
                is_cut = is_cut && c != ':';
                path.push(c);
            }
        }
    }
    let path = path.trim_end_matches(':').replace("::::", "::");
    let segments: Vec<&str> = path.split("::").map(|part| if is_clang_lambda(part) { CLOSURE } else { part }).collect();
    segments.join("::")
}

/// The operator that the rest begins with, if `path` ends with the word for it.
fn operator(path: &str, begins_with: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    let before = path.strip_suffix("operator")?;
    let is_word = before.chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
    OPERATORS.into_iter().filter(|_| is_word).find(|operator| begins_with(operator))
}

/// Takes a bracket and all up to the one that closes it; returns what is inside.
fn inside(rest: &mut Peekable<Chars<'_>>, open: char, close: char) -> String {
    let mut content = String::new();
    let (mut depth, mut before) = (0_u32, ' ');
    for c in rest.by_ref() {
        depth += u32::from(c == open);
        // An arrow closes nothing.
        depth -= u32::from(c == close && !(close == '>' && before == '-'));
        if depth == 0 {
            break;
        }
        content.push(c);
        before = c;
    }
    content.chars().skip(1).collect()
}

/// Angle brackets: arguments, which don't count, or in Rust the type that a function belongs to.
fn angle(path: &mut String, content: &str, depth: usize) {
    let is_path = path.is_empty() || (path.ends_with("::") && content.starts_with("impl "));
    if !is_path || depth >= DEPTH_MAX {
        // A turbofish.
        if path.ends_with("::") {
            path.truncate(path.len() - 2);
        }
        return;
    }
    let (first, second) = match content.strip_prefix("impl ") {
        // `<impl Trait for Type>`, `<impl Type>`.
        Some(content) => match content.split_once(" for ") {
            Some((of, it)) => (it, Some(of)),
            None => (content, None),
        },
        None => match split_as(content) {
            Some((it, of)) => (it, Some(of)),
            None => (content, None),
        },
    };
    let type_of = |text: &str| {
        path_of(
            text.trim_start_matches(['&', '*', '[']).trim_start_matches("mut ").trim_start_matches("dyn "),
            depth + 1,
        )
    };
    let it = type_of(first);
    // A type without a path is an argument or a primitive: the trait says more.
    let whole = if it.contains("::") { it } else { second.map_or(it, type_of) };
    path.clear();
    path.push_str(&whole);
}

/// `Type as Trait`, outside of all brackets.
fn split_as(content: &str) -> Option<(&str, &str)> {
    let (mut depth, mut before) = (0_i32, ' ');
    for (at, c) in content.char_indices() {
        let is_arrow = c == '>' && before == '-';
        before = c;
        match c {
            _ if is_arrow => {}
            '<' | '(' | '[' | '{' => depth += 1,
            '>' | ')' | ']' | '}' => depth -= 1,
            ' ' if depth == 0 && content[at..].starts_with(" as ") => {
                return Some((&content[..at], &content[at + 4..]));
            }
            _ => {}
        }
    }
    None
}

/// What has no name of its own: closures are numbered anew in each build.
fn braces(content: &str) -> String {
    let word: String =
        content.trim_start_matches('{').chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    match word.as_str() {
        "lambda" | "closure" | "closure_env" => CLOSURE.to_owned(),
        _ => format!("{{{word}}}"),
    }
}

/// `$_0`
fn is_clang_lambda(part: &str) -> bool {
    part.strip_prefix("$_").is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::{normalize, short};

    #[test]
    fn c() {
        for name in [
            "f",
            "f.cold",
            "f.part.0",
            "f.isra.0.cold",
            "f.constprop.3",
            "f.llvm.123456",
            "f@@GLIBC_2.2",
            "__GI_f",
            "f.lto_priv.0",
            "f.1",
        ] {
            assert_eq!(normalize(name), "f", "{name}");
        }
        assert_eq!(normalize("_start"), "_start");
        assert_eq!(normalize(""), "");
        assert_eq!(normalize("operator_f"), "operator_f");
    }

    #[test]
    fn cxx() {
        for (name, wanted) in [
            ("a::b::f(int, char const*)", "a::b::f"),
            ("void a::f<int, std::vector<long> >(int)", "a::f"),
            ("a::C<int>::f(a::C<int>::T) const", "a::C::f"),
            ("std::__cxx11::basic_string<char> a::name[abi:cxx11](int)", "a::name"),
            ("(anonymous namespace)::f(int)", "{anonymous}::f"),
            ("a::(anonymous namespace)::f(int) [clone .cold]", "a::{anonymous}::f"),
            ("main::{lambda(int)#1}::operator()(int) const", "main::{closure}::operator()"),
            ("main::$_0::operator()(int) const", "main::{closure}::operator()"),
            ("f(int)::Local::g()", "f::Local::g"),
            ("f(int)::{lambda()#2}::operator()() const", "f::{closure}::operator()"),
            ("unsigned int* f<int>(int)", "f"),
            ("a::C::operator<<(int)", "a::C::operator<<"),
            ("a::C::operator->() const", "a::C::operator->"),
            ("bool a::operator< <int>(a::C<int> const&)", "a::operator<"),
            ("operator new(unsigned long)", "operator new"),
            ("a::C::~C()", "a::C::~C"),
            ("decltype (f(a)) b::g<int>(int)", "b::g"),
            ("f(int) [clone .part.0]", "f"),
            ("std::vector<int>::at(unsigned long)", "std::vector::at"),
        ] {
            assert_eq!(normalize(name), wanted, "{name}");
        }
    }

    #[test]
    fn rust() {
        for (name, wanted) in [
            ("app::f", "app::f"),
            ("app::f::h0123456789abcdef", "app::f"),
            ("app::f::<u32, alloc::vec::Vec<u8>>", "app::f"),
            ("<app::T>::f", "app::T::f"),
            ("<app::T as core::fmt::Display>::fmt", "app::T::fmt"),
            ("app::<impl core::fmt::Display for app::T>::fmt", "app::T::fmt"),
            ("<alloc::vec::Vec<app::T> as core::ops::index::Index<usize>>::index", "alloc::vec::Vec::index"),
            ("<T as core::convert::Into<U>>::into", "core::convert::Into::into"),
            ("app::f::{{closure}}", "app::f::{closure}"),
            ("app::f::{closure#3}", "app::f::{closure}"),
            ("<app::T<fn(u8) -> u8> as app::Tr>::f", "app::T::f"),
            ("<[T] as app::Tr<U>>::f", "app::Tr::f"),
            ("core::ops::function::FnOnce::call_once{{vtable.shim}}", "core::ops::function::FnOnce::call_once{vtable}"),
        ] {
            assert_eq!(normalize(name), wanted, "{name}");
        }
    }

    #[test]
    fn go() {
        assert_eq!(normalize("main.(*T).Do"), "main.(*T).Do");
        assert_eq!(normalize("example.com/x/y.F[go.shape.int]"), "example.com/x/y.F");
        assert_eq!(normalize("main.main.func1"), "main.main.func1");
    }

    #[test]
    fn cxx_is_short() {
        for (name, wanted) in [
            ("shapes::total(std::vector<shapes::Shape*> const&)", "total"),
            ("total", "total"),
            ("sorting::sort(int)::$_1::operator()(sorting::Item const&) const", "{closure}"),
            ("sorting::sort(int)::{lambda(int)#1}::operator()(int) const", "{closure}"),
            ("operator()", "{closure}"),
            ("int owner::last<long>(owner::Chain<long> const*, int)", "last"),
            ("last<long>", "last"),
            ("a::C::operator<<(int)", "operator<<"),
            ("app::f", "app::f"),
            ("app::f::{{closure}}", "app::f::{closure}"),
            ("<app::T<fn(u8) -> u8> as app::Tr>::f", "app::T::f"),
            ("main.(*T).Do", "main.(*T).Do"),
        ] {
            assert_eq!(short(name, normalize(name)), wanted, "{name}");
        }
    }

    #[test]
    fn any_text_has_an_end() {
        for text in [
            "<",
            ">",
            "(",
            ")",
            "{{{",
            "<<<<>",
            "a::<",
            "operator",
            "operator<",
            "< as ",
            " ",
            "::",
            "é<(",
            "$_",
            "a.cold",
            ".cold",
        ] {
            normalize(text);
        }
        normalize(&"<".repeat(4096));
        normalize(&"<impl ".repeat(600));
        normalize(&"operator<".repeat(400));
    }
}
