//! libpq, safely: the few calls that a replication client needs.
//!
//! **Why libpq, and why called from here.** libpq brings unix sockets, `.pgpass`, service files,
//! client certificates, Kerberos and every `sslmode`; no other client has them all. A published
//! wrapper was used before. It waited for the socket after one `PQconsumeInput`, but libpq stops
//! reading when *its* buffer is full and enlarges that buffer only at the next `PQgetCopyData`. So
//! bytes stayed in the socket, the wake-up was edge-triggered and used up, and with a full TCP
//! window no further one came: 3 of 12 rows of 50 KB to 10 MB into an idle stream never arrived.
//! The wrapper does not show its socket, its connection or the server's notices, so no code above
//! it could mend that.
//!
//! **The rule.** [`PgConnection::next`] answers `None` only when libpq has no whole message and the
//! kernel has no byte. Plain connections ask the kernel (`poll`). Under TLS or GSS decrypted bytes
//! may wait in the library: a record holds at most 16 KiB and each `PQconsumeInput` has room for
//! 8 KiB at least, so [`ENCRYPTED_READS`] reads in a row without a message empty it.
//!
//! **Unsafe code.** All of it is in this file. The need is measured above. Each block says why it
//! is sound; throughout, `self.raw` is not null and open until `drop`, and `&mut self` (or a call
//! that libpq documents as read-only) keeps two calls from running at once.
//!
//! Covered by: `it::liveness`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use pq_sys::{ConnStatusType, ExecStatusType, PGconn, PGresult};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Reads without a message after which an encrypted connection holds no decrypted byte any more.
const ENCRYPTED_READS: u32 = 3;
/// Messages up to this size, in bytes, share one allocation with others.
const SHARED: usize = 64 << 10;

/// What the server (or libpq, with an empty SQLSTATE) said about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerError {
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

/// A message beside the results: a WARNING, NOTICE or LOG of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// In English whatever the server's language: `WARNING`, `NOTICE`, ….
    pub(crate) severity: String,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
}

/// An open connection.
pub(crate) struct PgConnection {
    raw: NonNull<PGconn>,
    /// Shared with libpq, which calls [`receive_notice`] with its address.
    notices: Arc<Mutex<Vec<Notice>>>,
    encrypted: bool,
    /// Reads since the last message or byte.
    dry_reads: u32,
    /// Small messages are cut from it.
    shared: BytesMut,
}

// SAFETY: a PGconn may be used from any thread, by one at a time; `&mut self` sees to that.
unsafe impl Send for PgConnection {}

/// A statement's result.
pub(crate) struct PgResult(NonNull<PGresult>);

/// The library's own version as a number (`150004`).
pub(crate) fn version() -> i32 {
    // SAFETY: returns a constant.
    unsafe { pq_sys::PQlibVersion() }
}

impl PgConnection {
    /// Connects; blocks. The error is libpq's text, which may quote parts of the connection string.
    pub(crate) fn connect(connection_string: &str) -> Result<Self, String> {
        let text = CString::new(connection_string).map_err(|_| "a NUL byte in it".to_owned())?;
        // SAFETY: `text` is a C string that lives through the call.
        let raw = NonNull::new(unsafe { pq_sys::PQconnectdb(text.as_ptr()) }).ok_or("out of memory")?;
        let mut connection =
            Self { raw, notices: Arc::default(), encrypted: false, dry_reads: 0, shared: BytesMut::new() };
        // SAFETY: the connection is open; the address stays valid until `drop` has closed it, since
        // `notices` is dropped after that, and the Mutex takes care of who writes.
        unsafe {
            if pq_sys::PQstatus(raw.as_ptr()) != ConnStatusType::CONNECTION_OK {
                return Err(connection.error_message());
            }
            let address = Arc::as_ptr(&connection.notices).cast_mut().cast::<c_void>();
            pq_sys::PQsetNoticeReceiver(raw.as_ptr(), Some(receive_notice), address);
            connection.encrypted = pq_sys::PQsslInUse(raw.as_ptr()) != 0 || pq_sys::PQgssEncInUse(raw.as_ptr()) != 0;
        }
        Ok(connection)
    }

    /// The server's version as a number (`150004`).
    pub(crate) fn server_version(&self) -> i32 {
        // SAFETY: reads a field.
        unsafe { pq_sys::PQserverVersion(self.raw.as_ptr()) }
    }

