//! Which columns fit.

use super::{guests::Guest, plain::name_within, view::Sort};
use crate::figures::{rate, size};

/// A name has at least so many cells, and at most.
const NAME: std::ops::RangeInclusive<usize> = 8..=40;
/// Between columns.
const GAP: usize = 1;

/// A column after the name.
pub(super) struct Column {
    /// Its heading.
    pub(super) heading: &'static str,
    /// Its cells, all of one line.
    pub(super) cell: fn(&Guest) -> String,
    /// What its cells take. Figures stand at the right of it.
    pub(super) width: usize,
    /// They are words.
    pub(super) words: bool,
    /// Which sort it shows.
    pub(super) sort: Option<Sort>,
    /// The higher, the sooner it goes where there is no room.
    rank: u8,
}

fn size_or_dash(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), size)
}

/// From left to right.
const COLUMNS: [Column; 10] = [
    Column {
        heading: "STATE",
        words: true,
        width: 9,
        rank: 4,
        sort: None,
        cell: |guest| guest.state().word().to_owned(),
    },
    Column {
        heading: "MEMORY",
        words: false,
        width: 6,
        rank: 1,
        sort: Some(Sort::Size),
        cell: |guest| size_or_dash(guest.size_bytes()),
    },
    Column {
        heading: "TARGET",
        words: false,
        width: 6,
        rank: 5,
        sort: None,
        cell: |guest| size_or_dash(guest.target_bytes()),
    },
    Column {
        heading: "POOL",
        words: false,
        width: 6,
        rank: 3,
        sort: Some(Sort::Pool),
        cell: |guest| size_or_dash(guest.used_bytes()),
    },
    Column {
        heading: "RATIO",
        words: false,
        width: 6,
        rank: 8,
        sort: None,
        cell: |guest| guest.ratio().map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
    },
    Column {
        heading: "IN/s",
        words: false,
        width: 5,
        rank: 2,
        sort: Some(Sort::SwapIns),
        cell: |guest| rate(guest.rates.swap_ins),
    },
    Column {
        heading: "OUT/s",
        words: false,
        width: 5,
        rank: 6,
        sort: Some(Sort::SwapOuts),
        cell: |guest| rate(guest.rates.swap_outs),
    },
    Column {
        heading: "REFUSED/s",
        words: false,
        width: 9,
        rank: 7,
        sort: Some(Sort::Refused),
        cell: |guest| rate(guest.rates.refused),
    },
    Column {
        heading: "TIER",
        words: false,
        width: 6,
        rank: 9,
        sort: None,
        cell: |guest| size_or_dash(guest.tiered_bytes()),
    },
    Column {
        heading: "WAITING",
        words: false,
        width: 7,
        rank: 10,
        sort: None,
        cell: |guest| {
            guest
                .pressure()
                .map_or("-".to_owned(), |part| format!("{:.1}%", (part * 100.0).clamp(0.0, 100.0)))
        },
    },
];

/// What fits into so many cells: the name's width, and the other columns. The name is always there.
pub(super) fn fitting(width: usize, guests: &[Guest]) -> (usize, Vec<&'static Column>) {
    static ALL: [Column; 10] = COLUMNS;
    let mut left = width.saturating_sub(*NAME.start());
    let mut by_rank: Vec<&Column> = ALL.iter().collect();
    by_rank.sort_by_key(|column| column.rank);
    let fits = |column: &&Column| {
        let rest = left.checked_sub(column.width + GAP);
        left = rest.unwrap_or(left);
        rest.is_some()
    };
    let lowest = by_rank.into_iter().take_while(fits).map(|column| column.rank).max().unwrap_or(0);
    let columns = ALL.iter().filter(|column| column.rank <= lowest).collect();
    let longest = guests.iter().map(|guest| name(guest, *NAME.end()).1).max().unwrap_or(0);
    let most = (*NAME.start() + left).min(width);
    (longest.clamp(*NAME.start(), *NAME.end()).min(most), columns)
}

/// A guest's name within so many cells, and how many it takes.
pub(super) fn name(guest: &Guest, width: usize) -> (String, usize) {
    let name = name_within(&guest.name, width);
    let cells = unicode_width::UnicodeWidthStr::width(name.as_str());
    (name, cells)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(width: usize, names: &[&str]) -> (usize, Vec<&'static str>) {
        let guests: Vec<_> =
            names.iter().map(|name| Guest { name: (*name).to_owned(), ..Guest::default() }).collect();
        let (name, columns) = fitting(width, &guests);
        let taken: usize = name + columns.iter().map(|column| column.width + GAP).sum::<usize>();
        assert!(taken <= width, "{taken} of {width}");
        (name, columns.iter().map(|column| column.heading).collect())
    }

    #[test]
    fn narrow_terminals_have_fewer_columns_and_the_name_always() {
        let all: Vec<_> = COLUMNS.iter().map(|column| column.heading).collect();
        assert_eq!(headings(200, &["vm"]), (8, all.clone()));
        assert_eq!(headings(200, &[&"long".repeat(20)]), (40, all.clone()));
        assert_eq!(headings(40, &["a-long-name"]), (10, vec!["STATE", "MEMORY", "POOL", "IN/s"]));
        let (name, at_80) = headings(80, &["a-rather-long-name"]);
        assert_eq!((name, &at_80[..]), (13, &all[..9]));
        assert_eq!(headings(10, &["a-long-name"]), (10, vec![]));
        assert_eq!(headings(3, &["a-long-name"]), (3, vec![]));
        for width in 0..250 {
            headings(width, &["東京都庁東京都庁", "b"]);
        }
    }
}
