//! Names that are words too. Those that are not are hidden already, as words that are not known.

use super::Notes;
use super::piece::Kind;
use super::vocabulary::Traits;

pub(crate) fn hide(notes: &mut Notes<'_>) {
    for at in 0..notes.len() {
        let traits = notes.word(at);
        if traits.any(Traits::TITLE) {
            titled(notes, at);
        } else if traits.any(Traits::NAME_CUE) {
            named(notes, at);
        } else if traits.any(Traits::RELATION) {
            related(notes, at);
        }
        capital(notes, at);
    }
    neighbours(notes);
}

/// Whether a word can be a name at all.
fn may_be_name(notes: &Notes<'_>, at: usize) -> bool {
    const NEVER: Traits = Traits::FUNCTION.and(Traits::RELATION).and(Traits::TITLE);
    notes.is_word(at) && !notes.word(at).any(NEVER)
}

/// One that is used as a name often.
fn is_name(notes: &Notes<'_>, at: usize) -> bool {
    let word = notes.word(at);
    may_be_name(notes, at) && word.any(Traits::NAME) && !word.any(Traits::RARE_NAME)
}

fn is_rare_name(notes: &Notes<'_>, at: usize) -> bool {
    may_be_name(notes, at) && notes.word(at).any(Traits::RARE_NAME)
}

/// `Dr. Brown`, `mrs. young`: whatever follows, and what can go on behind it.
fn titled(notes: &mut Notes<'_>, at: usize) {
    let direct = notes.gap(at + 1).trim_matches('.').len() < 2;
    if !direct || !notes.follows(at + 1) || !may_be_name(notes, at + 1) {
        return;
    }
    notes.hide(at + 1, Kind::Name);
    for it in at + 2..at + 4 {
        let goes_on = notes.touches(it) && may_be_name(notes, it);
        if !goes_on || !(notes.is_capital(it) || is_name(notes, it) || notes.hidden(it).is_some()) {
            return;
        }
        notes.hide(it, Kind::Name);
    }
}

/// `name: Hope Young`, `signed by Mark`.
fn named(notes: &mut Notes<'_>, at: usize) {
    let mut it = at + 1;
    while matches!(notes.written(it), "is" | "was" | "by" | "of" | "as" | "to") {
        it += 1;
    }
    for it in it..it + 3 {
        let line = !notes.gap(it).contains('\n') && notes.gap(it).len() < 5;
        let name = notes.is_capital(it) || is_name(notes, it) || is_rare_name(notes, it);
        if !line || !may_be_name(notes, it) || !name {
            return;
        }
        notes.hide(it, Kind::Name);
    }
}

/// `daughter Rose`, `nurse Young`.
fn related(notes: &mut Notes<'_>, at: usize) {
    let next = at + 1;
    if !notes.touches(next) && notes.gap(next) != ", " {
        return;
    }
    let rare = is_rare_name(notes, next) && notes.is_capital(next);
    if is_name(notes, next) || rare {
        notes.hide(next, Kind::Name);
    }
}

/// A capital in the middle of a sentence, or a word that is a name first of all.
fn capital(notes: &mut Notes<'_>, at: usize) {
    if !notes.is_capital(at) {
        return;
    }
    // `X-Ray`.
    let part = notes.gap(at) == "-" && notes.written(at.wrapping_sub(1)).len() == 1;
    // `Short Term Goals`: a heading.
    let heading = notes.is_capital(at.wrapping_sub(1))
        && notes.hidden(at.wrapping_sub(1)).is_none()
        || notes.is_capital(at + 1) && notes.hidden(at + 1).is_none();
    let rare = is_rare_name(notes, at) && !notes.opens(at) && !heading;
    if !part && (is_name(notes, at) || rare) {
        notes.hide(at, Kind::Name);
    }
}

/// What stands beside a name and can be one: `rose kowalski`, `J. Kowalski`, `Kowalski, Mark`.
fn neighbours(notes: &mut Notes<'_>) {
    let shown = |notes: &Notes<'_>, at: usize| notes.is_word(at) && notes.hidden(at).is_none();
    let beside = |notes: &Notes<'_>, at: usize| {
        notes.touches(at) || matches!(notes.gap(at), ". " | ", " | ".")
    };
    for at in 0..notes.len() {
        if notes.hidden(at) != Some(Kind::Name) || !notes.is_word(at) {
            continue;
        }
        let (before, next) = (at.wrapping_sub(1), at + 1);
        if at > 0 && shown(notes, before) && beside(notes, at) {
            let initial = notes.written(before).len() == 1 && is_initial(notes, before);
            let first = notes.touches(at) && is_rare_name(notes, before);
            if initial || is_name(notes, before) || first {
                notes.hide(before, Kind::Name);
            }
        }
        if shown(notes, next) && beside(notes, next) {
            let initial = notes.written(next).len() == 1 && is_initial(notes, next);
            let capital = is_rare_name(notes, next) && notes.is_capital(next);
            if initial || is_name(notes, next) || capital {
                notes.hide(next, Kind::Name);
            }
        }
    }
}

/// A letter that is not a word of its own.
fn is_initial(notes: &Notes<'_>, at: usize) -> bool {
    !matches!(notes.written(at), "a" | "A" | "i" | "I") && may_be_name(notes, at)
}
