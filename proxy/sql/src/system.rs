//! PostgreSQL's own relations that hold no table's data: an allow-list.

use std::sync::{Arc, OnceLock};

use crate::system_data::RELATIONS;

/// A clear relation of `pg_catalog` or `information_schema`.
#[derive(Debug)]
pub(crate) struct SystemRelation {
    pub(crate) schema: &'static str,
    pub(crate) name: &'static str,
    pub(crate) is_view: bool,
    /// Columns in order, as of PostgreSQL 15.
    pub(crate) columns: Vec<Arc<str>>,
}

/// The relation, if it is on the list.
pub(crate) fn relation(schema: &str, name: &str) -> Option<&'static SystemRelation> {
    static TABLE: OnceLock<Vec<SystemRelation>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        RELATIONS
            .iter()
            .map(|&(schema, name, is_view, columns)| SystemRelation {
                schema,
                name,
                is_view,
                columns: columns
                    .split('|')
                    .next()
                    .unwrap_or_default()
                    .split(' ')
                    .map(Arc::from)
                    .collect(),
            })
            .collect()
    });
    let index = table
        .binary_search_by(|entry| (entry.schema, entry.name).cmp(&(schema, name)))
        .ok()?;
    table.get(index)
}

/// Whether this is one of the schemas whose relations are judged by this list alone.
pub(crate) fn is_system_schema(schema: &str) -> bool {
    matches!(schema, "pg_catalog" | "information_schema" | "pg_toast")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_guarded() {
        assert!(
            RELATIONS
                .windows(2)
                .all(|pair| (pair[0].0, pair[0].1) < (pair[1].0, pair[1].1))
        );
        assert!(relation("pg_catalog", "pg_class").is_some());
        assert!(relation("information_schema", "columns").is_some());
        for name in [
            "pg_statistic",
            "pg_stats",
            "pg_stats_ext",
            "pg_stats_ext_exprs",
            "pg_statistic_ext_data",
            "pg_largeobject",
            "pg_stat_activity",
            "pg_stat_statements",
            "pg_authid",
            "pg_shadow",
            "pg_user_mapping",
            "pg_user_mappings",
            "pg_subscription",
            "pg_prepared_statements",
            "pg_cursors",
            "pg_file_settings",
            "pg_hba_file_rules",
            "pg_stat_progress_copy",
        ] {
            assert!(relation("pg_catalog", name).is_none(), "{name}");
        }
    }
}