    /// Runs a statement or a replication command; blocks.
    pub(crate) fn exec(&mut self, sql: &str) -> Result<PgResult, ServerError> {
        let text = CString::new(sql).map_err(|_| ServerError::local("a NUL byte in a statement"))?;
        // SAFETY: `text` is a C string that lives through the call; the result is ours to free.
        let result = NonNull::new(unsafe { pq_sys::PQexec(self.raw.as_ptr(), text.as_ptr()) })
            .map(PgResult)
            .ok_or_else(|| ServerError::local(self.error_message()))?;
        match result.status() {
            ExecStatusType::PGRES_COMMAND_OK | ExecStatusType::PGRES_TUPLES_OK | ExecStatusType::PGRES_COPY_BOTH => {
                Ok(result)
            }
            _ => Err(result.error()),
        }
    }

    /// A second handle of the connection's socket.
    pub(crate) fn socket(&self) -> Result<OwnedFd, ServerError> {
        // SAFETY: reads a field.
        let number = unsafe { pq_sys::PQsocket(self.raw.as_ptr()) };
        if number < 0 {
            return Err(ServerError::local(self.error_message()));
        }
        // SAFETY: the open connection's socket; it is duplicated before anything can close it.
        let duplicate = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned();
        duplicate.map_err(|cause| ServerError::local(cause.to_string()))
    }

    /// After START_REPLICATION: no later call waits for the socket, of which this returns a handle
    /// to wait with. Must run where a tokio runtime is entered.
    pub(crate) fn begin_stream(&mut self) -> Result<AsyncFd<OwnedFd>, ServerError> {
        // SAFETY: sets a field, and sends what is queued.
        if unsafe { pq_sys::PQsetnonblocking(self.raw.as_ptr(), 1) } != 0 {
            return Err(ServerError::local(self.error_message()));
        }
        let socket = self.socket()?;
        // SAFETY: an owned descriptor stays open, and the same, for as long as `AsyncFd` owns it.
        let registered = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
        registered.map_err(|failed| ServerError::local(std::io::Error::from(failed).to_string()))
    }

    /// The next message of the stream, `None` when everything that has arrived was read. Does not
    /// wait. `socket` is [`PgConnection::begin_stream`]'s.
    ///
    /// # Errors
    ///
    /// Why the stream has ended.
    pub(crate) fn next(&mut self, socket: &OwnedFd) -> Result<Option<Bytes>, ServerError> {
        loop {
            if let Some(message) = self.buffered()? {
                self.dry_reads = 0;
                return Ok(Some(message));
            }
            let dry = !self.encrypted || self.dry_reads >= ENCRYPTED_READS;
            if dry && !is_readable(socket) {
                self.dry_reads = 0;
                return Ok(None);
            }
            // SAFETY: reads what the socket has into libpq's buffer.
            if unsafe { pq_sys::PQconsumeInput(self.raw.as_ptr()) } == 0 {
                return Err(ServerError::local(self.error_message()));
            }
            self.dry_reads += 1;
        }
    }

    /// The next whole message in libpq's buffer.
    fn buffered(&mut self) -> Result<Option<Bytes>, ServerError> {
        let mut buffer: *mut c_char = ptr::null_mut();
        // SAFETY: `buffer` receives an allocation of libpq's with as many bytes as the answer says.
        let length = unsafe { pq_sys::PQgetCopyData(self.raw.as_ptr(), &raw mut buffer, 1) };
        let Ok(length) = usize::try_from(length) else {
            return Err(if length == -1 { self.end_of_stream() } else { ServerError::local(self.error_message()) });
        };
        if buffer.is_null() {
            return Ok(None);
        }
        // SAFETY: see above; the bytes are copied before they are freed.
        let message = unsafe {
            let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), length);
            let message = if length > SHARED {
                Bytes::copy_from_slice(bytes)
            } else {
                if self.shared.capacity() < length {
                    self.shared.reserve(SHARED);
                }
                self.shared.extend_from_slice(bytes);
                self.shared.split().freeze()
            };
            pq_sys::PQfreemem(buffer.cast::<c_void>());
            message
        };
        Ok(Some(message))
    }

    /// Why `PQgetCopyData` found the stream's end. One result is asked for: the server's error, or
    /// that the COPY has ended. It has arrived whole, so this does not wait.
    fn end_of_stream(&mut self) -> ServerError {
        // SAFETY: the result, if any, is ours to free.
        match NonNull::new(unsafe { pq_sys::PQgetResult(self.raw.as_ptr()) }).map(PgResult) {
            Some(result) if result.status() == ExecStatusType::PGRES_FATAL_ERROR => result.error(),
            _ => ServerError::local("the server ended the stream"),
        }
    }

    /// Queues a message for the server, and sends as much as the socket takes. What is left goes
    /// out with a later call or read. Does not wait.
    pub(crate) fn send(&mut self, message: &[u8]) -> Result<(), ServerError> {
        let length = c_int::try_from(message.len()).map_err(|_| ServerError::local("a message too long"))?;
        // SAFETY: libpq copies `length` bytes.
        let sent = unsafe {
            let queued = pq_sys::PQputCopyData(self.raw.as_ptr(), message.as_ptr().cast(), length);
            queued >= 0 && pq_sys::PQflush(self.raw.as_ptr()) >= 0
        };
        if sent { Ok(()) } else { Err(ServerError::local(self.error_message())) }
    }

    /// What the server said beside its results since the last call.
    pub(crate) fn notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn error_message(&self) -> String {
        // SAFETY: libpq's own text, valid until its next call.
        unsafe { text(pq_sys::PQerrorMessage(self.raw.as_ptr())) }
    }
}

