//! What `pg_catalog` says about a relation when its version is new: one query over a connection beside the stream.
//!
//! The answer is *as of now*, later than the rows that follow when there is backlog; it is kept beside the Relation frame and
//! never asked again for the same bytes in the same session. A relation that was dropped since is `found: false`.

use serde::Deserialize;

use super::connection::Connection;
use super::error::SourceError;
use crate::change::{Catalogue, ColumnCatalogue, TypeInfo, TypeKind};

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

/// Asks for one relation; blocks.
///
/// # Errors
///
/// [`SourceError::Server`] when the query fails, [`SourceError::Internal`] when its answer cannot be read.
pub fn look_up(connection: &mut Connection, oid: u32) -> Result<Catalogue, SourceError> {
    const DOING: &str = "asking the source's catalogue about a relation";
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
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_a_catalogue() {
        let json = r#"{"file_node":16385,"estimated_rows":null,
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
        assert!(catalogue.found);
        assert_eq!(catalogue.columns[1].missing_value.as_deref(), Some("sad"));
        assert_eq!(catalogue.types[0].kind, TypeKind::Enum(vec!["sad".to_owned(), "ok".to_owned()]));
        assert_eq!(catalogue.types[1].kind, TypeKind::Array(16400));
        assert_eq!(catalogue.types[2].kind, TypeKind::Domain(1043, 9));
    }
}
