//! Foreign text that does nothing to a terminal but stand there.

use std::fmt::Write;

use unicode_width::UnicodeWidthChar;

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
    let width_of = |c: char| c.width().unwrap_or(0);
    let text = plain(text);
    if text.chars().map(width_of).sum::<usize>() <= width {
        return text;
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let rest = left.checked_sub(width_of(*c));
        left = rest.unwrap_or(0);
        rest.is_some()
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
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
}
