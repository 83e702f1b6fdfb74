//! `docs/values.md`, written from the code.

use std::fmt::Write as _;

use super::{Family, PG_TYPES};

/// What a destination makes of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyColumn {
    /// The type of a column that we create.
    pub declared: &'static str,
    /// The value that is written.
    pub value: &'static str,
    /// How values compare and sort there.
    pub order: &'static str,
    /// What the column cannot hold, and what happens with it.
    pub not_held: &'static str,
}

/// A destination's column of the value table.
pub trait DestinationColumn {
    /// The destination's name.
    fn destination(&self) -> &'static str;
    /// What it makes of this family.
    fn family(&self, family: Family) -> FamilyColumn;
    /// Paragraphs that follow the destination's table (Markdown).
    fn notes(&self) -> &'static str;
}

fn types_of(family: Family) -> String {
    match family {
        Family::Decimal { precision, scale } if precision > 18 => format!("numeric(p,s), like ({precision},{scale})"),
        Family::Decimal { scale: 0, .. } => "numeric(p), p ≤ 18".to_owned(),
        Family::Decimal { .. } => "numeric(p,s), p ≤ 15".to_owned(),
        Family::Numeric => "numeric".to_owned(),
        Family::Array => "arrays of any type and depth".to_owned(),
        Family::Enum => "enums".to_owned(),
        Family::Composite => "composites (row types)".to_owned(),
        Family::Other => "types of extensions (hstore, citext, …)".to_owned(),
        _ => {
            let names: Vec<_> =
                PG_TYPES.iter().filter(|entry| entry.family == family).map(|entry| entry.name).collect();
            names.join(", ")
        }
    }
}

/// The documentation's text for these destinations.
#[must_use]
pub fn document(columns: &[&dyn DestinationColumn]) -> String {
    let mut text = String::from(
        "<!-- Written from src/destination/value and the destinations' value mappings by a test; do not edit by hand. -->\n\
         # What values become\n\n\
         A domain is what it stands on; NULL is NULL everywhere, and an empty string is an empty string.\n",
    );
    for column in columns {
        let _ = write!(
            text,
            "\n## {}\n\n| PostgreSQL | column we create | value | order | not held |\n|---|---|---|---|---|\n",
            column.destination()
        );
        for family in Family::examples() {
            let cell = column.family(family);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} |",
                types_of(family),
                cell.declared,
                cell.value,
                cell.order,
                cell.not_held
            );
        }
        let _ = write!(text, "\n{}", column.notes());
    }
    text
}
