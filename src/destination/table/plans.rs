//! The plans of the relation versions that a destination is prepared for.
//!
//! Covered by: `destination::conformance`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::change::{Relation, RelationVersion};
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
use crate::destination::DestinationError;

/// How the rows of each relation version are written, as a destination plans it.
#[derive(Debug)]
pub(crate) struct Plans<P> {
    plans: HashMap<RelationVersion, Arc<P>>,
    /// The version that each table fits now.
    current: HashMap<u32, RelationVersion>,
}

impl<P> Default for Plans<P> {
    fn default() -> Self {
        Self { plans: HashMap::new(), current: HashMap::new() }
    }
}

impl<P> Plans<P> {
    /// Forgets all.
    pub fn clear(&mut self) {
        self.plans.clear();
        self.current.clear();
    }

    /// The plan of a version, if any.
    pub fn get(&self, version: RelationVersion) -> Option<&Arc<P>> {
        self.plans.get(&version)
    }

    /// The plan of the version that the table fits now.
    pub fn current(&self, oid: u32) -> Option<&Arc<P>> {
        self.current.get(&oid).and_then(|version| self.plans.get(version))
    }

    /// The plan of this version, if the table fits it now.
    pub fn fitting(&self, relation: &Relation) -> Option<&Arc<P>> {
        self.current(relation.oid).filter(|_| self.current.get(&relation.oid) == Some(&relation.version))
    }

    /// The plan of a version that was prepared.
    #[cfg(any(feature = "mysql", feature = "sqlserver"))]
    pub fn prepared(&self, relation: &Relation) -> Result<Arc<P>, DestinationError> {
        self.get(relation.version).cloned().ok_or_else(|| {
            DestinationError::permanent("rows came before their table was prepared").table(relation.full_name())
        })
    }

    /// The table fits this version now, and no earlier one.
    pub fn put(&mut self, relation: &Relation, plan: Arc<P>) {
        if let Some(old) = self.current.insert(relation.oid, relation.version) {
            self.plans.remove(&old);
        }
        self.plans.insert(relation.version, plan);
    }
}
