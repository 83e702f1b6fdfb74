//! What `pg_catalog` says about a relation when its version is new: one query over a connection
//! beside the stream.
//!
//! The answer is *as of now*, later than the rows that follow when there is backlog; it is kept
//! beside the Relation frame and never changed. A relation that was dropped since is `found:
//! false`; so is, or shows its old shape, one whose new shape is not committed yet (in a streamed
//! transaction that is still open, or a prepared one).
//!
//! **What came first, the rows or the change?** Whoever changes a table locks it against writers
//! until the end of their transaction, so a change is before all rows of a transaction or behind
//! all of them (or in it). A change by a transaction that is older than the slot's `catalog_xmin`
//! is before every row that is still to be sent: what it left behind may be vacuumed away, so
//! decoding does without. A change that can be seen while the rows' transaction has not committed
//! is before them as well. Of any other column that was dropped it is not known, and the answer
//! names it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::connection::{Connection, literal};
use super::error::SourceError;
use super::options::SourceOptions;
use crate::change::{Catalogue, ColumnCatalogue, DroppedColumn, TypeInfo, TypeKind};
use crate::position::{Lsn, Xid};

/// The whole answer as one JSON value: one round trip, planned once a session (half of the 2 ms
/// that a question takes otherwise).
const QUERY: &str = include_str!("catalogue.sql");

#[derive(Deserialize)]
struct Answer {
    file_node: u32,
    unlogged: bool,
    estimated_rows: Option<u64>,
    column_list: bool,
    position: String,
    dropped: Vec<AnswerDropped>,
    published_by: Vec<u32>,
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
    changed: u32,
    not_null: bool,
    generated: bool,
    default: Option<String>,
    missing: Option<String>,
}

#[derive(Deserialize)]
struct AnswerDropped {
    number: i16,
    twins: Vec<i16>,
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
    attributes: Option<BTreeMap<i16, String>>,
}

/// Added to it where there is such a thing.
const SCHEMAS: &str = r"UNION ALL SELECT n.oid FROM pg_catalog.pg_publication_namespace n
      JOIN pg_catalog.pg_publication p ON p.oid = n.pnpubid JOIN pg_catalog.pg_class c ON c.relnamespace = n.pnnspid
      WHERE p.pubname IN ({publications}) AND c.oid IN (SELECT relid FROM pg_catalog.pg_partition_ancestors(r.oid) UNION SELECT r.oid)";

/// Whether a transaction's changes can be seen. `{xid}` is replaced by its number, which has 32
/// bits: the one nearest to the snapshot's end is meant.
const VISIBLE: &str = "
SELECT pg_catalog.txid_visible_in_snapshot(e.xmax + d.distance - CASE WHEN d.distance >= 2147483648 THEN 4294967296 ELSE 0 END, s.now)
FROM (SELECT pg_catalog.txid_current_snapshot() AS now) s,
  LATERAL (SELECT pg_catalog.txid_snapshot_xmax(s.now) AS xmax) e,
  LATERAL (SELECT (({xid} - e.xmax) % 4294967296 + 4294967296) % 4294967296 AS distance) d";

/// How long a committed transaction's changes are waited for. Milliseconds are usual; a synchronous
/// standby can take longer, and might be us.
const VISIBLE_WITHIN: Duration = Duration::from_secs(2);

/// The transaction that a relation was announced in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) xid: Xid,
    /// It has committed: what it did to the catalogue can be seen, or will be in a moment.
    pub(crate) committed: bool,
    /// Nothing was known of the relation before.
    pub(crate) first: bool,
}

/// What the catalogue says, and how much of the log there was by then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) catalogue: Catalogue,
    /// Whatever commits behind this was not seen.
    pub(crate) position: Lsn,
    /// The asking transaction could not be seen: what it did to the relation is not in the answer.
    pub(crate) early: bool,
}

fn is_visible(connection: &mut Connection, xid: Xid) -> Result<bool, SourceError> {
    const DOING: &str = "asking the source whether a transaction can be seen";
    Ok(connection.one(DOING, &VISIBLE.replace("{xid}", &xid.to_string()))?.as_deref() == Some("t"))
}

