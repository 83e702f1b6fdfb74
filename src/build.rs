//! What this program was built from.

/// The commit, or `unknown` outside a checkout.
pub const COMMIT: &str = match option_env!("PG2ANY_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// The features.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "sqlite")]
    "sqlite",
    #[cfg(feature = "mysql")]
    "mysql",
    #[cfg(feature = "sqlserver")]
    "sqlserver",
    #[cfg(feature = "kafka")]
    "kafka",
    #[cfg(feature = "metrics")]
    "metrics",
    #[cfg(feature = "failpoints")]
    "failpoints",
];

/// The libraries that matter when something is odd, with their versions; those linked at run time
/// as they are then.
#[must_use]
pub fn libraries() -> Vec<(&'static str, String)> {
    vec![
        ("fjall", option_env!("PG2ANY_FJALL").unwrap_or("unknown").to_owned()),
        ("libpq", crate::source::libpq_version()),
        #[cfg(feature = "sqlite")]
        ("SQLite", rusqlite::version().to_owned()),
        #[cfg(feature = "kafka")]
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
    ]
}
