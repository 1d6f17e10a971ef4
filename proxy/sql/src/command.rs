//! Everything that is not a query: command tags, and what definitions and grants touch.

use chaperone_contract::{Actions, Labels};
use pg_raw_parse::list::NodeList;
use pg_raw_parse::raw::ObjectType;
use pg_raw_parse::{Node, nodes};

use crate::tags::nouns;

use crate::analyze::Analyzer;
use crate::from::Meant;

fn strings(list: &NodeList) -> Vec<String> {
    list.iter()
        .filter_map(|node| node.as_str())
        .map(str::to_owned)
        .collect()
}

fn role(spec: Option<&nodes::RoleSpec>) -> String {
    let Some(spec) = spec else {
        return String::new();
    };
    match spec.rolename() {
        Some(name) => name.to_owned(),
        None => match spec.roletype {
            4 => "public",
            3 => "session_user",
            _ => "current_user",
        }
        .to_owned(),
    }
}

/// The path that an object's node in DROP, COMMENT, ALTER ... names.
fn object_path(node: Node<'_>) -> Vec<String> {
    match node {
        Node::String(name) => vec![name.sval().unwrap_or_default().to_owned()],
        Node::NodeList(list) => strings(list),
        Node::ObjectWithArgs(object) => strings(object.objname()),
        Node::TypeName(name) => name
            .names()
            .iter()
            .filter_map(nodes::String::sval)
            .map(str::to_owned)
            .collect(),
        Node::RangeVar(range) => range_path(range),
        Node::RoleSpec(spec) => vec![role(Some(spec))],
        _ => Vec::new(),
    }
}

fn range_path(range: &nodes::RangeVar) -> Vec<String> {
    range
        .schemaname()
        .into_iter()
        .chain(range.relname())
        .map(str::to_owned)
        .collect()
}

