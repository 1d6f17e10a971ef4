//! The story, step by step. Every check compares what a real client saw with what the backend holds.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chaperone_test_support::clinic;
use chaperone_test_support::error::{Context as _, Error, Result};

use crate::personas::Persona;
use crate::show::Show;
use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(30);
const SHOWN: usize = 14;

/// Plays all steps; whether each went as told.
pub fn play(stage: &Stage, show: &mut Show) -> Result<bool> {
    let steps: [fn(&Stage, &mut Show) -> Result<()>; 6] =
        [masked, denied, held, limited, reloaded, verified];
    for step in steps {
        stage.interrupt.check()?;
        if let Err(error) = step(stage, show) {
            stage.interrupt.check_failure()?;
            show.broken(&error);
        }
    }
    if !show.passed() {
        stage.interrupt.check_failure()?;
    }
    Ok(show.verdict())
}

fn masked(stage: &Stage, show: &mut Show) -> Result<()> {
    show.step(
        "An agent's query is allowed, its PHI comes back masked",
        "The same statement through the same proxy; who asks decides what is seen.",
    );
    let sql = "SELECT id, name, ssn, birth_date, zip, care_unit FROM patients ORDER BY id LIMIT 3";
    let truth = stage.postgres.value(
        clinic::DATABASE,
        "SELECT name || chr(10) || ssn || chr(10) || birth_date FROM patients ORDER BY id LIMIT 3",
    )?;
    show.typed("agent", sql);
    let agent = stage.psql(Persona::AGENT).run(sql)?;
    show.output(&agent.text(), SHOWN);
    show.typed("clinician", sql);
    let clinician = stage.psql(Persona::CLINICIAN).run(sql)?;
    show.output(&clinician.text(), SHOWN);

    let units = stage.postgres.value(
        clinic::DATABASE,
        "SELECT care_unit FROM patients ORDER BY id LIMIT 3",
    )?;
    show.check(
        "the agent got three rows",
        agent.ok && agent.stdout.contains("(3 rows)"),
    );
    show.check(
        "with the clear column as it is",
        units.lines().all(|unit| agent.stdout.contains(unit)),
    );
    show.check(
        "and no name, SSN or birth date",
        agent.ok && truth.lines().all(|secret| !agent.text().contains(secret)),
    );
    let names = stage.postgres.value(
        clinic::DATABASE,
        "SELECT name FROM patients ORDER BY id LIMIT 3",
    )?;
    show.check(
        "the clinician sees the names",
        clinician.ok && names.lines().all(|name| clinician.stdout.contains(name)),
    );

    let notes = "SELECT id, body FROM notes WHERE id IN (1, 2, 3) ORDER BY id";
    show.typed("agent", notes);
    let agent = stage.psql(Persona::AGENT).run(notes)?;
    show.output(&agent.text(), SHOWN);
    let identifiers = stage.postgres.value(
        clinic::DATABASE,
        "SELECT concat_ws(chr(10), p.mrn, p.ssn, p.phone, p.email) \
         FROM notes n JOIN patients p ON p.id = n.patient_id WHERE n.id IN (1, 2, 3)",
    )?;
    show.check(
        "free text is scrubbed of numbers and addresses, the rest of it stays",
        agent.ok
            && identifiers
                .lines()
                .all(|secret| !agent.stdout.contains(secret))
            && ["mild pain", "stable condition", "130/85"]
                .iter()
                .any(|w| agent.stdout.contains(w)),
    );
    Ok(())
}

fn denied(stage: &Stage, show: &mut Show) -> Result<()> {
    show.step(
        "A query outside the agent's scope is denied, and the session goes on",
        "A refusal is an ordinary error: SQLSTATE, reason, and the record's id.",
    );
    let mut session = stage.psql(Persona::AGENT).session()?;
    let sql = "SELECT patient_id, member_no, amount FROM claims LIMIT 2;";
    show.typed("agent", sql);
    let refused = session.run(sql, PATIENCE)?;
    show.output(&refused, SHOWN);
    let sql = "SELECT name, ward, beds FROM rooms ORDER BY id LIMIT 2;";
    show.typed("agent", sql);
    let next = session.run(sql, PATIENCE)?;
    show.output(&next, SHOWN);
    show.check("SQLSTATE 42501", refused.contains("ERROR:  42501"));
    show.check("no claim came back", !refused.contains("MBR-"));
    show.check(
        "the next statement of the same session runs",
        next.contains("R-01"),
    );
    Ok(())
}

