//! From a question to its answer, as JSON.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::Query;
use crate::monitor::Monitor;
use crate::position::Lsn;
use crate::spool::SpoolError;
use crate::spool::inspection::{Inspector, Verification};

/// Answers from a running spool; the numbers are the process's own.
///
/// # Errors
///
/// [`SpoolError`] when something cannot be read.
pub(super) fn answer_live(inspector: &Inspector, monitor: &Monitor, query: &Query) -> Result<Value, SpoolError> {
    if *query == Query::Status {
        return to_value(&monitor.snapshot()?);
    }
    let mut answer = answer(inspector, query)?;
    if *query == Query::Summary
        && let Value::Object(fields) = &mut answer
    {
        let counted = monitor.metrics().all().into_iter().filter(|(_, _, value)| *value != 0);
        let counted: Map<String, Value> = counted.map(|(name, _, value)| (name.to_owned(), value.into())).collect();
        fields.insert("metrics".to_owned(), counted.into());
    }
    Ok(answer)
}

/// Answers from a data directory on which no process runs, and changes nothing in it. What is
/// looked at stays as it was at the first question, for as long as the caller keeps the inspector.
///
/// # Errors
///
/// [`SpoolError::Locked`] when a process runs after all, and whatever cannot be read.
pub fn answer_offline(kept: &mut Option<Inspector>, directory: &Path, query: &Query) -> Result<Value, SpoolError> {
    if let Some(inspector) = kept {
        return answer(inspector, query);
    }
    match Inspector::offline(directory) {
        Err(damage) if *query == Query::Verify && damage.is_damage() => verified(&Verification::unreadable(&damage)),
        inspector => answer(kept.insert(inspector?), query),
    }
}

pub(crate) fn answer(inspector: &Inspector, query: &Query) -> Result<Value, SpoolError> {
    match query {
        // Nobody runs who could have one.
        Query::Status => Ok(Value::Null),
        Query::Summary => to_value(&inspector.summary()?),
        Query::Transactions { after, limit } => {
            let from = after.map_or(Lsn::ZERO, |after| Lsn(after.0.saturating_add(1)));
            let page = inspector.transactions(from, *limit)?;
            let last = page.transactions.last().map(|transaction| transaction.commit_end);
            Ok(json!({
                "committed": to_value(&page.transactions)?,
                "open": to_value(&inspector.open_transactions()?)?,
                "next_after": page.next.and(last),
            }))
        }
        Query::Show { position, limit } => {
            // A bare LSN means the whole transaction, from its first command on.
            let from = if position.is_end() { 0 } else { position.command.0 };
            let shown = inspector.show(position.commit_end, from, *limit)?;
            shown.map_or(Ok(Value::Null), |shown| to_value(&shown))
        }
        Query::Relations => to_value(&inspector.relations()?),
        Query::Cursors => {
            let cursors =
                inspector.cursors()?.into_iter().map(|(name, position)| json!({"name": name, "position": position}));
            Ok(cursors.collect())
        }
        Query::DeadLetters { limit } => to_value(&inspector.dead_letters(*limit)?),
        Query::Segments => to_value(&inspector.segments()?),
        Query::Verify => verified(&inspector.verify()),
    }
}

fn verified(found: &Verification) -> Result<Value, SpoolError> {
    let mut answer = to_value(found)?;
    if let Value::Object(fields) = &mut answer {
        fields.insert("sound".to_owned(), found.is_sound().into());
    }
    Ok(answer)
}

fn to_value(answer: &impl serde::Serialize) -> Result<Value, SpoolError> {
    serde_json::to_value(answer)
        .map_err(|error| SpoolError::Encoding { what: "an answer to `inspect`", detail: error.to_string() })
}
