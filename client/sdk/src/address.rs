//! Addresses of objects: paths with names in them, and queries, percent-encoded.

use std::fmt;

/// An address below the server's root, such as `/1.0/instances/web?recursion=1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    text: String,
    has_query: bool,
}

impl Address {
    /// An address whose text is known to be right, query included.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Address {
        let text = text.into();
        Address { has_query: text.contains('?'), text }
    }

    /// Adds a name as one path segment, whatever is in it.
    #[must_use]
    pub fn name(mut self, name: &str) -> Address {
        self.text.push('/');
        self.text.push_str(&encode(name));
        self
    }

    /// Adds a path segment that is known to be right.
    #[must_use]
    pub fn then(mut self, segment: &str) -> Address {
        self.text.push('/');
        self.text.push_str(segment);
        self
    }

    /// Adds a query argument.
    #[must_use]
    pub fn query(mut self, key: &str, value: &str) -> Address {
        self.text.push(if self.has_query { '&' } else { '?' });
        self.has_query = true;
        self.text.push_str(key);
        self.text.push('=');
        self.text.push_str(&encode(value));
        self
    }

    /// Adds a query argument unless its value is empty.
    #[must_use]
    pub fn query_if(self, key: &str, value: Option<&str>) -> Address {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    /// The address as it is sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// Percent-encodes all that is not unreserved in RFC 3986.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(b"0123456789ABCDEF"[usize::from(byte >> 4)]));
            encoded.push(char::from(b"0123456789ABCDEF"[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// Undoes percent-encoding; what is not valid is left as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], pair.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 3;
            }
            (byte, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Key and value pairs as a query string, for headers that carry maps.
pub(crate) fn form<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> =
        pairs.into_iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect();
    pairs.join("&")
}

/// The last segment of an object's address, decoded, without its query.
pub(crate) fn last_name(address: &str) -> String {
    let path = address.split('?').next().unwrap_or(address);
    decode(path.rsplit('/').next().unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        let address = Address::new("/1.0/images/aliases").name("debian/12?x=1#y");
        assert_eq!(address.as_str(), "/1.0/images/aliases/debian%2F12%3Fx%3D1%23y");
    }

    #[test]
    fn queries_join_with_one_question_mark() {
        let address = Address::new("/1.0/instances").query("recursion", "1").query("filter", "name eq a b");
        assert_eq!(address.as_str(), "/1.0/instances?recursion=1&filter=name%20eq%20a%20b");
        let given = Address::new("/1.0/x?a=1").query("b", "2").query_if("c", None);
        assert_eq!(given.as_str(), "/1.0/x?a=1&b=2");
    }

    #[test]
    fn the_last_name_is_decoded() {
        assert_eq!(last_name("/1.0/images/aliases/debian%2F12?project=default"), "debian/12");
        assert_eq!(last_name("/1.0/instances/web"), "web");
        assert_eq!(decode("100%"), "100%");
    }
}