fn held(stage: &Stage, show: &mut Show) -> Result<()> {
    show.step(
        "A risky command waits for another person",
        "DROP TABLE is approved and runs once; ALTER USER is denied; a third one expires.",
    );
    let exists = |table: &str| -> Result<bool> {
        let found = format!("SELECT to_regclass('public.{table}') IS NOT NULL");
        Ok(stage.postgres.value(clinic::DATABASE, &found)? == "t")
    };

    let mut session = stage.psql(Persona::DBA).session()?;
    let sql = "DROP TABLE import_2019;";
    show.typed("dba", sql);
    session.send(sql)?;
    let id = waiting(stage, show)?;
    show.typed("approver", &format!("chaperone approvals show {id}"));
    let shown = stage.approvals(Persona::APPROVER, &["show", &id])?;
    show.output(&shown.text(), SHOWN);
    show.check(
        "the approver sees the exact text",
        shown.stdout.contains("DROP TABLE import_2019"),
    );
    show.check("meanwhile the table is there", exists("import_2019")?);

    show.typed(
        "dba",
        &format!("chaperone approvals approve {id}    (the requester's own token)"),
    );
    let own = stage.approvals(Persona::DBA, &["approve", &id])?;
    show.output(&own.text(), SHOWN);
    show.check(
        "the requester cannot approve",
        !own.ok && exists("import_2019")?,
    );

    show.typed("approver", &format!("chaperone approvals approve {id}"));
    let approved = stage.approvals(Persona::APPROVER, &["approve", &id])?;
    show.output(&approved.text(), SHOWN);
    let ran = session.wait(PATIENCE)?;
    show.typed("dba", "(the session that waited)");
    show.output(&ran, SHOWN);
    show.check(
        "it ran, once",
        approved.ok && ran.matches("DROP TABLE\n").count() == 1 && !exists("import_2019")?,
    );
    let again = stage.approvals(Persona::APPROVER, &["approve", &id])?;
    show.check("the approval is used up", !again.ok);

    let sql = "ALTER USER billing CREATEDB;";
    show.typed("dba", sql);
    session.send(sql)?;
    let id = waiting(stage, show)?;
    show.typed("approver", &format!("chaperone approvals deny {id}"));
    let answer = stage.approvals(Persona::APPROVER, &["deny", &id])?;
    show.output(&answer.text(), SHOWN);
    let refused = session.wait(PATIENCE)?;
    show.output(&refused, SHOWN);
    let rights = stage.postgres.value(
        "postgres",
        "SELECT rolcreatedb FROM pg_roles WHERE rolname = 'billing'",
    )?;
    show.check(
        "it was refused with an error",
        answer.ok && refused.contains("ERROR:"),
    );
    show.check("and did not run", rights == "f");

    let sql = "DROP TABLE import_2021;";
    show.typed("dba", &format!("{sql}    (nobody answers)"));
    session.send(sql)?;
    let id = waiting(stage, show)?;
    let refused = session.wait(PATIENCE)?;
    show.output(&refused, SHOWN);
    show.check(
        "the session got a ticket instead of hanging",
        refused.contains("ERROR:  55000"),
    );
    // The ticket's own time; then nobody can approve any more.
    std::thread::sleep(Duration::from_secs(3));
    show.typed(
        "approver",
        &format!("chaperone approvals approve {id}    (too late)"),
    );
    let late = stage.approvals(Persona::APPROVER, &["approve", &id])?;
    show.output(&late.text(), SHOWN);
    show.check(
        "it has expired and the table is there",
        !late.ok && exists("import_2021")?,
    );
    Ok(())
}

