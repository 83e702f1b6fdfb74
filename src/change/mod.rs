//! What a transaction is made of: relations, rows, cells, commands.
//!
//! A *frame* is one pgoutput message, the bytes as PostgreSQL sent them (without the xid that
//! follows the tag while a transaction is streamed). A *command* is a frame that changes something:
//! INSERT, UPDATE, DELETE, TRUNCATE. Frames are kept as bytes until the moment a destination
//! executes them; decoding borrows from those bytes and copies nothing.

mod batch;
#[cfg(any(test, feature = "failpoints"))]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod built;
mod command;
mod frame;
mod group;
mod net;
mod relation;

pub use batch::{Batch, Execution, TransactionInfo};
pub use command::{Cell, Command, Identity, Row, Tag, relation_oids};
pub use frame::{DecodeError, FrameReader};
pub use group::{Change, ColumnSet, Group, GroupKind, Groups};
pub use net::{Key, net_effect};
pub use relation::{
    Catalogue, Column, ColumnCatalogue, DroppedColumn, Relation, RelationRecord, RelationVersion, ReplicaIdentity,
    TypeInfo, TypeKind,
};
