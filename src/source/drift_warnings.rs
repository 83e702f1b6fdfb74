//! What happened at the source that the stream does not show, and that rows to come do not depend
//! on: said as a warning, because rows at the destination may differ from then on.
//!
//! A table that was taken out of its publication and added again: what was written in between was
//! not sent, if anything was (a change of its row filter or column list looks the same). A column
//! that kept its type and was changed together with a new file for the rows, as `ALTER … TYPE …
//! USING` does it with values that are not sent. A table that is UNLOGGED, or may have been: it has
//! another file, and no TRUNCATE came that explains it (the file is known before the TRUNCATE is
//! read, so that is said once everything was read that was in the log when the file was looked at).
//! A label of an enum that was renamed, an attribute of a row type that came or went: no row
//! changes for that, and no table is described again, so types are looked at now and then as well.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::connection::Connection;
use super::error::SourceError;
use super::gap::Gap;
use crate::change::{ColumnCatalogue, Relation, TypeInfo, TypeKind};
use crate::position::Lsn;
use crate::spool::Spool;

#[derive(Debug)]
struct Seen {
    published_by: Vec<u32>,
    file_node: u32,
    columns: Vec<ColumnCatalogue>,
    types: Vec<TypeInfo>,
    unlogged: bool,
    /// A TRUNCATE came since.
    truncated: bool,
}

/// What the newest version of each relation said.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    seen: HashMap<u32, Seen>,
    pub(crate) refiled: Refiled,
}

/// Tables with another file that nothing explains so far, and how much of the log there was when
/// that was seen.
pub(crate) type Refiled = HashMap<u32, (String, Lsn)>;

impl Notices {
    /// From all versions that the spool has, and what the last session left without an explanation.
    pub(crate) fn load(spool: &Spool, refiled: Refiled) -> Self {
        let mut notices = Self { refiled, ..Self::default() };
        for (relation, file_node) in spool.relations() {
            notices.seen.insert(relation.oid, Seen { file_node, ..seen(&relation) });
        }
        notices
    }

    /// Whether the relation was described before.
    pub(crate) fn knows(&self, oid: u32) -> bool {
        self.seen.contains_key(&oid)
    }

    /// A TRUNCATE came, which gives a table another file.
    pub(crate) fn truncated(&mut self, relations: &[u32]) {
        for oid in relations {
            self.refiled.remove(oid);
            if let Some(seen) = self.seen.get_mut(oid) {
                seen.truncated = true;
            }
        }
    }

    /// Everything that was committed up to here has been received: what has not come does not come.
    pub(crate) fn passed(&mut self, lsn: Lsn) {
        self.refiled.retain(|_, (table, asked)| {
            let waits = *asked >= lsn;
            if !waits {
                tracing::warn!(
                    table,
                    "the table has another file, and no TRUNCATE that explains it was sent: VACUUM FULL, CLUSTER and another tablespace \
                     change no row; but what was written while it was UNLOGGED was not sent: compare it, and load it again if it differs"
                );
            }
            waits
        });
    }

    /// Compares with what was known, and warns. `position` is how much of the log there was when
    /// the catalogue was asked.
    pub(crate) fn compare(&mut self, relation: &Relation, position: Lsn) {
        let now = seen(relation);
        if let Some(was) = self.seen.get(&relation.oid) {
            let table = relation.full_name();
            let both = [&was.published_by, &now.published_by];
            if both.iter().all(|entries| !entries.is_empty())
                && !was.published_by.iter().any(|entry| now.published_by.contains(entry))
            {
                tracing::warn!(
                    table,
                    "the table was taken out of the publication and added again (or its row filter or columns were changed): what was \
                     written meanwhile, and rows that another filter hid, were not sent; compare it, and load it again if it differs"
                );
            }
            if now.unlogged && !was.unlogged {
                tracing::warn!("{}", unlogged(&table));
            }
            if was.file_node != now.file_node && was.file_node != 0 && now.file_node != 0 {
                if !was.truncated && was.columns == now.columns && !now.unlogged {
                    self.refiled.entry(relation.oid).or_insert_with(|| (table.clone(), position));
                }
                for column in
                    now.columns.iter().filter(|column| was.columns.iter().any(|before| touched(before, column)))
                {
                    tracing::warn!(
                        table,
                        column = column.name,
                        "the column was changed and the table's rows were written anew: if that was ALTER … TYPE … USING, the new values were \
                         not sent; compare the column, and load it again if it differs"
                    );
                }
            }
            for info in &now.types {
                let Some(before) = was.types.iter().find(|known| known.oid == info.oid) else { continue };
                let name = format!("{}.{}", info.schema, info.name);
                match (&before.kind, &info.kind) {
                    (TypeKind::Enum(before), TypeKind::Enum(labels)) if renamed(before, labels) => {
                        tracing::warn!(table, "{}", renaming(&name, before, labels));
                    }
                    (TypeKind::Composite(before), TypeKind::Composite(attributes)) if reshaped(before, attributes) => {
                        tracing::warn!(table, "{}", reshaping(&name, before, attributes));
                    }
                    _ => {}
                }
            }
        }
        self.seen.insert(relation.oid, now);
    }
}

