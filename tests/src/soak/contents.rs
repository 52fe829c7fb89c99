//! What clients write: pages that follow from a number.

use crate::Random;

/// A page in bytes.
pub(crate) const PAGE: usize = 4096;

/// What a page holds: a number from which all of it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Content(pub(crate) u64);

/// What a page holds that was never written, or trimmed.
pub(crate) const NOTHING: Content = Content(0);

impl Content {
    /// All of it. One in eight repeats a word, two do not compress, the others do as text does.
    pub(crate) fn bytes(self) -> [u8; PAGE] {
        let mut page = [0; PAGE];
        if self == NOTHING {
            return page;
        }
        let mut random = Random::new(self.0);
        let kind = random.below(8);
        let (words, _) = page.as_chunks_mut::<8>();
        match kind {
            0 => words.fill(random.draw().to_le_bytes()[..4].repeat(2).try_into().unwrap_or_default()),
            1 | 2 => words.iter_mut().for_each(|word| *word = random.draw().to_le_bytes()),
            _ => {
                // Few words again and again, each time with another number behind it.
                for word in words.iter_mut() {
                    let number = random.draw();
                    *word = [b"page\0", b"guest", b"swap:", b"pool="][number as usize % 4]
                        .iter()
                        .copied()
                        .chain(number.to_be_bytes()[..3].iter().map(|byte| b'0' + byte % 10))
                        .collect::<Vec<_>>()
                        .try_into()
                        .unwrap_or_default();
                }
                // No two of them are the same.
                words[0] = self.0.to_le_bytes();
            }
        }
        page
    }
}
