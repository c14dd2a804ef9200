//! What makes two crashes one bug, in two levels: a *signature* names a bug in one build of a program, a *family* names it in any build.
//! Pure functions of a stack's frames and of what is known of each: the same in any process, on any host.
//!
//! Both are made of the innermost frames that mean something, and of the signal. First recursion is folded, because how often a function
//! has called itself is no property of a bug; frames of the runtime are skipped, because every abort and every wild copy ends there.
//! How many frames count was measured on the corpus of tests/groups (`ci/bench groups`), see [`FRAMES`]. A signature is
//! made of build ids and offsets, so that it is the same where the names can't be had. Only where a frame that counts is known to be inlined,
//! by the file that ran itself, it is made of functions: what the compiler has inlined into several functions has no one place in the file.

mod fold;
mod names;
mod silent;
mod track;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub(crate) use self::fold::CYCLE;
pub(crate) use self::track::Tracker;
use crate::arch::Call;
use crate::evidence::Function;

/// How many frames count for both. One merges the bugs that end in the same helper, two those that end in two; frames further out
/// show how the program came there, and split bugs. By the corpus of tests/groups (2026-11-29, 4746 crashes, families over all
/// builds, before recursions and calls through pointers ended the list), precision and recall by how many count: 0.749 and 0.944 with one, 0.956 and 0.935
/// with two, 1.000 and 0.935 with three, 1.000 and 0.539 with four. The corpus reaches its bugs by ways that differ behind the third frame, so that the fall
/// of the recall shows there; that two are too few depends on no such choice.
const FRAMES: usize = 3;

/// If a recursion used up the stack, all its functions count.
const PLACES_MAX: usize = 4;

/// A function's name is cut here: anybody may have made the file.
const NAME_BYTES_MAX: usize = 1024;

/// A frame of a stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// The number of its file, and the offset in it. `None` means that it is in no file.
    pub place: Option<(usize, u64)>,
    /// Where the function begins, in any unit that is the same for all frames of the file. `None` means that it isn't known.
    pub begin: Option<u64>,
    /// How it was called. `None` means that it isn't known.
    pub call: Option<Call>,
    /// The path of its file.
    pub module: Option<&'a str>,
    /// Its functions, innermost first. Empty: none is known.
    pub functions: &'a [Function],
}

/// The frames of a stack that count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trail {
    /// The innermost frame is in no file.
    pub is_jump: bool,
    /// Number of the file, and offset in it.
    pub places: Vec<(usize, u64)>,
    /// Where these functions begin that call each other in a circle, if the innermost one that counts is one of them: where bad memory is
    /// accessed, it is chance in which of them. Empty: there is no circle.
    pub circle: Vec<(usize, u64)>,
    /// What identifies the function of the first of them, whatever the place in it. `None` means that it isn't known, or that the place matters:
    /// it called a bad address, or another file's code that found something bad.
    pub entry: Option<Entry>,
    /// As the files themselves name them. Empty: the innermost one that counts has no name.
    pub functions: Vec<Named>,
    /// The same as anything names them that was found: debug files, too.
    pub family: Vec<Named>,
    /// One of these functions has no place of its own: it is inlined.
    pub is_inlined: bool,
    /// Where in the innermost function it was. `None` means that it is chance, or that it isn't known.
    pub spot: Option<Spot>,
}

/// What says which function a frame is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// The next place: the call there names the function. So it is the same if the file can't be had.
    Call,
    /// Where it begins, as [`Step::begin`] has it: the call may lead to any function.
    Begin(u64),
}

/// A function that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Named {
    /// The number of its file.
    pub file: usize,
    /// `MODULE!FUNCTION`
    pub name: String,
    /// It is one of several that call each other in a circle, of which the innermost one is.
    pub in_circle: bool,
}

/// A place in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Spot {
    /// The line of the source: the same in all copies that the compiler has made.
    Line(u32),
    /// Bytes from its beginning.
    Offset(u64),
}

impl Trail {
    /// The same, with the family of another trail of the same stack.
    pub(crate) fn with_family_of(self, other: Self) -> Self {
        Self { family: other.family, ..self }
    }

    /// May it be one of ours? It comes from a process that parses what anybody may have made. `files`: how many there are.
    pub(crate) fn fits(&self, files: usize) -> bool {
        let is_one = |function: &Named| function.name.len() <= NAME_BYTES_MAX && function.file < files;
        self.places.len() <= PLACES_MAX
            && self.circle.len() <= PLACES_MAX
            && self.functions.len() <= PLACES_MAX
            && self.family.len() <= PLACES_MAX
            && self.places.iter().chain(&self.circle).all(|(file, _)| *file < files)
            && self.functions.iter().chain(&self.family).all(is_one)
    }
}

/// What a wild pointer meets.
const ADDRESS: &str = "address";

/// What the signal says: its name, and what kind of fault it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind<'a> {
    /// `SIGSEGV`.
    pub signal: &'a str,
    /// As `fault_type` of a record. `None` means that no fault happened.
    pub fault: Option<&'a str>,
}

impl Kind<'_> {
    /// Bad memory was accessed. It is chance where in a function it is touched first: any of its instructions may be the one.
    fn is_access(&self) -> bool {
        self.fault() == ADDRESS
    }

    /// One word. What a wild pointer meets is chance: nothing, memory that it may not touch, or no address at all.
    fn fault(&self) -> &str {
        match self.fault {
            None => "-",
            Some("map_error" | "access_error" | "general_protection") => ADDRESS,
            Some(other) => other,
        }
    }
}

