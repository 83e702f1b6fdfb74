//! What `pg_catalog` says about a relation when its version is new: one query over a connection beside the stream.
//!
//! The answer is *as of now*, later than the rows that follow when there is backlog; it is kept beside the Relation frame and
//! never changed. A relation that was dropped since is `found: false`; so is, or shows its old shape, one whose new shape is
//! not committed yet (in a streamed transaction that is still open, or a prepared one).

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::connection::Connection;
use super::error::SourceError;
use crate::change::{Catalogue, ColumnCatalogue, TypeInfo, TypeKind};
use crate::position::Xid;

/// The whole answer as one JSON value: one round trip, one plan. `{oid}` is replaced by a number.
///
/// A missing value is an array of one element of the column's type; reading its text as `text[]` takes the array's quoting off
/// and leaves the element as its type prints it.
const QUERY: &str = r"
WITH RECURSIVE relation AS (
  SELECT c.oid, c.reltuples, pg_catalog.pg_relation_filenode(c.oid) AS file_node
  FROM pg_catalog.pg_class c WHERE c.oid = {oid}
), columns AS (
  SELECT a.* FROM pg_catalog.pg_attribute a JOIN relation r ON a.attrelid = r.oid WHERE a.attnum > 0 AND NOT a.attisdropped
), types(oid) AS (
  SELECT DISTINCT atttypid FROM columns
  UNION
  SELECT CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END
  FROM types s JOIN pg_catalog.pg_type t ON t.oid = s.oid
  WHERE t.typtype = 'd' OR (t.typcategory = 'A' AND t.typelem <> 0)
)
SELECT pg_catalog.json_build_object(
  'file_node', COALESCE(r.file_node, 0)::bigint,
  'estimated_rows', CASE WHEN r.reltuples > 0 THEN r.reltuples::bigint END,
  'column_list', EXISTS (SELECT FROM pg_catalog.pg_publication_rel p
    WHERE p.prrelid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(r.oid) UNION SELECT r.oid)
      AND pg_catalog.to_jsonb(p) ->> 'prattrs' IS NOT NULL),
  'columns', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', a.attname, 'number', a.attnum, 'not_null', a.attnotnull, 'generated', a.attgenerated <> '',
      'type', a.atttypid::bigint, 'modifier', a.atttypmod,
      'default', CASE WHEN a.attidentity <> '' THEN 'GENERATED AS IDENTITY'
        WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END,
      'missing', CASE WHEN a.atthasmissing THEN (a.attmissingval::text::text[])[1] END) ORDER BY a.attnum), '[]')
    FROM columns a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum),
  'primary_key', (SELECT COALESCE(pg_catalog.json_agg(a.attname ORDER BY k.position), '[]')
    FROM pg_catalog.pg_index i
    CROSS JOIN LATERAL pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY AS k(attnum, position)
    JOIN columns a ON a.attnum = k.attnum
    WHERE i.indrelid = r.oid AND i.indisprimary AND k.position <= i.indnkeyatts),
  'types', (SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object(
      'oid', t.oid::bigint, 'schema', n.nspname, 'name', t.typname, 'kind', t.typtype, 'category', t.typcategory,
      'element', t.typelem::bigint, 'base', t.typbasetype::bigint, 'modifier', t.typtypmod,
      'labels', (SELECT pg_catalog.json_agg(e.enumlabel ORDER BY e.enumsortorder)
        FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)) ORDER BY t.oid), '[]')
    FROM types s JOIN pg_catalog.pg_type t ON t.oid = s.oid JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE t.oid >= 16384 OR t.typtype <> 'b' OR (t.typcategory = 'A' AND t.typelem <> 0))
)::text
FROM relation r";

#[derive(Deserialize)]
struct Answer {
    file_node: u32,
    estimated_rows: Option<u64>,
    column_list: bool,
    columns: Vec<AnswerColumn>,
    primary_key: Vec<String>,
    types: Vec<AnswerType>,
}

#[derive(Deserialize)]
struct AnswerColumn {
    name: String,
    number: i16,
    #[serde(rename = "type")]
    type_oid: u32,
    modifier: i32,
    not_null: bool,
    generated: bool,
    default: Option<String>,
    missing: Option<String>,
}

#[derive(Deserialize)]
struct AnswerType {
    oid: u32,
    schema: String,
    name: String,
    kind: char,
    category: char,
    element: u32,
    base: u32,
    modifier: i32,
    labels: Option<Vec<String>>,
}

/// Whether a transaction's changes can be seen. `{xid}` is replaced by its number, which has 32 bits: the one nearest to
/// the snapshot's end is meant.
const VISIBLE: &str = "
SELECT pg_catalog.txid_visible_in_snapshot(e.xmax + d.distance - CASE WHEN d.distance >= 2147483648 THEN 4294967296 ELSE 0 END, s.now)
FROM (SELECT pg_catalog.txid_current_snapshot() AS now) s,
  LATERAL (SELECT pg_catalog.txid_snapshot_xmax(s.now) AS xmax) e,
  LATERAL (SELECT (({xid} - e.xmax) % 4294967296 + 4294967296) % 4294967296 AS distance) d";

