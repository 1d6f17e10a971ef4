//! What is asked of a backend's catalog.
//!
//! Every name and operator is qualified, so that the queries mean the same under any search path,
//! and no plain literal has a backslash; any role may run them. Most read the system
//! catalogs' rows alone and lock nothing that belongs to users. What prints an expression locks the
//! relations in it, so that is left out while somebody else is about to change one of them.

/// One catalog's row versions as one number.
macro_rules! fingerprint {
    ($table:literal, $filter:literal) => {
        concat!(
            "(SELECT pg_catalog.concat(pg_catalog.count(*), '/', pg_catalog.sum(",
            "pg_catalog.hashtextextended(pg_catalog.concat(x.ctid, ' ', x.xmin), '0'::pg_catalog.int8))) ",
            "FROM pg_catalog.",
            $table,
            " AS x ",
            $filter,
            ")"
        )
    };
}

/// Relations that somebody else is changing, or waiting to change, so that printing an expression
/// that names them would have to wait. What this session has locked already costs no wait.
macro_rules! taken {
    () => {
        concat!(
            "WITH taken AS MATERIALIZED (",
            "SELECT l.relation FROM pg_catalog.pg_locks AS l ",
            "JOIN pg_catalog.pg_database AS b ON (b.oid OPERATOR(pg_catalog.=) l.database) ",
            "WHERE (l.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text) ",
            "AND (b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()) ",
            "AND (l.mode OPERATOR(pg_catalog.=) 'AccessExclusiveLock'::pg_catalog.text) ",
            "AND ((l.pid IS NULL) OR (l.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid())) ",
            "EXCEPT SELECT l.relation FROM pg_catalog.pg_locks AS l ",
            "WHERE (l.locktype OPERATOR(pg_catalog.=) 'relation'::pg_catalog.text) ",
            "AND (l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()) AND l.granted) "
        )
    };
}

/// Whether `c`, or a relation that the object in this catalog depends on, is among [`taken`].
macro_rules! is_taken {
    ($catalog:literal, $objects:literal) => {
        concat!(
            "(EXISTS (SELECT 1 FROM taken AS t WHERE (t.relation OPERATOR(pg_catalog.=) c.oid) ",
            "OR (t.relation OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT d.refobjid FROM pg_catalog.pg_depend AS d ",
            "WHERE (d.classid OPERATOR(pg_catalog.=) '",
            $catalog,
            "'::pg_catalog.regclass) AND (d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass) ",
            "AND (d.objid OPERATOR(pg_catalog.=) ",
            $objects,
            "))))))"
        )
    };
}

