//! What events say of their transaction, rendered once for each: the source block around the
//! table's name, and the counts.
//!
//! Covered by: `it::events`, and `it::kafka::a_transaction_in_parts_is_counted_through_a_restart`.

use serde::{Deserialize, Serialize};

use super::json::quoted;
use crate::change::TransactionInfo;
use crate::position::{Lsn, PgTimestamp};

/// How many events a transaction has had, in all and for each table. Kept beside the checkpoint of
/// a transaction that is committed in parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counts {
    total: u64,
    tables: Vec<(String, u64)>,
}

impl Counts {
    /// Counts an event of a table; its numbers among all and among the table's.
    pub(super) fn add(&mut self, collection: &str) -> (u64, u64) {
        self.total += 1;
        let place = self.tables.iter().position(|(name, _)| name == collection);
        let place = place.unwrap_or_else(|| {
            self.tables.push((collection.to_owned(), 0));
            self.tables.len() - 1
        });
        let Some((_, count)) = self.tables.get_mut(place) else { return (self.total, 0) };
        *count += 1;
        (self.total, *count)
    }
}

/// The transaction that events are being rendered of.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) commit_end: Lsn,
    pub(super) counts: Counts,
    id: String,
    commit_millis: i64,
    /// `"source":{… "schema":`
    pub(super) before_table: Vec<u8>,
    /// `,"txId":… },"transaction":`
    pub(super) after_table: Vec<u8>,
    /// `"ts_ms":…,"ts_us":…,"ts_ns":…}`
    pub(super) times: Vec<u8>,
}

/// What all source blocks share.
pub(super) struct Origin<'a> {
    pub(super) prefix: &'a str,
    pub(super) database: &'a str,
    /// The end of the transaction before this one, as far as it is known.
    pub(super) previous: Option<Lsn>,
}

impl Open {
    pub(super) fn new(info: &TransactionInfo, origin: &Origin<'_>, counts: Counts) -> Self {
        let (micros, lsn) = (info.commit_time.unix_micros(), info.commit_lsn.0);
        let previous = origin.previous.map_or_else(|| "null".to_owned(), |lsn| format!("\\\"{}\\\"", lsn.0));
        let before_table = format!(
            "\"source\":{{\"version\":\"{}\",\"connector\":\"postgresql\",\"name\":{},\"ts_ms\":{},\"snapshot\":\"false\",\
             \"db\":{},\"sequence\":\"[{previous},\\\"{lsn}\\\"]\",\"ts_us\":{micros},\"ts_ns\":{micros}000,\"schema\":",
            env!("CARGO_PKG_VERSION"),
            quoted(origin.prefix),
            micros.div_euclid(1000),
            quoted(origin.database),
        );
        let came_from = info.origin.as_deref().map_or_else(|| "null".to_owned(), quoted);
        let after_table = format!(
            ",\"txId\":{},\"lsn\":{lsn},\"xmin\":null,\"origin\":{came_from},\"origin_lsn\":null}},\"transaction\":",
            info.xid
        );
        let now = PgTimestamp::now().unix_micros();
        let times = format!("\"ts_ms\":{},\"ts_us\":{now},\"ts_ns\":{now}000}}", now.div_euclid(1000));
        Self {
            commit_end: info.commit_end,
            counts,
            id: format!("{}:{lsn}", info.xid),
            commit_millis: micros.div_euclid(1000),
            before_table: before_table.into_bytes(),
            after_table: after_table.into_bytes(),
            times: times.into_bytes(),
        }
    }

    /// Counts an event, and writes which of the transaction it is.
    pub(super) fn write_block(&mut self, collection: &str, out: &mut Vec<u8>) {
        let (total, of_table) = self.counts.add(collection);
        let Self { id, .. } = self;
        let block = format!("{{\"id\":\"{id}\",\"total_order\":{total},\"data_collection_order\":{of_table}}}");
        out.extend_from_slice(block.as_bytes());
    }

    /// Key and value of the record that says that it begins, or ended.
    pub(super) fn marker(&self, ended: bool, schemas: bool) -> (Vec<u8>, Vec<u8>) {
        let Self { id, counts, commit_millis, .. } = self;
        let key = format!("{{\"id\":\"{id}\"}}");
        let value = if ended {
            let tables: Vec<_> = counts
                .tables
                .iter()
                .map(|(name, count)| format!("{{\"data_collection\":{},\"event_count\":{count}}}", quoted(name)))
                .collect();
            format!(
                "{{\"status\":\"END\",\"id\":\"{id}\",\"event_count\":{},\"data_collections\":[{}],\"ts_ms\":{commit_millis}}}",
                counts.total,
                tables.join(",")
            )
        } else {
            format!(
                "{{\"status\":\"BEGIN\",\"id\":\"{id}\",\"event_count\":null,\"data_collections\":null,\"ts_ms\":{commit_millis}}}"
            )
        };
        (framed(KEY_SCHEMA, key, schemas), framed(VALUE_SCHEMA, value, schemas))
    }
}

/// Key and value of a heartbeat.
pub(super) fn heartbeat(prefix: &str, schemas: bool) -> (Vec<u8>, Vec<u8>) {
    let key = format!("{{\"serverName\":{}}}", quoted(prefix));
    let value = format!("{{\"ts_ms\":{}}}", PgTimestamp::now().unix_micros().div_euclid(1000));
    (framed(HEARTBEAT_KEY_SCHEMA, key, schemas), framed(HEARTBEAT_SCHEMA, value, schemas))
}

fn framed(schema: &str, payload: String, schemas: bool) -> Vec<u8> {
    if schemas { format!("{{\"schema\":{schema},\"payload\":{payload}}}").into_bytes() } else { payload.into_bytes() }
}

const KEY_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"id"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.TransactionMetadataKey","version":1}"#
);
const VALUE_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"status"},"#,
    r#"{"type":"string","optional":false,"field":"id"},{"type":"int64","optional":true,"field":"event_count"},"#,
    r#"{"type":"array","items":{"type":"struct","fields":[{"type":"string","optional":false,"field":"data_collection"},"#,
    r#"{"type":"int64","optional":false,"field":"event_count"}],"optional":true,"name":"event.collection","version":1},"#,
    r#""optional":true,"field":"data_collections"},{"type":"int64","optional":false,"field":"ts_ms"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.TransactionMetadataValue","version":1}"#
);
const HEARTBEAT_KEY_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"string","optional":false,"field":"serverName"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.ServerNameKey","version":1}"#
);
const HEARTBEAT_SCHEMA: &str = concat!(
    r#"{"type":"struct","fields":[{"type":"int64","optional":false,"field":"ts_ms"}],"optional":false,"#,
    r#""name":"io.debezium.connector.common.Heartbeat","version":1}"#
);