/// How long a committed transaction's changes are waited for. Milliseconds are usual; a synchronous standby can take longer,
/// and might be us.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);

/// Waits until a transaction whose COMMIT is in the log can be seen: a backend writes the log first, the walsender may be
/// here before the backend has left the list of running transactions, and the catalogue would show what was before.
fn wait_until_visible(connection: &mut Connection, xid: Xid) -> Result<(), SourceError> {
    const DOING: &str = "asking the source whether a transaction can be seen";
    let query = VISIBLE.replace("{xid}", &xid.to_string());
    let (started, mut pause) = (Instant::now(), Duration::from_millis(1));
    while connection.one(DOING, &query)?.as_deref() != Some("t") {
        if started.elapsed() >= VISIBLE_WITHIN {
            tracing::warn!(
                xid,
                "a committed transaction cannot be seen yet (a synchronous standby?): the catalogue may be older than its rows"
            );
            break;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
    Ok(())
}

/// Asks for one relation, once the changes of transaction `committed` can be seen; blocks.
///
/// # Errors
///
/// [`SourceError::Server`] when the query fails, [`SourceError::Internal`] when its answer cannot be read.
pub fn look_up(connection: &mut Connection, oid: u32, committed: Option<Xid>) -> Result<Catalogue, SourceError> {
    const DOING: &str = "asking the source's catalogue about a relation";
    if let Some(xid) = committed {
        wait_until_visible(connection, xid)?;
    }
    match connection.one(DOING, &QUERY.replace("{oid}", &oid.to_string()))? {
        None => Ok(Catalogue::default()),
        Some(json) => read(&json)
            .map_err(|cause| SourceError::Internal { doing: DOING, cause: std::io::Error::other(cause.to_string()) }),
    }
}

fn read(json: &str) -> Result<Catalogue, serde_json::Error> {
    let answer: Answer = serde_json::from_str(json)?;
    let types = answer.types.into_iter().map(|info| {
        let kind = match info.kind {
            'd' => TypeKind::Domain(info.base, info.modifier),
            'e' => TypeKind::Enum(info.labels.unwrap_or_default()),
            'c' => TypeKind::Composite,
            'r' => TypeKind::Range,
            'm' => TypeKind::Multirange,
            _ if info.category == 'A' && info.element != 0 => TypeKind::Array(info.element),
            _ => TypeKind::Base,
        };
        TypeInfo { oid: info.oid, schema: info.schema, name: info.name, kind }
    });
    let columns = answer.columns.into_iter().map(|column| ColumnCatalogue {
        name: column.name,
        attribute_number: column.number,
        not_null: column.not_null,
        default_expression: column.default,
        missing_value: column.missing,
        generated: column.generated,
        type_oid: column.type_oid,
        type_modifier: column.modifier,
    });
    Ok(Catalogue {
        found: true,
        columns: columns.collect(),
        primary_key: answer.primary_key,
        types: types.collect(),
        file_node: answer.file_node,
        estimated_rows: answer.estimated_rows,
        column_list: answer.column_list,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_a_catalogue() {
        let json = r#"{"file_node":16385,"estimated_rows":null,"column_list":true,
            "columns":[{"name":"id","number":1,"type":23,"modifier":-1,"not_null":true,"generated":false,"default":null,"missing":null},
                       {"name":"m","number":3,"type":16400,"modifier":-1,"not_null":false,"generated":false,"default":"'sad'::mood","missing":"sad"}],
            "primary_key":["id"],
            "types":[{"oid":16400,"schema":"public","name":"mood","kind":"e","category":"E","element":0,"base":0,
                      "modifier":-1,"labels":["sad","ok"]},
                     {"oid":16402,"schema":"public","name":"_mood","kind":"b","category":"A","element":16400,"base":0,
                      "modifier":-1,"labels":null},
                     {"oid":16410,"schema":"public","name":"d","kind":"d","category":"S","element":0,"base":1043,
                      "modifier":9,"labels":null}]}"#;
        let catalogue = read(json).unwrap();
        assert!(catalogue.found && catalogue.column_list);
        assert_eq!(catalogue.columns[1].missing_value.as_deref(), Some("sad"));
        assert_eq!(catalogue.types[0].kind, TypeKind::Enum(vec!["sad".to_owned(), "ok".to_owned()]));
        assert_eq!(catalogue.types[1].kind, TypeKind::Array(16400));
        assert_eq!(catalogue.types[2].kind, TypeKind::Domain(1043, 9));
    }
}
