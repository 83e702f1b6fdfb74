//! Whether what decides which rows are sent is still what it was at the last look.
//!
//! PostgreSQL decodes every change under the publications as they were at that change, and says
//! nothing when they change: with `publish = 'insert'` for a while the UPDATEs of that while never
//! come, and PostgreSQL 18 leaves out what was committed while a publication had another name.
//! Undone, only the row versions (`xmin`) in the catalogue are others. They are compared at every
//! connect and every few seconds beside the stream, and kept in the spool: a change between two
//! looks is a warning that names both positions, or a stop ([`OnPublicationChange`]).
//!
//! A publication that is missing, or another one under the name, is `session::check_publications`'
//! matter, and after `source adopt` the rows are recorded anew.
//!
//! Broken,
//! `it::publications::a_publication_that_was_narrowed_and_widened_again_is_announced_with_both_positions`
//! fails.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::connection::{Connection, literal};
use super::error::SourceError;
use super::options::OnPublicationChange;
use crate::position::Lsn;
use crate::spool::{PublicationRow, Published, Spool};

const DOING: &str = "looking up the publications";
/// How much older than the last look the kept position may be: a restart then names a wider
/// interval.
const KEPT_EVERY: Duration = Duration::from_secs(60);
/// Changes that one message names.
const NAMED: usize = 10;

/// Evaluated after the statement's snapshot was taken.
const POSITION: &str = "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
                        ELSE pg_catalog.pg_current_wal_insert_lsn() END";

/// Another answer, other rows; small, however many tables are published.
const FINGERPRINT: &str = r"
SELECT pg_catalog.string_agg(p.oid::text || ' ' || p.xmin::text
  || ' ' || COALESCE((SELECT pg_catalog.hashtextextended(pg_catalog.string_agg(m.oid::text || ' ' || m.xmin::text, ',' ORDER BY m.oid), 0)
     FROM pg_catalog.pg_publication_rel m WHERE m.prpubid = p.oid)::text, '')
  {schemas}, ',' ORDER BY p.oid)
FROM pg_catalog.pg_publication p WHERE p.pubname IN ({names})";
/// Added to it where there is such a thing.
const FINGERPRINT_OF_SCHEMAS: &str = r"|| ' ' || COALESCE((SELECT pg_catalog.hashtextextended(
     pg_catalog.string_agg(m.oid::text || ' ' || m.xmin::text, ',' ORDER BY m.oid), 0)
     FROM pg_catalog.pg_publication_namespace m WHERE m.pnpubid = p.oid)::text, '')";

const ROWS: &str = r"
SELECT pg_catalog.json_build_object('position', {position}, 'rows', (
  SELECT COALESCE(pg_catalog.json_agg(pg_catalog.json_build_object('catalogue', e.catalogue, 'oid', e.oid::bigint,
    'version', e.version::text::bigint, 'publication', e.publication, 'member', e.member, 'settings', e.settings)), '[]')
  FROM (
    SELECT 'pg_publication' AS catalogue, p.oid, p.xmin AS version, p.pubname AS publication, '' AS member,
      pg_catalog.to_jsonb(p) - 'oid' - 'pubname' AS settings
    FROM pg_catalog.pg_publication p WHERE p.pubname IN ({names})
    UNION ALL
    SELECT 'pg_publication_rel', m.oid, m.xmin, p.pubname, 'table ' || m.prrelid::pg_catalog.regclass::text, {shown}
    FROM pg_catalog.pg_publication_rel m JOIN pg_catalog.pg_publication p ON p.oid = m.prpubid WHERE p.pubname IN ({names})
    {schemas}) e))::text";
const SCHEMAS: &str = r"UNION ALL
    SELECT 'pg_publication_namespace', m.oid, m.xmin, p.pubname, 'schema ' || n.nspname, '{}'::jsonb
    FROM pg_catalog.pg_publication_namespace m JOIN pg_catalog.pg_publication p ON p.oid = m.pnpubid
    JOIN pg_catalog.pg_namespace n ON n.oid = m.pnnspid WHERE p.pubname IN ({names})";
const SHOWN: &str = r"pg_catalog.jsonb_strip_nulls(pg_catalog.jsonb_build_object(
      'columns', (SELECT pg_catalog.string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = m.prrelid AND a.attnum = ANY (m.prattrs::int2[])),
      'WHERE', pg_catalog.pg_get_expr(m.prqual, m.prrelid)))";

#[derive(Deserialize)]
struct Answer {
    position: String,
    rows: Vec<AnswerRow>,
}

#[derive(Deserialize)]
struct AnswerRow {
    catalogue: String,
    oid: u32,
    version: u32,
    publication: String,
    member: String,
    settings: BTreeMap<String, serde_json::Value>,
}

/// What changed between two looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicationChange {
    /// The last look.
    pub from: Lsn,
    /// This one.
    pub to: Lsn,
    /// What.
    pub changes: Vec<String>,
}

