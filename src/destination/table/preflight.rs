//! What a run would do with each table first, in words, for `pg2any check`: the same questions and
//! the same decision as before the first row, and nothing is done.
//!
//! Covered by: `it::check`.

use super::Policies;
use super::dialect::Dialect;
use super::evolve::{Questions, evolve, questions};
use super::existing::Answers;
use super::known::{KnownTable, KnownTables};
use super::steps::{Evolution, Step};
use crate::change::Relation;
use crate::destination::DestinationError;
use crate::finding::Finding;

/// Which of the wanted rights were not granted; `None`: all were.
#[cfg(any(feature = "mysql", feature = "sqlserver"))]
pub(crate) fn missing_rights(wanted: &[&str], granted: Vec<Vec<Option<String>>>) -> Option<String> {
    let granted: Vec<String> = granted.into_iter().flatten().flatten().collect();
    let missing = wanted.iter().copied().filter(|right| !granted.iter().any(|found| found == right));
    let missing: Vec<&str> = missing.collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

/// The tables of one destination, one after the other.
pub(crate) struct Preflight<'a> {
    dialect: &'a dyn Dialect,
    policies: Policies<'a>,
    known: KnownTables,
    findings: Vec<Finding>,
}

impl<'a> Preflight<'a> {
    /// Begins with what the destination knows.
    pub fn new(dialect: &'a dyn Dialect, policies: Policies<'a>, known: KnownTables) -> Self {
        Self { dialect, policies, known, findings: Vec::new() }
    }

    /// What has to be asked about a relation's table; `None`: no answer matters.
    pub fn questions(&mut self, relation: &Relation) -> Option<Questions> {
        let questions = questions(self.dialect, &self.policies, &self.known, relation);
        questions.map_err(|stop| self.stopped(relation, stop.into_error(self.dialect))).ok()
    }

    /// Decides with the answers.
    pub fn answered(&mut self, relation: &Relation, answers: Result<Answers, DestinationError>) {
        let decided = answers.and_then(|answers| {
            let evolution = evolve(self.dialect, &self.policies, &self.known, relation, &answers);
            evolution.map_err(|stop| stop.into_error(self.dialect))
        });
        match decided {
            Ok(Evolution { known, steps, warnings }) => {
                let source = relation.full_name();
                self.findings.push(Finding::ok(format!("{source}: {}", self.in_words(&known, &steps))));
                let warning = |text: String| Finding::warning(format!("{source}: {text}"), "Look before you run");
                self.findings.extend(warnings.iter().map(|text| warning(text.to_string())));
                // The next table may want the same name.
                self.known.tables.insert(known.oid, known);
            }
            Err(error) => self.stopped(relation, error),
        }
    }

    /// What was found.
    pub fn findings(self) -> Vec<Finding> {
        self.findings
    }

    fn stopped(&mut self, relation: &Relation, error: DestinationError) {
        self.findings.push(error.into_finding_of(&relation.full_name()));
    }

    fn in_words(&self, known: &KnownTable, steps: &[Step]) -> String {
        let target = &known.target;
        if steps.is_empty() {
            return format!("table {target} fits its {} columns", known.active().count());
        }
        if let [Step::Create(table)] = steps {
            let column = |column| {
                let declared = self.dialect.column_type(column, table.key.contains(&column.target));
                format!("{} {}", column.target, declared.unwrap_or_default())
            };
            let columns: Vec<String> = table.active().map(column).collect();
            let key = if table.key.is_empty() { "no primary key".to_owned() } else { table.key.join(", ") };
            return format!("table {target} will be made: {}; key: {key}", columns.join(", "));
        }
        let steps: Vec<String> = steps.iter().map(Step::to_string).collect();
        format!("table {target} will be changed before its next row: {}", steps.join(", "))
    }
}
