//! Every destination that pg2any knows, in one place: what it is called, which URIs are its own,
//! how it is made.

use super::{Destination, Options};

/// Where the changes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DestinationType {
    /// MySQL or MariaDB, `mysql://user:password@host:3306/database`.
    MySQL,
    /// Microsoft SQL Server, `sqlserver://user:password@host:1433/database`.
    SqlServer,
    /// A SQLite file, named by its path.
    SQLite,
    /// Kafka, a comma-separated list of brokers.
    Kafka,
}

impl DestinationType {
    /// All of them, with the names that settings and messages use.
    pub const ALL: &'static [(&'static str, Self)] =
        &[("MySQL", Self::MySQL), ("SqlServer", Self::SqlServer), ("SQLite", Self::SQLite), ("Kafka", Self::Kafka)];

    /// Whether this build can write to it.
    #[must_use]
    pub const fn is_available(self) -> bool {
        match self {
            Self::SQLite => cfg!(feature = "sqlite"),
            Self::Kafka => cfg!(feature = "kafka"),
            Self::MySQL => cfg!(feature = "mysql"),
            Self::SqlServer => cfg!(feature = "sqlserver"),
        }
    }

    /// Makes one; `None` when this build cannot. Nothing is connected to yet.
    #[must_use]
    pub fn make(self, options: Options) -> Option<Box<dyn Destination>> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::SQLite => Some(Box::new(super::sqlite::Sqlite::new(options))),
            #[cfg(feature = "mysql")]
            Self::MySQL => Some(Box::new(super::mysql::MySql::new(options))),
            #[cfg(feature = "sqlserver")]
            Self::SqlServer => Some(Box::new(super::sqlserver::SqlServer::new(options))),
            #[cfg(feature = "kafka")]
            Self::Kafka => Some(Box::new(super::kafka::Kafka::new(options))),
            #[cfg(not(all(feature = "sqlite", feature = "mysql", feature = "kafka", feature = "sqlserver")))]
            _ => {
                drop(options);
                None
            }
        }
    }

    /// The type that a URI's scheme names; a bare path or a broker list names none.
    #[must_use]
    pub fn of_uri(uri: &str) -> Option<Self> {
        let (scheme, _) = uri.split_once(':')?;
        match scheme.to_ascii_lowercase().as_str() {
            "mysql" | "mariadb" => Some(Self::MySQL),
            "sqlserver" | "mssql" => Some(Self::SqlServer),
            "sqlite" | "file" => Some(Self::SQLite),
            "kafka" => Some(Self::Kafka),
            _ => None,
        }
    }
}
