//! The time, as it is written on the wire.

use jiff::Timestamp;

/// Now, in RFC 3339 with nanoseconds.
#[must_use]
pub fn now() -> String {
    Timestamp::now().to_string()
}

/// A unix time, in RFC 3339.
#[must_use]
pub fn from_unix(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| cabin_api::ZERO_TIME.to_owned(), |time| time.to_string())
}