impl fmt::Display for PublicationChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, changes } = self;
        let named = changes.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
        write!(f, "what is published changed between {from} and {to}: {named}")?;
        if changes.len() > NAMED {
            write!(f, "; and {} more", changes.len() - NAMED)?;
        }
        f.write_str(
            ". Rows that were committed meanwhile may be missing at the destination, or old there: compare these tables, and load \
             again those that differ",
        )
    }
}

/// The last look of this session.
#[derive(Debug)]
pub(crate) struct Watch {
    names: Vec<String>,
    policy: OnPublicationChange,
    fingerprint: Option<String>,
    seen: Published,
    kept: Instant,
}

impl Watch {
    /// The first look of a session, compared with what the spool has kept; blocks.
    ///
    /// # Errors
    ///
    /// [`SourceError::PublicationChanged`] where the policy says stop.
    pub(crate) fn begin(
        connection: &mut Connection,
        names: &[String],
        policy: OnPublicationChange,
        spool: &Spool,
        known: Option<Published>,
    ) -> Result<Self, SourceError> {
        let seen = known.clone().unwrap_or_default();
        let mut watch = Self { names: names.to_vec(), policy, fingerprint: None, seen, kept: Instant::now() };
        watch.compare(connection, spool, known.is_some())?;
        Ok(watch)
    }

    /// A later look; blocks.
    ///
    /// # Errors
    ///
    /// As [`Watch::begin`].
    pub(crate) fn look(&mut self, connection: &mut Connection, spool: &Spool) -> Result<(), SourceError> {
        self.compare(connection, spool, true)
    }

    fn compare(&mut self, connection: &mut Connection, spool: &Spool, known: bool) -> Result<(), SourceError> {
        let names = self.names.iter().map(|name| literal(name)).collect::<Vec<_>>().join(",");
        let has_schemas = connection.version() >= 150_000;
        let sql = |text: &str, schemas: &str| {
            text.replace("{schemas}", if has_schemas { schemas } else { "" })
                .replace("{shown}", if has_schemas { SHOWN } else { "'{}'::jsonb" })
                .replace("{position}", POSITION)
                .replace("{names}", &names)
        };
        // Before the rows are read: whatever changes them later is behind it.
        let at = connection.one(DOING, &format!("SELECT {POSITION}"))?;
        let at: Lsn = at.and_then(|text| text.parse().ok()).unwrap_or_default();
        let fingerprint = connection.one(DOING, &sql(FINGERPRINT, FINGERPRINT_OF_SCHEMAS))?;
        let same = self.fingerprint.is_some() && self.fingerprint == fingerprint;
        if same {
            self.seen.at = at;
        } else {
            let json = connection.one(DOING, &sql(ROWS, SCHEMAS))?.unwrap_or_default();
            let (to, rows) = read(&json).map_err(|cause| SourceError::Internal {
                doing: DOING,
                cause: std::io::Error::other(cause.to_string()),
            })?;
            let changes = if known { differences(&self.seen.rows, &rows) } else { Vec::new() };
            if !changes.is_empty() {
                let change = PublicationChange { from: self.seen.at, to, changes };
                match self.policy {
                    OnPublicationChange::Stop => return Err(SourceError::PublicationChanged(change)),
                    OnPublicationChange::Warn => {
                        spool.metrics().publication_changes.add(1);
                        tracing::warn!("{change}");
                    }
                }
            }
            self.seen = Published { at, rows };
            self.fingerprint = fingerprint;
        }
        if !same || self.kept.elapsed() >= KEPT_EVERY {
            spool.set_published(&self.seen)?;
            self.kept = Instant::now();
        }
        Ok(())
    }
}

fn read(json: &str) -> Result<(Lsn, Vec<PublicationRow>), serde_json::Error> {
    let answer: Answer = serde_json::from_str(json)?;
    let text = |value: serde_json::Value| match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let rows = answer.rows.into_iter().map(|row| PublicationRow {
        catalogue: row.catalogue,
        oid: row.oid,
        version: row.version,
        publication: row.publication,
        member: row.member,
        settings: row.settings.into_iter().map(|(name, value)| (name, text(value))).collect(),
    });
    let position = answer.position.parse().map_err(serde::de::Error::custom)?;
    Ok((position, rows.collect()))
}

