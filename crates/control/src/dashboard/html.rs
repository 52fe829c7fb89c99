//! Text becomes HTML, numbers become text.

use std::fmt;

use crate::{ByteSize, one_line::one_line};

/// Characters of a name or a reason that are shown.
const SHOWN_CHARACTERS: usize = 240;

/// Appends to a page. Writing to a `String` cannot fail.
macro_rules! put {
    ($page:expr, $($text:tt)*) => {{
        use std::fmt::Write;
        let _ = write!($page, $($text)*);
    }};
}
pub(super) use put;

/// A column's heading.
#[derive(Clone, Copy)]
pub(super) enum Column {
    /// Of numbers, and of names.
    Plain(&'static str),
    /// Of text that is read from its left.
    Words(&'static str),
}

/// Begins a table that scrolls by itself. `label` is for who does not see it; without a caption it is empty.
pub(super) fn open_table(page: &mut String, class: &str, label: &str, caption: &str, columns: &[Column]) {
    put!(page, "<div class=\"{class}\" tabindex=\"0\" role=\"region\" aria-label=\"{label}\"><table>");
    if !caption.is_empty() {
        put!(page, "<caption>{caption}</caption>");
    }
    page.push_str("<thead><tr>");
    for column in columns {
        match column {
            Column::Plain(heading) => put!(page, "<th scope=\"col\">{heading}</th>"),
            Column::Words(heading) => put!(page, "<th scope=\"col\" class=\"words\">{heading}</th>"),
        }
    }
    page.push_str("</tr></thead><tbody>\n");
}

/// Foreign text, as HTML that shows it: on one line, and not without end.
pub(super) fn text(text: &str) -> Text<'_> {
    Text(text)
}

/// See [`text`].
pub(super) struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = one_line(self.0);
        let mut characters = line.chars();
        for character in characters.by_ref().take(SHOWN_CHARACTERS) {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => write!(f, "{other}")?,
            }
        }
        if characters.next().is_some() { f.write_str("…") } else { Ok(()) }
    }
}

/// `1.5G`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize::from_bytes(bytes).rounded()
}

/// `1,234,567`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Pages a second: `0`, `0.4`, `1,250`; a dash where it is not known.
pub(super) fn rate(rate: Option<f32>) -> String {
    match rate {
        None => "–".to_owned(),
        Some(rate) if rate < 0.05 => "0".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}"),
        Some(rate) => count(f64::from(rate).round() as u64),
    }
}

/// How many times smaller: `3.1×`; a dash where there is nothing.
pub(super) fn ratio(logical_bytes: u64, used_bytes: u64) -> String {
    if logical_bytes == 0 || used_bytes == 0 {
        return "–".to_owned();
    }
    let ratio = logical_bytes as f64 / used_bytes as f64;
    if ratio < 99.95 { format!("{ratio:.1}×") } else { format!("{}×", count(ratio.round() as u64)) }
}

/// `3 s`, `5 min`, `2 h`, `4 d`.
pub(super) fn period(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// One of them, or more: `1 guest`, `2 guests`.
pub(super) fn of(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_never_markup() {
        let shown = text("<b a=\"x\" c='y'>&amp;\n\u{1b}").to_string();
        assert_eq!(shown, r"&lt;b a=&quot;x&quot; c=&#39;y&#39;&gt;&amp;amp;\n\u{1b}");
        let long = text(&"ä".repeat(1000)).to_string();
        assert_eq!(long.chars().count(), SHOWN_CHARACTERS + 1);
        assert!(long.ends_with('…'));
    }

    #[test]
    fn numbers_as_people_read_them() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [None, Some(0.0), Some(0.44), Some(9.94), Some(9.96), Some(1250.4)].map(rate),
            ["–", "0", "0.4", "9.9", "10", "1,250"]
        );
        assert_eq!([ratio(0, 5), ratio(5, 0), ratio(31, 10), ratio(5_000, 1)], ["–", "–", "3.1×", "5,000×"]);
        assert_eq!([3, 119, 120, 7_200, 200_000].map(period), ["3 s", "119 s", "2 min", "2 h", "2 d"]);
        assert_eq!([of(1, "guest"), of(2_000, "page")], ["1 guest", "2,000 pages"]);
    }
}