/// Waits until something waits for approval, shows the list and returns the newest id.
fn waiting(stage: &Stage, show: &mut Show) -> Result<String> {
    let deadline = Instant::now() + Duration::from_secs(3);
    loop {
        let list = stage.approvals(Persona::APPROVER, &["list"])?;
        let id = list
            .stdout
            .lines()
            .filter(|line| line.contains(Persona::DBA.subject))
            .filter_map(|line| line.split_whitespace().next())
            .next_back();
        if let Some(id) = id {
            show.typed("approver", "chaperone approvals list");
            show.output(&list.text(), SHOWN);
            return Ok(id.to_owned());
        }
        if Instant::now() > deadline {
            return Err(Error::Timeout {
                what: "a statement to be held".to_owned(),
                seconds: 3,
                output: list.text(),
            });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn limited(stage: &Stage, show: &mut Show) -> Result<()> {
    show.step(
        "A bulk export is stopped at its row limit",
        "The limit counts rows as they pass; the outcome is in the log.",
    );
    let sql = "SELECT patient_id, icd10 FROM diagnoses";
    let all = stage
        .postgres
        .value(clinic::DATABASE, "SELECT count(*) FROM diagnoses")?;
    show.typed("agent", &format!("{sql}    ({all} rows on the backend)"));
    let stopped = stage.psql(Persona::AGENT).run(sql)?;
    show.output(&stopped.text(), SHOWN);
    show.check("SQLSTATE 53400", stopped.stderr.contains("53400"));
    show.check(
        "far fewer rows than there are came through",
        !stopped.ok && stopped.stdout.lines().count() < 5000,
    );
    let few = stage
        .psql(Persona::AGENT)
        .run("SELECT patient_id, icd10 FROM diagnoses LIMIT 5")?;
    show.check("a small query of the same kind runs", few.ok);
    Ok(())
}

fn reloaded(stage: &Stage, show: &mut Show) -> Result<()> {
    show.step(
        "A policy is edited, rebuilt and dropped in while a session is open",
        "The same session behaves differently on its next statement; nothing restarts.",
    );
    let mut session = stage.psql(Persona::AGENT).session()?;
    let sql = "SELECT name, ward FROM rooms ORDER BY id LIMIT 2;";
    show.typed("agent", sql);
    let before = session.run(sql, PATIENCE)?;
    show.output(&before, SHOWN);
    let (from, to) = (
        "const CLOSED: &[&str] = &[];",
        "const CLOSED: &[&str] = &[\"rooms\"];",
    );
    show.typed(
        "author",
        &format!("edit .demo/house-rules/src/lib.rs\n- {from}\n+ {to}"),
    );
    stage.edit_house_rules(from, to)?;
    show.typed(
        "author",
        "chaperone policy build .demo/house-rules --output .demo/run/policies/house-rules.wasm",
    );
    let dropped = Instant::now();
    let after = loop {
        let answer = session.run(sql, PATIENCE)?;
        if answer.contains("ERROR:") || dropped.elapsed() > Duration::from_secs(5) {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    show.typed(
        "agent",
        &format!("{sql}    ({:.2} s later)", dropped.elapsed().as_secs_f64()),
    );
    show.output(&after, SHOWN);
    show.check("before: allowed", before.contains("R-01"));
    show.check(
        "after: denied, in the same session",
        after.contains("ERROR:  42501"),
    );

    stage.edit_house_rules(to, from)?;
    let dropped = Instant::now();
    let back = loop {
        let answer = session.run(sql, PATIENCE)?;
        if !answer.contains("ERROR:") || dropped.elapsed() > Duration::from_secs(5) {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    show.check("edited back: allowed again", back.contains("R-01"));
    Ok(())
}

fn verified(stage: &Stage, show: &mut Show) -> Result<()> {
    show.step(
        "The evidence verifies, and one flipped byte is found",
        "Every record holds the SHA3-256 of the one before it.",
    );
    let log = stage.chaperone.audit_folder();
    show.typed("auditor", "chaperone audit verify .demo/run/audit");
    let intact = stage.audit("verify", &log)?;
    show.output(&intact.text(), SHOWN);
    show.check("the chain verifies", intact.ok);

    let copy = stage.folder.join("run/audit-copy");
    copy_folder(&log, &copy)?;
    let (file, offset) = flip_a_byte(&copy)?;
    show.typed(
        "auditor",
        &format!(
            "chaperone audit verify .demo/run/audit-copy    (byte {offset} of {file} flipped)"
        ),
    );
    let broken = stage.audit("verify", &copy)?;
    show.output(&broken.text(), SHOWN);
    show.check("the flipped byte is found", !broken.ok);
    show.check("and its file is named", broken.text().contains(&file));
    Ok(())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).context(format!("make {}", to.display()))?;
    for entry in fs::read_dir(from).context(format!("read {}", from.display()))? {
        let entry = entry.context("read a folder")?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target).context(format!("copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// Flips one bit in the written part of the largest segment; returns its name and the offset.
fn flip_a_byte(folder: &Path) -> Result<(String, usize)> {
    let mut largest: Option<(usize, PathBuf, Vec<u8>)> = None;
    let mut folders = vec![folder.to_owned()];
    while let Some(open) = folders.pop() {
        for entry in fs::read_dir(&open).context("read the copy")?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            if path.extension().is_none_or(|extension| extension != "seg") {
                continue;
            }
            let bytes = fs::read(&path).context(format!("read {}", path.display()))?;
            // Segments are preallocated: zeros at the end are not written yet.
            let written = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            if largest.as_ref().is_none_or(|(most, _, _)| written > *most) {
                largest = Some((written, path, bytes));
            }
        }
    }
    let missing = || Error::Missing {
        what: format!("a segment in {}", folder.display()),
        mend: "look at the proxy's log".to_owned(),
    };
    let (written, path, mut bytes) = largest.ok_or_else(missing)?;
    let offset = written / 2;
    *bytes.get_mut(offset).ok_or_else(missing)? ^= 1;
    fs::write(&path, &bytes).context(format!("write {}", path.display()))?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    Ok((name, offset))
}
