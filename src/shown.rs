//! Names as a person sees them. The name of a file may hold anything but `/`: what moves a terminal's
//! cursor, turns the direction of writing or ends a line is not shown as it is.

use std::{
    fmt::{self, Display, Formatter, Write},
    path::Path,
};

/// What can be shown safely.
pub trait Shown {
    /// The name on one line, with an escape for every character that is not to be seen.
    fn shown(&self) -> Escaped<'_>;
}

/// A name to be displayed.
#[derive(Clone, Copy)]
pub struct Escaped<'a>(&'a Path);

impl Shown for Path {
    fn shown(&self) -> Escaped<'_> {
        Escaped(self)
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string_lossy();
        text.chars().try_for_each(|c| match is_hidden(c) {
            true => write!(f, "{}", c.escape_unicode()),
            false => f.write_char(c),
        })
    }
}

/// A text of several lines without what is not to be seen: for what is printed last, wherever it came
/// from.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match is_hidden(c) && c != '\n' && c != '\t' {
            true => plain.extend(c.escape_unicode()),
            false => plain.push(c),
        }
    }
    plain
}

/// Whether a character does something else than to be seen: control characters, and those that turn the
/// direction of writing.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_on_one_line_and_does_nothing_to_a_terminal() {
        let shown = |name: &str| Path::new(name).shown().to_string();
        assert_eq!(shown("a b/Zürich.bin"), "a b/Zürich.bin");
        assert_eq!(shown("a\n\x1b[2Jb"), "a\\u{a}\\u{1b}[2Jb");
        assert_eq!(shown("\u{202e}nib.\u{9b}"), "\\u{202e}nib.\\u{9b}");
    }

    #[test]
    fn lines_of_a_text_stay_lines() {
        assert_eq!(plain("a\tb\nc\x1b]0;d\x07\n"), "a\tb\nc\\u{1b}]0;d\\u{7}\n");
    }
}
