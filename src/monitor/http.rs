//! The HTTP server: a few pages to read, nothing to change.
//!
//! | path | answer |
//! |---|---|
//! | `/` | the status page, which asks `/status.json` every few seconds |
//! | `/status.json` | a [`Snapshot`](super::Snapshot) |
//! | `/metrics` | Prometheus's text format |
//! | `/health` | 200 while the process lives |
//! | `/ready` | 200 while it makes progress or has nothing to do, else 503; JSON with the reasons and warnings |
//!
//! A standby that waits for its turn answers 200 at `/health`, and 503 elsewhere.
//!
//! It has no authentication and shows names of tables, and values of keys in errors: it listens on
//! loopback unless told otherwise. A slow or odd client costs one connection of [`CONNECTIONS`] for
//! [`PATIENCE`] at most; headers are bounded by the HTTP library.
//!
//! Covered by: `it::observe`.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Monitor, exposition};

/// Connections at the same time: scrapers, probes and a few people.
const CONNECTIONS: usize = 32;
/// How long a connection may take, from its beginning to the last byte of its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is read of a request at most, in bytes.
const REQUEST_BYTES: usize = 16 << 10;
const STATUS_PAGE: &str = include_str!("status.html");
const JSON: &str = "application/json";

/// Takes the port.
///
/// # Errors
///
/// A text that says what is in the way and what to do.
pub fn bind(address: &str) -> Result<std::net::TcpListener, String> {
    let listener = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "another process listens there, probably another pg2any with the same --metrics-address or a web server (`ss -ltnp` \
                 shows it): choose another port, or `none`"
            }
            io::ErrorKind::AddrNotAvailable => "this machine does not have the address: 0.0.0.0 means all that it has",
            io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
            _ => "choose another address with --metrics-address, or `none`",
        };
        format!("metrics and status page cannot be served at {address}: {error}; {hint}")
    })
}

/// Answers for a pipeline until `shutdown`.
pub(super) async fn serve(listener: std::net::TcpListener, monitor: Arc<Monitor>, shutdown: CancellationToken) {
    serve_with(listener, shutdown, move |request| answer(&monitor, request)).await;
}

/// Answers for a process that waits for its turn until `shutdown`: it lives, and is not ready.
pub(super) async fn serve_standby(listener: std::net::TcpListener, shutdown: CancellationToken) {
    const WHY: &str = "another process has the pipeline; this one takes over when that one is gone";
    serve_with(listener, shutdown, |request| match request.uri().path() {
        "/health" => alive(),
        "/ready" => {
            let reasons = json!([{"code": "standby", "message": WHY}]);
            json_of(StatusCode::SERVICE_UNAVAILABLE, &json!({"ready": false, "state": "standby", "reasons": reasons}))
        }
        _ => text(StatusCode::SERVICE_UNAVAILABLE, format!("{WHY}\n")),
    })
    .await;
}

async fn serve_with<A>(listener: std::net::TcpListener, shutdown: CancellationToken, answer: A)
where
    A: Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Clone + Send + 'static,
{
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!(%error, "metrics and status page are not served"),
    };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // A connection that finds no place waits in the kernel's queue.
        let next = async { (Arc::clone(&places).acquire_owned().await, listener.accept().await) };
        let next = tokio::select! {
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        let (Ok(place), Ok((stream, _))) = next else {
            // Out of descriptors, most likely: not a reason to spin, nor to stop.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (answer, shutdown) = (answer.clone(), shutdown.clone());
        tokio::spawn(async move {
            let _place = place;
            let answer = service_fn(move |request| {
                let answered = answer(&request);
                async move { Ok::<_, Infallible>(answered) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(REQUEST_BYTES)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), answer);
            tokio::select! {
                () = shutdown.cancelled() => {}
                _ = tokio::time::timeout(PATIENCE, connection) => {}
            }
        });
    }
}

fn answer<B>(monitor: &Monitor, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let answered = match request.uri().path() {
        "/" => Ok(response(StatusCode::OK, "text/html; charset=utf-8", STATUS_PAGE)),
        "/health" => Ok(alive()),
        "/ready" => monitor.snapshot().map_err(|error| error.to_string()).map(|now| {
            let status = if now.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            let body = json!({
                "ready": now.ready, "state": now.state, "lag_seconds": now.lag_seconds, "reasons": now.reasons,
                "warnings": now.warnings,
            });
            json_of(status, &body)
        }),
        "/status.json" => monitor
            .with_history()
            .map_err(|error| error.to_string())
            .map(|now| json_of(StatusCode::OK, &serde_json::to_value(&now).unwrap_or_default())),
        "/metrics" => monitor
            .snapshot()
            .map_err(|error| error.to_string())
            .and_then(|now| exposition::page(&now, &monitor.parts.metrics))
            .map(|page| response(StatusCode::OK, prometheus::TEXT_FORMAT, page)),
        _ => Ok(text(StatusCode::NOT_FOUND, "here are /, /status.json, /metrics, /health and /ready\n")),
    };
    answered.unwrap_or_else(|error| text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))
}

fn alive() -> Response<Full<Bytes>> {
    json_of(StatusCode::OK, &json!({"status": "alive", "version": env!("CARGO_PKG_VERSION")}))
}

fn json_of(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    response(status, JSON, format!("{value}\n"))
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", body)
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    // The page loads nothing from elsewhere, and nobody may put it into a frame.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; \
                          img-src data:; frame-ancestors 'none'";
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    for (name, value) in [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store"), (CONTENT_SECURITY_POLICY, POLICY)] {
        response.headers_mut().insert(name, hyper::header::HeaderValue::from_static(value));
    }
    response
}
