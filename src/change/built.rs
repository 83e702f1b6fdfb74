//! Frames and relations built by hand, for tests.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::change::{Catalogue, Column, ColumnCatalogue, Relation, RelationVersion, ReplicaIdentity};

/// A command: its frame and its relations.
pub type Built = (Vec<u8>, Vec<Arc<Relation>>);
/// A row's cells: a text, `None` for NULL, `Some("\0u")` for unchanged.
pub type Cells<'a> = &'a [Option<&'a str>];

/// What stands for a value that was not sent.
pub const UNCHANGED: Option<&str> = Some("\0u");

static VERSION: AtomicU32 = AtomicU32::new(1);

/// Builds a relation; every built one has a version of its own.
#[derive(Clone)]
pub struct TableBuilder(Relation);

/// A table `public.<name>` with these columns (name and type OID), whose key is the first column.
pub fn table(name: &str, columns: &[(&str, u32)]) -> TableBuilder {
    let columns: Vec<Column> = columns
        .iter()
        .enumerate()
        .map(|(index, (name, oid))| Column {
            name: (*name).to_owned(),
            in_identity: index == 0,
            type_oid: *oid,
            type_modifier: -1,
        })
        .collect();
    let known = columns
        .iter()
        .zip(1..)
        .map(|(column, attnum)| ColumnCatalogue {
            name: column.name.clone(),
            attnum,
            not_null: column.in_identity,
            default_expression: None,
            missing_value: None,
            generated: false,
            type_oid: 0,
            type_modifier: -1,
            changed_by: 0,
        })
        .collect();
    let key = columns.iter().take(1).map(|column| column.name.clone()).collect();
    TableBuilder(Relation {
        version: RelationVersion(0),
        oid: 16384,
        schema: "public".to_owned(),
        name: name.to_owned(),
        replica_identity: ReplicaIdentity::Default,
        columns,
        catalogue: Catalogue { found: true, columns: known, primary_key: key, file_node: 1, ..Catalogue::default() },
    })
}

impl TableBuilder {
    /// Any other detail.
    pub fn with(mut self, change: impl FnOnce(&mut Relation)) -> Self {
        change(&mut self.0);
        self
    }

    /// Another OID.
    pub fn oid(self, oid: u32) -> Self {
        self.with(|relation| relation.oid = oid)
    }

    /// Another key.
    pub fn key(self, names: &[&str]) -> Self {
        self.with(|relation| {
            for column in &mut relation.columns {
                column.in_identity = names.contains(&column.name.as_str());
            }
            relation.catalogue.primary_key = names.iter().map(|name| (*name).to_owned()).collect();
        })
    }

    /// `REPLICA IDENTITY FULL`.
    pub fn full(self) -> Self {
        self.with(|relation| {
            relation.replica_identity = ReplicaIdentity::Full;
            relation.columns.iter_mut().for_each(|column| column.in_identity = true);
        })
    }

    /// No primary key.
    pub fn keyless(self) -> Self {
        self.key(&[])
    }

    /// The relation, as a new version.
    pub fn build(self) -> Arc<Relation> {
        let mut relation = self.0;
        relation.version = RelationVersion(VERSION.fetch_add(1, Ordering::Relaxed));
        Arc::new(relation)
    }
}

fn row(frame: &mut Vec<u8>, cells: Cells<'_>) {
    frame.extend(u16::try_from(cells.len()).unwrap().to_be_bytes());
    for cell in cells {
        match *cell {
            None => frame.push(b'n'),
            UNCHANGED => frame.push(b'u'),
            Some(text) => {
                frame.push(b't');
                frame.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                frame.extend(text.as_bytes());
            }
        }
    }
}

fn start(tag: u8, relation: &Relation) -> Vec<u8> {
    let mut frame = vec![tag];
    frame.extend(relation.oid.to_be_bytes());
    frame
}

pub fn insert(relation: &Arc<Relation>, new: Cells<'_>) -> Built {
    let mut frame = start(b'I', relation);
    frame.push(b'N');
    row(&mut frame, new);
    (frame, vec![Arc::clone(relation)])
}

/// An UPDATE without an old row.
pub fn update(relation: &Arc<Relation>, new: Cells<'_>) -> Built {
    let mut frame = start(b'U', relation);
    frame.push(b'N');
    row(&mut frame, new);
    (frame, vec![Arc::clone(relation)])
}

fn kind(relation: &Relation) -> u8 {
    if relation.replica_identity == ReplicaIdentity::Full { b'O' } else { b'K' }
}

/// An UPDATE with its old row or key.
pub fn update_from(relation: &Arc<Relation>, old: Cells<'_>, new: Cells<'_>) -> Built {
    let mut frame = start(b'U', relation);
    frame.push(kind(relation));
    row(&mut frame, old);
    frame.push(b'N');
    row(&mut frame, new);
    (frame, vec![Arc::clone(relation)])
}

pub fn delete(relation: &Arc<Relation>, old: Cells<'_>) -> Built {
    let mut frame = start(b'D', relation);
    frame.push(kind(relation));
    row(&mut frame, old);
    (frame, vec![Arc::clone(relation)])
}

pub fn truncate(relations: &[&Arc<Relation>]) -> Built {
    let mut frame = vec![b'T'];
    frame.extend(u32::try_from(relations.len()).unwrap().to_be_bytes());
    frame.push(0);
    for relation in relations {
        frame.extend(relation.oid.to_be_bytes());
    }
    (frame, relations.iter().map(|relation| Arc::clone(relation)).collect())
}
