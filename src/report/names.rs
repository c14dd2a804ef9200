//! Names of frames that no host knew: with the servers of DEBUGINFOD_URLS.

use anyhow::Result;

use super::Report;
use crate::debuginfod::Settings;
use crate::hex::bytes;
use crate::offline::{Naked, Names, Place, name_stack};
use crate::record::crash::Frame;

/// Names the frames of all rows, if the environment names a server.
///
/// # Errors
/// If the environment can't be understood, or the cache can't be used.
pub(super) fn complete(report: &mut Report) -> Result<()> {
    let lacks = |frame: &Frame| frame.build_id.is_some() && (frame.symbol.is_none() || frame.line.is_none());
    let settings = Settings::from_environment()?;
    if settings.is_none() || !report.groups.iter().any(|row| row.frames.iter().any(lacks)) {
        return Ok(());
    }
    let mut names = Names::new(Vec::new(), settings)?;
    for row in &mut report.groups {
        row.frames = complete_stack(std::mem::take(&mut row.frames), &mut |stack| name_stack(&mut names, stack));
    }
    Ok(())
}

fn complete_stack(frames: Vec<Frame>, name: &mut dyn FnMut(&[Naked]) -> Vec<crate::offline::Named>) -> Vec<Frame> {
    // Inlined functions stand before the frame that they are part of.
    let calls: Vec<&[Frame]> = frames.split_inclusive(|frame| !frame.inlined).collect();
    let named = name(&calls.iter().map(|call| naked(call)).collect::<Vec<_>>());
    let mut complete = Vec::with_capacity(frames.len());
    for (call, functions) in calls.into_iter().zip(named) {
        match (functions, call.last()) {
            (Some(functions), Some(frame)) => complete.extend(functions.iter().map(|function| Frame {
                symbol: Some(function.symbol()),
                file: function.file.clone(),
                line: function.line,
                inlined: function.inlined,
                ..frame.clone()
            })),
            _ => complete.extend_from_slice(call),
        }
    }
    complete
}

fn naked(call: &[Frame]) -> Naked {
    let Some(frame) = call.last() else { return Naked::default() };
    let place = || {
        let build_id = bytes(frame.build_id.as_deref()?)?;
        Some(Place { build_id, module: frame.module.clone(), offset: frame.offset?.0, is_return_address: false })
    };
    Naked { place: place(), symbol: frame.symbol.clone(), has_line: call.iter().any(|frame| frame.line.is_some()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::Function;
    use crate::hex::Hex;

    #[test]
    fn rows_get_names_and_keep_those_they_have() {
        let frame = |offset: u64, symbol: Option<&str>| Frame {
            symbol: symbol.map(str::to_owned),
            build_id: Some("abcdef01".to_owned()),
            offset: Some(Hex(offset)),
            ..Frame::default()
        };
        let function =
            |name: &str, inlined| Function { name: name.to_owned(), offset: None, file: None, line: None, inlined };
        let mut name = |stack: &[Naked]| {
            assert_eq!(stack.iter().map(|naked| naked.symbol.as_deref()).collect::<Vec<_>>(), [None, Some("known")]);
            assert_eq!(stack[0].place.as_ref().unwrap().offset, 0x10);
            vec![Some(vec![function("inner", true), function("outer", false)]), None]
        };
        let complete = complete_stack(vec![frame(0x10, None), frame(0x20, Some("known"))], &mut name);
        let symbols: Vec<_> = complete.iter().map(|frame| frame.symbol.as_deref()).collect();
        assert_eq!(symbols, [Some("inner"), Some("outer"), Some("known")]);
        assert_eq!(complete.iter().map(|frame| frame.inlined).collect::<Vec<_>>(), [true, false, false]);
    }
}
