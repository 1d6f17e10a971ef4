//! Dates, ages, telephone numbers and numbers that tell who, by what stands around them.

use super::Notes;
use super::figure::{Figure, Shape};
use super::piece::Kind;
use super::vocabulary::Traits;

pub(crate) fn hide(notes: &mut Notes<'_>) {
    for at in 0..notes.len() {
        if let Some(figure) = notes.figure(at) {
            one(notes, at, figure);
        } else if notes.is_word(at) {
            word(notes, at);
        }
    }
    spelled(notes);
}

fn one(notes: &mut Notes<'_>, at: usize, figure: Figure) {
    if notes.hidden(at) == Some(Kind::Contact) {
        area_code(notes, at);
    }
    let behind = notes.word(at + 1);
    let has_unit = behind.any(Traits::UNIT) && notes.touches(at + 1);
    match figure.shape {
        Shape::MaybeDate if is_score(notes, at) => {}
        Shape::MaybeDate => notes.hide(at, Kind::Date),
        Shape::Sexed if figure.value >= 90 && !is_temperature(notes, at) => {
            notes.hide(at, Kind::Age)
        }
        Shape::Ordinal if is_day(notes, at) => notes.hide(at, Kind::Date),
        Shape::Plain if is_great_age(notes, at, figure) => notes.hide(at, Kind::Age),
        Shape::Plain if figure.digits > 6 || figure.digits > 4 && !has_unit => {
            notes.hide(at, Kind::Number);
        }
        Shape::Plain if figure.digits == 4 => four(notes, at, figure, has_unit),
        _ => {}
    }
}

/// Four digits: a year, a quantity, a time, the end of a telephone number, or somebody's number.
fn four(notes: &mut Notes<'_>, at: usize, figure: Figure, has_unit: bool) {
    if is_apart(notes, at, 3) && !has_unit {
        notes.hide(at, Kind::Contact);
        return area_code(notes, at);
    }
    if at > 1 && !has_unit && is_apart(notes, at, 2) && is_apart(notes, at - 1, 3) {
        return (at - 2..=at).for_each(|it| notes.hide(it, Kind::Number));
    }
    let born = (1..4).any(|back| notes.word(at.wrapping_sub(back)).any(Traits::BIRTH));
    if figure.is_year() {
        if born {
            notes.hide(at, Kind::Date);
        }
    } else if (1800..1950).contains(&figure.value) && !has_unit {
        notes.hide(at, Kind::Date);
    } else if !has_unit && !is_time(notes, at, figure) {
        notes.hide(at, Kind::Number);
    }
}

/// Whether a number of so many digits stands right before.
fn is_apart(notes: &Notes<'_>, at: usize, digits: usize) -> bool {
    let before = notes.figure(at.wrapping_sub(1));
    notes.touches(at) && before.is_some_and(|it| it.is_plain(digits..=digits))
}

/// `at 0830`.
fn is_time(notes: &Notes<'_>, at: usize, figure: Figure) -> bool {
    let clock = figure.value / 100 < 24 && figure.value % 100 < 60;
    let said = at > 0 && notes.written(at - 1).eq_ignore_ascii_case("at");
    clock && said && !notes.word(at.wrapping_sub(2)).any(Traits::PHONE_CUE)
}

/// Digits in front of a telephone number that stand apart.
fn area_code(notes: &mut Notes<'_>, at: usize) {
    for before in (at.saturating_sub(3)..at).rev() {
        let near = notes.gap(before + 1).len() < 3;
        let short = notes.figure(before).is_some_and(|it| it.is_plain(1..=3));
        if !near || !short {
            return;
        }
        notes.hide(before, Kind::Contact);
    }
}

fn is_score(notes: &Notes<'_>, at: usize) -> bool {
    if notes.written(at) == "24/7" {
        return true;
    }
    let scores = |at: usize| notes.word(at).any(Traits::SCORE);
    let ahead = (1..3).any(|ahead| scores(at + ahead) && notes.touches(at + ahead));
    let clause = |at: &usize| !notes.gap(*at + 1).contains([',', ';', '\n']);
    let before = (at.saturating_sub(4)..at).rev().take_while(clause);
    ahead
        || before
            .into_iter()
            .any(|it| scores(it) && !notes.word(it).any(Traits::UNIT))
}

fn is_temperature(notes: &Notes<'_>, at: usize) -> bool {
    (1..4).any(|back| notes.word(at.wrapping_sub(back)).any(Traits::TEMPERATURE))
}

/// `on the 12th`.
fn is_day(notes: &Notes<'_>, at: usize) -> bool {
    let before = |back: usize, word: &str| {
        notes
            .written(at.wrapping_sub(back))
            .eq_ignore_ascii_case(word)
    };
    before(1, "the")
        && ["on", "until", "since", "from", "by"]
            .iter()
            .any(|it| before(2, it))
}

