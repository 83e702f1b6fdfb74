//! Relations as they are announced, and the catalogue's answers.
//!
//! **A streamed transaction that changes its tables.** The catalogue is asked from another session,
//! which sees the change only when it has committed. A relation that is not in the catalogue as it
//! was announced ends the session at once, and one that is not the same any more when its
//! transaction commits ends it before that commit is taken: the transaction is asked for again with
//! streaming off. What was executed of it early is rolled back; nothing of it was ever committed.

use bytes::Bytes;

use super::super::catalogue::{Answered, Asker};
use super::super::error::SourceError;
use super::{Frames, Step, cut_xid_if};
use crate::change::{
    Catalogue, ColumnCatalogue, DecodeError, FrameReader, Relation, RelationRecord, RelationVersion, TypeInfo, TypeKind,
};
use crate::position::{Lsn, Xid};
use crate::spool::Intake;

/// A Relation message that waits for the catalogue's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) oid: u32,
    pub(crate) stream: Option<Xid>,
    pub(crate) asker: Asker,
    pub(crate) frame: Vec<u8>,
    lsn: Lsn,
}

/// An answer that cannot have what the streamed transaction itself did to the relation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Early {
    pub(crate) oid: u32,
    pub(crate) asker: Asker,
    catalogue: Catalogue,
}

impl Early {
    /// Whether this later answer is the same. The file changes with a TRUNCATE, which is in the
    /// stream.
    pub(crate) fn holds(&self, later: &Catalogue) -> bool {
        let early = &self.catalogue;
        (early.found, &early.columns, &early.primary_key) == (later.found, &later.columns, &later.primary_key)
    }
}

impl Frames {
    /// A Relation message: a question for the catalogue.
    pub(super) fn relation(&mut self, lsn: Lsn, bytes: &Bytes) -> Result<Step, DecodeError> {
        let frame = cut_xid_if(self.stream.is_some(), bytes, &mut self.scratch)?;
        let mut reader = FrameReader::new(frame);
        reader.tag(b'R')?;
        let oid = reader.u32()?;
        // The same bytes do not mean the same table: a column that was dropped and added again has
        // another number.
        let first = !self.notices.knows(oid);
        let asker = match (&self.open, self.stream) {
            (_, Some(xid)) => Asker { xid, committed: false, first },
            (Some(open), None) => Asker { xid: open.xid, committed: !open.prepared, first },
            // Nothing's: it describes rows to come.
            (None, None) => Asker { xid: 0, committed: false, first },
        };
        Ok(Step::Describe(Description { oid, stream: self.stream, asker, frame: frame.to_vec(), lsn }))
    }

    /// The catalogue's answer. `false`: a streamed transaction that is still open changed the
    /// relation, which the catalogue does not show before it commits; it has to come unstreamed.
    pub(crate) fn described(
        &mut self,
        intake: &mut Intake,
        description: Description,
        answered: Answered,
    ) -> Result<bool, SourceError> {
        let Description { oid, stream, asker, frame, lsn } = description;
        let Answered { mut catalogue, position, early } = answered;
        let malformed = |cause| SourceError::Malformed { tag: 'R', lsn, cause };
        if let Some(xid) = stream.filter(|_| early) {
            if !shows(&catalogue, &frame).map_err(malformed)? {
                return Ok(false);
            }
            let early =
                Early { oid, asker: Asker { committed: true, first: false, ..asker }, catalogue: catalogue.clone() };
            let asked = self.early.entry(xid).or_default();
            if !asked.contains(&early) {
                asked.push(early);
            }
        }
        catalogue.undecided = early && self.open.as_ref().is_some_and(|open| open.prepared);
        if !catalogue.dropped.is_empty() {
            // The protocol gives the message no position of its own.
            let transaction = self.open.as_ref().map_or(lsn, |open| open.final_lsn);
            catalogue.asked_for = Some((transaction, self.described));
        }
        self.described += 1;
        let known = intake.knows_relation(&frame);
        if let Some(known) = &known {
            if catalogue.found {
                // Whether the table had rows *before the first one was seen* was said when it was
                // first seen.
                catalogue.estimated_rows = known.catalogue.estimated_rows;
            } else {
                // It is gone by now: what was known then is better than nothing.
                catalogue = known.catalogue.clone();
            }
        }
        self.name_types(&frame, &mut catalogue).map_err(malformed)?;
        let record = RelationRecord { frame, catalogue };
        self.notices.compare(&Relation::decode(RelationVersion(0), &record).map_err(malformed)?, position);
        self.doubts.remove(&oid);
        if !record.catalogue.dropped.is_empty() && asker.committed {
            self.doubts.insert(oid, (position, record.clone()));
        }
        intake.relation(stream, record)?;
        Ok(true)
    }

    /// A row under a description that came before the catalogue's answer, of a transaction that
    /// committed behind it: had the table changed in between, another description would have come.
    /// So whatever was dropped was dropped before.
    pub(super) fn dispel(&mut self, intake: &mut Intake, end: Lsn, oids: &[u32]) -> Result<(), SourceError> {
        for oid in oids {
            if self.doubts.get(oid).is_some_and(|(asked, _)| *asked < end)
                && let Some((_, mut record)) = self.doubts.remove(oid)
            {
                record.catalogue.dropped.clear();
                intake.relation(None, record)?;
            }
        }
        Ok(())
    }

    /// Types that the catalogue did not know (any more) get the name that a Type message gave them.
    fn name_types(&self, frame: &[u8], catalogue: &mut Catalogue) -> Result<(), DecodeError> {
        for column in &relation(frame)?.columns {
            let unnamed = !catalogue.types.iter().any(|info| info.oid == column.type_oid);
            if unnamed && let Some((schema, name)) = self.types.get(&column.type_oid) {
                catalogue.types.push(TypeInfo {
                    oid: column.type_oid,
                    schema: schema.clone(),
                    name: name.clone(),
                    kind: TypeKind::Base,
                });
            }
        }
        Ok(())
    }
}

fn relation(frame: &[u8]) -> Result<Relation, DecodeError> {
    let record = RelationRecord { frame: frame.to_vec(), catalogue: Catalogue::default() };
    Relation::decode(RelationVersion(0), &record)
}

/// Whether the catalogue has the columns that the frame has.
fn shows(catalogue: &Catalogue, frame: &[u8]) -> Result<bool, DecodeError> {
    let sent = relation(frame)?.columns;
    let is_sent = |known: &ColumnCatalogue| {
        sent.iter().any(|column| {
            column.name == known.name
                && (column.type_oid, column.type_modifier) == (known.type_oid, known.type_modifier)
        })
    };
    let found = catalogue.columns.iter().filter(|known| is_sent(known)).count();
    let left_out = catalogue.columns.iter().any(|known| !known.generated && !is_sent(known)) && !catalogue.column_list;
    Ok(catalogue.found && found == sent.len() && !left_out)
}
