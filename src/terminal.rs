//! How text fits a terminal: wide parts are shortened where they say the least, and what matters most has a colour. A file and a pipe get
//! the whole text, without colours.

use std::env;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use terminal_size::terminal_size_of;

use crate::time::Timestamp;

/// A narrower terminal gets lines that it wraps.
const NARROWEST: usize = 40;

/// Where the second line of what does not fit into one begins.
pub(crate) const CONTINUED: usize = 6;

/// How many characters of a path, a name or a place are shown at least, however narrow the terminal is.
pub(crate) const PART_LEAST: usize = 8;

/// The mark of a part that was left out.
const LEFT_OUT: char = '…';

/// `--color`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}

/// How text looks. The default is that of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Style {
    /// In characters; `None` means that nothing is cut or wrapped.
    pub width: Option<usize>,
    /// The headline and the cause have colours.
    pub has_colors: bool,
    /// Somebody reads it who may be in another time zone than the machine.
    pub has_zone: bool,
}

impl Style {
    /// The style of standard output.
    pub(crate) fn of_output(color: Color) -> Self {
        let output = io::stdout();
        let is_terminal = output.is_terminal();
        let is_wanted = || {
            let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
            is_terminal && !is_set("NO_COLOR") && env::var_os("TERM").is_none_or(|terminal| terminal != "dumb")
        };
        let has_colors = match color {
            Color::Auto => is_wanted(),
            Color::Always => true,
            Color::Never => false,
        };
        Self { width: width_of(&output), has_colors, has_zone: is_terminal }
    }

    /// The style of standard error: sentences, which have no colours.
    pub(crate) fn of_error() -> Self {
        Self { width: width_of(&io::stderr()), ..Self::default() }
    }

    /// `2024-02-15 10:30:45`, in the machine's time zone; with the zone for who may be in another one.
    pub(crate) fn time(self, moment: Timestamp) -> String {
        let time = moment.local_seconds();
        if self.has_zone { format!("{time} {}", moment.zone_name()) } else { time }
    }

    /// What happened.
    pub(crate) fn headline(self, text: &str) -> String {
        self.painted("1;31", text)
    }

    /// Why it happened.
    pub(crate) fn cause(self, text: &str) -> String {
        self.painted("1;33", text)
    }