/// What is another row, or another version of it, in words.
fn differences(before: &[PublicationRow], now: &[PublicationRow]) -> Vec<String> {
    let is_same =
        |one: &PublicationRow, other: &PublicationRow| (one.oid, &one.catalogue) == (other.oid, &other.catalogue);
    let is_named_alike = |one: &PublicationRow, other: &PublicationRow| {
        (&one.publication, &one.member) == (&other.publication, &other.member)
    };
    let mut changes = Vec::new();
    for row in now {
        let was = before.iter().find(|was| is_same(was, row));
        let replaced = || before.iter().find(|was| is_named_alike(was, row));
        let what = match (was, replaced()) {
            (Some(was), _) if was.version == row.version => continue,
            (Some(was), _) if was.settings == row.settings => {
                "was changed, or renamed, and is again what it was".to_owned()
            }
            (Some(was), _) => difference(&was.settings, &row.settings),
            (None, Some(was)) if was.settings == row.settings => "was taken out and added again".to_owned(),
            (None, Some(was)) => {
                format!("was taken out and added again: {}", difference(&was.settings, &row.settings))
            }
            (None, None) if row.settings.is_empty() => "was added".to_owned(),
            (None, None) => format!("was added ({})", shown(&row.settings)),
        };
        changes.push(format!("{} {what} (transaction {})", name(row), row.version));
    }
    let is_gone = |row: &&PublicationRow| !now.iter().any(|other| is_same(row, other) || is_named_alike(row, other));
    changes.extend(before.iter().filter(is_gone).map(|row| format!("{} was taken out", name(row))));
    changes
}

fn name(row: &PublicationRow) -> String {
    let separator = if row.member.is_empty() { "" } else { ": " };
    format!("publication {:?}{separator}{}", row.publication, row.member)
}

fn shown(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(name, value)| format!("{name} {value}")).collect::<Vec<_>>().join(", ")
}

fn difference(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
    let text = |value: Option<&String>| value.map_or("not set", String::as_str).to_owned();
    let changed = names.filter(|name| before.get(*name) != now.get(*name));
    let changed = changed.map(|name| format!("{name} was {}, is {}", text(before.get(name)), text(now.get(name))));
    changed.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn row(oid: u32, version: u32, member: &str, settings: &[(&str, &str)]) -> PublicationRow {
        PublicationRow {
            catalogue: if member.is_empty() { "pg_publication" } else { "pg_publication_rel" }.to_owned(),
            oid,
            version,
            publication: "p".to_owned(),
            member: member.to_owned(),
            settings: settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    #[test]
    fn every_other_row_version_is_a_difference_and_says_which() {
        let all = [("pubupdate", "true")];
        let filter = [("WHERE", "(a > 1)")];
        let before = [row(1, 700, "", &all), row(2, 700, "table t", &filter), row(3, 700, "table u", &[])];
        let cases: [(&[PublicationRow], &[&str]); 8] = [
            (&before, &[]),
            // A renamed table is the same member.
            (&[before[0].clone(), before[1].clone(), row(3, 700, "table v", &[])], &[]),
            (
                &[row(1, 701, "", &[("pubupdate", "false")]), before[1].clone(), before[2].clone()],
                &["publication \"p\" pubupdate was true, is false (transaction 701)"],
            ),
            (
                &[row(1, 702, "", &all), before[1].clone(), before[2].clone()],
                &["publication \"p\" was changed, or renamed, and is again what it was (transaction 702)"],
            ),
            (
                &[before[0].clone(), row(2, 703, "table t", &[("WHERE", "(a > 2)")]), before[2].clone()],
                &["publication \"p\": table t WHERE was (a > 1), is (a > 2) (transaction 703)"],
            ),
            (
                &[before[0].clone(), row(9, 704, "table t", &filter), before[2].clone()],
                &["publication \"p\": table t was taken out and added again (transaction 704)"],
            ),
            (
                &[before[0].clone(), row(9, 704, "table t", &[]), before[2].clone()],
                &[
                    "publication \"p\": table t was taken out and added again: WHERE was (a > 1), is not set (transaction 704)",
                ],
            ),
            (
                &[before[0].clone(), before[2].clone(), row(9, 705, "table w", &filter)],
                &[
                    "publication \"p\": table w was added (WHERE (a > 1)) (transaction 705)",
                    "publication \"p\": table t was taken out",
                ],
            ),
        ];
        for (now, expected) in cases {
            assert_eq!(differences(&before, now), expected);
        }
    }

    #[test]
    fn an_answer_is_read_whatever_the_settings_are() {
        let json = r#"{"position": "0/10", "rows": [{"catalogue": "pg_publication", "oid": 16400, "version": 741, "publication": "p",
            "member": "", "settings": {"pubinsert": true, "pubowner": "10", "pubgencols": "n"}}]}"#;
        let (position, rows) = read(json).unwrap();
        assert_eq!((position, rows[0].version), (Lsn(16), 741));
        let settings: Vec<_> = rows[0].settings.values().map(String::as_str).collect();
        assert_eq!(settings, ["n", "true", "10"]);
    }

    #[test]
    fn a_change_names_both_positions_and_not_a_thousand_tables() {
        let changes = (0..1000).map(|number| format!("table {number}")).collect();
        let text = PublicationChange { from: Lsn(0x21), to: Lsn(0x32), changes }.to_string();
        assert!(text.contains("0/21") && text.contains("0/32") && text.contains("and 990 more"), "{text}");
    }
}