fn seen(relation: &Relation) -> Seen {
    Seen {
        published_by: relation.catalogue.published_by.clone(),
        file_node: relation.catalogue.file_node,
        columns: relation.catalogue.columns.clone(),
        types: relation.catalogue.types.clone(),
        unlogged: relation.catalogue.unlogged,
        truncated: false,
    }
}

/// Whether something was done to the column that does not show.
fn touched(before: &ColumnCatalogue, now: &ColumnCatalogue) -> bool {
    let shown = ColumnCatalogue { changed_by: before.changed_by, ..now.clone() };
    shown == *before && ![0, now.changed_by].contains(&before.changed_by)
}

/// Labels are only ever added, so the old ones are among the new ones in their order.
fn renamed(before: &[String], labels: &[String]) -> bool {
    let mut labels = labels.iter();
    !before.iter().all(|label| labels.any(|other| other == label))
}

fn renaming(name: &str, before: &[String], labels: &[String]) -> String {
    format!(
        "labels of enum {name} were renamed at the source ({before:?} became {labels:?}), which the stream does not say: rows at the \
         destination keep the old ones; change them there (UPDATE … SET column = new WHERE column = old)"
    )
}

/// Attributes that came or went change how a value is written; a name does not.
fn reshaped(before: &BTreeMap<i16, String>, attributes: &BTreeMap<i16, String>) -> bool {
    !before.keys().eq(attributes.keys())
}

fn reshaping(name: &str, before: &BTreeMap<i16, String>, attributes: &BTreeMap<i16, String>) -> String {
    let list = |attributes: &BTreeMap<i16, String>| attributes.values().cloned().collect::<Vec<_>>().join(", ");
    format!(
        "row type {name} has other attributes at the source (({}) became ({})), which the stream does not say: rows at the destination \
         keep the text that they have; write it anew there, or load their tables again",
        list(before),
        list(attributes)
    )
}

fn unlogged(table: &str) -> String {
    format!(
        "table {table} is UNLOGGED at the source now: what is written to it is not sent, and does not come when it is LOGGED again; \
         load it again then"
    )
}

/// What a message of the server beside the stream means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Changes were left out.
    Gap(Gap),
    /// To be logged as a warning.
    Warn,
    /// Of no interest.
    Ignore,
}

/// Judges a message that the server sent on the replication connection beside the stream;
/// `severity` is the one in English. The wording decides nothing: servers speak many languages.
/// While rows are decoded a WARNING with this SQLSTATE says that a publication did not exist at
/// that position ("skipped loading publication", PostgreSQL 18): what follows is left out.
pub(crate) fn server_warning(sqlstate: &str, severity: &str, message: &str) -> Verdict {
    match (severity, sqlstate) {
        ("WARNING", "55000") => Verdict::Gap(Gap::PublicationMissing { message: message.to_owned() }),
        ("WARNING", _) => Verdict::Warn,
        _ => Verdict::Ignore,
    }
}

/// What is in no message, as it was when it was last looked at: the labels of all enums and the
/// attributes of all row types that tables use, by their names, and the tables that are UNLOGGED.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct DriftWarnings {
    labels: HashMap<String, Vec<String>>,
    attributes: HashMap<String, BTreeMap<i16, String>>,
    unlogged: HashMap<u32, String>,
}