    fn painted(self, code: &str, text: &str) -> String {
        if self.has_colors { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Does text of so many characters fit?
    pub(crate) fn fits(self, characters: usize) -> bool {
        self.width.is_none_or(|width| characters <= width)
    }

    /// The characters that are left in a line behind so many.
    pub(crate) fn room_behind(self, characters: usize) -> usize {
        self.width.map_or(usize::MAX, |width| width.saturating_sub(characters))
    }

    /// Does text leave out the counters that are 0? On a terminal, where a person looks for those that aren't.
    pub(crate) fn hides_zeros(self) -> bool {
        self.width.is_some()
    }

    /// A sentence, as [`Self::wrapped`]; if one line can't hold it, the functions in it lose the arguments of their templates.
    pub(crate) fn sentence(self, text: &str, column: usize) -> String {
        if self.fits(column + length(text)) { text.to_owned() } else { self.wrapped(&fold_templates(text), column) }
    }

    /// Text in lines that fit, each of which begins at this column; the caller has written what is before it.
    pub(crate) fn wrapped(self, text: &str, column: usize) -> String {
        let Some(width) = self.width else { return text.to_owned() };
        let room = width.saturating_sub(column).max(NARROWEST / 4);
        let mut wrapped = String::with_capacity(text.len());
        let mut used = 0;
        for word in text.split(' ') {
            let length = length(word);
            if used != 0 && used + 1 + length > room {
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', column));
                used = 0;
            } else if used != 0 {
                wrapped.push(' ');
                used += 1;
            }
            wrapped.push_str(word);
            used += length;
        }
        wrapped
    }
}

/// The characters that a line of a terminal has; `None`: it is none, or doesn't know its width and says 0.
fn width_of(output: &(impl IsTerminal + AsFd)) -> Option<usize> {
    let (width, _) = terminal_size_of(output.as_fd()).filter(|_| output.is_terminal())?;
    Some(usize::from(width.0)).filter(|&width| width != 0).map(|width| width.max(NARROWEST))
}

/// Characters of a text.
pub(crate) fn length(text: &str) -> usize {
    text.chars().count()
}

/// The end of a path, `…/bin/app`: its last part says the most.
pub(crate) fn shorten_path(path: &str, room: usize) -> String {
    let length = length(path);
    if length <= room {
        return path.to_owned();
    }
    let tail: String = path.chars().skip((length + 1).saturating_sub(room)).collect();
    let whole_parts = tail.find('/').map_or(&*tail, |at| &tail[at..]);
    // A last part that doesn't fit is cut itself.
    format!("{LEFT_OUT}{whole_parts}")
}

/// The same, but of the path a part is left in any case, even if the line becomes too long for it.
pub(crate) fn fitting_path(path: &str, room: usize) -> String {
    shorten_path(path, room.max(PART_LEAST))
}

/// The beginning of a text, `std::vec…`.
pub(crate) fn cut(text: &str, room: usize) -> String {
    if length(text) <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain([LEFT_OUT]).collect()
}

/// A function without the arguments of its templates: `std::map<…>::at+0x10`.
pub(crate) fn fold_templates(symbol: &str) -> String {
    let (mut folded, mut depth) = (String::with_capacity(symbol.len()), 0_u32);
    let mut before = ' ';
    for (at, letter) in symbol.char_indices() {
        // The brackets of `operator<<` and of `->` open and close nothing, and a Rust path may begin with one: `<T as Trait>::name`.
        let is_operator = symbol[..at].trim_end_matches(['<', '>', '-', '=']).ends_with("operator");
        match letter {
            '<' if depth > 0 => depth += 1,
            '<' if !is_operator && (before.is_alphanumeric() || matches!(before, '_' | ':')) => {
                depth = 1;
                folded.extend(['<', LEFT_OUT, '>']);
            }
            '>' if depth > 0 && before != '-' => depth -= 1,
            letter if depth == 0 => folded.push(letter),
            _ => {}
        }
        before = letter;
    }
    if depth == 0 { folded } else { symbol.to_owned() }
}

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub heading: &'static str,
    /// The width of its cells. A longer cell moves the rest of its line.
    pub width: usize,
    /// Numbers stand at the right.
    pub is_right: bool,
    /// The spaces before it.
    pub gap: usize,
    /// Where there is no room, the column with the highest number leaves first; one with 0 stays.
    pub leaves: u8,
}

/// A table that has fewer columns if there is no room, rather than wrapped lines. Its last column may be a place in code.
pub(crate) struct Table {
    columns: Vec<Column>,
    /// The heading of the place.
    place: &'static str,
    is_shown: Vec<bool>,
    style: Style,
}

impl Table {
    /// The least that the place gets, before a column leaves.
    const PLACE: usize = 24;

    /// The spaces before the place.
    const GAP: usize = 2;

    /// `place` is the heading of the place; empty: there is none.
    pub(crate) fn new(columns: &[Column], place: &'static str, style: Style) -> Self {
        let mut table = Self { columns: columns.to_vec(), place, is_shown: vec![true; columns.len()], style };
        let least = if place.is_empty() { 0 } else { Self::PLACE };
        while !style.fits(table.width() + least) {
            let left = columns.iter().enumerate().filter(|(at, column)| table.is_shown[*at] && column.leaves > 0);
            let Some((next, _)) = left.max_by_key(|(_, column)| column.leaves) else { break };
            table.is_shown[next] = false;
        }
        table
    }

    /// The width of all columns that are shown, and of the gap behind them.
    fn width(&self) -> usize {
        let shown = self.columns.iter().zip(&self.is_shown).filter(|(_, is_shown)| **is_shown);
        shown.map(|(column, _)| column.gap + column.width).sum::<usize>() + Self::GAP
    }

    /// The headings.
    pub(crate) fn headings(&self) -> String {
        let headings: Vec<String> = self.columns.iter().map(|column| column.heading.to_owned()).collect();
        self.line(&headings, self.place)
    }

    /// A line, with a cell for each column.
    pub(crate) fn line(&self, cells: &[String], place: &str) -> String {
        let line = self.cells(cells);
        let room = self.style.room_behind(length(&line)).max(PART_LEAST);
        let place = if length(place) > room { fold_templates(place) } else { place.to_owned() };
        (line + &cut(&place, room)).trim_end().to_owned()
    }

    /// The same, where the place is a file or a program.
    pub(crate) fn line_of_path(&self, cells: &[String], path: &str) -> String {
        let line = self.cells(cells);
        let path = fitting_path(path, self.style.room_behind(length(&line)));
        line + &path
    }

