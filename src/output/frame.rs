//! The text of frames.

use std::fmt::Write;

use crate::identity::CYCLE;
use crate::record::crash::{Frame, Omitted};
use crate::terminal::{PART_LEAST, Style, cut, fold_templates, length, shorten_path};
use crate::text::escape;

/// Writes the frames, innermost first, equal ones that follow on each other once, and likewise a cycle of a few.
pub(super) fn write_frames(
    to: &mut String,
    style: Style,
    frames: &[Frame],
    left_out: Option<Omitted>,
) -> std::fmt::Result {
    write_each(to, style, frames, left_out, frame_text)
}

/// The same without addresses, which differ between processes.
pub(crate) fn write_places(to: &mut String, style: Style, frames: &[Frame]) -> std::fmt::Result {
    write_each(to, style, frames, None, place_text)
}

/// `text`: a frame in so many characters.
fn write_each(
    to: &mut String,
    style: Style,
    frames: &[Frame],
    left_out: Option<Omitted>,
    text: impl Fn(&Frame, usize) -> String,
) -> std::fmt::Result {
    let mut index = 0;
    while index < frames.len() {
        if let Some(omitted) = left_out.filter(|omitted| omitted.before == index) {
            writeln!(to, "    ... {} frames left out", omitted.count)?;
        }
        // Frames that were left out may be between two equal ones.
        let end = left_out.map(|omitted| omitted.before).filter(|&before| before > index).unwrap_or(frames.len());
        let (period, times) = repetition(&frames[index..end.min(frames.len())]);
        let behind = if period == 1 && times > 1 { format!(" ×{times}") } else { String::new() };
        for (number, frame) in frames.iter().enumerate().skip(index).take(period) {
            let before = format!("    {:<3} ", format!("#{number}"));
            let place = text(frame, style.room_behind(length(&before) + length(&behind)));
            writeln!(to, "{before}{place}{behind}")?;
        }
        if period > 1 {
            writeln!(to, "    ... these {period} frames ×{times}")?;
        }
        index += period * times;
    }
    Ok(())
}

/// How many of the first frames come again and again, and how often: 1 and 1 if they don't. Two functions that call each other twice are shown
/// in full, which is as short.
fn repetition(frames: &[Frame]) -> (usize, usize) {
    let times = |period: usize| {
        let first = frames.get(..period)?;
        let times = frames.chunks_exact(period).take_while(|chunk| *chunk == first).count();
        (times > if period == 1 { 1 } else { 2 }).then_some((period, times))
    };
    (1..=CYCLE).find_map(times).unwrap_or((1, 1))
}

/// A frame in so many characters, if that can be.
fn frame_text(frame: &Frame, room: usize) -> String {
    let address = frame.address.map_or_else(|| "?".to_owned(), |address| address.to_string());
    let place = place_text(frame, room.saturating_sub(length(&address) + 1));
    format!("{address} {place}")
}

/// A frame without its address, in so many characters, if that can be.
fn place_text(frame: &Frame, room: usize) -> String {
    let mut parts = Parts::of(frame);
    parts.fit(room);
    parts.text()
}

/// What the text of a frame is made of.
struct Parts {
    symbol: String,
    /// `+0x10`, ` [inlined]`
    behind: String,
    module: String,
    file: Option<String>,
    /// `:33`
    line: String,
}

impl Parts {
    fn of(frame: &Frame) -> Self {
        let (symbol, behind) = match &frame.symbol {
            Some(symbol) if frame.inlined => (escape(symbol), " [inlined]".to_owned()),
            Some(symbol) => match symbol.rsplit_once("+0x") {
                Some((name, offset)) => (escape(name), format!("+0x{}", escape(offset))),
                None => (escape(symbol), String::new()),
            },
            None => match frame.offset {
                Some(offset) => (format!("?? offset {offset}"), String::new()),
                None => ("??".to_owned(), String::new()),
            },
        };
        Self {
            symbol,
            behind,
            module: frame.module.as_deref().map_or_else(|| "unknown".to_owned(), escape),
            file: frame.file.as_deref().map(escape),
            line: frame.file.as_ref().and(frame.line).map(|line| format!(":{line}")).unwrap_or_default(),
        }
    }

    fn text(&self) -> String {
        let Self { symbol, behind, module, file, line } = self;
        let at = file.as_ref().map(|file| format!(" at {file}{line}")).unwrap_or_default();
        let of = if module.is_empty() { String::new() } else { format!(" ({module})") };
        format!("{symbol}{behind}{of}{at}")
    }

