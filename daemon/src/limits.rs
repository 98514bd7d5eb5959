//! What one client may ask of the daemon: sizes, depths, times, connections. Nothing here is configurable.

use std::time::Duration;

/// The largest JSON body, in bytes.
pub const JSON_BODY: usize = 1024 * 1024;

/// How deep objects and lists may be nested in a JSON body.
pub const JSON_DEPTH: usize = 64;

/// How long a JSON body may take to arrive.
pub const JSON_TIME: Duration = Duration::from_secs(30);

/// How long a JSON body may send nothing at all.
pub const JSON_IDLE: Duration = Duration::from_secs(10);

/// How long an upload may send nothing at all.
pub const UPLOAD_IDLE: Duration = Duration::from_secs(60);

/// The largest target of a symlink, in bytes (PATH_MAX).
pub const LINK_TARGET: usize = 4096;

/// How long the header of a request may take to arrive; an idle connection is closed after it too.
pub const HEADER_TIME: Duration = Duration::from_secs(10);

/// The largest header of a request, in bytes.
pub const HEADER_SIZE: usize = 64 * 1024;

/// Connections at once. Those beyond are told to come back later.
pub const CONNECTIONS: usize = 12_000;

/// How long the websockets of an operation may take to be connected.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How often a websocket is pinged.
pub const PING_EVERY: Duration = Duration::from_secs(10);

/// The largest message taken from a websocket, in bytes.
pub const MESSAGE: usize = 4 * 1024 * 1024;

/// What a websocket keeps at hand to read into, in bytes; what is larger is given room as it comes.
pub const READ_BUFFER: usize = 8 * 1024;

/// How long a listener of events may refuse to read before it is dropped.
pub const EVENT_TIME: Duration = Duration::from_secs(10);

/// How long requests that are being answered may take once the daemon is told to stop.
pub const STOP_TIME: Duration = Duration::from_secs(5);

/// The largest image upload, in bytes.
pub const IMAGE: u64 = 64 * 1024 * 1024 * 1024;

/// How long a client may take to hang up once a websocket has nothing more for it.
pub const PARTING_TIME: Duration = Duration::from_secs(30);