impl Drop for PgConnection {
    fn drop(&mut self) {
        // SAFETY: the only place that closes it; nothing uses it after.
        unsafe { pq_sys::PQfinish(self.raw.as_ptr()) }
    }
}

impl ServerError {
    /// Something that no server said.
    pub(crate) fn local(message: impl Into<String>) -> Self {
        Self { sqlstate: String::new(), message: message.into() }
    }
}

impl PgResult {
    fn status(&self) -> ExecStatusType {
        // SAFETY: reads a field.
        unsafe { pq_sys::PQresultStatus(self.0.as_ptr()) }
    }

    fn error(&self) -> ServerError {
        // SAFETY: texts that the result owns, copied.
        unsafe {
            ServerError {
                sqlstate: field(self.0.as_ptr(), pq_sys::PG_DIAG_SQLSTATE),
                message: text(pq_sys::PQresultErrorMessage(self.0.as_ptr())),
            }
        }
    }

    /// Rows.
    pub(crate) fn ntuples(&self) -> i32 {
        // SAFETY: reads a field.
        unsafe { pq_sys::PQntuples(self.0.as_ptr()) }
    }

    /// A value's text; `None` for NULL, and outside the result.
    pub(crate) fn get_value(&self, row: i32, column: i32) -> Option<String> {
        self.get_bytes(row, column).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }

    /// A value's bytes; `None` for NULL, and outside the result.
    pub(crate) fn get_bytes(&self, row: i32, column: i32) -> Option<&[u8]> {
        let result = self.0.as_ptr();
        // SAFETY: the indexes are checked first; the bytes live as long as the result, so as
        // `self`.
        unsafe {
            let inside = (0..self.ntuples()).contains(&row) && (0..pq_sys::PQnfields(result)).contains(&column);
            if !inside || pq_sys::PQgetisnull(result, row, column) != 0 {
                return None;
            }
            let length = usize::try_from(pq_sys::PQgetlength(result, row, column)).ok()?;
            Some(std::slice::from_raw_parts(pq_sys::PQgetvalue(result, row, column).cast::<u8>(), length))
        }
    }
}

impl Drop for PgResult {
    fn drop(&mut self) {
        // SAFETY: the only place that frees it.
        unsafe { pq_sys::PQclear(self.0.as_ptr()) }
    }
}

/// Whether a read would find a byte, the end or an error.
fn is_readable(socket: &OwnedFd) -> bool {
    let mut sockets = [PollFd::new(socket, PollFlags::IN)];
    // An interrupted or failed question is answered by a read, which waits for nothing.
    poll(&mut sockets, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
}

/// libpq's call-back for notices.
extern "C" fn receive_notice(notices: *mut c_void, result: *const PGresult) {
    // SAFETY: `notices` is the address that `connect` gave, alive until the connection is closed;
    // the result is libpq's and valid during this call.
    unsafe {
        let notices = &*notices.cast_const().cast::<Mutex<Vec<Notice>>>();
        let notice = Notice {
            severity: field(result, pq_sys::PG_DIAG_SEVERITY_NONLOCALIZED),
            sqlstate: field(result, pq_sys::PG_DIAG_SQLSTATE),
            message: field(result, pq_sys::PG_DIAG_MESSAGE_PRIMARY),
        };
        notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }
}

/// A field of an error or a notice; empty when it has none.
///
/// # Safety
///
/// `result` is a valid result.
unsafe fn field(result: *const PGresult, code: u8) -> String {
    // SAFETY: the caller's; the text belongs to the result.
    unsafe { text(pq_sys::PQresultErrorField(result, c_int::from(code))) }
}

/// # Safety
///
/// `text` is null or a C string.
unsafe fn text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