/// Above 89, by a word beside it.
fn is_great_age(notes: &Notes<'_>, at: usize, figure: Figure) -> bool {
    if figure.value < 90 || figure.digits > 3 {
        return false;
    }
    let near = |at: usize| notes.gap(at).len() < 3;
    let sex = notes.word(at + 1).any(Traits::PERSON) && near(at + 1) && !is_temperature(notes, at);
    let unit = notes.word(at + 1).any(Traits::AGE_UNIT) && near(at + 1);
    let cue = (1..3).any(|back| notes.word(at.wrapping_sub(back)).any(Traits::AGE_CUE));
    sex || unit || cue
}

fn word(notes: &mut Notes<'_>, at: usize) {
    let traits = notes.word(at);
    if traits.any(Traits::DAY) {
        notes.hide(at, Kind::Date);
    }
    if traits.any(Traits::MONTH) || traits.any(Traits::MAYBE_MONTH) && is_month(notes, at) {
        month(notes, at);
    }
    if traits.any(Traits::ID_CUE.and(Traits::PHONE_CUE)) {
        cued(notes, at, traits);
    }
    if traits.any(Traits::OLD) && is_spelled_age(notes, at) {
        notes.hide(at, Kind::Age);
        if notes.word(at + 1).any(Traits::DIGIT) {
            notes.hide(at + 1, Kind::Age);
        }
    }
}

/// `may` and `march` beside a day or a year, or behind `in`.
fn is_month(notes: &Notes<'_>, at: usize) -> bool {
    let day = |at: usize| {
        notes
            .figure(at)
            .is_some_and(|it| it.is_day() || it.is_year())
    };
    let led = notes.word(at.wrapping_sub(1)).any(Traits::MONTH_CUE);
    let before = notes.follows(at) && (day(at.wrapping_sub(1)) || led);
    before || notes.follows(at + 1) && day(at + 1)
}

/// A month with its day and its year.
fn month(notes: &mut Notes<'_>, at: usize) {
    notes.hide(at, Kind::Date);
    let date = |it: Figure| it.is_day() || it.is_plain(4..=4);
    for ahead in at + 1..at + 3 {
        if !notes.follows(ahead) || !notes.figure(ahead).is_some_and(date) {
            break;
        }
        notes.hide(ahead, Kind::Date);
    }
    let of = notes.written(at.wrapping_sub(1)).eq_ignore_ascii_case("of");
    let before = at.wrapping_sub(if of { 2 } else { 1 });
    if notes.follows(at) && notes.figure(before).is_some_and(Figure::is_day) {
        notes.hide(before, Kind::Date);
    }
}

/// The number behind a word that says whose it is.
fn cued(notes: &mut Notes<'_>, at: usize, traits: Traits) {
    let fewest = if traits.any(Traits::ID_CUE) { 1 } else { 3 };
    for ahead in at + 1..at + 6 {
        let gap = notes.gap(ahead);
        if gap.contains('\n') {
            return;
        }
        if let Some(figure) = notes.figure(ahead) {
            let counted = notes.word(ahead + 1).any(Traits::UNIT);
            if figure.digits >= fewest && !(counted && figure.digits < 4) {
                let phone = !traits.any(Traits::ID_CUE);
                notes.hide(ahead, if phone { Kind::Contact } else { Kind::Number });
            }
            return;
        }
        let between = Traits::FILLER.and(Traits::ID_CUE).and(Traits::PHONE_CUE);
        let single = notes.is_word(ahead) && notes.written(ahead).len() == 1;
        if single && traits.any(Traits::ID_CUE) && !notes.word(ahead).any(Traits::FUNCTION) {
            // The letter of `D 123`, of `4 B`.
            continue;
        }
        if !notes.word(ahead).any(between) && notes.hidden(ahead).is_none() {
            return;
        }
    }
}

fn is_spelled_age(notes: &Notes<'_>, at: usize) -> bool {
    if notes.word(at).any(Traits::VERY_OLD) {
        return true;
    }
    let next = at + 1 + usize::from(notes.word(at + 1).any(Traits::DIGIT));
    let unit = notes.word(next).any(Traits::AGE_UNIT) && notes.follows(next);
    unit || (1..3).any(|back| notes.word(at.wrapping_sub(back)).any(Traits::AGE_CUE))
}

/// Numbers that are read out: five digits and more behind each other, as words or figures.
fn spelled(notes: &mut Notes<'_>) {
    let mut start = 0;
    for at in 0..=notes.len() {
        let digit = notes.word(at).any(Traits::DIGIT)
            || notes.figure(at).is_some_and(|it| it.is_plain(1..=1));
        if digit && (at == start || notes.follows(at)) {
            continue;
        }
        if at - start > 4 {
            for it in start..at {
                notes.hide(it, Kind::Contact);
            }
        }
        start = if digit { at } else { at + 1 };
    }
}