/// Everything that the catalog holds for us changes this one row's one text: row versions of the
/// system catalogs, seen by the session's own snapshot. Sessions of one server process that get the
/// same text see the same catalog. Runs on PostgreSQL 13 to 18 as any role.
pub(super) const FINGERPRINT: &str = concat!(
    "SELECT pg_catalog.concat_ws(' ', pg_catalog.pg_postmaster_start_time(), ",
    "pg_catalog.current_schemas(true)::pg_catalog.text, pg_catalog.pg_my_temp_schema(), ",
    fingerprint!("pg_class", ""),
    ", ",
    fingerprint!(
        "pg_attribute",
        "WHERE x.attrelid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!("pg_attrdef", ""),
    ", ",
    fingerprint!(
        "pg_rewrite",
        "WHERE x.ev_class OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!("pg_trigger", ""),
    ", ",
    fingerprint!("pg_policy", ""),
    ", ",
    fingerprint!("pg_inherits", ""),
    ", ",
    fingerprint!(
        "pg_index",
        "WHERE x.indrelid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!("pg_constraint", ""),
    ", ",
    fingerprint!("pg_statistic_ext", ""),
    ", ",
    fingerprint!("pg_namespace", ""),
    ", ",
    fingerprint!(
        "pg_proc",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_type",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_operator",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_cast",
        "WHERE x.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ", ",
    fingerprint!(
        "pg_description",
        "WHERE x.classoid OPERATOR(pg_catalog.=) 1259::pg_catalog.oid \
        AND x.objoid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid"
    ),
    ")"
);

/// Relations of users' schemas and of the session's own temporary one.
macro_rules! ours {
    () => {
        "(n.nspname OPERATOR(pg_catalog.<>) ALL ('{pg_catalog,information_schema,pg_toast}'::pg_catalog.name[])) \
         AND (NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_toast'::pg_catalog.text)) \
         AND ((NOT pg_catalog.starts_with(n.nspname::pg_catalog.text, 'pg_temp'::pg_catalog.text)) \
              OR (n.oid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()))"
    };
}

/// Columns of a join that starts at `pg_class AS c`.
macro_rules! from_ours {
    () => {
        "FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) c.relnamespace) "
    };
}

/// The effective search path.
pub(super) const SEARCH_PATH: &str = "SELECT s.name::pg_catalog.text FROM pg_catalog.unnest(pg_catalog.current_schemas(true)) \
         WITH ORDINALITY AS s(name, number) ORDER BY s.number";

/// Settings that change how a text is read.
pub(super) const SETTINGS: &str = "SELECT s.name, pg_catalog.current_setting(s.name, true) FROM pg_catalog.unnest(\
         '{client_encoding,server_encoding,standard_conforming_strings,backslash_quote,\
         transaction_isolation,transform_null_equals,array_nulls,restrict_nonsystem_relation_kind,\
         server_version_num,is_superuser}'::pg_catalog.text[]) AS s(name) \
         UNION ALL SELECT 'current_user'::pg_catalog.text, CURRENT_USER::pg_catalog.text \
         UNION ALL SELECT 'session_user'::pg_catalog.text, SESSION_USER::pg_catalog.text \
         UNION ALL SELECT 'temp_schema'::pg_catalog.text, (SELECT t.nspname::pg_catalog.text FROM pg_catalog.pg_namespace AS t \
         WHERE t.oid OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())";

/// Relations, with the queries of views.
pub(super) const RELATIONS: &str = concat!(
    taken!(),
    "SELECT c.oid::pg_catalog.text, n.nspname::pg_catalog.text, c.relname::pg_catalog.text, c.relkind::pg_catalog.text, ",
    "CASE WHEN w.printed AND (NOT w.taken) THEN pg_catalog.pg_get_viewdef(c.oid) END, ",
    "pg_catalog.obj_description(c.oid, 'pg_class'::pg_catalog.name), ",
    "EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite AS r WHERE (r.ev_class OPERATOR(pg_catalog.=) c.oid) ",
    "AND (r.rulename OPERATOR(pg_catalog.<>) '_RETURN'::pg_catalog.name))::pg_catalog.text, ",
    "(w.printed AND w.taken)::pg_catalog.text ",
    from_ours!(),
    "CROSS JOIN LATERAL (SELECT (c.relkind OPERATOR(pg_catalog.=) ANY ('{v,m}'::pg_catalog.\"char\"[])) AS printed, ",
    is_taken!(
        "pg_catalog.pg_rewrite",
        "ANY (ARRAY(SELECT r.oid FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class OPERATOR(pg_catalog.=) c.oid))"
    ),
    " AS taken) AS w ",
    "WHERE (c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S,c}'::pg_catalog.\"char\"[])) AND ",
    ours!()
);

/// Columns; a domain's type is what it is made of, and what generates one is the stored tree.
pub(super) const COLUMNS: &str = concat!(
    "SELECT a.attrelid::pg_catalog.text, a.attnum::pg_catalog.text, a.attname::pg_catalog.text, ",
    "tn.nspname::pg_catalog.text, t.typname::pg_catalog.text, ",
    "CASE WHEN (a.attgenerated OPERATOR(pg_catalog.<>) ''::pg_catalog.\"char\") THEN d.adbin::pg_catalog.text END, ",
    "pg_catalog.col_description(a.attrelid, a.attnum::pg_catalog.int4) ",
    from_ours!(),
    "JOIN pg_catalog.pg_attribute AS a ON (a.attrelid OPERATOR(pg_catalog.=) c.oid) ",
    "JOIN pg_catalog.pg_type AS y ON (y.oid OPERATOR(pg_catalog.=) a.atttypid) ",
    "JOIN pg_catalog.pg_type AS t ON (t.oid OPERATOR(pg_catalog.=) CASE WHEN (y.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\") THEN y.typbasetype ELSE y.oid END) ",
    "JOIN pg_catalog.pg_namespace AS tn ON (tn.oid OPERATOR(pg_catalog.=) t.typnamespace) ",
    "LEFT JOIN pg_catalog.pg_attrdef AS d ON (d.adrelid OPERATOR(pg_catalog.=) a.attrelid) AND (d.adnum OPERATOR(pg_catalog.=) a.attnum) ",
    "WHERE (a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2) AND (NOT a.attisdropped) ",
    "AND (c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,v,m,f,S,c}'::pg_catalog.\"char\"[])) AND ",
    ours!(),
    " ORDER BY a.attrelid, a.attnum"
);

/// Inheritance and partitions.
pub(super) const INHERITANCE: &str = "SELECT i.inhrelid::pg_catalog.text, i.inhparent::pg_catalog.text FROM pg_catalog.pg_inherits AS i";

/// Row-level security.
pub(super) const ROW_SECURITY: &str = concat!(
    taken!(),
    "SELECT c.oid::pg_catalog.text, ",
    "CASE WHEN NOT w.taken THEN pg_catalog.pg_get_expr(p.polqual, p.polrelid) END, ",
    "CASE WHEN NOT w.taken THEN pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) END, ",
    "w.taken::pg_catalog.text ",
    from_ours!(),
    "JOIN pg_catalog.pg_policy AS p ON (p.polrelid OPERATOR(pg_catalog.=) c.oid) ",
    "CROSS JOIN LATERAL (SELECT ",
    is_taken!("pg_catalog.pg_policy", "p.oid"),
    " AS taken) AS w ",
    "WHERE c.relrowsecurity AND ",
    ours!()
);

/// Unique columns.
pub(super) const UNIQUE: &str = concat!(
    "SELECT i.indrelid::pg_catalog.text, k.number::pg_catalog.text ",
    from_ours!(),
    "JOIN pg_catalog.pg_index AS i ON (i.indrelid OPERATOR(pg_catalog.=) c.oid) ",
    "CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::pg_catalog.int2[]) AS k(number) ",
    "WHERE (i.indisunique OR i.indisexclusion) AND ",
    ours!()
);

/// Foreign keys.
pub(super) const FOREIGN_KEYS: &str = concat!(
    "SELECT k.conrelid::pg_catalog.text, a.number::pg_catalog.text, k.confrelid::pg_catalog.text, b.number::pg_catalog.text, k.confdeltype::pg_catalog.text, k.confupdtype::pg_catalog.text ",
    from_ours!(),
    "JOIN pg_catalog.pg_constraint AS k ON (k.conrelid OPERATOR(pg_catalog.=) c.oid) ",
    "CROSS JOIN LATERAL pg_catalog.unnest(k.conkey) WITH ORDINALITY AS a(number, place) ",
    "JOIN LATERAL pg_catalog.unnest(k.confkey) WITH ORDINALITY AS b(number, place) ON (a.place OPERATOR(pg_catalog.=) b.place) ",
    "WHERE (k.contype OPERATOR(pg_catalog.=) 'f'::pg_catalog.\"char\") AND ",
    ours!()
);

/// Functions that are not PostgreSQL's own, whatever their schema.
pub(super) const FUNCTIONS: &str = "SELECT n.nspname::pg_catalog.text, p.proname::pg_catalog.text, \
         pg_catalog.array_to_string(ARRAY(SELECT pg_catalog.concat(an.nspname, '.', at.typname) \
           FROM pg_catalog.unnest(p.proargtypes::pg_catalog.oid[]) WITH ORDINALITY AS u(id, place) \
           JOIN pg_catalog.pg_type AS at ON (at.oid OPERATOR(pg_catalog.=) u.id) \
           JOIN pg_catalog.pg_namespace AS an ON (an.oid OPERATOR(pg_catalog.=) at.typnamespace) ORDER BY u.place), ' '::pg_catalog.text), \
         pg_catalog.array_to_string(ARRAY(SELECT m.name FROM ROWS FROM (pg_catalog.unnest(p.proargnames), pg_catalog.unnest(p.proargmodes)) \
           WITH ORDINALITY AS m(name, mode, place) \
           WHERE (m.mode OPERATOR(pg_catalog.=) ANY ('{o,b,t}'::pg_catalog.\"char\"[])) ORDER BY m.place), E'\\n'::pg_catalog.text), \
         p.provolatile::pg_catalog.text, p.proretset::pg_catalog.text, \
         ((p.provariadic OPERATOR(pg_catalog.<>) 0::pg_catalog.oid) OR (p.pronargdefaults OPERATOR(pg_catalog.>) '0'::pg_catalog.int2) \
           OR (p.prokind OPERATOR(pg_catalog.=) 'a'::pg_catalog.\"char\"))::pg_catalog.text, \
         pg_catalog.concat(p.ctid, ' ', p.xmin) \
         FROM pg_catalog.pg_proc AS p JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) p.pronamespace) \
         WHERE p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid";

/// Operators likewise.
pub(super) const OPERATORS: &str = "SELECT n.nspname::pg_catalog.text, o.oprname::pg_catalog.text, ln.nspname::pg_catalog.text, l.typname::pg_catalog.text, \
         rn.nspname::pg_catalog.text, r.typname::pg_catalog.text \
         FROM pg_catalog.pg_operator AS o JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) o.oprnamespace) \
         LEFT JOIN pg_catalog.pg_type AS l ON (l.oid OPERATOR(pg_catalog.=) o.oprleft) \
         LEFT JOIN pg_catalog.pg_namespace AS ln ON (ln.oid OPERATOR(pg_catalog.=) l.typnamespace) \
         LEFT JOIN pg_catalog.pg_type AS r ON (r.oid OPERATOR(pg_catalog.=) o.oprright) \
         LEFT JOIN pg_catalog.pg_namespace AS rn ON (rn.oid OPERATOR(pg_catalog.=) r.typnamespace) \
         WHERE o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid";

/// Types likewise, without the row types of relations.
pub(super) const TYPES: &str = "SELECT n.nspname::pg_catalog.text, t.typname::pg_catalog.text, \
         (t.typtype OPERATOR(pg_catalog.=) 'e'::pg_catalog.\"char\")::pg_catalog.text FROM pg_catalog.pg_type AS t \
         JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) t.typnamespace) \
         WHERE (t.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) \
         AND (t.typtype OPERATOR(pg_catalog.<>) 'c'::pg_catalog.\"char\") AND (NOT pg_catalog.starts_with(t.typname::pg_catalog.text, '_'::pg_catalog.text))";

/// Casts likewise.
pub(super) const CASTS: &str = "SELECT sn.nspname::pg_catalog.text, s.typname::pg_catalog.text, tn.nspname::pg_catalog.text, t.typname::pg_catalog.text, \
         k.castcontext::pg_catalog.text \
         FROM pg_catalog.pg_cast AS k \
         JOIN pg_catalog.pg_type AS s ON (s.oid OPERATOR(pg_catalog.=) k.castsource) \
         JOIN pg_catalog.pg_namespace AS sn ON (sn.oid OPERATOR(pg_catalog.=) s.typnamespace) \
         JOIN pg_catalog.pg_type AS t ON (t.oid OPERATOR(pg_catalog.=) k.casttarget) \
         JOIN pg_catalog.pg_namespace AS tn ON (tn.oid OPERATOR(pg_catalog.=) t.typnamespace) \
         WHERE k.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid";

/// Up to the roots of what is made: which type has which others in it, multiranges from PostgreSQL 14
/// on.
macro_rules! parts {
    () => {
        concat!(
            "WITH RECURSIVE parts AS (",
            "SELECT y.oid AS whole, y.typbasetype AS part FROM pg_catalog.pg_type AS y ",
            "UNION ALL SELECT y.oid, y.typelem FROM pg_catalog.pg_type AS y ",
            "UNION ALL SELECT g.rngtypid, g.rngsubtype FROM pg_catalog.pg_range AS g ",
            "UNION ALL SELECT (pg_catalog.to_jsonb(g) OPERATOR(pg_catalog.->>) 'rngmultitypid'::pg_catalog.text)::pg_catalog.oid, ",
            "g.rngtypid FROM pg_catalog.pg_range AS g ",
            "UNION ALL SELECT y.oid, a.atttypid FROM pg_catalog.pg_type AS y ",
            "JOIN pg_catalog.pg_attribute AS a ON (a.attrelid OPERATOR(pg_catalog.=) y.typrelid) ",
            "WHERE (y.typtype OPERATOR(pg_catalog.=) 'c'::pg_catalog.\"char\") ",
            "AND (a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2) AND (NOT a.attisdropped)), ",
            "types AS ("
        )
    };
}

/// What is in the roots, as (relation, id), and what the domains among that compute and check.
macro_rules! of_domains {
    () => {
        concat!(
            " UNION SELECT t.relation, p.part FROM types AS t ",
            "JOIN parts AS p ON (p.whole OPERATOR(pg_catalog.=) t.id) ",
            "WHERE p.part OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid), ",
            "stored AS (",
            "SELECT t.relation, k.conbin::pg_catalog.text AS tree FROM types AS t ",
            "JOIN pg_catalog.pg_constraint AS k ON (k.contypid OPERATOR(pg_catalog.=) t.id) ",
            "WHERE k.conbin IS NOT NULL ",
            "UNION ALL SELECT t.relation, y.typdefaultbin::pg_catalog.text FROM types AS t ",
            "JOIN pg_catalog.pg_type AS y ON (y.oid OPERATOR(pg_catalog.=) t.id) ",
            "WHERE y.typdefaultbin IS NOT NULL "
        )
    };
}

/// What is named in the stored trees, as far as it is somebody's.
macro_rules! named {
    () => {
        concat!(
            "), named AS (",
            "SELECT DISTINCT s.relation, (m.found)[1] AS what, ((m.found)[2])::pg_catalog.oid AS id FROM stored AS s ",
            "CROSS JOIN LATERAL pg_catalog.regexp_matches(s.tree, ",
            "':(funcid|aggfnoid|winfnoid|opno|resulttype) ([0-9]+)'::pg_catalog.text, 'g'::pg_catalog.text) AS m(found)) ",
            "SELECT m.relation::pg_catalog.text, 'function'::pg_catalog.text, n.nspname::pg_catalog.text, p.proname::pg_catalog.text ",
            "FROM named AS m JOIN pg_catalog.pg_proc AS p ON (p.oid OPERATOR(pg_catalog.=) m.id) ",
            "JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) p.pronamespace) ",
            "WHERE (m.what OPERATOR(pg_catalog.=) ANY ('{funcid,aggfnoid,winfnoid}'::pg_catalog.text[])) ",
            "AND ((p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) ",
            "OR ((p.provolatile OPERATOR(pg_catalog.<>) 'i'::pg_catalog.\"char\") AND NOT EXISTS (",
            "SELECT 1 FROM pg_catalog.pg_cast AS k WHERE (k.castfunc OPERATOR(pg_catalog.=) p.oid) ",
            "AND (k.oid OPERATOR(pg_catalog.<) 16384::pg_catalog.oid)))) ",
            "UNION SELECT m.relation::pg_catalog.text, 'function'::pg_catalog.text, n.nspname::pg_catalog.text, p.proname::pg_catalog.text ",
            "FROM named AS m JOIN pg_catalog.pg_operator AS o ON (o.oid OPERATOR(pg_catalog.=) m.id) ",
            "JOIN pg_catalog.pg_proc AS p ON (p.oid OPERATOR(pg_catalog.=) o.oprcode) ",
            "JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) p.pronamespace) ",
            "WHERE (m.what OPERATOR(pg_catalog.=) 'opno'::pg_catalog.text) ",
            "AND ((p.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) ",
            "OR ((o.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) AND (p.provolatile OPERATOR(pg_catalog.<>) 'i'::pg_catalog.\"char\"))) ",
            "UNION SELECT m.relation::pg_catalog.text, 'type'::pg_catalog.text, n.nspname::pg_catalog.text, y.typname::pg_catalog.text ",
            // A value of a domain made on the way; those of the roots' own types are followed above.
            "FROM named AS m JOIN pg_catalog.pg_type AS y ON (y.oid OPERATOR(pg_catalog.=) m.id) ",
            "JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) y.typnamespace) ",
            "WHERE (m.what OPERATOR(pg_catalog.=) 'resulttype'::pg_catalog.text) ",
            "AND (y.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\") ",
            "AND NOT EXISTS (SELECT 1 FROM types AS t WHERE (t.relation OPERATOR(pg_catalog.=) m.relation) ",
            "AND (t.id OPERATOR(pg_catalog.=) m.id))"
        )
    };
}

/// Functions of triggers, and those that their conditions call, as [`ON_WRITE`] tells them.
pub(super) const TRIGGERS: &str = concat!(
    "SELECT g.tgrelid::pg_catalog.text, pn.nspname::pg_catalog.text, p.proname::pg_catalog.text ",
    from_ours!(),
    "JOIN pg_catalog.pg_trigger AS g ON (g.tgrelid OPERATOR(pg_catalog.=) c.oid) ",
    "JOIN pg_catalog.pg_proc AS p ON (p.oid OPERATOR(pg_catalog.=) g.tgfoid) ",
    "JOIN pg_catalog.pg_namespace AS pn ON (pn.oid OPERATOR(pg_catalog.=) p.pronamespace) ",
    "WHERE (NOT g.tgisinternal) AND ",
    ours!(),
    " UNION ALL SELECT q.relation, q.schema, q.name FROM (",
    "WITH types AS (SELECT NULL::pg_catalog.oid AS relation, NULL::pg_catalog.oid AS id), ",
    "stored AS (SELECT g.tgrelid AS relation, g.tgqual::pg_catalog.text AS tree ",
    "FROM pg_catalog.pg_trigger AS g WHERE g.tgqual IS NOT NULL",
    named!(),
    ") AS q(relation, what, schema, name)"
);

/// What runs when a row is written, as far as it is somebody's: functions in defaults, generated
/// columns, checks (those of columns' domains too), indexes, extended statistics and partition keys,
/// read from the stored trees. And the domains in its columns' types.
///
/// PostgreSQL's own functions count unless they are immutable or implement a cast: those can reach
/// beyond their arguments. Input functions of base types and operator classes are left out: only
/// superusers make those.
pub(super) const ON_WRITE: &str = concat!(
    parts!(),
    "SELECT c.oid AS relation, a.atttypid AS id ",
    from_ours!(),
    "JOIN pg_catalog.pg_attribute AS a ON (a.attrelid OPERATOR(pg_catalog.=) c.oid) ",
    "WHERE (a.attnum OPERATOR(pg_catalog.>) '0'::pg_catalog.int2) AND (NOT a.attisdropped) ",
    "AND (a.atttypid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid) ",
    "AND (c.relkind OPERATOR(pg_catalog.=) ANY ('{r,p,f}'::pg_catalog.\"char\"[])) AND ",
    ours!(),
    of_domains!(),
    "UNION ALL SELECT d.adrelid, d.adbin::pg_catalog.text FROM pg_catalog.pg_attrdef AS d ",
    "UNION ALL SELECT k.conrelid, k.conbin::pg_catalog.text FROM pg_catalog.pg_constraint AS k ",
    "WHERE (k.conrelid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid) AND (k.conbin IS NOT NULL) ",
    "UNION ALL SELECT i.indrelid, pg_catalog.concat(i.indexprs::pg_catalog.text, ' ', i.indpred::pg_catalog.text) ",
    "FROM pg_catalog.pg_index AS i WHERE (i.indexprs IS NOT NULL) OR (i.indpred IS NOT NULL) ",
    // From PostgreSQL 14 on.
    "UNION ALL SELECT e.stxrelid, pg_catalog.to_jsonb(e) OPERATOR(pg_catalog.->>) 'stxexprs'::pg_catalog.text ",
    "FROM pg_catalog.pg_statistic_ext AS e ",
    "UNION ALL SELECT p.partrelid, p.partexprs::pg_catalog.text ",
    "FROM pg_catalog.pg_partitioned_table AS p WHERE p.partexprs IS NOT NULL",
    named!(),
    " UNION SELECT t.relation::pg_catalog.text, 'domain'::pg_catalog.text, n.nspname::pg_catalog.text, y.typname::pg_catalog.text ",
    "FROM types AS t JOIN pg_catalog.pg_type AS y ON (y.oid OPERATOR(pg_catalog.=) t.id) ",
    "JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) y.typnamespace) ",
    "WHERE y.typtype OPERATOR(pg_catalog.=) 'd'::pg_catalog.\"char\""
);

/// What runs when a value of a type is made, as above: checks of the domains in it.
pub(super) const MADE_BY: &str = concat!(
    "SELECT n.nspname::pg_catalog.text, y.typname::pg_catalog.text, q.what, q.schema, q.name FROM (",
    parts!(),
    "SELECT y.oid AS relation, y.oid AS id FROM pg_catalog.pg_type AS y ",
    "WHERE y.oid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid",
    of_domains!(),
    named!(),
    ") AS q(id, what, schema, name) ",
    "JOIN pg_catalog.pg_type AS y ON (y.oid::pg_catalog.text OPERATOR(pg_catalog.=) q.id) ",
    "JOIN pg_catalog.pg_namespace AS n ON (n.oid OPERATOR(pg_catalog.=) y.typnamespace)"
);

/// Waits for whoever is changing the views and the row-level security of these relations, as a
/// statement that reads them would.
pub(super) fn wait_for(relations: &[u32]) -> String {
    let oids: Vec<String> = relations.iter().map(u32::to_string).collect();
    let oids = oids.join(",");
    format!(
        "SELECT pg_catalog.count(pg_catalog.pg_get_viewdef(c.oid)), \
         pg_catalog.count(pg_catalog.pg_get_expr(p.polqual, p.polrelid)), \
         pg_catalog.count(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid)) \
         FROM pg_catalog.pg_class AS c \
         LEFT JOIN pg_catalog.pg_policy AS p ON (p.polrelid OPERATOR(pg_catalog.=) c.oid) \
         WHERE c.oid OPERATOR(pg_catalog.=) ANY ('{{{oids}}}'::pg_catalog.oid[])"
    )
}
