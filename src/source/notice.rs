//! What happened at the source that the stream does not show, and that rows to come do not depend on: said as a warning, because
//! rows at the destination may differ from then on.
//!
//! A table that was taken out of its publication and added again: what was written in between was not sent, if anything was
//! (a change of its row filter or column list looks the same). A column that kept its type and was changed together with a new
//! file for the rows, as `ALTER … TYPE … USING` does it with values that are not sent. A label of an enum that was renamed: no row changes for that, and
//! no table is described again, so the labels are looked at now and then as well.

use std::collections::HashMap;

use super::connection::Connection;
use super::error::SourceError;
use crate::change::{ColumnCatalogue, Relation, RelationVersion, TypeInfo, TypeKind};
use crate::spool::Spool;

#[derive(Debug)]
struct Seen {
    published_by: Vec<u32>,
    file_node: u32,
    columns: Vec<ColumnCatalogue>,
    enums: Vec<TypeInfo>,
}

/// What the newest version of each relation said.
#[derive(Debug, Default)]
pub(crate) struct Notices(HashMap<u32, Seen>);

impl Notices {
    /// From all versions that the spool has.
    pub(crate) fn load(spool: &Spool) -> Self {
        let mut notices = Self::default();
        for relation in (1..).map_while(|version| spool.relation(RelationVersion(version)).ok()) {
            notices.0.insert(relation.oid, seen(&relation));
        }
        notices
    }

    /// Compares with what was known, and warns.
    pub(crate) fn compare(&mut self, relation: &Relation) {
        let now = seen(relation);
        if let Some(was) = self.0.get(&relation.oid) {
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
            if was.file_node != now.file_node && was.file_node != 0 && now.file_node != 0 {
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
            for info in &now.enums {
                let before = was.enums.iter().find(|known| known.oid == info.oid);
                if let Some((TypeKind::Enum(before), TypeKind::Enum(labels))) =
                    before.map(|before| (&before.kind, &info.kind))
                    && renamed(before, labels)
                {
                    let name = format!("{}.{}", info.schema, info.name);
                    tracing::warn!(table, "{}", renaming(&name, before, labels));
                }
            }
        }
        self.0.insert(relation.oid, now);
    }
}

fn seen(relation: &Relation) -> Seen {
    let enums = relation.catalogue.types.iter().filter(|info| matches!(info.kind, TypeKind::Enum(_)));
    Seen {
        published_by: relation.catalogue.published_by.clone(),
        file_node: relation.catalogue.file_node,
        columns: relation.catalogue.columns.clone(),
        enums: enums.cloned().collect(),
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

/// The labels of all enums by the type's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct EnumLabels(HashMap<String, Vec<String>>);

impl EnumLabels {
    /// Looks again, and warns; blocks.
    pub(crate) fn look(&mut self, connection: &mut Connection) -> Result<(), SourceError> {
        const DOING: &str = "looking up the labels of enums";
        const QUERY: &str = "SELECT pg_catalog.json_object_agg(e.name, e.labels)::text FROM (
            SELECT enumtypid::pg_catalog.regtype::text AS name, pg_catalog.json_agg(enumlabel ORDER BY enumsortorder) AS labels
            FROM pg_catalog.pg_enum GROUP BY enumtypid) e";
        let Some(json) = connection.one(DOING, QUERY)? else { return Ok(()) };
        let now: HashMap<String, Vec<String>> = serde_json::from_str(&json)
            .map_err(|cause| SourceError::Internal { doing: DOING, cause: std::io::Error::other(cause.to_string()) })?;
        for (name, labels) in &now {
            if let Some(before) = self.0.get(name).filter(|before| renamed(before, labels)) {
                tracing::warn!("{}", renaming(name, before, labels));
            }
        }
        self.0 = now;
        Ok(())
    }
}