impl DriftWarnings {
    /// Looks again, and warns; blocks.
    pub(crate) fn look(&mut self, connection: &mut Connection, spool: &Spool) -> Result<(), SourceError> {
        const DOING: &str = "looking up types";
        const QUERY: &str = "SELECT pg_catalog.json_build_object(
            'labels', (SELECT COALESCE(pg_catalog.json_object_agg(e.name, e.labels), '{}') FROM (
                SELECT enumtypid::pg_catalog.regtype::text AS name, pg_catalog.json_agg(enumlabel ORDER BY enumsortorder) AS labels
                FROM pg_catalog.pg_enum GROUP BY enumtypid) e),
            'attributes', (SELECT COALESCE(pg_catalog.json_object_agg(c.name, c.attributes), '{}') FROM (
                SELECT t.oid::pg_catalog.regtype::text AS name, pg_catalog.json_object_agg(a.attnum, a.attname ORDER BY a.attnum) AS attributes
                FROM pg_catalog.pg_class r JOIN pg_catalog.pg_type t ON t.oid = r.reltype
                JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
                WHERE r.relkind = 'c' AND EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid = 'pg_catalog.pg_type'::pg_catalog.regclass
                    AND d.refobjid IN (t.oid, t.typarray) AND d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid > 0)
                GROUP BY t.oid) c),
            'unlogged', (SELECT COALESCE(pg_catalog.json_object_agg(r.oid::bigint, r.oid::pg_catalog.regclass::text), '{}')
                FROM pg_catalog.pg_class r WHERE r.relkind = 'r' AND r.relpersistence = 'u'))::text";
        let json = connection.one(DOING, QUERY)?.unwrap_or_default();
        let now: Self = serde_json::from_str(&json)
            .map_err(|cause| SourceError::Internal { doing: DOING, cause: std::io::Error::other(cause.to_string()) })?;
        for (name, labels) in &now.labels {
            if let Some(before) = self.labels.get(name).filter(|before| renamed(before, labels)) {
                tracing::warn!("{}", renaming(name, before, labels));
            }
        }
        for (name, attributes) in &now.attributes {
            if let Some(before) = self.attributes.get(name).filter(|before| reshaped(before, attributes)) {
                tracing::warn!("{}", reshaping(name, before, attributes));
            }
        }
        for (oid, table) in now.unlogged.iter().filter(|(oid, _)| !self.unlogged.contains_key(oid)) {
            if spool.has_relation(*oid) {
                tracing::warn!("{}", unlogged(table));
            }
        }
        *self = now;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::spool::SpoolOptions;

    #[test]
    fn a_file_that_a_lost_connection_left_unexplained_is_explained_by_a_truncate_in_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(SpoolOptions { headroom_bytes: 0, ..SpoolOptions::new(directory.path()) }).unwrap();
        let table = |file_node| {
            crate::change::built::table("t", &[("a", 25)])
                .with(|relation| relation.catalogue.file_node = file_node)
                .build()
        };
        let mut notices = Notices::load(&spool, Refiled::new());
        notices.compare(&table(1), Lsn(5));
        notices.compare(&table(2), Lsn(10));
        notices.passed(Lsn(10));
        let mut next = Notices::load(&spool, notices.refiled);
        assert_eq!(next.refiled.len(), 1, "it is neither said nor forgotten");
        next.truncated(&[table(2).oid]);
        assert!(next.refiled.is_empty());
    }

    #[test]
    fn a_skipped_publication_is_a_gap_in_every_language_and_other_warnings_are_only_logged() {
        for message in ["skipped loading publication \"p\"", "Publikation »p« wurde nicht geladen"] {
            let gap = Gap::PublicationMissing { message: message.to_owned() };
            assert_eq!(server_warning("55000", "WARNING", message), Verdict::Gap(gap));
        }
        assert_eq!(server_warning("01000", "WARNING", "something else"), Verdict::Warn);
        assert_eq!(server_warning("55000", "NOTICE", "no matter"), Verdict::Ignore);
        assert_eq!(server_warning("00000", "LOG", "starting logical decoding"), Verdict::Ignore);
    }
}
