//! Addresses and places smaller than a state. Most are hidden already, as words that are not known;
//! here go those that are made of words.

use super::Notes;
use super::piece::Kind;
use super::vocabulary::Traits;

pub(crate) fn hide(notes: &mut Notes<'_>) {
    for at in 0..notes.len() {
        let traits = notes.word(at);
        if traits.any(Traits::STREET.and(Traits::MAYBE_STREET)) {
            street(notes, at, traits);
        }
        if traits.any(Traits::COUNTY) {
            county(notes, at);
        }
        if traits.any(Traits::LIVES) {
            home(notes, at);
        }
    }
}

/// `12 North Oak Street`, `Church Street`.
fn street(notes: &mut Notes<'_>, at: usize, traits: Traits) {
    let number = (1..6).map_while(|back| {
        let it = at.checked_sub(back)?;
        notes.follows(it + 1).then_some(it)
    });
    let number = number
        .take_while(|&it| notes.is_word(it) || notes.figure(it).is_some())
        .find(|&it| notes.figure(it).is_some_and(|it| it.is_plain(1..=5)));
    if let Some(number) = number.filter(|&it| it + 1 < at && is_house(notes, it, at, traits)) {
        return (number..=at).for_each(|it| notes.take(it, Kind::Place));
    }
    let before = at.wrapping_sub(1);
    let named =
        notes.follows(at) && notes.is_word(before) && !notes.word(before).any(Traits::FUNCTION);
    let drugs = notes
        .written(at + 1)
        .to_ascii_lowercase()
        .starts_with("drug");
    if traits.any(Traits::STREET) && named && !drugs {
        notes.take(before, Kind::Place);
        notes.take(at, Kind::Place);
    }
}

/// Whether a number and words before a street are the address of a house.
fn is_house(notes: &Notes<'_>, number: usize, at: usize, traits: Traits) -> bool {
    let counts = Traits::UNIT.and(Traits::FUNCTION);
    if notes.word(number + 1).any(counts) && !notes.is_capital(number + 1) {
        return false;
    }
    let named = |it: usize| {
        notes.hidden(it).is_some()
            || notes.is_capital(it)
            || notes.word(it).any(Traits::NAME.and(Traits::RARE_NAME))
    };
    let long = notes.figure(number).is_some_and(|it| it.digits > 2);
    traits.any(Traits::STREET) || long || (number + 1..at).any(named)
}

/// `Orange County`, `the town of Reading`.
fn county(notes: &mut Notes<'_>, at: usize) {
    let before = at.wrapping_sub(1);
    let named = notes.follows(at)
        && notes.is_word(before)
        && !notes.word(before).any(Traits::FUNCTION)
        && (notes.hidden(before).is_some() || notes.is_capital(before) || is_name(notes, before));
    if named {
        notes.take(before, Kind::Place);
        notes.take(at, Kind::Place);
    }
    if notes.written(at + 1).eq_ignore_ascii_case("of") && notes.follows(at + 2) {
        notes.hide(at + 2, Kind::Place);
    }
}

/// `lives in Bath`.
fn home(notes: &mut Notes<'_>, at: usize) {
    let place = at + 2;
    if !notes.word(at + 1).any(Traits::PLACE_WORD) || !notes.follows(place) {
        return;
    }
    for it in place..place + 3 {
        let goes_on = notes.is_word(it) && notes.follows(it);
        let capital = notes.is_capital(it) && !notes.word(it).any(Traits::FUNCTION);
        if !goes_on || !(capital || is_name(notes, it) || notes.hidden(it) == Some(Kind::Name)) {
            return;
        }
        notes.take(it, Kind::Place);
    }
}

fn is_name(notes: &Notes<'_>, at: usize) -> bool {
    let word = notes.word(at);
    word.any(Traits::NAME) || word.any(Traits::RARE_NAME) && !word.any(Traits::FUNCTION)
}
