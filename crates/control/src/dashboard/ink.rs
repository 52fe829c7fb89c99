//! Colours that a style sheet can change: light and dark are its business.
//!
//! plotters writes every colour out. So each ink is drawn in a colour that stands for it, and these colours are replaced by classes
//! when the picture is ready.

use plotters::style::RGBColor;

/// What something is drawn with. Its class in the style sheet has its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ink {
    /// Lines behind the data.
    Grid,
    /// Words and numbers at the axes.
    Label,
    /// What guests have.
    Guests,
    /// What the pool has.
    Pool,
    /// What all others have.
    Other,
    /// What something would take uncompressed.
    Logical,
    /// What is in a tier.
    Tier,
    /// What a guest is to have.
    Target,
    /// Pages that come back.
    In,
    /// Pages that go out.
    Out,
    /// Pages that were refused.
    Refused,
}

const ALL: [Ink; 11] = [
    Ink::Grid,
    Ink::Label,
    Ink::Guests,
    Ink::Pool,
    Ink::Other,
    Ink::Logical,
    Ink::Tier,
    Ink::Target,
    Ink::In,
    Ink::Out,
    Ink::Refused,
];

impl Ink {
    /// Its class.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Grid => "grid",
            Self::Label => "label",
            Self::Guests => "guests",
            Self::Pool => "pool",
            Self::Other => "other",
            Self::Logical => "logical",
            Self::Tier => "tier",
            Self::Target => "target",
            Self::In => "in",
            Self::Out => "out",
            Self::Refused => "refused",
        }
    }

    /// The colour that stands for it. Only its last digits differ from ink to ink.
    pub(super) fn stand_in(self) -> RGBColor {
        RGBColor(1, 254, self as u8)
    }
}

/// A picture of plotters' with classes where its colours are: `ink-NAME`, on things that have a line or are filled. What a style sheet
/// says of all of them goes.
pub(super) fn with_classes(picture: &str) -> String {
    let mut text = picture.replace(" opacity=\"1\"", "").replace(" font-family=\"sans-serif\"", "");
    for ink in ALL {
        let RGBColor(red, green, blue) = ink.stand_in();
        let colour = format!("#{red:02X}{green:02X}{blue:02X}");
        for (attribute, kind) in [("stroke", "line"), ("fill", "area")] {
            let drawn = format!("{attribute}=\"{colour}\"");
            text = text.replace(&drawn, &format!("class=\"{kind} ink-{}\"", ink.class()));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use plotters::prelude::*;

    use super::*;

    /// No colour of plotters' is left, whatever is drawn, and nothing has two classes.
    #[test]
    fn every_ink_becomes_a_class() {
        for ink in ALL {
            let mut picture = String::new();
            {
                let root = SVGBackend::with_string(&mut picture, (100, 100)).into_drawing_area();
                let colour = ink.stand_in();
                root.draw(&PathElement::new(vec![(0, 0), (9, 9)], colour)).unwrap();
                root.draw(&Polygon::new(vec![(0, 0), (9, 9), (0, 9)], colour)).unwrap();
                root.draw(&Text::new("x", (1, 1), ("sans-serif", 10).into_font().color(&colour))).unwrap();
                root.present().unwrap();
            }
            assert_eq!(picture.matches("\"#01FE").count(), 3, "{picture}");
            let text = with_classes(&picture);
            assert!(!text.contains('#'), "{text}");
            let line = format!("class=\"line ink-{}\"", ink.class());
            let area = format!("class=\"area ink-{}\"", ink.class());
            assert_eq!((text.matches(&line).count(), text.matches(&area).count()), (1, 2), "{text}");
            assert!(text.lines().all(|line| line.matches("class=").count() <= 1), "{text}");
        }
    }
}
