//! Which troubles the log has already.

use std::collections::VecDeque;

/// So many are remembered. Each of etcd's addresses has its own, in turn; of more than this some are said again.
const MOST: usize = 16;

/// What was said since all was well.
#[derive(Debug, Default)]
pub(crate) struct Said(VecDeque<String>);

impl Said {
    /// Whether this has yet to be said. The next time it has been.
    pub(crate) fn is_news(&mut self, line: &str) -> bool {
        if self.0.iter().any(|said| said == line) {
            return false;
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(line.to_owned());
        true
    }

    /// All is well: whatever is wrong next is news.
    pub(crate) fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_that_take_turns_are_said_once_until_all_is_well() {
        let mut said = Said::default();
        for round in 0..3 {
            for address in ["a", "b", "c"] {
                assert_eq!(said.is_news(address), round == 0);
            }
        }
        said.forget();
        assert!(said.is_news("a") && !said.is_news("a"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut said = Said::default();
        assert!((0..1000).all(|number| said.is_news(&number.to_string())));
        assert_eq!(said.0.len(), MOST);
    }
}
