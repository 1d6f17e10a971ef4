//! What expressions show besides their value, and where else values leak.

use chaperone_contract::Usages;

use crate::{check, facts};

#[test]
fn total_expressions_are_outputs_only() {
    for expression in [
        "left(ssn, 6) || '~' || right(ssn, 5)",
        "'k=' || ssn",
        "concat_ws('|', mrn, name, dob)",
        "md5(ssn)",
        "reverse(ssn)",
        "upper(ssn)",
        "substr(ssn, 1, 3)",
        "split_part(ssn, '-', 1)",
        "format('%s/%s', id, ssn)",
        "quote_literal(ssn)",
        "json_build_object('k', ssn)",
        "coalesce(NULL, ssn)",
        "nullif(ssn, '')",
        "greatest(ssn, '')",
        "(ARRAY[zip, ssn])[2]",
        "xmlelement(name a, ssn)",
        "CASE WHEN ssn LIKE '9%' THEN 'a' ELSE 'b' END",
        "ssn LIKE '917%'",
        "ssn ~ '^9'",
        "ssn = 'x'",
        "ssn IS NULL",
        "ssn IN ('a', 'b')",
        "ssn BETWEEN 'a' AND 'b'",
        "ssn::text",
        "ssn COLLATE \"C\"",
        "dob::text",
        "to_char(dob, 'YYYY')",
        "extract(year FROM dob)",
        "min(ssn)",
        "string_agg(ssn, ',')",
        "mode() WITHIN GROUP (ORDER BY ssn)",
        "encode(convert_to(name, 'UTF8'), 'base64')",
        "row_to_json(p)",
        "regexp_replace(ssn, '\\d', 'x', 'g')",
    ] {
        let facts = facts(&format!("SELECT {expression} FROM patients p"));
        let operation = &facts.operation;
        assert!(
            operation.gaps.is_empty(),
            "{expression}: {:?}",
            operation.gaps
        );
        assert!(facts.effects.read_only, "{expression}");
        assert!(
            !operation.output_labels(&operation.outputs[0]).is_clear(),
            "{expression}"
        );
        for used in &operation.uses {
            assert_eq!(used.usages, Usages::OUTPUT, "{expression}: {}", used.field);
        }
    }
}

#[test]
fn expressions_that_can_fail_show() {
    for expression in [
        "ssn::int",
        "name::json",
        "('<a>' || ssn)::xml",
        "ssn::bytea",
        "1/(ascii(substr(ssn, 2, 1)) - 49)",
        "repeat('x', ascii(ssn))",
        "substr(ssn, 1, ascii(ssn) - 60)",
        "substr(ssn, 1, -1)",
        "split_part(ssn, '-', 0)",
        "lpad('x', ascii(ssn) * 1000000)",
        "to_number(ssn, '999')",
        "dob - date '1900-01-01'",
        "ssn LIKE name",
        "ssn LIKE '917\\'",
        "ssn ~ name",
        "nullif(ssn, '917-31-2041') ~ '('",
        "format(ssn)",
        "format('%I', nullif(ssn, 'x'))",
        "convert_to(name, 'LATIN1')",
        "chr(ascii(ssn))",
        "CASE WHEN ssn LIKE '9%' THEN 1/0 ELSE 1 END",
        "CASE WHEN ssn LIKE '9%' THEN (SELECT count(*) FROM generate_series(1, 100000000)) END",
        "CASE WHEN ssn LIKE '9%' THEN nextval('misc_seq') END",
        "CASE WHEN ssn LIKE '9%' THEN random() END",
        "coalesce(nullif(ssn, 'x'), (1/0)::text)",
        "ssn LIKE '9%' AND 1/0 = 1",
        "repeat(' ', 1073741800) || ssn",
        "json_object_agg(ssn, 1)",
        "regexp_split_to_table(ssn, '')",
        "generate_series(1, ascii(ssn))",
        "unnest(string_to_array(ssn, '-'))",
        "to_tsvector('simple', ssn)",
        "xmlparse(document ssn)",
        "ARRAY[ssn] || ARRAY[[name]]",
        "setval('misc_seq', ascii(ssn))",
    ] {
        let facts = facts(&format!("SELECT {expression} FROM patients p"));
        let used = facts
            .operation
            .uses
            .iter()
            .find(|used| used.field == "ssn" || used.field == "name" || used.field == "dob")
            .unwrap_or_else(|| panic!("{expression} uses nothing"));
        assert!(
            used.usages.contains(Usages::OTHER),
            "{expression}: {:?}",
            used.usages
        );
    }
}