impl Analyzer<'_> {
    /// A relation by path, or the name of what is not there (yet).
    pub(crate) fn relation_at(&mut self, kind: &'static str, path: Vec<String>, actions: Actions) {
        let meant = match path.as_slice() {
            [name] => self.find_relation(None, name),
            [schema, name] | [_, schema, name] => self.find_relation(Some(schema), name),
            _ => Meant::Nothing,
        };
        match meant {
            Meant::Relation(relation) => {
                self.relation_object(relation, actions);
            }
            Meant::System(relation) => {
                self.system_object(relation, actions);
            }
            _ => {
                self.named_object(kind, path, actions, Labels::CLEAR);
            }
        }
    }

    fn range(&mut self, kind: &'static str, range: Option<&nodes::RangeVar>, actions: Actions) {
        if let Some(range) = range {
            self.relation_at(kind, range_path(range), actions);
        }
    }

    fn thing(&mut self, kind: &'static str, path: Vec<String>, actions: Actions) {
        self.named_object(kind, path, actions, Labels::CLEAR);
    }

    fn one(&mut self, kind: &'static str, name: Option<&str>, actions: Actions) {
        self.thing(kind, name.map(str::to_owned).into_iter().collect(), actions);
    }

    /// An object of DROP, COMMENT, ALTER ... OWNER and their like.
    fn typed(&mut self, object_type: ObjectType::Type, node: Node<'_>, actions: Actions) {
        let (kind, _) = nouns(object_type);
        let mut path = object_path(node);
        match object_type {
            ObjectType::OBJECT_TABLE
            | ObjectType::OBJECT_VIEW
            | ObjectType::OBJECT_MATVIEW
            | ObjectType::OBJECT_FOREIGN_TABLE
            | ObjectType::OBJECT_SEQUENCE
            | ObjectType::OBJECT_INDEX => self.relation_at(kind, path, actions),
            ObjectType::OBJECT_COLUMN
            | ObjectType::OBJECT_TABCONSTRAINT
            | ObjectType::OBJECT_TRIGGER
            | ObjectType::OBJECT_RULE
            | ObjectType::OBJECT_POLICY => {
                // The last part is the part's own name.
                path.pop();
                self.relation_at("table", path, actions);
            }
            _ => self.thing(kind, path, actions),
        }
    }

    /// Objects of a definition, a grant or maintenance. Queries inside are looked at elsewhere.
    pub(crate) fn define(&mut self, node: Node<'_>) {
        const DEFINE: Actions = Actions::DEFINE;
        match node {
            Node::CreateStmt(create) => {
                self.range("table", create.relation(), DEFINE);
                for parent in create.inh_relations() {
                    if let Node::RangeVar(parent) = parent {
                        self.range("table", Some(parent), DEFINE);
                    }
                }
                for element in create.table_elts() {
                    if let Node::TableLikeClause(like) = element {
                        self.range("table", like.relation(), Actions::OTHER);
                    }
                }
            }
            Node::ViewStmt(view) => self.range("view", view.view(), DEFINE),
            Node::RefreshMatViewStmt(refresh) => {
                self.range("materialized view", refresh.relation(), DEFINE);
            }
            Node::IndexStmt(index) => {
                self.range("table", index.relation(), DEFINE);
                self.one("index", index.idxname(), DEFINE);
            }
            Node::CreateSeqStmt(create) => self.range("sequence", create.sequence(), DEFINE),
            Node::AlterSeqStmt(alter) => self.range("sequence", alter.sequence(), DEFINE),
            Node::CreateSchemaStmt(create) => {
                let name = create
                    .schemaname()
                    .map_or_else(|| role(create.authrole()), str::to_owned);
                self.thing("schema", vec![name], DEFINE);
                if !create.schema_elts().is_empty() {
                    self.gap("CREATE SCHEMA has further statements in it");
                }
            }
            Node::CreateRoleStmt(create) => self.one("role", create.role(), DEFINE),
            Node::AlterRoleStmt(alter) => {
                // ALTER GROUP ... ADD USER comes here too.
                let membership = alter
                    .options()
                    .iter()
                    .any(|option| option.defname() == Some("rolemembers"));
                let actions = if membership {
                    DEFINE | Actions::GRANT
                } else {
                    DEFINE
                };
                self.thing("role", vec![role(alter.role())], actions);
            }
            Node::AlterRoleSetStmt(alter) => {
                self.thing("role", vec![role(alter.role())], DEFINE);
                if let Some(name) = alter.database() {
                    self.one("database", Some(name), DEFINE);
                }
            }
            Node::DropRoleStmt(drop) => {
                for node in drop.roles() {
                    self.thing("role", object_path(node), DEFINE);
                }
            }
            Node::CreatedbStmt(create) => self.one("database", create.dbname(), DEFINE),
            Node::AlterDatabaseStmt(alter) => self.one("database", alter.dbname(), DEFINE),
            Node::AlterDatabaseSetStmt(alter) => self.one("database", alter.dbname(), DEFINE),
            Node::AlterDatabaseRefreshCollStmt(alter) => {
                self.one("database", alter.dbname(), DEFINE)
            }
            Node::DropdbStmt(drop) => self.one("database", drop.dbname(), DEFINE),
            Node::AlterSystemStmt(_) => self.thing("server", Vec::new(), DEFINE | Actions::CONTROL),
            Node::CreateFunctionStmt(create) => {
                let kind = if create.is_procedure {
                    "procedure"
                } else {
                    "function"
                };
                self.thing(kind, strings(create.funcname()), DEFINE);
            }
            Node::AlterFunctionStmt(alter) => {
                let path = alter
                    .func()
                    .map(|object| strings(object.objname()))
                    .unwrap_or_default();
                self.thing(nouns(alter.objtype).0, path, DEFINE);
            }
            Node::CreateTrigStmt(create) => {
                self.range("table", create.relation(), DEFINE);
                self.one("trigger", create.trigname(), DEFINE);
                self.thing("function", strings(create.funcname()), Actions::EXECUTE);
            }
            Node::CreateEventTrigStmt(create) => {
                self.one("event trigger", create.trigname(), DEFINE)
            }
            Node::AlterEventTrigStmt(alter) => self.one("event trigger", alter.trigname(), DEFINE),
            Node::RuleStmt(rule) => {
                self.range("table", rule.relation(), DEFINE);
                self.one("rule", rule.rulename(), DEFINE);
            }
            Node::CreatePolicyStmt(create) => {
                self.range("table", create.table(), DEFINE);
                self.one("policy", create.policy_name(), DEFINE);
            }
            Node::AlterPolicyStmt(alter) => {
                self.range("table", alter.table(), DEFINE);
                self.one("policy", alter.policy_name(), DEFINE);
            }
            Node::CreateExtensionStmt(create) => self.one("extension", create.extname(), DEFINE),
            Node::AlterExtensionStmt(alter) => self.one("extension", alter.extname(), DEFINE),
            Node::AlterExtensionContentsStmt(alter) => {
                self.one("extension", alter.extname(), DEFINE);
                self.typed(alter.objtype, alter.object(), DEFINE);
            }
            Node::CompositeTypeStmt(create) => {
                let path = create.typevar().map(range_path).unwrap_or_default();
                self.thing("type", path, DEFINE);
            }
            Node::CreateEnumStmt(create) => self.thing("type", cast(create.type_name()), DEFINE),
            Node::CreateRangeStmt(create) => self.thing("type", cast(create.type_name()), DEFINE),
            Node::AlterEnumStmt(alter) => self.thing("type", cast(alter.type_name()), DEFINE),
            Node::AlterTypeStmt(alter) => self.thing("type", strings(alter.type_name()), DEFINE),
            Node::CreateDomainStmt(create) => {
                self.thing("domain", cast(create.domainname()), DEFINE)
            }
            Node::AlterDomainStmt(alter) => {
                self.thing("domain", strings(alter.type_name()), DEFINE)
            }
            Node::DefineStmt(define) => {
                self.thing(nouns(define.kind).0, cast(define.defnames()), DEFINE)
            }
            Node::DropStmt(drop) => {
                for node in drop.objects() {
                    self.typed(drop.remove_type, node, DEFINE);
                }
            }
            Node::TruncateStmt(truncate) => {
                for node in truncate.relations() {
                    if let Node::RangeVar(range) = node {
                        self.range("table", Some(range), Actions::DELETE);
                        self.truncated(range, truncate.behavior);
                    }
                }
            }
            Node::CommentStmt(comment) => self.typed(comment.objtype, comment.object(), DEFINE),
            Node::SecLabelStmt(label) => self.typed(label.objtype, label.object(), DEFINE),
            Node::AlterTableStmt(alter) => {
                self.range(nouns(alter.objtype).0, alter.relation(), DEFINE);
                for command in alter.cmds() {
                    if let Node::AlterTableCmd(command) = command {
                        match command.def() {
                            Node::PartitionCmd(partition) => {
                                self.range("table", partition.name(), DEFINE)
                            }
                            Node::RangeVar(parent) => self.range("table", Some(parent), DEFINE),
                            _ => {}
                        }
                        if let Some(owner) = command.newowner() {
                            self.thing("role", vec![role(Some(owner))], Actions::OTHER);
                        }
                    }
                }
            }
            Node::RenameStmt(rename) => match rename.relation() {
                Some(range) => {
                    let kind = match rename.rename_type {
                        ObjectType::OBJECT_COLUMN | ObjectType::OBJECT_TABCONSTRAINT => {
                            rename.relation_type
                        }
                        kind => kind,
                    };
                    self.range(nouns(kind).0, Some(range), DEFINE);
                }
                None if rename.subname().is_some() => {
                    self.one(nouns(rename.rename_type).0, rename.subname(), DEFINE);
                }
                None => self.typed(rename.rename_type, rename.object(), DEFINE),
            },
            Node::AlterObjectSchemaStmt(alter) => {
                match alter.relation() {
                    Some(range) => self.range(nouns(alter.object_type).0, Some(range), DEFINE),
                    None => self.typed(alter.object_type, alter.object(), DEFINE),
                }
                self.one("schema", alter.newschema(), DEFINE);
            }
            Node::AlterObjectDependsStmt(alter) => match alter.relation() {
                Some(range) => self.range(nouns(alter.object_type).0, Some(range), DEFINE),
                None => self.typed(alter.object_type, alter.object(), DEFINE),
            },
            Node::AlterOwnerStmt(alter) => {
                match alter.relation() {
                    Some(range) => self.range(nouns(alter.object_type).0, Some(range), DEFINE),
                    None => self.typed(alter.object_type, alter.object(), DEFINE),
                }
                self.thing("role", vec![role(alter.newowner())], Actions::OTHER);
            }
            Node::AlterOperatorStmt(alter) => {
                let path = alter
                    .opername()
                    .map(|object| strings(object.objname()))
                    .unwrap_or_default();
                self.thing("operator", path, DEFINE);
            }
            Node::AlterOpFamilyStmt(alter) => {
                self.thing("operator family", cast(alter.opfamilyname()), DEFINE)
            }
            Node::AlterCollationStmt(alter) => {
                self.thing("collation", strings(alter.collname()), DEFINE)
            }
            Node::AlterStatsStmt(alter) => self.thing("statistics", cast(alter.defnames()), DEFINE),
            Node::CreateStatsStmt(create) => {
                self.thing("statistics", cast(create.defnames()), DEFINE);
                for range in create.relations() {
                    self.range("table", Some(range), DEFINE);
                }
            }
            Node::CreateTableSpaceStmt(create) => {
                self.one("tablespace", create.tablespacename(), DEFINE)
            }
            Node::DropTableSpaceStmt(drop) => self.one("tablespace", drop.tablespacename(), DEFINE),
            Node::AlterTableSpaceOptionsStmt(alter) => {
                self.one("tablespace", alter.tablespacename(), DEFINE)
            }
            Node::AlterTableMoveAllStmt(alter) => {
                self.one("tablespace", alter.orig_tablespacename(), DEFINE)
            }
            Node::CreateFdwStmt(create) => {
                self.one("foreign data wrapper", create.fdwname(), DEFINE)
            }
            Node::AlterFdwStmt(alter) => self.one("foreign data wrapper", alter.fdwname(), DEFINE),
            Node::CreateForeignServerStmt(create) => {
                self.one("server", create.servername(), DEFINE)
            }
            Node::AlterForeignServerStmt(alter) => self.one("server", alter.servername(), DEFINE),
            Node::CreateUserMappingStmt(create) => {
                self.thing("user mapping", vec![role(create.user())], DEFINE);
                self.one("server", create.servername(), Actions::OTHER);
            }
            Node::AlterUserMappingStmt(alter) => {
                self.thing("user mapping", vec![role(alter.user())], DEFINE)
            }
            Node::DropUserMappingStmt(drop) => {
                self.thing("user mapping", vec![role(drop.user())], DEFINE)
            }
            Node::ImportForeignSchemaStmt(import) => {
                self.one("server", import.server_name(), Actions::OTHER);
                self.one("schema", import.local_schema(), DEFINE);
            }
            Node::CreateAmStmt(create) => self.one("access method", create.amname(), DEFINE),
            Node::CreatePLangStmt(create) => self.one("language", create.plname(), DEFINE),
            Node::CreateOpClassStmt(create) => {
                self.thing("operator class", cast(create.opclassname()), DEFINE)
            }
            Node::CreateOpFamilyStmt(create) => {
                self.thing("operator family", cast(create.opfamilyname()), DEFINE)
            }
            Node::CreateConversionStmt(create) => {
                self.thing("conversion", strings(create.conversion_name()), DEFINE)
            }
            Node::CreateCastStmt(_) => self.thing("cast", Vec::new(), DEFINE),
            Node::CreateTransformStmt(_) => self.thing("transform", Vec::new(), DEFINE),
            Node::DropOwnedStmt(drop) => {
                for node in drop.roles() {
                    self.thing(
                        "role",
                        object_path(node),
                        DEFINE | Actions::DELETE | Actions::GRANT,
                    );
                }
            }
            Node::ReassignOwnedStmt(reassign) => {
                for node in reassign.roles() {
                    self.thing("role", object_path(node), DEFINE | Actions::GRANT);
                }
                self.thing("role", vec![role(reassign.newrole())], Actions::GRANT);
            }
            Node::AlterTSDictionaryStmt(alter) => {
                self.thing("text search dictionary", cast(alter.dictname()), DEFINE);
            }
            Node::AlterTSConfigurationStmt(alter) => {
                self.thing("text search configuration", cast(alter.cfgname()), DEFINE);
            }
            Node::CreatePublicationStmt(create) => {
                self.one("publication", create.pubname(), DEFINE);
                self.published(create.pubobjects());
            }
            Node::AlterPublicationStmt(alter) => {
                self.one("publication", alter.pubname(), DEFINE);
                self.published(alter.pubobjects());
            }
            Node::CreateSubscriptionStmt(create) => {
                self.one("subscription", create.subname(), DEFINE)
            }
            Node::AlterSubscriptionStmt(alter) => self.one("subscription", alter.subname(), DEFINE),
            Node::DropSubscriptionStmt(drop) => self.one("subscription", drop.subname(), DEFINE),
            Node::GrantStmt(grant) => self.grant(grant),
            Node::GrantRoleStmt(grant) => {
                for node in grant.granted_roles() {
                    let path = match node {
                        Node::AccessPriv(privilege) => privilege
                            .priv_name()
                            .map(str::to_owned)
                            .into_iter()
                            .collect(),
                        node => object_path(node),
                    };
                    self.thing("role", path, Actions::GRANT);
                }
                for node in grant.grantee_roles() {
                    self.thing("role", object_path(node), Actions::GRANT);
                }
            }
            Node::AlterDefaultPrivilegesStmt(_) => {
                self.thing("default privileges", Vec::new(), Actions::GRANT)
            }
            Node::VacuumStmt(vacuum) => {
                for relation in vacuum.rels() {
                    self.range("table", relation.relation(), Actions::CONTROL);
                }
            }
            Node::ClusterStmt(cluster) => self.range("table", cluster.relation(), Actions::CONTROL),
            Node::ReindexStmt(reindex) => self.range("table", reindex.relation(), Actions::CONTROL),
            Node::LockStmt(lock) => {
                for node in lock.relations() {
                    if let Node::RangeVar(range) = node {
                        self.range("table", Some(range), Actions::CONTROL);
                    }
                }
            }
            Node::Invalid(_) => {
                self.named_object("foreign table", Vec::new(), DEFINE, Labels::Unknown);
                self.gap("what a foreign table is made of is not followed");
            }
            Node::DoStmt(_) => self.named_object_unknown("code"),
            Node::LoadStmt(_) => self.named_object_unknown("library"),
            _ => {}
        }
    }

    fn named_object_unknown(&mut self, kind: &'static str) {
        self.named_object(kind, Vec::new(), Actions::EXECUTE, Labels::Unknown);
    }

    fn published(&mut self, objects: &NodeList) {
        for node in objects {
            if let Node::PublicationObjSpec(object) = node {
                match object.pubtable() {
                    Some(table) => {
                        self.range("table", table.relation(), Actions::READ | Actions::DEFINE)
                    }
                    None => self.one("schema", object.name(), Actions::READ | Actions::DEFINE),
                }
            }
        }
    }

    fn grant(&mut self, grant: &nodes::GrantStmt) {
        let (kind, _) = nouns(grant.objtype);
        let relations = matches!(
            grant.objtype,
            ObjectType::OBJECT_TABLE | ObjectType::OBJECT_SEQUENCE
        ) && grant.targtype == 0;
        if relations {
            for range in grant.objects() {
                self.range(kind, Some(range), Actions::GRANT);
            }
        } else {
            // The library hands these out as relations only: their names stay in the text.
            self.thing(kind, Vec::new(), Actions::GRANT);
        }
        for grantee in grant.grantees() {
            self.thing("role", vec![role(Some(grantee))], Actions::GRANT);
        }
    }
}

fn cast(list: &pg_raw_parse::list::CastNodeList<nodes::String>) -> Vec<String> {
    list.iter()
        .filter_map(nodes::String::sval)
        .map(str::to_owned)
        .collect()
}
