//! Which relation version a row is of, as the walsender thinks that we know it.
//!
//! pgoutput remembers for its session which relations it has described. Inside a streamed
//! transaction it describes each again, and counts that as known to everybody only when the
//! transaction commits. So there is a map for the session, and a layer over it for each streamed
//! transaction that is merged at the commit. A description that came later wins: an older layer
//! that commits late must not bring an older version back.

use std::collections::HashMap;

use crate::change::RelationVersion;

/// When a description came, counted.
type Stamp = u64;

#[derive(Default)]
pub(crate) struct Descriptions {
    by_oid: HashMap<u32, (RelationVersion, Stamp)>,
}

impl Descriptions {
    pub(crate) fn describe(&mut self, oid: u32, version: RelationVersion, stamp: Stamp) {
        self.by_oid.insert(oid, (version, stamp));
    }

    pub(crate) fn version(&self, oid: u32) -> Option<RelationVersion> {
        self.by_oid.get(&oid).map(|(version, _)| *version)
    }

    pub(crate) fn versions(&self) -> impl Iterator<Item = RelationVersion> + '_ {
        self.by_oid.values().map(|(version, _)| *version)
    }

    pub(crate) fn merge(&mut self, layer: Self) {
        for (oid, (version, stamp)) in layer.by_oid {
            let known = self.by_oid.entry(oid).or_insert((version, stamp));
            if known.1 < stamp {
                *known = (version, stamp);
            }
        }
    }

    pub(crate) fn clear(&mut self) {
        self.by_oid.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_commit_does_not_bring_an_older_description_back() {
        let (mut session, mut layer) = (Descriptions::default(), Descriptions::default());
        layer.describe(1, RelationVersion(1), 1);
        layer.describe(2, RelationVersion(3), 4);
        session.describe(1, RelationVersion(2), 2);
        session.describe(2, RelationVersion(2), 3);
        session.merge(layer);
        assert_eq!(session.version(1), Some(RelationVersion(2)));
        assert_eq!(session.version(2), Some(RelationVersion(3)));
    }
}
