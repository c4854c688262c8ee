/// The end of what a program wrote.
#[derive(Debug, Default)]
pub(super) struct Said {
    end: Vec<u8>,
    bytes: usize,
}

impl Said {
    /// Bytes that are kept: some lines of an error.
    const KEPT: usize = 2_048;

    /// Takes more of it.
    pub fn push(&mut self, more: &[u8]) {
        self.bytes += more.len();
        let more = &more[more.len().saturating_sub(Self::KEPT)..];
        let too_many = (self.end.len() + more.len()).saturating_sub(Self::KEPT);
        self.end.drain(..too_many);
        self.end.extend_from_slice(more);
    }

    /// How much there was, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The end as a text, including its control characters. A log quotes it as a text of its own,
    /// so nobody can use a program to begin another log line or move a reader's cursor.
    pub fn text(&self) -> String {
        let is_cut = self.bytes > self.end.len();
        let cut = if is_cut { "..." } else { "" };
        cut.to_owned() + String::from_utf8_lossy(&self.end).trim()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_kept_however_it_comes() {
        for step in [1, 7, Said::KEPT - 1, Said::KEPT, 10_000] {
            let all: Vec<u8> = (0..10_000_u32).map(|i| b'a' + (i % 26) as u8).collect();
            let mut said = Said::default();
            all.chunks(step).for_each(|part| said.push(part));
            assert_eq!(said.bytes(), all.len());
            let end = String::from_utf8(all[all.len() - Said::KEPT..].to_vec()).unwrap();
            assert_eq!(said.text(), format!("...{end}"), "{step} at a time");
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_hide_the_rest() {
        let mut said = Said::default();
        said.push(b"\nno wallet \xff\n\n");
        assert_eq!(said.text(), "no wallet \u{fffd}");
    }
}
