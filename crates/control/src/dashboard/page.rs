//! The frame of the page: what is there before anything is known.

use super::html::{self, put};
use crate::{Status, history::Span};

/// The style sheet.
pub(crate) const STYLE: &str = include_str!("dashboard.css");
/// The script that puts in what is new.
pub(crate) const SCRIPT: &str = include_str!("dashboard.js");
/// What the page may load and do: the two files above and the fragment, from here; nothing that stands in the page itself is run.
pub(crate) const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A square in a square. Without one the browser asks for a file that is not there.
const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'%3E%3Crect width='8' height='8' rx='1.5' \
     fill='%232563c9'/%3E%3Crect x='2' y='2' width='4' height='4' rx='.6' fill='white'/%3E%3C/svg%3E";

/// The page around a fragment.
pub(super) fn page(fragment: &str, span: Span) -> String {
    let mut html = String::with_capacity(fragment.len() + (4 << 10));
    put!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>tmem</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\n\
         <noscript><meta http-equiv=\"refresh\" content=\"5\"></noscript>\n\
         <link rel=\"icon\" href=\"{ICON}\"><link rel=\"stylesheet\" href=\"/dashboard.css\"><script defer src=\"/dashboard.js\"></script></head><body>\n\
         <header><h1>tmem</h1><nav aria-label=\"How far back\">"
    );
    for (of, name, text) in [(Span::Hour, "hour", "last hour"), (Span::Day, "day", "last day")] {
        let current = if of == span { " aria-current=\"page\"" } else { "" };
        put!(html, "<a href=\"/?range={name}\"{current}>{text}</a>");
    }
    put!(
        html,
        "</nav></header>\n<p id=\"silence\" role=\"alert\" hidden><b>No answer from the daemon</b> <span aria-hidden=\"true\"></span></p>\n{fragment}</body></html>\n"
    );
    html
}

/// Begins a fragment. A script of another version loads the whole page again.
pub(super) fn open(html: &mut String, status: &Status) {
    put!(html, "<main id=\"live\" data-version=\"{}\">\n", html::text(&status.version));
}

/// Ends it.
pub(super) fn close(html: &mut String) {
    html.push_str("</main>\n");
}
