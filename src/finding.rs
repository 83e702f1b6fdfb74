//! What `pg2any check` finds, at the source or at a destination.

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and may surprise.
    Warning,
    /// A run would stop at it.
    Error,
}

/// One line of a check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do.
    pub remedy: Option<String>,
}

impl Finding {
    /// As it should be.
    #[must_use]
    pub fn ok(found: impl Into<String>) -> Self {
        Self { level: Level::Ok, found: found.into(), remedy: None }
    }

    /// Works, and may surprise.
    #[must_use]
    pub fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Warning, found: found.into(), remedy: Some(remedy.into()) }
    }

    /// A run would stop at it.
    #[must_use]
    pub fn error(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { level: Level::Error, found: found.into(), remedy: Some(remedy.into()) }
    }
}