    /// Shortens what says the least first: the arguments of templates, the path of the module, that of the source, the module, and the name.
    fn fit(&mut self, room: usize) {
        let too_long = |parts: &Self| length(&parts.text()).saturating_sub(room);
        if too_long(self) > 0 {
            self.symbol = fold_templates(&self.symbol);
        }
        let shorter = |path: &str, by: usize| {
            let last = length(path.rsplit('/').next().unwrap_or(path)) + 2;
            shorten_path(path, length(path).saturating_sub(by).max(last).max(PART_LEAST))
        };
        self.module = shorter(&self.module, too_long(self));
        if let Some(file) = &self.file {
            self.file = Some(shorter(file, too_long(self)));
        }
        if too_long(self) > 0 && self.file.is_some() {
            self.module.clear();
        }
        // What is left is cut in the longest part, the name: but not its offset.
        let over = too_long(self);
        self.symbol = cut(&self.symbol, length(&self.symbol).saturating_sub(over).max(PART_LEAST));
    }
}

#[cfg(test)]
mod tests {
    use crate::hex::Hex;

    use super::*;

    fn frame(symbol: &str) -> Frame {
        Frame {
            address: Some(Hex(0x55ef_72dc_52a8)),
            symbol: Some(symbol.to_owned()),
            module: Some("/usr/local/lib/plugins/libplugin.so.1".to_owned()),
            file: Some("/src/plugins/source/plugin.cpp".to_owned()),
            line: Some(33),
            ..Frame::default()
        }
    }

    fn fitted(symbol: &str, width: usize) -> String {
        let mut text = String::new();
        let style = Style { width: Some(width), ..Style::default() };
        write_frames(&mut text, style, &[frame(symbol)], None).unwrap();
        text.trim_end().to_owned()
    }

    #[test]
    fn a_frame_loses_first_what_says_the_least() {
        let long = "std::map<int, int>::at+0x10";
        assert_eq!(
            fitted(long, 200),
            "    #0  0x55ef72dc52a8 std::map<int, int>::at+0x10 (/usr/local/lib/plugins/libplugin.so.1) at /src/plugins/source/plugin.cpp:33"
        );
        assert_eq!(
            fitted(long, 120),
            "    #0  0x55ef72dc52a8 std::map<…>::at+0x10 (/usr/local/lib/plugins/libplugin.so.1) at /src/plugins/source/plugin.cpp:33"
        );
        assert_eq!(
            fitted(long, 100),
            "    #0  0x55ef72dc52a8 std::map<…>::at+0x10 (…/libplugin.so.1) at /src/plugins/source/plugin.cpp:33"
        );
        assert_eq!(
            fitted(long, 81),
            "    #0  0x55ef72dc52a8 std::map<…>::at+0x10 (…/libplugin.so.1) at …/plugin.cpp:33"
        );
        assert_eq!(fitted(long, 80), "    #0  0x55ef72dc52a8 std::map<…>::at+0x10 at …/plugin.cpp:33");
        let name = format!("a_{}_name+0x10", "very_".repeat(20));
        let cut = fitted(&name, 80);
        assert!(length(&cut) == 80 && cut.ends_with("…+0x10 at …/plugin.cpp:33"), "{cut}");
    }

    #[test]
    fn a_cycle_is_told_once() {
        let written = |names: &str| {
            let mut text = String::new();
            let frames: Vec<Frame> = names.chars().map(|name| frame(&format!("{name}+0x1"))).collect();
            write_frames(&mut text, Style::default(), &frames, None).unwrap();
            text.lines()
                .map(|line| line.split(' ').filter(|word| !word.is_empty()).take(5).collect::<Vec<_>>().join(" "))
                .collect::<Vec<_>>()
        };
        let lines = written("xabababy");
        assert_eq!(lines.len(), 5, "{lines:?}");
        assert!(lines[1].starts_with("#1 ") && lines[2].starts_with("#2 "), "{lines:?}");
        assert_eq!(lines[3], "... these 2 frames ×3");
        assert!(lines[4].starts_with("#7 ") && lines[4].contains(" y+0x1 "), "{lines:?}");
        assert_eq!(written("abcdabcdabcd")[4], "... these 4 frames ×3");
        assert_eq!(written("abab").len(), 4, "twice is no more than two of each");
        assert_eq!(written("aaabbb").len(), 2);
    }

    #[test]
    fn equal_frames_are_told_once() {
        let mut text = String::new();
        let frames = [vec![frame("a+0x1")], vec![frame("b+0x2"); 3], vec![frame("c+0x3")]].concat();
        write_frames(&mut text, Style::default(), &frames, Some(Omitted { count: 7, before: 3 })).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("    #1  ") && lines[1].ends_with(" ×2"), "{text}");
        assert_eq!(lines[2], "    ... 7 frames left out");
        assert!(lines[3].starts_with("    #3  ") && lines[3].ends_with(":33"), "{text}");
        assert!(lines[4].starts_with("    #4  ") && lines.len() == 5, "{text}");
    }
}
