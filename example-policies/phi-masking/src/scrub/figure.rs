//! Figures by their shape.

use super::piece::Kind;

/// What a figure looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Digits alone.
    Plain,
    /// `2.5`, `1,500`, `2-3`, `14:30`, `10mg`: a quantity, a range, a time of the day.
    Quantity,
    /// `a/b` that can be a day and a month.
    MaybeDate,
    /// `2nd`.
    Ordinal,
    /// `93yo`.
    Age,
    /// `93f`: an age and a sex, or a temperature.
    Sexed,
}

/// A figure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figure {
    pub(crate) shape: Shape,
    /// How many digits.
    pub(crate) digits: usize,
    /// Of its first group.
    pub(crate) value: u32,
}

impl Figure {
    pub(crate) fn is_great_age(self) -> bool {
        self.shape == Shape::Age && self.value >= 90
    }

    /// A year that does not give an age above 89 away, now and for some time.
    pub(crate) fn is_year(self) -> bool {
        self.shape == Shape::Plain && self.digits == 4 && (1950..2100).contains(&self.value)
    }

    pub(crate) fn is_plain(self, digits: impl std::ops::RangeBounds<usize>) -> bool {
        self.shape == Shape::Plain && digits.contains(&self.digits)
    }

    /// The day of a month.
    pub(crate) fn is_day(self) -> bool {
        matches!(self.shape, Shape::Plain | Shape::Ordinal)
            && self.digits < 3
            && (1..32).contains(&self.value)
    }
}

/// A group of digits, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
struct Group {
    value: u32,
    digits: usize,
}

impl Group {
    fn within(self, most: u32) -> bool {
        self.digits < 3 && (1..=most).contains(&self.value)
    }

    fn is_year(self) -> bool {
        self.digits == 4 && (1000..2200).contains(&self.value) || self.digits == 2
    }
}

/// What digits and marks between them are, and what they are hidden as.
pub(crate) fn read(text: &[u8]) -> (Figure, Option<Kind>) {
    let mut groups = [Group::default(); 6];
    let (mut count, mut digits) = (1, 0);
    let mut marks = [0_u8; 6];
    for &byte in text {
        if byte.is_ascii_digit() {
            digits += 1;
            if let Some(group) = groups.get_mut(count - 1) {
                let more = group.value.saturating_mul(10);
                group.value = more.saturating_add(u32::from(byte - b'0'));
                group.digits += 1;
            }
        } else if byte.is_ascii() || byte == 0xe2 {
            // A dash beyond ASCII counts once.
            if let Some(mark) = marks.get_mut(count - 1) {
                *mark = if byte.is_ascii() { byte } else { b'-' };
            }
            count += 1;
        }
    }
    let (shape, hidden) = match groups.get(..count) {
        Some(groups) => shape(groups, &marks, digits),
        None => (Shape::Plain, Some(Kind::Number)),
    };
    let value = groups.first().map_or(0, |group| group.value);
    (
        Figure {
            shape,
            digits,
            value,
        },
        hidden,
    )
}

fn shape(groups: &[Group], marks: &[u8; 6], digits: usize) -> (Shape, Option<Kind>) {
    let id = (Shape::Plain, Some(Kind::Number));
    let quantity = (Shape::Quantity, None);
    let date = (Shape::Plain, Some(Kind::Date));
    match (groups, marks) {
        // Four digits and more are judged by what stands around them, five and more are hidden
        // unless that is a unit.
        ([_], _) => (Shape::Plain, None),
        (_, [b',', ..]) => {
            let thousands = |group: &Group| group.digits == 3;
            let grouped = groups.iter().skip(1).all(thousands) && digits < 8;
            if grouped || digits < 4 { quantity } else { id }
        }
        ([a, b], [b'.', ..]) if a.digits < 5 && b.digits < 5 && digits < 7 => quantity,
        ([a, b], [b'/', ..]) => match (a, b) {
            _ if b.digits == 4 && a.within(12) => date,
            _ if a.within(12) && b.within(31) || a.within(31) && b.within(12) => {
                (Shape::MaybeDate, None)
            }
            _ if a.digits < 4 && b.digits < 4 => quantity,
            _ => id,
        },
        ([a, b], [b'-', ..]) => match (a, b) {
            _ if a.digits < 4 && b.digits < 4 => quantity,
            _ if a.is_year() && b.is_year() && a.digits == 4 => quantity,
            _ if a.within(12) && b.digits == 4 || a.digits == 4 && b.within(12) => date,
            (Group { digits: 3, .. }, Group { digits: 4, .. }) => {
                (Shape::Plain, Some(Kind::Contact))
            }
            _ => id,
        },
        ([a, b], [b':', ..]) if a.digits < 3 && b.digits < 3 || a.value == 1 && digits < 7 => {
            quantity
        }
        ([a, b, c], [b':', b':', ..]) if [a, b, c].iter().all(|it| it.digits < 3) => quantity,
        ([a, b, c], [first, second, ..]) if first == second && *first != b':' => {
            let american = a.within(31) && b.within(31) && c.is_year();
            let iso = a.digits == 4 && b.within(31) && c.within(31);
            match (a.digits, b.digits, c.digits) {
                _ if american || iso => date,
                (3, 3, 4) => (Shape::Plain, Some(Kind::Contact)),
                _ if digits < 5 => quantity,
                _ => id,
            }
        }
        // An address of the network.
        ([_, _, _, _], [b'.', b'.', b'.', ..]) => (Shape::Plain, Some(Kind::Contact)),
        _ => id,
    }
}
