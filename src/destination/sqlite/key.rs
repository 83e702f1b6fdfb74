//! The primary key of a table that we make.

use rusqlite::Connection;

use super::error::failed;
use super::facts::TableFacts;
use super::names::quote;
use super::table::is_empty;
use crate::change::{Relation, ReplicaIdentity};
use crate::destination::DestinationError;

/// The names here of the primary key that a table gets: what rows are matched by, else the source's primary key.
pub(super) fn key_of(relation: &Relation, facts: &TableFacts) -> Vec<String> {
    let identity: Vec<&str> = match relation.replica_identity {
        ReplicaIdentity::Default | ReplicaIdentity::Index => relation
            .identity_columns()
            .filter_map(|index| relation.columns.get(index))
            .map(|c| c.name.as_str())
            .collect(),
        ReplicaIdentity::Full | ReplicaIdentity::Nothing => Vec::new(),
    };
    let names: Vec<&str> = if identity.is_empty() {
        relation.catalogue.primary_key.iter().map(String::as_str).collect()
    } else {
        identity
    };
    let targets: Vec<String> = names
        .iter()
        .filter_map(|name| facts.active().find(|column| column.name == **name))
        .map(|column| column.target.clone())
        .collect();
    // A key of which a column is not published is none.
    if targets.len() == names.len() { targets } else { Vec::new() }
}

/// The key that a table of ours should have now.
pub(super) fn key_after(
    connection: &Connection,
    known: &TableFacts,
    relation: &Relation,
    facts: &TableFacts,
) -> Result<Vec<String>, DestinationError> {
    if !known.created {
        return Ok(known.key.clone());
    }
    // The key that it had, under the names of now.
    let now = |target: &String| {
        let index = known.columns.iter().position(|column| column.target == *target)?;
        facts.columns.get(index).filter(|column| !column.kept).map(|column| column.target.clone())
    };
    let before = || known.key.iter().map(now).collect::<Option<_>>().unwrap_or_default();
    if !matches!(relation.replica_identity, ReplicaIdentity::Full | ReplicaIdentity::Nothing) {
        return Ok(key_of(relation, facts));
    }
    // Only the catalogue knows a key that is not the replica identity, and it may be ahead of rows that do not have it yet.
    if !relation.catalogue.found {
        return Ok(before());
    }
    let key = key_of(relation, facts);
    Ok(if key == before() || is_unique(connection, known, facts, &key)? { key } else { before() })
}

/// Whether the rows that are there, in the table as it was, have values in these columns (names of now) and no two the same.
fn is_unique(
    connection: &Connection,
    known: &TableFacts,
    facts: &TableFacts,
    key: &[String],
) -> Result<bool, DestinationError> {
    let was = |target: &String| {
        let index = facts.columns.iter().position(|column| column.target == *target)?;
        known.columns.get(index).map(|column| quote(&column.target))
    };
    let Some(columns) = key.iter().map(was).collect::<Option<Vec<_>>>() else {
        return is_empty(connection, &known.target);
    };
    if columns.is_empty() {
        return Ok(true);
    }
    let (list, nulls) = (columns.join(","), columns.join(" IS NULL OR "));
    let sql = format!(
        "SELECT NOT EXISTS (SELECT 1 FROM {} GROUP BY {list} HAVING count(*) > 1 OR {nulls} IS NULL)",
        quote(&known.target)
    );
    connection
        .query_row(&sql, [], |row| row.get(0))
        .map_err(|error| failed("looking for rows with the same key failed", error).table(&known.target))
}