/// A frame as a signature has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// As [`file_text`].
    pub file: String,
    /// Where in the file.
    pub at: At,
}

/// Where in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum At {
    /// In the file, bytes.
    Offset(u64),
    /// Anywhere in the function that the next place calls.
    Called,
    /// By name: inlined functions have no place of their own.
    Function(String),
}

/// Does a frame say nothing of a bug, so that its caller counts? By its file, its function (as records have it, with an offset)
/// and the function's source, as far as they are known.
pub(crate) fn says_nothing(module: Option<&str>, symbol: Option<&str>, source: Option<&str>) -> bool {
    let function = |symbol: &str| {
        let name = symbol.rsplit_once("+0x").map_or(symbol, |(function, _)| function);
        silent::is_function(&names::normalize(name))
    };
    module.is_some_and(|path| silent::is_module(silent::stem(path)))
        || symbol.is_some_and(function)
        || source.is_some_and(silent::is_source)
}

/// How a signature names a file: by its build id, else by the last component of its path, so that a container's copy is the same.
pub(crate) fn file_text(build_id: Option<&str>, path: Option<&str>) -> Option<String> {
    let name = || path.map(|path| format!("{:?}", path.rsplit('/').next().unwrap_or(path)));
    build_id.map(str::to_owned).or_else(name)
}

impl Trail {
    /// The frames as a signature has them, and the spot in the first of them: by their places, or by functions if one of these is inlined.
    /// `file`: the text of a file. Frames of those without one are left out.
    pub(crate) fn places(&self, kind: Kind<'_>, file: impl Fn(usize) -> Option<String>) -> (Vec<Place>, Option<Spot>) {
        let place = |number: usize, at: At| Some(Place { file: file(number)?, at });
        if self.is_inlined {
            let named = |Named { file, name, .. }: &Named| place(*file, At::Function(name.clone()));
            let spot = self.spot.filter(|_| !kind.is_access());
            return (in_order(&self.functions, kind).into_iter().filter_map(named).collect(), spot);
        }
        if kind.is_access() && !self.circle.is_empty() {
            let begin = |&(number, begin): &(usize, u64)| place(number, At::Offset(begin));
            return (self.circle.iter().filter_map(begin).collect(), None);
        }
        let entry = self.entry.filter(|_| kind.is_access());
        let at = |(index, &(number, offset)): (usize, &(usize, u64))| match entry.filter(|_| index == 0) {
            Some(Entry::Call) => place(number, At::Called),
            Some(Entry::Begin(begin)) => place(number, At::Offset(begin)),
            None => place(number, At::Offset(offset)),
        };
        (self.places.iter().enumerate().filter_map(at).collect(), None)
    }
}

/// 16 hexadecimal digits for a bug in one build: of SHA-256 over the kind, the places, innermost first, and the spot in the first of them.
/// If none is in the executable (as [`file_text`]; `None` if unknown), the executable counts, too: an abort in a library is a bug of its
/// caller.
pub(crate) fn signature(
    kind: Kind<'_>,
    is_jump: bool,
    executable: Option<&str>,
    places: &[Place],
    spot: Option<Spot>,
) -> String {
    let mut text = head("2", kind, is_jump);
    for Place { file, at } in places {
        text.push_str(&match at {
            At::Offset(offset) => format!("{file}+{offset:x}\n"),
            At::Called => format!("{file} called\n"),
            At::Function(name) => format!("{file} {}\n", one_line(name)),
        });
    }
    match spot {
        Some(Spot::Line(line)) => text.push_str(&format!("line {line}\n")),
        Some(Spot::Offset(offset)) => text.push_str(&format!("offset {offset:x}\n")),
        None => {}
    }
    let is_in_executable = places.iter().any(|place| Some(place.file.as_str()) == executable);
    if let Some(executable) = executable.filter(|_| !is_in_executable) {
        text.push_str(&format!("in {executable}\n"));
    }
    digits(&text)
}

/// A name has a newline only where somebody wants two bugs to look like one.
fn one_line(name: &str) -> String {
    name.replace('\n', " ")
}

/// 16 hexadecimal digits for a bug in any build: of SHA-256 over the kind and the functions, innermost first. `None` means that it has no
/// names.
pub(crate) fn family(kind: Kind<'_>, trail: &Trail) -> Option<String> {
    if trail.family.is_empty() {
        return None;
    }
    let mut text = head("family 1", kind, trail.is_jump);
    in_order(&trail.family, kind).iter().for_each(|function| text.push_str(&format!("{}\n", one_line(&function.name))));
    Some(digits(&text))
}

/// The functions as they count, innermost first. If bad memory is accessed in a circle of functions, it is chance in which of them.
fn in_order<'a>(functions: &'a [Named], kind: Kind<'_>) -> Vec<&'a Named> {
    let mut functions: Vec<&Named> = functions.iter().collect();
    let circle = functions.iter().take_while(|function| function.in_circle && kind.is_access()).count();
    functions[..circle].sort_by(|a, b| a.name.cmp(&b.name));
    functions
}

fn head(version: &str, kind: Kind<'_>, is_jump: bool) -> String {
    format!("faultline {version}\n{}\n{}\n{}", kind.signal, kind.fault(), if is_jump { "?\n" } else { "" })
}

fn digits(text: &str) -> String {
    crate::hex::digits(&Sha256::digest(text)[..8])
}

#[cfg(test)]
mod tests;