#[test]
fn inference_channels() {
    check(&[
        (
            "SELECT id FROM patients WHERE ssn = '1'",
            "- | ssn:EQUALITY",
        ),
        (
            "SELECT id FROM patients WHERE ssn = $1 AND id > 3",
            "- | ssn:EQUALITY",
        ),
        ("SELECT id FROM patients WHERE $1 = ssn", "- | ssn:EQUALITY"),
        (
            "SELECT id FROM patients WHERE ssn = '1' OR id = 2",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE NOT ssn = '1'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE ssn IN ('1')",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE ssn = ANY(ARRAY['1'])",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE md5(ssn) = '1'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE ssn LIKE '9%'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE (ssn, name) > ('9', '')",
            "- | name:PREDICATE ssn:PREDICATE",
        ),
        ("SELECT id FROM patients ORDER BY ssn", "- | ssn:ORDER"),
        (
            "SELECT ssn AS id2 FROM patients ORDER BY id2",
            "ssn | ssn:OUTPUT+ORDER",
        ),
        (
            "SELECT id FROM patients ORDER BY CASE WHEN ssn LIKE '9%' THEN 1 END",
            "- | ssn:ORDER",
        ),
        ("SELECT id FROM patients GROUP BY id, ssn", "- | ssn:GROUP"),
        (
            "SELECT count(*) FROM patients GROUP BY GROUPING SETS ((zip), ())",
            "- | zip:GROUP",
        ),
        (
            "SELECT count(*) FROM patients GROUP BY ROLLUP (zip)",
            "- | zip:GROUP",
        ),
        (
            "SELECT zip AS z, count(*) FROM patients GROUP BY z",
            "zip;- | zip:OUTPUT+GROUP",
        ),
        (
            "SELECT DISTINCT zip FROM patients",
            "zip | zip:OUTPUT+GROUP",
        ),
        (
            "SELECT DISTINCT ON (zip) id FROM patients",
            "- | zip:ORDER+GROUP",
        ),
        (
            "SELECT id FROM patients HAVING max(ssn) > '5'",
            "- | ssn:PREDICATE",
        ),
        (
            "SELECT count(*) FILTER (WHERE ssn LIKE '9%') FROM patients",
            "ssn | ssn:OUTPUT+PREDICATE",
        ),
        (
            "SELECT count(DISTINCT ssn) FROM patients",
            "ssn | ssn:OUTPUT+GROUP",
        ),
        (
            "SELECT array_agg(id ORDER BY ssn) FROM patients",
            "- | ssn:ORDER",
        ),
        (
            "SELECT rank() OVER (ORDER BY ssn) FROM patients",
            "ssn | ssn:OUTPUT+ORDER",
        ),
        (
            "SELECT rank() OVER w FROM patients WINDOW w AS (PARTITION BY zip ORDER BY ssn)",
            "zip+ssn | ssn:OUTPUT+ORDER zip:OUTPUT+GROUP",
        ),
        (
            "SELECT id FROM patients LIMIT (SELECT length(max(ssn)) FROM patients)",
            "- | ssn:OTHER",
        ),
        (
            "SELECT EXISTS (SELECT FROM patients WHERE ssn = '1')",
            "ssn | ssn:OUTPUT+PREDICATE",
        ),
        (
            "SELECT name FROM staff s WHERE EXISTS (SELECT 1 FROM patients p WHERE p.name = s.name)",
            "- | name:PREDICATE+JOIN",
        ),
        (
            "SELECT 1 FROM staff WHERE name IN (SELECT name FROM patients)",
            "- | name:PREDICATE",
        ),
        (
            "SELECT 1 FROM staff WHERE name = (SELECT max(name) FROM patients)",
            "- | name:PREDICATE+JOIN",
        ),
        (
            "SELECT 1 FROM generate_series(1, (SELECT length(max(ssn)) FROM patients))",
            "- | ssn:OTHER",
        ),
        (
            "EXPLAIN SELECT 1 FROM patients WHERE ssn < '5'",
            "ssn | ssn:OUTPUT+PREDICATE",
        ),
        (
            "SELECT id FROM patients WHERE name::int > 0",
            "- | name:PREDICATE+OTHER",
        ),
    ]);
}
