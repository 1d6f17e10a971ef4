//! Names of prepared statements, given by messages and by SQL.

use chaperone_test_support::wire::frontend::*;

use crate::same;

#[test]
fn statement_names() {
    // A second Parse of the name fails and the first stays.
    same(
        &[
            parse("a", "SELECT 1", &[]),
            sync(),
            parse("a", "SELECT 2", &[]),
            sync(),
            bind("", "a", &[], 0),
            execute("", 0),
            sync(),
        ],
        3,
    );
    same(
        &[
            parse("a", "SELECT 1", &[]),
            parse("a", "SELECT 2", &[]),
            sync(),
            bind("", "a", &[], 0),
            execute("", 0),
            sync(),
        ],
        2,
    );
    same(
        &[
            parse("a", "SELECT 1", &[]),
            sync(),
            parse("a", "SELECT 2, 3", &[]),
            bind("", "a", &[], 0),
            execute("", 0),
            sync(),
            bind("", "a", &[], 0),
            describe_portal(""),
            execute("", 0),
            sync(),
        ],
        3,
    );
    // A name whose Parse was skipped behind an error does not exist.
    same(
        &[
            run("SELECT 1/0", &[]),
            parse("b", "SELECT 1", &[]),
            sync(),
            bind("", "b", &[], 0),
            sync(),
        ],
        2,
    );
    // Closed and made anew, also one that never was.
    same(
        &[
            close_statement("c"),
            parse("c", "SELECT 1", &[]),
            close_statement("c"),
            parse("c", "SELECT 2", &[]),
            bind("", "c", &[], 0),
            execute("", 0),
            sync(),
        ],
        1,
    );
    same(
        &[
            parse("c", "SELECT 1", &[]),
            sync(),
            run("SELECT 1/0", &[]),
            close_statement("c"),
            sync(),
            bind("", "c", &[], 0),
            execute("", 0),
            sync(),
        ],
        3,
    );
    same(
        &[
            bind("", "nothing", &[], 0),
            sync(),
            describe_statement("nothing"),
            sync(),
            execute("nothing", 0),
            sync(),
        ],
        3,
    );
}

#[test]
fn the_unnamed_statement() {
    let one = || parse("", "SELECT 1", &[]);
    let again = || [bind("", "", &[], 0), execute("", 0), sync()].concat();
    same(&[one(), sync(), again(), again()], 3);
    same(&[one(), parse("", "SELECT 2", &[]), sync(), again()], 2);
    // A failed Parse takes the old one with it, and so does a simple query.
    same(
        &[one(), sync(), parse("", "SELEC", &[]), sync(), again()],
        3,
    );
    same(&[one(), sync(), query("SELECT 3"), again()], 3);
    same(&[one(), sync(), query("SELEC"), again()], 3);
    same(&[one(), close_statement(""), sync(), again()], 2);
    same(&[again()], 1);
}

#[test]
fn prepared_statements_by_sql_and_by_message() {
    let by_message = |name: &str| [bind("", name, &[], 0), execute("", 0), sync()].concat();
    same(
        &[
            query("PREPARE a AS SELECT 7"),
            by_message("a"),
            query("EXECUTE a"),
        ],
        3,
    );
    same(
        &[
            parse("b", "SELECT 8", &[]),
            sync(),
            query("EXECUTE b"),
            query("DEALLOCATE b"),
            by_message("b"),
            parse("b", "SELECT 9", &[]),
            sync(),
            by_message("b"),
        ],
        6,
    );
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        same(
            &[
                parse("b", "SELECT 8", &[]),
                sync(),
                query(all),
                by_message("b"),
                parse("b", "SELECT 9", &[]),
                by_message("b"),
            ],
            4,
        );
    }
    // In one pipeline.
    same(
        &[
            parse("b", "SELECT 8", &[]),
            run("DEALLOCATE b", &[]),
            bind("", "b", &[], 0),
            execute("", 0),
            sync(),
            by_message("b"),
        ],
        2,
    );
    same(
        &[
            parse("b", "SELECT 8", &[]),
            run("DEALLOCATE b", &[]),
            parse("b", "SELECT 9", &[]),
            bind("", "b", &[], 0),
            execute("", 0),
            sync(),
            by_message("b"),
        ],
        2,
    );
    // Survives a rollback, as prepared statements do.
    same(
        &[
            query("BEGIN"),
            parse("b", "SELECT 8", &[]),
            sync(),
            query("DEALLOCATE b"),
            query("ROLLBACK"),
            by_message("b"),
            parse("c", "SELECT 9", &[]),
            sync(),
            query("BEGIN; SELECT 1/0"),
            query("ROLLBACK"),
            by_message("c"),
        ],
        8,
    );
}
