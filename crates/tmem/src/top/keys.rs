//! Which key does what.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::view::View;

/// What the help says, a key and its effect.
pub(super) const HELP: [(&str, &str); 8] = [
    ("q Esc ^C", "quit"),
    ("↑ ↓ k j", "select a guest"),
    ("PgUp PgDn", "ten further"),
    ("Home End", "first and last"),
    ("s", "sort by the next column"),
    ("p", "pause, go on"),
    ("^L", "draw all again"),
    ("?", "this; any key leaves it"),
];

/// What a key wants beyond what it changed in the view.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wish {
    Nothing,
    Redraw,
    Quit,
}

/// Does what the key says.
pub(super) fn press(view: &mut View, key: KeyEvent) -> Wish {
    if key.kind == KeyEventKind::Release {
        return Wish::Nothing;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    match key.code {
        KeyCode::Char('c') if control => return Wish::Quit,
        KeyCode::Char('l') if control => return Wish::Redraw,
        _ if view.help => view.help = false,
        KeyCode::Char('q') | KeyCode::Esc => return Wish::Quit,
        KeyCode::Down | KeyCode::Char('j') => view.select(1),
        KeyCode::Up | KeyCode::Char('k') => view.select(-1),
        KeyCode::PageDown => view.select(10),
        KeyCode::PageUp => view.select(-10),
        KeyCode::Home => view.select(isize::MIN),
        KeyCode::End => {
            view.select(0);
            view.select(isize::MAX);
        }
        KeyCode::Char('s') => view.sort_by_next(),
        KeyCode::Char('p') => view.paused = !view.paused,
        KeyCode::Char('?' | 'h') => view.help = true,
        _ => {}
    }
    Wish::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::view::samples::*;

    #[test]
    fn keys_do_what_the_help_says() {
        let mut view = View::new(look(vec![client("a", 1), client("b", 1), client("c", 1)]), SECOND);
        let mut typed = |code, modifiers| {
            let wish = press(&mut view, KeyEvent::new(code, modifiers));
            (wish, view.selected_place(), view.help, view.paused)
        };
        let plain = KeyModifiers::NONE;
        use Wish::{Nothing, Quit, Redraw};
        assert_eq!(typed(KeyCode::End, plain), (Nothing, Some(2), false, false));
        assert_eq!(typed(KeyCode::Up, plain), (Nothing, Some(1), false, false));
        assert_eq!(typed(KeyCode::Char('j'), plain), (Nothing, Some(2), false, false));
        assert_eq!(typed(KeyCode::Home, plain), (Nothing, Some(0), false, false));
        assert_eq!(typed(KeyCode::Char('p'), plain), (Nothing, Some(0), false, true));
        assert_eq!(typed(KeyCode::Char('?'), plain), (Nothing, Some(0), true, true));
        assert_eq!(typed(KeyCode::Char('q'), plain), (Nothing, Some(0), false, true), "leaves the help");
        assert_eq!(typed(KeyCode::Char('l'), KeyModifiers::CONTROL).0, Redraw);
        assert_eq!(typed(KeyCode::Char('q'), plain).0, Quit);
        assert_eq!(typed(KeyCode::Esc, plain).0, Quit);
        assert_eq!(typed(KeyCode::Char('?'), plain).0, Nothing);
        assert_eq!(typed(KeyCode::Char('c'), KeyModifiers::CONTROL).0, Quit, "even from the help");
    }
}
