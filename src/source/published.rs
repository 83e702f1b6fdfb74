//! The published tables as the stream would announce them now, for `pg2any check`: a Relation
//! message comes only with a row.
//!
//! Covered by: `it::check`.

use std::sync::Arc;

use serde::Deserialize;

use super::catalogue::{self, Asker};
use super::connection::{Connection, ConnectionString, Session, literal};
use super::error::SourceError;
use super::options::SourceOptions;
use super::session;
use crate::change::{Column, Relation, RelationVersion, ReplicaIdentity};

/// One line a table, in the order of their names; `{sent}` says which columns rows carry.
const TABLES: &str = r"
SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
    'oid', c.oid::bigint, 'schema', n.nspname, 'name', c.relname, 'identity', c.relreplident,
    'columns', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', a.attname, 'type', a.atttypid::bigint, 'modifier', a.atttypmod,
        'in_identity', c.relreplident = 'f' OR EXISTS (SELECT FROM pg_catalog.pg_index i
          WHERE i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
            AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END))
        ORDER BY a.attnum), '[]')
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND {sent}))
    ORDER BY n.nspname, c.relname), '[]')::text
FROM (SELECT DISTINCT ON (schemaname, tablename) * FROM pg_catalog.pg_publication_tables WHERE pubname IN ({publications})) v
JOIN pg_catalog.pg_namespace n ON n.nspname = v.schemaname
JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = v.tablename";

#[derive(Deserialize)]
struct Table {
    oid: u32,
    schema: String,
    name: String,
    identity: char,
    columns: Vec<TableColumn>,
}

#[derive(Deserialize)]
struct TableColumn {
    name: String,
    #[serde(rename = "type")]
    type_oid: u32,
    modifier: i32,
    in_identity: bool,
}

/// Asks for every published table; blocks. Whether they have rows is not asked.
///
/// # Errors
///
/// [`SourceError`] when the source cannot be asked.
pub fn published_relations(options: &SourceOptions) -> Result<Vec<Arc<Relation>>, SourceError> {
    let string = ConnectionString::parse(options.connection_string.expose())?;
    let mut connection = session::connect(&string, Session::Sql, options.connect_timeout)?;
    catalogue::prepare(&mut connection, options)?;
    let tables = tables(&mut connection, options)?;
    let relations = tables.into_iter().zip(1..).map(|(table, version)| {
        let asker = Asker { xid: 0, committed: false, first: false };
        let mut catalogue = catalogue::look_up(&mut connection, &options.slot, table.oid, asker)?.catalogue;
        catalogue.estimated_rows = None;
        let column = |TableColumn { name, type_oid, modifier, in_identity }| Column {
            name,
            in_identity,
            type_oid,
            type_modifier: modifier,
        };
        Ok(Arc::new(Relation {
            version: RelationVersion(version),
            oid: table.oid,
            schema: table.schema,
            name: table.name,
            replica_identity: match table.identity {
                'n' => ReplicaIdentity::Nothing,
                'f' => ReplicaIdentity::Full,
                'i' => ReplicaIdentity::Index,
                _ => ReplicaIdentity::Default,
            },
            columns: table.columns.into_iter().map(column).collect(),
            catalogue,
        }))
    });
    relations.collect()
}

fn tables(connection: &mut Connection, options: &SourceOptions) -> Result<Vec<Table>, SourceError> {
    const DOING: &str = "asking the source for the published tables";
    let publications: Vec<String> = options.publications.iter().map(|name| literal(name)).collect();
    // The view lists generated columns before 18, which does not send them.
    let sent = match connection.version() {
        180_000.. => "a.attname = ANY (v.attnames)",
        150_000.. => "a.attname = ANY (v.attnames) AND a.attgenerated = ''",
        _ => "a.attgenerated = ''",
    };
    let sql = TABLES.replace("{sent}", sent).replace("{publications}", &publications.join(", "));
    let json = connection.one(DOING, &sql)?.unwrap_or_default();
    serde_json::from_str(&json)
        .map_err(|cause| SourceError::Internal { doing: DOING, cause: std::io::Error::other(cause) })
}
