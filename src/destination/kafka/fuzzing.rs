//! Fuzz target: the texts of values as JSON.

#![allow(clippy::panic, clippy::unwrap_used)]

use super::column::Kind;
use super::settings::{BinaryHandling, DecimalHandling, EventSettings, IntervalHandling, TimePrecision};
use super::value::write;
use crate::change::{Catalogue, Relation, RelationVersion, ReplicaIdentity};
use crate::destination::value::PG_TYPES;

/// The first byte chooses the type, the second its array and how it is rendered, the third its
/// modifier: a text is refused, or becomes one JSON value.
pub(crate) fn values(data: &[u8]) {
    let [kind, how, modifier, text @ ..] = data else { return };
    let entry = &PG_TYPES[usize::from(*kind) % PG_TYPES.len()];
    let oid = if how & 1 == 1 && entry.array_oid != 0 { entry.array_oid } else { entry.oid };
    let settings = EventSettings {
        schemas: how & 2 == 2,
        decimal: [DecimalHandling::Precise, DecimalHandling::String, DecimalHandling::Double]
            [usize::from(how >> 2) % 3],
        time: [TimePrecision::Adaptive, TimePrecision::Microseconds, TimePrecision::Connect, TimePrecision::IsoString]
            [usize::from(how >> 4) % 4],
        binary: [BinaryHandling::Bytes, BinaryHandling::Base64, BinaryHandling::Hex][usize::from(how >> 5) % 3],
        interval: [IntervalHandling::Numeric, IntervalHandling::String][usize::from(how >> 6) % 2],
        ..EventSettings::default()
    };
    let relation = Relation {
        version: RelationVersion(1),
        oid: 1,
        schema: String::new(),
        name: String::new(),
        replica_identity: ReplicaIdentity::Nothing,
        columns: Vec::new(),
        catalogue: Catalogue::default(),
    };
    let kind = Kind::of(&relation, oid, i32::from(*modifier) - 1, &settings);
    let mut out = Vec::new();
    if write(&kind, text, &mut out).is_ok() {
        let parsed = serde_json::from_slice::<serde_json::Value>(&out);
        assert!(
            parsed.is_ok(),
            "{kind:?}: {:?} became {:?}",
            String::from_utf8_lossy(text),
            String::from_utf8_lossy(&out)
        );
    }
}
