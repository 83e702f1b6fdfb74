//! The primary key of a table that pg2any makes.

use super::known::KnownTable;
use crate::change::{Relation, ReplicaIdentity};

/// The source's names of what rows are matched by, else of its primary key.
fn source_key(relation: &Relation) -> Vec<&str> {
    let identity: Vec<&str> = match relation.replica_identity {
        ReplicaIdentity::Default | ReplicaIdentity::Index => relation
            .identity_columns()
            .filter_map(|index| relation.columns.get(index))
            .map(|column| column.name.as_str())
            .collect(),
        ReplicaIdentity::Full | ReplicaIdentity::Nothing => Vec::new(),
    };
    if identity.is_empty() { relation.catalogue.primary_key.iter().map(String::as_str).collect() } else { identity }
}

/// The key's names at the destination. A key of which a column is not published is none.
pub(super) fn key_of(relation: &Relation, known: &KnownTable) -> Vec<String> {
    let target = |name: &&str| known.active().find(|column| column.name == **name).map(|column| column.target.clone());
    source_key(relation).iter().map(target).collect::<Option<_>>().unwrap_or_default()
}

/// The key that the table had, under its columns' names of now; empty when one of them is gone.
fn key_before(known: &KnownTable, after: &KnownTable) -> Vec<String> {
    let now = |target: &String| {
        let index = known.columns.iter().position(|column| column.target == *target)?;
        after.columns.get(index).filter(|column| !column.retained).map(|column| column.target.clone())
    };
    known.key.iter().map(now).collect::<Option<_>>().unwrap_or_default()
}

/// The key that a table should have now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum KeyAfter {
    /// This one.
    Certain(Vec<String>),
    /// `wanted` if the rows have values in its columns and no two the same, else `before`. Only the
    /// catalogue knows a key that is not the replica identity, and it may be ahead of rows that do
    /// not have it yet.
    IfDistinct { wanted: Vec<String>, before: Vec<String> },
}

/// Works out the key of a table that was `known` and is `after`.
pub(super) fn key_after(known: &KnownTable, relation: &Relation, after: &KnownTable) -> KeyAfter {
    if !known.created {
        return KeyAfter::Certain(known.key.clone());
    }
    let by_identity = !matches!(relation.replica_identity, ReplicaIdentity::Full | ReplicaIdentity::Nothing);
    if by_identity {
        return KeyAfter::Certain(key_of(relation, after));
    }
    let before = key_before(known, after);
    if !relation.catalogue.found {
        return KeyAfter::Certain(before);
    }
    let wanted = key_of(relation, after);
    if wanted == before || wanted.is_empty() {
        return KeyAfter::Certain(wanted);
    }
    KeyAfter::IfDistinct { wanted, before }
}
