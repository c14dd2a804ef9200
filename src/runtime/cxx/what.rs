//! What `what()` of an exception returns, from the code of that function and the object, as the kernel program has read them: the code is
//! followed, and where it does anything unusual, nothing is known.

use crate::arch::{self, Returned};
use crate::probe::abi::{fl_crash, fl_exception, fl_text};

/// The types of the standard library that are derived from `std::exception`, as compilers mangle them.
const STANDARD: [&str; 32] = [
    "St9exception",
    "St13bad_exception",
    "St9bad_alloc",
    "St20bad_array_new_length",
    "St8bad_cast",
    "St12bad_any_cast",
    "St10bad_typeid",
    "St13runtime_error",
    "St11logic_error",
    "St12out_of_range",
    "St16invalid_argument",
    "St12length_error",
    "St12domain_error",
    "St11range_error",
    "St14overflow_error",
    "St15underflow_error",
    "St12system_error",
    "St12future_error",
    "St11regex_error",
    "NSt7__cxx1111regex_errorE",
    "St18bad_variant_access",
    "St19bad_optional_access",
    "St17bad_function_call",
    "St12bad_weak_ptr",
    "St16nested_exception",
    "NSt8ios_base7failureE",
    "NSt8ios_base7failureB5cxx11E",
    "St13__ios_failure",
    "NSt10filesystem16filesystem_errorE",
    "NSt10filesystem7__cxx1116filesystem_errorE",
    "St16bad_array_length",
    "St14format_error",
];

/// The text that `what()` of the exception in hand returns; `None` means that there is no exception, that it is no `std::exception`, or that
/// its code does more than to return a text that it has.
pub(super) fn text(raw: &fl_crash) -> Option<String> {
    let exception = &raw.exception;
    let names = std::iter::once(&exception.type_name).chain(&exception.bases);
    let is_standard = |text: &fl_text| raw.text(text).is_some_and(|name| STANDARD.contains(&name.as_str()));
    if exception.object == 0 || !names.into_iter().any(is_standard) {
        return None;
    }
    let code = exception.code.get(..exception.code_length as usize)?;
    match arch::returned(code, exception.what)? {
        Returned::Constant(address) => raw.text(&exception.literal).filter(|_| exception.literal.address == address),
        Returned::Member(offset) => raw.text(exception.texts.get(index_of(offset)?)?),
        Returned::Result(offset) => string(raw, exception, index_of(offset)?),
        Returned::Object(_) | Returned::Nothing => None,
    }
}

/// The word of the object behind the first one.
fn index_of(offset: u64) -> Option<usize> {
    offset.is_multiple_of(8).then_some(())?;
    usize::try_from(offset / 8).ok()?.checked_sub(1)
}

/// The text of a std::string among the members, which holds its length as well: that of c_str() and data().
fn string(raw: &fl_crash, exception: &fl_exception, index: usize) -> Option<String> {
    let (text, length) = (exception.texts.get(index)?, *exception.members.get(index + 1)?);
    (u64::from(text.length) == length.min(u64::from(TEXT_BYTES))).then(|| raw.text(text))?
}

/// What is longer is cut: FL_TEXT_BYTES in bpf/include/text.bpf.h.
const TEXT_BYTES: u32 = 255;
