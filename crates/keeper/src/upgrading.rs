//! What has become of a program that was to take over.

/// It, as a worker is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Upgrading {
    /// None was to, or the last one serves.
    #[default]
    None,
    /// It has been started, and does not serve yet.
    UnderWay,
    /// It has given up or was killed, and the program before it goes on.
    Failed,
}

impl Upgrading {
    /// As a number.
    pub(crate) fn number(self) -> u32 {
        match self {
            Upgrading::None => 0,
            Upgrading::UnderWay => 1,
            Upgrading::Failed => 2,
        }
    }

    /// By its number. Keepers from before there was a third one say none instead.
    pub(crate) fn of(number: u32) -> Upgrading {
        match number {
            0 => Upgrading::None,
            2 => Upgrading::Failed,
            _ => Upgrading::UnderWay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_number_of_its_own() {
        for state in [Upgrading::None, Upgrading::UnderWay, Upgrading::Failed] {
            assert_eq!(Upgrading::of(state.number()), state);
        }
    }
}
