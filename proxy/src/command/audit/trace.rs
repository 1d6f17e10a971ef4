//! `trace`: one request, from the session to the outcome.

use std::{collections::BTreeSet, io::Write, path::Path};

use chaperone_audit_log::{Record, RecordRef, read};
use uuid::Uuid;

use super::{
    Failure, directory, private_key,
    show::{print_record, report_damage},
};

/// The records of a request, then whatever they refer to and whatever of the same story refers to
/// them, in the order of the log.
pub(super) fn trace(
    dir: &Path,
    request: &str,
    key: Option<&Path>,
    out: &mut impl Write,
) -> Result<bool, Failure> {
    let key = private_key(key)?;
    let by_record = RecordRef::parse(request);
    let by_request = Uuid::parse_str(request).ok();
    if by_record.is_none() && by_request.is_none() {
        return Err(Failure::Usage(
            "a request is named by its id (a UUID, in the error message that the client got), or by a record, LOG/SEQ",
        ));
    }
    let mut story: BTreeSet<RecordRef> = by_record.into_iter().collect();
    let mut context = BTreeSet::new();
    // References go to earlier records, so few passes find all of them; each reads the whole log in
    // constant memory.
    loop {
        let before = (story.len(), context.len());
        read(dir, None, |record| {
            follow(record, by_request, &mut story, &mut context);
            true
        })
        .map_err(|source| directory(dir, source))?;
        if (story.len(), context.len()) == before {
            break;
        }
    }
    let mut found = 0u32;
    let mut written = Ok(());
    let stopped = read(dir, key.as_ref(), |record| {
        let place = record.header.record();
        if story.contains(&place) || context.contains(&place) {
            found += 1;
            written = print_record(record, false, out);
        }
        written.is_ok()
    })
    .map_err(|source| directory(dir, source))?;
    written?;
    if found == 0 {
        eprintln!("no record of this request is in {}", dir.display());
    }
    Ok(report_damage(&stopped) && found > 0)
}

/// `story` are the request's own records, `context` what they stand on.
fn follow(
    record: &Record,
    request: Option<Uuid>,
    story: &mut BTreeSet<RecordRef>,
    context: &mut BTreeSet<RecordRef>,
) {
    let header = &record.header;
    let place = header.record();
    let targets = || {
        header
            .refs
            .values()
            .map(|target| target.resolve(header.log))
    };
    if request.is_some() && header.req == request {
        story.insert(place);
    }
    // Approvals and outcomes belong to the story of what they refer to. A session, an operation or
    // a decision is shared by many stories and does not draw them in.
    let drawn = match header.kind.as_str() {
        "outcome" => header.reference(chaperone_audit_log::Role::Intent),
        "approval" => header.reference(chaperone_audit_log::Role::Decision),
        _ => None,
    };
    if drawn.is_some_and(|target| story.contains(&target)) {
        story.insert(place);
    }
    if story.contains(&place) || context.contains(&place) {
        context.extend(targets());
    }
}
