//! The shape of a table at one moment: what a Relation message says, and what the catalogue said
//! beside it.
//!
//! A Relation message has names, type OIDs and the replica identity, but no attribute numbers,
//! defaults, nullability, enum labels or primary key. Those are asked of the catalogue when a
//! version is new, and are true *as of then*, which may be later than the rows that follow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::frame::{DecodeError, FrameReader};
use crate::position::Lsn;

/// Names one version of one relation inside one spool; numbered from 1 in the order of arrival.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RelationVersion(pub u32);

/// `REPLICA IDENTITY` of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaIdentity {
    /// The primary key, if there is one.
    Default,
    /// Nothing: updates and deletes carry no old row.
    Nothing,
    /// The whole old row.
    Full,
    /// The columns of a chosen unique index.
    Index,
}

/// One column as the Relation message and the catalogue describe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// The column's name.
    pub name: String,
    /// Whether the column is part of the replica identity (under FULL: every column).
    pub in_identity: bool,
    /// The type's OID in `pg_type`.
    pub type_oid: u32,
    /// `atttypmod`; -1 when the type has none.
    pub type_modifier: i32,
}

/// One version of a relation, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Which version this is.
    pub version: RelationVersion,
    /// `pg_class.oid`.
    pub oid: u32,
    /// The schema; the protocol sends an empty one for `pg_catalog`, spelled out here.
    pub schema: String,
    /// The table's name.
    pub name: String,
    /// What identifies an old row.
    pub replica_identity: ReplicaIdentity,
    /// The published columns in the order in which rows carry them.
    pub columns: Vec<Column>,
    /// What the catalogue said when the version was new.
    pub catalogue: Catalogue,
}

/// A relation version as the spool keeps it: the bytes that PostgreSQL sent, and the catalogue's
/// answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelationRecord {
    /// The Relation frame, tag included, without a streamed transaction's xid.
    #[serde(with = "serde_bytes")]
    pub frame: Vec<u8>,
    /// The catalogue's answer.
    pub catalogue: Catalogue,
}

/// What `pg_catalog` said about a relation when its version was new (*as of then*).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Whether the catalogue still knew the relation (it may have been dropped since its rows were
    /// written).
    pub found: bool,
    /// The published columns that the catalogue knew, by name.
    pub columns: Vec<ColumnCatalogue>,
    /// The primary key's columns in index order; empty when there is none.
    pub primary_key: Vec<String>,
    /// Every type used by a column that is not a plain built-in one, and the types these stand on.
    pub types: Vec<TypeInfo>,
    /// `pg_relation_filenode`; 0 when unknown. Of a version that the spool keeps it is the first
    /// node of its line: a file that the table got without a change of its shape (TRUNCATE, VACUUM
    /// FULL, CLUSTER) counts as that one.
    pub file_node: u32,
    /// About how many rows the table had before the first one was seen; `None`: none, as far as the
    /// source says.
    pub estimated_rows: Option<u64>,
    /// A publication shows only some of its columns (a column list).
    #[serde(default)]
    pub column_list: bool,
    /// Columns that are gone by now, and of which the rows that follow the version may still have
    /// had one.
    #[serde(default)]
    pub dropped: Vec<DroppedColumn>,
    /// Tells the version's message from others, when the answer named such columns: the same answer
    /// to another message may hide a column that was dropped between the two and added again.
    /// Without any in `dropped`: the answer to that message turned out to be true for its first
    /// row. The transaction's position, and how many messages the session had before; `None`
    /// otherwise.
    #[serde(default)]
    pub asked_for: Option<(Lsn, u64)>,
    /// It was asked for a transaction that was prepared and not decided: what that did to the
    /// relation is not in the answer.
    #[serde(default)]
    pub undecided: bool,
    /// The table was UNLOGGED (`relpersistence`): what is written to it then is not sent.
    #[serde(default)]
    pub unlogged: bool,
    /// The entries of `pg_publication_rel`, `pg_publication_namespace` and `pg_publication` by
    /// which it is published: others mean that it was taken out of the publication and added again.
    #[serde(default)]
    pub published_by: Vec<u32>,
}

/// A column that was dropped so late that the rows of a version may have been written before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedColumn {
    /// Its `attnum`.
    pub attnum: i16,
    /// The `attnum` of the columns that came later and are alike in length, alignment and modifier:
    /// under the same name they cannot be told from it.
    pub twins: Vec<i16>,
}

