//! `scrub-notes`: free text without the identifiers of 45 CFR 164.514(b)(2)(i).
//!
//! A word stays only where it is known to be a word: whatever is not in the vocabulary may be a
//! name, however it is written, and goes. Figures stay where their shape and what stands around them
//! make them clinical. One pass makes pieces of the text, a few passes over the pieces look at their
//! neighbours, none of them further than a handful of pieces away: the time is linear.

mod figure;
mod names;
mod numbers;
mod piece;
mod places;
mod vocabulary;

use piece::{Kind, Piece};

/// Appends `text` to `out`, each run of identifiers replaced by one label that says what it was. At
/// most six times as much, and ten bytes: labels are short, and none follows another directly.
pub(crate) fn scrub(mut text: &str, out: &mut String) {
    while !text.is_empty() {
        let (part, rest) = text.split_at_checked(part(text)).unwrap_or((text, ""));
        scrub_part(part, out);
        text = rest;
    }
}

/// Pieces take several times the memory of their text, of which a module has little: long texts are
/// done part by part, cut where a line or a sentence ends, or at a blank.
const PART: usize = 16 * 1024;

fn part(text: &str) -> usize {
    let Some(part) = (text.len() > PART)
        .then(|| text.as_bytes().get(..PART))
        .flatten()
    else {
        return text.len();
    };
    let last = |mark: u8| part.iter().rposition(|byte| *byte == mark);
    let sentence = || {
        part.windows(2)
            .rposition(|two| two == b". ")
            .map(|at| at + 1)
    };
    let cut = last(b'\n').or_else(sentence).or_else(|| last(b' '));
    cut.map_or(text.len(), |at| at + 1)
}

fn scrub_part(text: &str, out: &mut String) {
    let mut pieces = piece::pieces(text);
    let mut notes = Notes {
        text,
        pieces: &mut pieces,
    };
    numbers::hide(&mut notes);
    places::hide(&mut notes);
    names::hide(&mut notes);
    write(text, &pieces, out);
}

/// The pieces of a text, looked at from one to its neighbours. What is out of range is nothing.
struct Notes<'a> {
    text: &'a str,
    pieces: &'a mut [Piece],
}

// Not inlined: they are called from everywhere, and the module's size counts.
impl Notes<'_> {
    fn len(&self) -> usize {
        self.pieces.len()
    }

    /// What is known of a word, hidden or not; nothing of what is no word.
    #[inline(never)]
    fn word(&self, at: usize) -> vocabulary::Traits {
        self.pieces.get(at).map(Piece::traits).unwrap_or_default()
    }

    #[inline(never)]
    fn is_word(&self, at: usize) -> bool {
        self.pieces.get(at).is_some_and(Piece::is_word)
    }

    #[inline(never)]
    fn figure(&self, at: usize) -> Option<figure::Figure> {
        self.pieces.get(at)?.figure()
    }

    #[inline(never)]
    fn hidden(&self, at: usize) -> Option<Kind> {
        self.pieces.get(at)?.hidden
    }

    #[inline(never)]
    fn hide(&mut self, at: usize, kind: Kind) {
        if let Some(piece) = self.pieces.get_mut(at) {
            piece.hidden.get_or_insert(kind);
        }
    }

    /// Hides what belongs to something larger, whatever it was taken for.
    fn take(&mut self, at: usize, kind: Kind) {
        if let Some(piece) = self.pieces.get_mut(at) {
            piece.hidden = Some(kind);
        }
    }

    #[inline(never)]
    fn is_capital(&self, at: usize) -> bool {
        self.pieces.get(at).is_some_and(|piece| piece.capital)
    }

    fn opens(&self, at: usize) -> bool {
        self.pieces.get(at).is_none_or(|piece| piece.opens)
    }

    /// A piece as it is written.
    #[inline(never)]
    fn written(&self, at: usize) -> &str {
        let piece = self.pieces.get(at);
        piece
            .and_then(|piece| self.text.get(piece.start..piece.end))
            .unwrap_or_default()
    }

    /// What stands between a piece and the one before it.
    #[inline(never)]
    fn gap(&self, at: usize) -> &str {
        let start = at.checked_sub(1).and_then(|before| self.pieces.get(before));
        let start = start.map_or(0, |piece| piece.end);
        let end = self.pieces.get(at).map_or(self.text.len(), |it| it.start);
        self.text.get(start..end).unwrap_or_default()
    }

    /// Whether a piece and the one before it stand close to each other, on one line.
    #[inline(never)]
    fn follows(&self, at: usize) -> bool {
        let gap = self.gap(at);
        at > 0 && gap.len() < 4 && !gap.contains(['\n', '\r', ';'])
    }

    /// Whether nothing but a blank or a hyphen is between a piece and the one before it.
    #[inline(never)]
    fn touches(&self, at: usize) -> bool {
        at > 0 && matches!(self.gap(at), " " | "-" | "" | "  ")
    }
}

fn write(text: &str, pieces: &[Piece], out: &mut String) {
    out.reserve(text.len());
    let mut copied = 0;
    let mut last: Option<(usize, Kind)> = None;
    for piece in pieces {
        let Some(kind) = piece.hidden else {
            last = None;
            continue;
        };
        let goes_on = last.is_some_and(|(end, known)| {
            let gap = text.get(end..piece.start).unwrap_or_default();
            let joins = |c| matches!(c, ' ' | '-' | ',' | '.' | '/' | '\'');
            known == kind && gap.len() < 4 && gap.chars().all(joins)
        });
        if !goes_on {
            out.push_str(text.get(copied..piece.start).unwrap_or_default());
            out.push_str(kind.label());
        }
        copied = piece.end;
        last = Some((piece.end, kind));
    }
    out.push_str(text.get(copied..).unwrap_or_default());
}
