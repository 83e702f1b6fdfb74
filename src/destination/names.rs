//! Which PostgreSQL schema becomes which schema or database of the destination.

use std::collections::BTreeMap;
use std::str::FromStr;

/// `public:cdc_db,sales:sales_db`: schemas that get another name at the destination.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SchemaMapping(BTreeMap<String, String>);

impl SchemaMapping {
    /// Adds a pair; a schema that is mapped already gets the new name.
    pub fn insert(&mut self, schema: impl Into<String>, name: impl Into<String>) {
        self.0.insert(schema.into(), name.into());
    }

    /// The destination's name for a schema, if it is mapped.
    #[must_use]
    pub fn get(&self, schema: &str) -> Option<&str> {
        self.0.get(schema).map(String::as_str)
    }

    /// The pairs in order of the schema's name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(schema, name)| (schema.as_str(), name.as_str()))
    }
}

impl FromStr for SchemaMapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut mapping = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match pair.split_once(':').map(|(schema, name)| (schema.trim(), name.trim())) {
                Some((schema, name)) if !schema.is_empty() && !name.is_empty() => {
                    if let Some(other) = mapping.0.insert(schema.to_owned(), name.to_owned()) {
                        return Err(format!("schema {schema:?} is mapped twice, to {other:?} and to {name:?}"));
                    }
                }
                _ => return Err(format!("{pair:?} is not a pair like public:cdc_db")),
            }
        }
        Ok(mapping)
    }
}