/// Waits until a transaction whose COMMIT is in the log can be seen: a backend writes the log
/// first, the walsender may be here before the backend has left the list of running transactions,
/// and the catalogue would show what was before.
fn wait_until_visible(connection: &mut Connection, xid: Xid) -> Result<(), SourceError> {
    let (started, mut pause) = (Instant::now(), Duration::from_millis(1));
    while !is_visible(connection, xid)? {
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

const DOING: &str = "asking the source's catalogue about a relation";

/// To be called once for each connection before [`look_up`]; blocks.
pub(crate) fn prepare(connection: &mut Connection, options: &SourceOptions) -> Result<(), SourceError> {
    let publications: Vec<String> = options.publications.iter().map(|name| literal(name)).collect();
    let query = QUERY
        .replace("{schemas}", if connection.version() >= 150_000 { SCHEMAS } else { "" })
        .replace("{publications}", &publications.join(","))
        .replace("{slot}", &literal(&options.slot));
    connection.exec(DOING, "SET plan_cache_mode = force_generic_plan")?;
    connection.exec(DOING, &format!("PREPARE pg2any_relation(oid) AS {query}"))?;
    Ok(())
}

/// Asks for one relation, once the changes of the asking transaction can be seen if it has
/// committed; blocks.
///
/// # Errors
///
/// [`SourceError::Server`] when the query fails, [`SourceError::Internal`] when its answer cannot
/// be read.
pub(crate) fn look_up(
    connection: &mut Connection,
    slot: &str,
    oid: u32,
    asker: Asker,
) -> Result<Answered, SourceError> {
    let mut early = false;
    if asker.committed {
        wait_until_visible(connection, asker.xid)?;
    } else {
        early = !is_visible(connection, asker.xid)?;
    }
    let Some(json) = connection.one(DOING, &format!("EXECUTE pg2any_relation({oid})"))? else {
        return Ok(Answered { early, ..Answered::default() });
    };
    let mut answered = read(&json)
        .map_err(|cause| SourceError::Internal { doing: DOING, cause: std::io::Error::other(cause.to_string()) })?;
    answered.early = early;
    if asker.first
        && let Some(rows) = rows_before(connection, slot, oid)?
    {
        let estimated = answered.catalogue.estimated_rows.unwrap_or_default();
        answered.catalogue.estimated_rows = (rows > 0).then_some(rows.max(estimated));
    }
    if early && !answered.catalogue.dropped.is_empty() && !is_visible(connection, asker.xid)? {
        answered.catalogue.dropped.clear();
    }
    Ok(answered)
}

/// How many rows at the table's beginning are older than everything that is still to be sent;
/// `None` where that cannot be told: the planner's estimate is all there is then, and it has none
/// before the table is analysed. Waits for no lock, and not for long.
fn rows_before(connection: &mut Connection, slot: &str, oid: u32) -> Result<Option<u64>, SourceError> {
    const DOING: &str = "looking for rows that were there before";
    let name = format!(
        "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c WHERE c.oid = {oid} \
         AND pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')"
    );
    let Some(table) = connection.one(DOING, &name)? else { return Ok(None) };
    connection.exec(DOING, "SET lock_timeout = '100ms'; SET statement_timeout = '2s'")?;
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM {table} t, pg_catalog.pg_replication_slots s WHERE s.slot_name = {} \
         AND t.ctid < '(1000,0)' AND (pg_catalog.age(t.xmin) > pg_catalog.age(s.catalog_xmin) OR pg_catalog.age(t.xmin) < 0)",
        literal(slot)
    );
    let rows = match connection.one(DOING, &sql) {
        Ok(rows) => rows.and_then(|rows| rows.parse().ok()),
        Err(error) if error.sqlstate().is_some() => {
            tracing::debug!(table, %error, "could not look for rows that were there before");
            None
        }
        Err(error) => return Err(error),
    };
    connection.exec(DOING, "SET lock_timeout = 0; SET statement_timeout = 0")?;
    Ok(rows)
}

fn read(json: &str) -> Result<Answered, serde_json::Error> {
    let answer: Answer = serde_json::from_str(json)?;
    let types = answer.types.into_iter().map(|info| {
        let kind = match info.kind {
            'd' => TypeKind::Domain(info.base, info.modifier),
            'e' => TypeKind::Enum(info.labels.unwrap_or_default()),
            'c' => TypeKind::Composite(info.attributes.unwrap_or_default()),
            'r' => TypeKind::Range,
            'm' => TypeKind::Multirange,
            _ if info.category == 'A' && info.element != 0 => TypeKind::Array(info.element),
            _ => TypeKind::Base,
        };
        TypeInfo { oid: info.oid, schema: info.schema, name: info.name, kind }
    });
    let columns = answer.columns.into_iter().map(|column| ColumnCatalogue {
        name: column.name,
        attnum: column.number,
        not_null: column.not_null,
        default_expression: column.default,
        missing_value: column.missing,
        generated: column.generated,
        type_oid: column.type_oid,
        type_modifier: column.modifier,
        changed_by: column.changed,
    });
    let dropped = answer.dropped.into_iter().map(|column| DroppedColumn { attnum: column.number, twins: column.twins });
    let catalogue = Catalogue {
        found: true,
        columns: columns.collect(),
        primary_key: answer.primary_key,
        types: types.collect(),
        file_node: answer.file_node,
        estimated_rows: answer.estimated_rows,
        column_list: answer.column_list,
        dropped: dropped.collect(),
        asked_for: None,
        undecided: false,
        unlogged: answer.unlogged,
        published_by: answer.published_by,
    };
    let position = answer.position.parse().map_err(serde::de::Error::custom)?;
    Ok(Answered { catalogue, position, early: false })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_a_catalogue() {
        let json = r#"{"file_node":16385,"unlogged":false,"estimated_rows":null,"column_list":true,
            "position":"0/10","published_by":[16500],"dropped":[{"number":2,"twins":[3]}],
            "columns":[{"name":"id","number":1,"type":23,"modifier":-1,"changed":700,"not_null":true,"generated":false,"default":null,"missing":null},
                       {"name":"m","number":3,"type":16400,"modifier":-1,"changed":700,"not_null":false,"generated":false,"default":"'sad'::mood","missing":"sad"}],
            "primary_key":["id"],
            "types":[{"oid":16400,"schema":"public","name":"mood","kind":"e","category":"E","element":0,"base":0,
                      "modifier":-1,"labels":["sad","ok"]},
                     {"oid":16402,"schema":"public","name":"_mood","kind":"b","category":"A","element":16400,"base":0,
                      "modifier":-1,"labels":null},
                     {"oid":16410,"schema":"public","name":"d","kind":"d","category":"S","element":0,"base":1043,
                      "modifier":9,"labels":null},
                     {"oid":16420,"schema":"public","name":"pair","kind":"c","category":"C","element":0,"base":0,
                      "modifier":-1,"labels":null,"attributes":{"1":"a","3":"c"}}]}"#;
        let Answered { catalogue, position, .. } = read(json).unwrap();
        assert_eq!(position, Lsn(16));
        assert_eq!(catalogue.dropped, [DroppedColumn { attnum: 2, twins: vec![3] }]);
        assert!(catalogue.found && catalogue.column_list);
        assert_eq!(catalogue.columns[1].missing_value.as_deref(), Some("sad"));
        assert_eq!(catalogue.types[0].kind, TypeKind::Enum(vec!["sad".to_owned(), "ok".to_owned()]));
        assert_eq!(catalogue.types[1].kind, TypeKind::Array(16400));
        assert_eq!(catalogue.types[2].kind, TypeKind::Domain(1043, 9));
        let attributes = [(1, "a".to_owned()), (3, "c".to_owned())];
        assert_eq!(catalogue.types[3].kind, TypeKind::Composite(attributes.into()));
    }
}
