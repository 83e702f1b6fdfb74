//! What Kafka's errors mean for the applier.
//!
//! Covered by: the table below, and `it::kafka`.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::destination::{DestinationError, FailureKind};

/// What follows from an error of a transaction's call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same call again: whether it took effect is found out by it.
    Again,
    /// Abort, and run the batch again.
    Abort,
    /// This producer can do no more: a new one, from the checkpoint.
    NewProducer,
    /// Nobody but a person can mend it.
    Stop,
}

/// What an error says of itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    code: Code,
    fatal: bool,
    retriable: bool,
    abort: bool,
}

/// The broker's or the library's code. The crate leaves that of an admin's call out.
pub(super) fn code(error: &KafkaError) -> Option<Code> {
    match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    }
}

impl Marks {
    pub(super) fn of(error: &KafkaError) -> Self {
        let code = code(error).unwrap_or(Code::Fail);
        match error {
            KafkaError::Transaction(error) => Self {
                code: error.code(),
                fatal: error.is_fatal(),
                retriable: error.is_retriable(),
                abort: error.txn_requires_abort(),
            },
            KafkaError::Flush(_) => Self { code, fatal: false, retriable: true, abort: false },
            _ => Self { code, fatal: code == Code::Fatal, retriable: false, abort: false },
        }
    }
}

/// Decides. Authorisation first: it comes as fatal or abortable as well, and no new producer mends
/// it.
pub(super) const fn next(marks: Marks) -> Next {
    match marks {
        Marks {
            code:
                Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::ClusterAuthorizationFailed
                | Code::TransactionalIdAuthorizationFailed
                | Code::SaslAuthenticationFailed
                | Code::Authentication
                | Code::UnsupportedFeature
                | Code::UnsupportedVersion
                | Code::MessageSizeTooLarge
                | Code::InvalidTopic,
            ..
        } => Next::Stop,
        Marks { fatal: true, .. } => Next::NewProducer,
        Marks { abort: true, .. } => Next::Abort,
        Marks { retriable: true, .. } | Marks { code: Code::OperationTimedOut, .. } => Next::Again,
        _ => Next::NewProducer,
    }
}

/// The error for the applier.
pub(super) fn failed(doing: impl Into<String>, error: KafkaError) -> DestinationError {
    let kind = match next(Marks::of(&error)) {
        Next::Again | Next::NewProducer => FailureKind::Reconnect,
        Next::Abort => FailureKind::Retry,
        Next::Stop => FailureKind::Permanent,
    };
    let code = code(&error);
    let failure = DestinationError::new(kind, doing).cause(error);
    match code {
        Some(Code::TransactionalIdAuthorizationFailed | Code::ClusterAuthorizationFailed) => failure.hint(
            "Allow this user WRITE and DESCRIBE on transactional ids that begin with pg2any-, or use \
             --kafka-delivery at-least-once",
        ),
        Some(Code::TopicAuthorizationFailed) => {
            failure.hint("Allow this user WRITE and DESCRIBE on the topics, and READ on the checkpoint's")
        }
        Some(Code::UnsupportedFeature | Code::UnsupportedVersion) => {
            failure.hint("This broker has no transactions: use --kafka-delivery at-least-once")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_an_error() {
        let marks = |code, fatal, retriable, abort| Marks { code, fatal, retriable, abort };
        for (marks, expected) in [
            (marks(Code::OperationTimedOut, false, true, false), Next::Again),
            (marks(Code::OperationTimedOut, false, false, false), Next::Again),
            (marks(Code::OutOfOrderSequenceNumber, false, false, true), Next::Abort),
            (marks(Code::Inconsistent, false, false, true), Next::Abort),
            (marks(Code::Fenced, true, false, false), Next::NewProducer),
            (marks(Code::Fenced, true, true, true), Next::NewProducer),
            (marks(Code::Fatal, true, false, false), Next::NewProducer),
            (marks(Code::Conflict, false, false, false), Next::NewProducer),
            (marks(Code::MessageSizeTooLarge, false, false, true), Next::Stop),
            (marks(Code::TopicAuthorizationFailed, false, false, true), Next::Stop),
            (marks(Code::TransactionalIdAuthorizationFailed, true, false, false), Next::Stop),
        ] {
            assert_eq!(next(marks), expected, "{marks:?}");
        }
        for (code, expected) in [(Code::TopicAuthorizationFailed, Next::Stop), (Code::OperationTimedOut, Next::Again)] {
            assert_eq!(next(Marks::of(&KafkaError::AdminOp(code))), expected, "{code}");
        }
    }
}
