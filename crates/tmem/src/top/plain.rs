//! Foreign text that does nothing to a terminal but stand there.

use std::fmt::Write;

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text with what is not seen written out: control characters, which a terminal would obey, and what takes no place of its own, such
/// as marks that turn the direction of writing around.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || c.width().is_none_or(|width| width == 0) {
            // Writing to a `String` cannot fail.
            let _ = write!(plain, "{}", c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// The same, no wider than this; what is left out shows as `…`.
pub(super) fn plain_within(text: &str, width: usize) -> String {
    let text = plain(text);
    if text.width() <= width {
        return text;
    }
    let Some(left) = width.checked_sub(1) else { return String::new() };
    let mut cut: String = cells_of(text.chars(), left).into_iter().collect();
    cut.push('…');
    cut
}

/// A name, no wider than this. What is left out is in its middle: names of many guests begin alike and end with a number.
pub(super) fn name_within(name: &str, width: usize) -> String {
    let name = plain(name);
    if name.width() <= width {
        return name;
    }
    let Some(left) = width.checked_sub(1) else { return String::new() };
    let end: Vec<char> = cells_of(name.chars().rev(), left / 2);
    let mut cut: String = cells_of(name.chars(), left - left / 2).into_iter().collect();
    cut.push('…');
    cut.extend(end.into_iter().rev());
    cut
}

/// As many of the characters as fit into so many cells.
fn cells_of(characters: impl Iterator<Item = char>, cells: usize) -> Vec<char> {
    let mut left = cells;
    let fits = |c: &char| {
        let rest = left.checked_sub(c.width().unwrap_or(0));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    characters.take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_out() {
        assert_eq!(plain("a\u{1b}[2J\r\nb\u{9b}31m\u{7f}"), r"a\u{1b}[2J\r\nb\u{9b}31m\u{7f}");
        assert_eq!(plain("ab\u{202e}cd\u{200b}\u{2066}"), r"ab\u{202e}cd\u{200b}\u{2066}");
        assert_eq!(plain("Zürich 東京 🐧"), "Zürich 東京 🐧");
    }

    #[test]
    fn what_is_too_wide_is_cut_to_cells_not_characters() {
        assert_eq!(plain_within("guest", 5), "guest");
        assert_eq!(plain_within("guests", 5), "gues…");
        assert_eq!(plain_within("東京都庁", 6), "東京…");
        assert_eq!(plain_within("東京都庁", 5), "東京…");
        assert_eq!(plain_within("東京", 1), "…");
        assert_eq!(plain_within("東京", 0), "");
    }

    #[test]
    fn a_name_that_is_too_long_keeps_its_end() {
        assert_eq!(name_within("web-server-1", 12), "web-server-1");
        assert_eq!(name_within("web-server-1", 9), "web-…er-1");
        assert_eq!(name_within("web-server-1", 8), "web-…r-1");
        assert_eq!(name_within("東京都庁", 6), "東…庁");
        assert_eq!(name_within("long", 2), "l…");
        assert_eq!(name_within("long", 1), "…");
        assert_eq!(name_within("long", 0), "");
    }
}
