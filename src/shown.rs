//! Names, and what the system refuses, as a person sees them, with what to do about it. The name of
//! a file may hold anything but `/`: what moves a terminal's cursor, turns the direction of writing
//! or ends a line is not shown as it is.

use std::{
    fmt::{self, Display, Formatter, Write},
    io,
    path::Path,
};

/// What can be shown safely.
pub trait Shown {
    /// The name on one line, with an escape for every character that is not to be seen, and in
    /// quotes where a shell would not take it as one word.
    fn shown(&self) -> Escaped<'_>;

    /// The same without quotes: for a value that is no word of a command.
    fn escaped(&self) -> Escaped<'_>;
}

/// A name to be displayed.
#[derive(Clone, Copy)]
pub struct Escaped<'a> {
    name: &'a Path,
    is_word: bool,
}

impl Shown for Path {
    fn shown(&self) -> Escaped<'_> {
        Escaped {
            name: self,
            is_word: true,
        }
    }

    fn escaped(&self) -> Escaped<'_> {
        Escaped {
            name: self,
            is_word: false,
        }
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let text = self.name.to_string_lossy();
        // So that a hint can be pasted into a shell as it is printed.
        let is_word = |c: char| c.is_alphanumeric() || "_@%+=:,./-".contains(c);
        let needs_quotes = self.is_word && (text.is_empty() || !text.chars().all(is_word));
        let quote = if needs_quotes { "'" } else { "" };
        f.write_str(quote)?;
        text.chars().try_for_each(|c| match c {
            '\'' if needs_quotes => f.write_str("'\\''"),
            c if is_hidden(c) => write!(f, "{}", c.escape_unicode()),
            c => f.write_char(c),
        })?;
        f.write_str(quote)
    }
}

/// A text of several lines without what is not to be seen: for what is printed last, wherever it
/// came from.
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

/// What a person can do where the system refuses to work with a file or folder, as the end of a
/// sentence that has named both: its error alone says neither why nor what to do. Nothing where
/// somebody made the error who says so himself, or where nobody can do anything.
pub fn remedy(error: &io::Error) -> &'static str {
    if error.raw_os_error().is_none() {
        return "";
    }
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; this user may not: run the command as one who may, or change owner or mode (chown, chmod; `namei -l` and the name show those of each folder on the way)"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room there (`df -h` and `df -i` say how much is left) and run the same command again"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "; that file system is mounted read-only: name a place elsewhere, or mount it to be written"
        }
        io::ErrorKind::NotFound => "; is its name right?",
        io::ErrorKind::NotADirectory => "; a part of its name is a file where a folder is needed",
        _ => "",
    }
}

/// The file in which Linux says which ports it gives to outgoing connections: the first and the
/// last.
pub const OUTGOING_PORTS_FILE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// How a person finds out what has a port, as a clause. `outgoing` is what [`OUTGOING_PORTS_FILE`]
/// says, or nothing.
pub fn who_has(port: u16, outgoing: &str) -> String {
    let mut text = format!(
        "`ss -ltnup 'sport = :{port}'` names who listens there, `ss -tanp 'sport = :{port}'` connections that have it, also one in TIME-WAIT, which is over within a minute"
    );
    let mut ports = outgoing.split_whitespace().map(str::parse::<u16>);
    if let (Some(Ok(first)), Some(Ok(last))) = (ports.next(), ports.next())
        && (first..=last).contains(&port)
    {
        let _ = write!(
            text,
            "; outgoing connections get the ports {first} to {last}: `sysctl net.ipv4.ip_local_reserved_ports={port}` keeps this one from them"
        );
    }
    text
}

/// Whether a character does something else than to be seen: control characters, those that turn the
/// direction of writing or end a line, and those that take no room, by which two texts look the
/// same.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_on_one_line_and_does_nothing_to_a_terminal_or_a_shell() {
        let shown = |name: &str| Path::new(name).shown().to_string();
        assert_eq!(shown("a/Zürich-1.bin"), "a/Zürich-1.bin");
        assert_eq!(shown("a b/Zürich.bin"), "'a b/Zürich.bin'");
        assert_eq!(shown("it's"), "'it'\\''s'");
        assert_eq!(shown("a\n\x1b[2Jb"), "'a\\u{a}\\u{1b}[2Jb'");
        assert_eq!(shown("\u{202e}nib.\u{9b}"), "'\\u{202e}nib.\\u{9b}'");
        let hidden = "a\u{2028}b\u{200b}c\u{feff}";
        assert_eq!(shown(hidden), "'a\\u{2028}b\\u{200b}c\\u{feff}'");
    }

    #[test]
    fn what_the_system_refuses_comes_with_what_to_do_and_what_says_so_itself_alone() {
        for (code, says) in [
            (libc::EACCES, "namei -l"),
            (libc::EPERM, "namei -l"),
            (libc::ENOSPC, "make room"),
            (libc::EDQUOT, "make room"),
            (libc::EROFS, "read-only"),
            (libc::ENOENT, "name right?"),
            (libc::ENOTDIR, "a folder is needed"),
        ] {
            let remedy = remedy(&io::Error::from_raw_os_error(code));
            assert!(
                remedy.contains(says) && remedy.starts_with("; "),
                "{remedy}"
            );
        }
        let own = io::Error::new(io::ErrorKind::PermissionDenied, "chown it");
        assert_eq!(remedy(&own), "");
        assert_eq!(remedy(&io::Error::from_raw_os_error(libc::EIO)), "");
    }

    #[test]
    fn a_port_that_linux_gives_to_outgoing_connections_is_told_as_one() {
        let reserved = "ip_local_reserved_ports=50000";
        for (outgoing, is_one) in [
            ("32768\t60999\n", true),
            ("50000 50000", true),
            ("32768 49999", false),
            ("", false),
            ("no numbers", false),
        ] {
            let text = who_has(50_000, outgoing);
            assert!(text.contains("ss -ltnup 'sport = :50000'"), "{text}");
            assert_eq!(text.contains(reserved), is_one, "{outgoing}: {text}");
        }
    }

    #[test]
    fn lines_of_a_text_stay_lines() {
        assert_eq!(plain("a\tb\nc\x1b]0;d\x07\n"), "a\tb\nc\\u{1b}]0;d\\u{7}\n");
    }
}
