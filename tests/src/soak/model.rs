//! What each page of a client may read as.

use super::contents::{Content, NOTHING, PAGE};

/// One answer that a read may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    Is(Content),
    /// The last put was refused: what was there is gone, and a read says so.
    Refused,
}

/// How many contents before the present one are remembered.
const REMEMBERED: usize = 4;

/// One page.
#[derive(Clone, Debug)]
pub(super) struct Page {
    /// More than one where an answer was lost with a connection.
    may_be: Vec<Reading>,
    /// The latest last.
    history: Vec<Content>,
    /// Damage that was told is known to have hit what the page holds now.
    pub(super) is_damaged: bool,
}

/// What is wrong with what a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// An acknowledged write is not there: nothing is, or what was there before.
    Lost,
    /// Bytes that are not this page's.
    Wrong,
}

impl Default for Page {
    fn default() -> Self {
        Self { may_be: vec![Reading::Is(NOTHING)], history: Vec::new(), is_damaged: false }
    }
}

impl Page {
    /// It is about to be written. Until that is answered it may be either.
    pub(super) fn begin(&mut self, content: Content) {
        self.history.push(content);
        if self.history.len() > REMEMBERED {
            self.history.remove(0);
        }
    }

    /// The write was answered: it is there.
    pub(super) fn is_written(&mut self, content: Content) {
        self.may_be = vec![Reading::Is(content)];
        self.is_damaged = false;
    }

    /// The write was answered: it is not there, and what was there before is not either. Nothing stays nothing.
    pub(super) fn is_refused(&mut self) {
        self.may_be.retain(|reading| *reading == Reading::Is(NOTHING));
        self.may_be.push(Reading::Refused);
        self.is_damaged = false;
    }

    /// The write was not answered.
    pub(super) fn may_be_written(&mut self, content: Content) {
        self.may_be.extend([Reading::Is(content), Reading::Refused]);
    }

    /// Whether an error can be expected.
    pub(super) fn may_be_refused(&self) -> bool {
        self.may_be.contains(&Reading::Refused)
    }

    /// What it held of late, and may hold now.
    pub(super) fn contents(&self) -> impl Iterator<Item = Content> {
        self.history.iter().copied()
    }

    /// What it may hold now.
    pub(super) fn may_hold(&self) -> impl Iterator<Item = Content> {
        self.may_be.iter().filter_map(|reading| match reading {
            Reading::Is(content) => Some(*content),
            Reading::Refused => None,
        })
    }

    /// A read found an error that can only be that of a refused put.
    pub(super) fn found_refused(&mut self) {
        self.may_be = vec![Reading::Refused];
    }

    /// A read found this. Errors: it should not have.
    pub(super) fn found(&mut self, bytes: &[u8; PAGE]) -> Result<(), Fault> {
        let found = self.may_hold().find(|content| content.bytes() == *bytes);
        match found {
            Some(content) => {
                self.may_be = vec![Reading::Is(content)];
                Ok(())
            }
            None if *bytes == [0; PAGE] => Err(Fault::Lost),
            None if self.history.iter().any(|old| old.bytes() == *bytes) => Err(Fault::Lost),
            None => Err(Fault::Wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_reads_as_it_was_written_and_nothing_else() {
        let [one, two, other] = [1, 2, 3].map(Content);
        let mut page = Page::default();
        assert_eq!(page.found(&NOTHING.bytes()), Ok(()));
        page.begin(one);
        page.is_written(one);
        page.begin(two);
        page.is_written(two);
        assert_eq!(page.clone().found(&two.bytes()), Ok(()));
        assert_eq!(page.found(&one.bytes()), Err(Fault::Lost));
        assert_eq!(page.found(&NOTHING.bytes()), Err(Fault::Lost));
        assert_eq!(page.found(&other.bytes()), Err(Fault::Wrong));
        assert!(!page.may_be_refused());
    }

    #[test]
    fn after_a_write_without_an_answer_it_is_one_or_the_other_for_good() {
        let [one, two] = [1, 2].map(Content);
        let mut page = Page::default();
        page.begin(one);
        page.is_written(one);
        page.begin(two);
        page.may_be_written(two);
        assert!(page.may_be_refused());
        assert_eq!(page.clone().found(&two.bytes()), Ok(()));
        assert_eq!(page.found(&one.bytes()), Ok(()));
        assert_eq!(page.found(&two.bytes()), Err(Fault::Lost));
    }

    #[test]
    fn after_a_refused_write_nothing_older_is_found() {
        let [one, two] = [1, 2].map(Content);
        let mut page = Page::default();
        page.begin(one);
        page.is_written(one);
        page.begin(two);
        page.is_refused();
        assert!(page.may_be_refused());
        assert_eq!(page.found(&one.bytes()), Err(Fault::Lost));
        assert_eq!(page.found(&two.bytes()), Err(Fault::Lost));
    }
}
