//! Tags that tell whether an object is still what a client read.

use serde::Serialize;

use crate::Error;

/// The tag of an object: a hash of its JSON.
pub fn etag(value: &impl Serialize) -> String {
    let text = serde_json::to_vec(value).unwrap_or_default();
    cabin_images::digest(&text)
}

/// Refuses a change whose `If-Match` does not name the object's present tag.
///
/// # Errors
/// [`Error::Changed`].
pub fn check(what: &'static str, name: &str, tag: &str, if_match: Option<&str>) -> Result<(), Error> {
    match if_match.map(|sent| sent.trim().trim_matches('"')) {
        None | Some("" | "*") => Ok(()),
        Some(sent) if sent == tag => Ok(()),
        Some(_) => Err(Error::Changed { what, name: name.to_owned() }),
    }
}