    /// The columns, and the gap behind them.
    fn cells(&self, cells: &[String]) -> String {
        let mut line = String::new();
        for ((column, cell), _) in self.columns.iter().zip(cells).zip(&self.is_shown).filter(|(_, is_shown)| **is_shown)
        {
            let width = column.width;
            let cell = if column.is_right { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line.extend(std::iter::repeat_n(' ', column.gap));
            line.push_str(&cell);
        }
        line + &" ".repeat(Self::GAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(width: usize) -> Style {
        Style { width: Some(width), ..Style::default() }
    }

    #[test]
    fn a_path_loses_its_beginning() {
        assert_eq!(shorten_path("/usr/lib/libc.so.6", 18), "/usr/lib/libc.so.6");
        assert_eq!(shorten_path("/usr/lib/libc.so.6", 17), "…/lib/libc.so.6");
        assert_eq!(shorten_path("/usr/lib/libc.so.6", 12), "…/libc.so.6");
        assert_eq!(shorten_path("/usr/lib/libc.so.6", 8), "…bc.so.6");
    }

    #[test]
    fn templates_are_folded_and_operators_are_not() {
        for (symbol, folded) in [
            ("std::map<int, std::vector<int>>::at+0x10", "std::map<…>::at+0x10"),
            ("std::operator<< <char>(std::ostream&)+0x1", "std::operator<< <char>(std::ostream&)+0x1"),
            ("A<int>::operator->() const+0x1", "A<…>::operator->() const+0x1"),
            ("f<&A::operator->>+0x1", "f<…>+0x1"),
            ("<alloc::vec::Vec<u8> as core::ops::Drop>::drop+0x1", "<alloc::vec::Vec<…> as core::ops::Drop>::drop+0x1"),
            ("core::ptr::drop_in_place::<u8>+0x1", "core::ptr::drop_in_place::<…>+0x1"),
            ("damaged<int+0x1", "damaged<int+0x1"),
            ("main+0x10", "main+0x10"),
        ] {
            assert_eq!(fold_templates(symbol), folded);
        }
    }

    #[test]
    fn sentences_are_wrapped_at_words() {
        let text = "reads the address 0x18 through a pointer";
        assert_eq!(Style::default().wrapped(text, 4), text);
        assert_eq!(of(24).wrapped(text, 4), "reads the address\n    0x18 through a\n    pointer");
        assert_eq!(of(14).wrapped("a-word-that-is-too-long x", 4), "a-word-that-is-too-long\n    x");
    }

    #[test]
    fn a_sentence_that_does_not_fit_loses_the_arguments_of_templates() {
        let text = "an exception thrown in std::map<int, int>::at(int const&) that nobody catches";
        for style in [Style::default(), of(81)] {
            assert_eq!(style.sentence(text, 4), text);
        }
        assert_eq!(
            of(60).sentence(text, 4),
            "an exception thrown in std::map<…>::at(int const&) that\n    nobody catches"
        );
    }

    #[test]
    fn a_narrow_table_has_fewer_columns() {
        const COLUMNS: [Column; 3] = [
            Column { heading: "COUNT", width: 5, is_right: true, gap: 2, leaves: 0 },
            Column { heading: "SIGNAL", width: 9, is_right: false, gap: 2, leaves: 1 },
            Column { heading: "SIGNATURE", width: 16, is_right: false, gap: 1, leaves: 2 },
        ];
        let cells = ["7", "SIGSEGV", "0123456789abcdef"].map(str::to_owned);
        let line =
            |style| Table::new(&COLUMNS, "PLACE", style).line(&cells, "std::map<int, int>::at_or_what_is_beside_it");
        let whole = "      7  SIGSEGV   0123456789abcdef  std::map<int, int>::at_or_what_is_beside_it";
        assert_eq!(line(Style::default()), whole);
        assert_eq!(line(of(80)), whole);
        assert_eq!(line(of(61)), "      7  SIGSEGV   0123456789abcdef  std::map<…>::at_or_what…");
        assert_eq!(line(of(60)), "      7  SIGSEGV    std::map<…>::at_or_what_is_beside_it");
        assert_eq!(line(of(43)), "      7  std::map<…>::at_or_what_is_beside…");
        assert_eq!(
            Table::new(&COLUMNS, "PLACE", Style::default()).headings(),
            "  COUNT  SIGNAL    SIGNATURE         PLACE"
        );
    }

    #[test]
    fn a_time_has_its_zone_where_somebody_reads_it() {
        let moment = Timestamp::from_unix_ns(0).unwrap();
        assert_eq!(Style::default().time(moment), "1970-01-01 00:00:00");
        assert_eq!(Style { has_zone: true, ..Style::default() }.time(moment), "1970-01-01 00:00:00 UTC");
    }

    #[test]
    fn colours_stand_around_the_text() {
        assert_eq!(Style::default().headline("x"), "x");
        assert_eq!(Style { has_colors: true, ..Style::default() }.headline("x"), "\x1b[1;31mx\x1b[0m");
    }
}