/// What `pg_attribute` said about a column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnCatalogue {
    /// The column's name at that moment.
    pub name: String,
    /// `attnum`: the same number under another name is a rename.
    pub attnum: i16,
    /// `NOT NULL`.
    pub not_null: bool,
    /// The expression of `DEFAULT`, as `pg_get_expr` prints it; for an identity column `GENERATED
    /// AS IDENTITY`.
    pub default_expression: Option<String>,
    /// The value that rows older than the column have (`attmissingval`), as the type's text.
    pub missing_value: Option<String>,
    /// `GENERATED ALWAYS AS (…) STORED`.
    pub generated: bool,
    /// The type at that moment: another one than the Relation message's means that the catalogue's
    /// answer is younger than a change of the type. 0 when it was not asked for.
    #[serde(default)]
    pub type_oid: u32,
    /// `atttypmod` at that moment.
    #[serde(default)]
    pub type_modifier: i32,
    /// The transaction that last changed what the catalogue says of the column (`xmin`); 0 when it
    /// was not asked for.
    #[serde(default)]
    pub changed_by: u32,
}

/// A type that is not a plain built-in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeInfo {
    /// `pg_type.oid`.
    pub oid: u32,
    /// The type's schema.
    pub schema: String,
    /// The type's name.
    pub name: String,
    /// What kind of type it is.
    pub kind: TypeKind,
}

/// `pg_type.typtype`, with what is needed to find the type below.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TypeKind {
    /// A base type of an extension (hstore, citext, …).
    Base,
    /// An array of the type with this OID.
    Array(u32),
    /// A domain over the type with this OID and modifier.
    Domain(u32, i32),
    /// An enum and its labels in order.
    Enum(Vec<String>),
    /// A row type and its attributes by their numbers.
    Composite(BTreeMap<i16, String>),
    /// A range.
    Range,
    /// A multirange.
    Multirange,
}

impl Relation {
    /// Decodes a Relation frame: `'R' | oid u32 | schema cstr | name cstr | identity u8 | n u16 | n
    /// × (flags u8 | name cstr | type u32 | modifier i32)`.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when the bytes are not such a frame.
    pub fn decode(version: RelationVersion, record: &RelationRecord) -> Result<Self, DecodeError> {
        let mut reader = FrameReader::new(&record.frame);
        reader.tag(b'R')?;
        let oid = reader.u32()?;
        let schema = reader.text()?;
        let name = reader.text()?;
        let replica_identity = match reader.u8()? {
            b'd' => ReplicaIdentity::Default,
            b'n' => ReplicaIdentity::Nothing,
            b'f' => ReplicaIdentity::Full,
            b'i' => ReplicaIdentity::Index,
            other => return Err(DecodeError::Unknown { what: "replica identity", byte: other }),
        };
        let count = reader.u16()?;
        let mut columns = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let flags = reader.u8()?;
            columns.push(Column {
                in_identity: flags & 1 != 0,
                name: reader.text()?.to_owned(),
                type_oid: reader.u32()?,
                type_modifier: reader.u32()?.cast_signed(),
            });
        }
        reader.end()?;
        Ok(Self {
            version,
            oid,
            schema: if schema.is_empty() { "pg_catalog".to_owned() } else { schema.to_owned() },
            name: name.to_owned(),
            replica_identity,
            columns,
            catalogue: record.catalogue.clone(),
        })
    }

    /// `schema.table`, for messages.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The positions of the replica identity's columns.
    pub fn identity_columns(&self) -> impl Iterator<Item = usize> + '_ {
        self.columns.iter().enumerate().filter(|(_, column)| column.in_identity).map(|(index, _)| index)
    }

    /// What the catalogue said about the column with this name.
    #[must_use]
    pub fn column_catalogue(&self, name: &str) -> Option<&ColumnCatalogue> {
        self.catalogue.columns.iter().find(|column| column.name == name)
    }

    /// What is known of a type that is not a plain built-in one.
    #[must_use]
    pub fn type_info(&self, oid: u32) -> Option<&TypeInfo> {
        self.catalogue.types.iter().find(|info| info.oid == oid)
    }

    /// The type below any domains: its OID and modifier.
    #[must_use]
    pub fn base_type(&self, mut oid: u32, mut modifier: i32) -> (u32, i32) {
        while let Some(TypeInfo { kind: TypeKind::Domain(below, below_modifier), .. }) = self.type_info(oid) {
            (oid, modifier) = (*below, *below_modifier);
        }
        (oid, modifier)
    }
}
