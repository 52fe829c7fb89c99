//! Errors are one line, whatever they quote.

/// The text with its control characters written out (`\n`, `\u{1b}`): it is one line, and a terminal that shows it does nothing else.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_written_out_and_nothing_else_is() {
        assert_eq!(one_line("`a\nb\r\u{1b}[2J\u{85}`"), r"`a\nb\r\u{1b}[2J\u{85}`");
        assert_eq!(one_line(r#"disk "ä": \ 100%"#), r#"disk "ä": \ 100%"#);
    }
}
