//! Files of an instance or a custom volume over HTTP and over the SFTP upgrade. Both talk to the same confined file server, so
//! no path of a client or guest is ever resolved by the daemon.

use axum::body::Body;
use axum::response::Response;
use cabin_core::instance;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use hyper_util::rt::TokioIo;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::fs::{File, Metadata};
use russh_sftp::client::{RawSftpSession, SftpSession};
use russh_sftp::protocol::{OpenFlags, Packet, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::io::ReaderStream;

use crate::call::Call;
use crate::error::{Fault, Said};
use crate::handlers::volumes;
use crate::recursion::address;
use crate::reply::{self, Reply};
use crate::{directory, limits, send};

/// How much of a file is read at once, in bytes.
const CHUNK: usize = 128 * 1024;

/// A client of an instance's file server. The server ends with it.
struct Session<S = SftpSession> {
    sftp: S,
    server: Option<instance::Files>,
}

impl<S> Drop for Session<S> {
    /// The end of the server may take long, when it had the root filesystem of a stopped one mounted: no thread that
    /// serves others waits for it.
    fn drop(&mut self) {
        let server = self.server.take();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(server));
        }
    }
}

/// What sort of file it is, as the API calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

impl Kind {
    /// By the mode.
    pub fn of(metadata: &Metadata) -> Kind {
        match metadata.permissions.unwrap_or_default() & 0o170_000 {
            0o040_000 => Kind::Directory,
            0o120_000 => Kind::Symlink,
            0o100_000 | 0 => Kind::File,
            _ => Kind::Other,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Kind::File | Kind::Other => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
        }
    }
}

async fn open(call: &Call) -> Result<Session, Fault> {
    let (server, socket) = serve(call).await?;
    let path = call.name("name").to_owned();
    let act = "open the files of";
    let sftp =
        SftpSession::new(socket).await.map_err(|error| Fault::File { act, path, source: Said(error) })?;
    Ok(Session { sftp, server: Some(server) })
}

/// The same, for what only the requests themselves can do.
async fn open_raw(call: &Call, path: &str) -> Result<Session<RawSftpSession>, Fault> {
    let (server, socket) = serve(call).await?;
    let session = Session { sftp: RawSftpSession::new(socket), server: Some(server) };
    session.sftp.init().await.map_err(failed("open the files for", path))?;
    Ok(session)
}

async fn serve(call: &Call) -> Result<(instance::Files, UnixStream), Fault> {
    let (project, name) = (call.project(), call.name("name").to_owned());
    // An address below a pool.
    let volume = Some(call.name("volume").to_owned()).filter(|volume| !volume.is_empty());
    if volume.is_some() {
        volumes::only_custom(volumes::kind(call)?)?;
    }
    let (server, socket) = call
        .blocking(move |host| {
            let server = match volume {
                Some(volume) => cabin_core::volume::files(host, project, &name, &volume)?,
                None => instance::files(host, project, &name)?,
            };
            let socket = server.stream()?;
            Ok((server, socket))
        })
        .await?;
    let act = "talk to the file server";
    let socket = std::os::unix::net::UnixStream::from(socket);
    socket.set_nonblocking(true).map_err(Fault::io(act))?;
    Ok((server, UnixStream::from_std(socket).map_err(Fault::io(act))?))
}

/// The path asked for; relative ones begin at the root.
fn path(call: &Call) -> Result<String, Fault> {
    match call.query("path") {
        None | Some("") => Err(Fault::invalid("`path` is missing")),
        Some(path) if path.contains('\0') => Err(Fault::invalid("`path` holds a zero byte")),
        Some(path) if path.starts_with('/') => Ok(path.to_owned()),
        Some(path) => Ok(format!("/{path}")),
    }
}

/// What is said of a request that the file server refused.
pub fn failed<'a>(act: &'static str, path: &'a str) -> impl FnOnce(SftpError) -> Fault + use<'a> {
    move |error| Fault::File { act, path: path.to_owned(), source: Said(error) }
}

/// GET and HEAD.
///
/// # Errors
/// When there is no such file, or it cannot be read.
pub async fn get(call: Call) -> Result<Reply, Fault> {
    let path = path(&call)?;
    let session = open(&call).await?;
    let metadata = session.sftp.symlink_metadata(&path).await.map_err(failed("look at", &path))?;
    let kind = Kind::of(&metadata);
    let retrieved = call.parts.method != Method::HEAD && kind != Kind::Other;
    let headers = describe(&metadata, kind);
    let mut response = match kind {
        Kind::Directory => {
            drop(session);
            let names = directory::names(&open_raw(&call, &path).await?.sftp, &path).await?;
            Reply::Sync(names.into()).render()
        }
        Kind::Symlink => {
            let target = session.sftp.read_link(&path).await.map_err(failed("read the link", &path))?;
            octets(Body::from(target))
        }
        Kind::File => contents(session, &path, &metadata, call.parts.method == Method::HEAD).await?,
        Kind::Other => return Err(Fault::invalid(format!("`{path}` is no file, directory or symlink"))),
    };
    response.headers_mut().extend(headers);
    if retrieved {
        tell(&call, "retrieved", &path);
    }
    Ok(Reply::Raw(response))
}

/// Tells that a file was read or changed, as Incus does for what goes over HTTP.
fn tell(call: &Call, act: &str, path: &str) {
    let (name, volume) = (call.name("name"), call.name("volume"));
    let (action, source, name) = match volume.is_empty() {
        true => (format!("instance-file-{act}"), address("/1.0/instances", name), name),
        false => {
            let pool = address("/1.0/storage-pools", name);
            (format!("storage-volume-file-{act}"), address(&format!("{pool}/volumes/custom"), volume), volume)
        }
    };
    let events = call.app.host.events();
    events.lifecycle(call.project(), &action, &source, name, json!({ "path": path }), Some(&call.who));
}

async fn contents(
    session: Session,
    path: &str,
    metadata: &Metadata,
    head_only: bool,
) -> Result<Response, Fault> {
    let size = metadata.size.unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let body = if head_only {
        Body::empty()
    } else {
        let file = session.sftp.open(path).await.map_err(failed("open", path))?;
        // Files of the kernel say they are empty and are not: these go out with no size announced.
        let most = if size == 0 { u64::MAX } else { size };
        let chunks = ReaderStream::with_capacity(file.take(most), CHUNK);
        Body::from_stream(chunks.map(move |chunk| {
            let _kept_until_the_last_chunk = &session;
            chunk
        }))
    };
    let mut response = octets(body);
    let headers = response.headers_mut();
    if size > 0 || head_only {
        headers.insert(header::CONTENT_LENGTH, size.into());
    }
    headers.insert(header::CONTENT_DISPOSITION, send::disposition("inline", name)?);
    Ok(response)
}

fn octets(body: Body) -> Response {
    let mut response = Response::new(body);
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    response
}

/// Owner, mode, type and time, in the header families of Incus and of LXD.
fn describe(metadata: &Metadata, kind: Kind) -> HeaderMap {
    let modified = jiff::Timestamp::from_second(i64::from(metadata.mtime.unwrap_or_default()))
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let facts = [
        ("uid", metadata.uid.unwrap_or_default().to_string()),
        ("gid", metadata.gid.unwrap_or_default().to_string()),
        ("mode", format!("{:04o}", metadata.permissions.unwrap_or_default() & 0o7777)),
        ("type", kind.text().to_owned()),
        ("modified", modified.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
    ];
    let mut headers = HeaderMap::new();
    let date = modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    headers.extend(HeaderValue::from_str(&date).ok().map(|date| (header::LAST_MODIFIED, date)));
    for family in ["x-incus", "x-lxd"] {
        for (name, value) in &facts {
            let name = HeaderName::try_from(format!("{family}-{name}"));
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

/// What the headers of a POST ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Wanted {
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
}

impl Wanted {
    fn read(header: impl Fn(&str) -> Option<String>) -> Result<Wanted, Fault> {
        let number = |name: &str| match header(name) {
            None => Ok(None),
            // -1 is how older clients say "as it is".
            Some(text) if text == "-1" => Ok(None),
            Some(text) => {
                text.parse().map(Some).map_err(|_| Fault::invalid(format!("bad `{name}`: `{text}`")))
            }
        };
        let mode = match header("mode").as_deref() {
            None | Some("" | "-1") => None,
            Some(text) => {
                let mode = u32::from_str_radix(text.trim_start_matches("0o"), 8);
                Some(mode.map_err(|_| Fault::invalid(format!("bad `mode`: `{text}`")))? & 0o7777)
            }
        };
        Ok(Wanted { uid: number("uid")?, gid: number("gid")?, mode })
    }

    /// What is to be set; SFTP sets owner and group only together.
    fn over(self, now: &Metadata) -> Option<Metadata> {
        if self == Wanted::default() {
            return None;
        }
        let mut set = Metadata { permissions: self.mode, ..bare() };
        if self.uid.is_some() || self.gid.is_some() {
            set.uid = self.uid.or(now.uid);
            set.gid = self.gid.or(now.gid);
        }
        Some(set)
    }
}

/// Attributes that say nothing.
fn bare() -> Metadata {
    Metadata {
        size: None,
        uid: None,
        user: None,
        gid: None,
        group: None,
        permissions: None,
        atime: None,
        mtime: None,
    }
}

/// POST: writes a file, makes a directory or a symlink.
///
/// # Errors
/// When a header makes no sense, the body breaks off, or the guest's filesystem refuses.
pub async fn post(mut call: Call) -> Result<Reply, Fault> {
    let path = path(&call)?;
    let wanted = Wanted::read(|name| call.product_header(name).map(str::to_owned))?;
    let kind = call.product_header("type").unwrap_or("file").to_owned();
    let append = match call.product_header("write").unwrap_or("overwrite") {
        "overwrite" => false,
        "append" => true,
        other => return Err(Fault::invalid(format!("bad `write`: `{other}`"))),
    };
    match kind.as_str() {
        "file" => {
            let session = open(&call).await?;
            write(&mut call, &session.sftp, &path, wanted, append).await?;
        }
        "directory" => make_directory(&open(&call).await?.sftp, &path, wanted).await?,
        "symlink" => make_symlink(&mut call, &path, wanted).await?,
        other => return Err(Fault::invalid(format!("bad `type`: `{other}`"))),
    }
    tell(&call, "pushed", &path);
    Ok(Reply::empty())
}

/// Writes a file. One that is there keeps its owner and mode, unless a header of our own says otherwise, and one that is
/// not is not appended to (as Incus).
async fn write(
    call: &mut Call,
    sftp: &SftpSession,
    path: &str,
    wanted: Wanted,
    append: bool,
) -> Result<(), Fault> {
    let replaces = call.product_header("owner") == Some("replace");
    let keeps = !replaces && sftp.metadata(path).await.is_ok();
    let how = if append { OpenFlags::APPEND } else { OpenFlags::CREATE | OpenFlags::TRUNCATE };
    let fresh = Metadata { permissions: Some(wanted.mode.unwrap_or(0o644)), ..bare() };
    let mut file = sftp
        .open_with_flags_and_attributes(path, OpenFlags::WRITE | how, fresh)
        .await
        .map_err(failed("open", path))?;
    // Before the first byte: a secret must never lie open, not even for a moment.
    let now = file.metadata().await.map_err(failed("look at", path))?;
    if let Some(set) = wanted.over(&now).filter(|_| !keeps) {
        file.set_metadata(set).await.map_err(failed("set owner and mode of", path))?;
    }
    let outcome = copy(call.take_body(), &mut file).await;
    let closed = file.close().await.map_err(Fault::io("finish writing the file"));
    outcome.and(closed)
}

async fn copy(body: Body, to: &mut File) -> Result<(), Fault> {
    let mut chunks = body.into_data_stream();
    while let Some(chunk) =
        timeout(limits::UPLOAD_IDLE, chunks.next()).await.map_err(|_| Fault::BodyTooSlow)?
    {
        let chunk = chunk.map_err(|source| Fault::BodyRead { source })?;
        to.write_all(&chunk).await.map_err(Fault::io("write the file"))?;
    }
    to.flush().await.map_err(Fault::io("write the file"))
}

/// Makes a directory. One that is there stays as it is, also when a link leads to it (as Incus).
async fn make_directory(sftp: &SftpSession, path: &str, wanted: Wanted) -> Result<(), Fault> {
    let there = sftp.metadata(path).await;
    let now = match there {
        Ok(now) if Kind::of(&now) == Kind::Directory => return Ok(()),
        Ok(_) => return Err(Fault::invalid(format!("`{path}` is there and no directory"))),
        Err(_) => {
            sftp.create_dir(path).await.map_err(failed("make the directory", path))?;
            let mode = wanted.mode.unwrap_or(0o755);
            let now = sftp.symlink_metadata(path).await.map_err(failed("look at", path))?;
            let fresh = Metadata { permissions: Some(mode), ..bare() };
            sftp.set_metadata(path, fresh).await.map_err(failed("set the mode of", path))?;
            now
        }
    };
    match wanted.over(&now) {
        Some(set) => sftp.set_metadata(path, set).await.map_err(failed("set owner and mode of", path)),
        None => Ok(()),
    }
}

/// What [`LSETSTAT`] says.
#[derive(Serialize)]
struct Lsetstat<'a> {
    path: &'a str,
    attrs: Metadata,
}

/// OpenSSH's request for the attributes of a link itself, which the protocol has none for.
const LSETSTAT: &str = "lsetstat@openssh.com";

/// Makes a symlink; it has no mode of its own.
async fn make_symlink(call: &mut Call, path: &str, wanted: Wanted) -> Result<(), Fault> {
    let target = call.bytes(limits::LINK_TARGET).await?;
    let target = String::from_utf8(target.to_vec())
        .map_err(|_| Fault::invalid("the target of the symlink is not UTF-8"))?;
    let Session { sftp, .. } = &open_raw(call, path).await?;
    // The order OpenSSH has on the wire, which is not that of the standard: target first.
    sftp.symlink(target, path).await.map_err(failed("make the symlink", path))?;
    let now = sftp.lstat(path).await.map_err(failed("look at", path))?.attrs;
    let Some(attrs) = (Wanted { mode: None, ..wanted }).over(&now) else { return Ok(()) };
    let asked = russh_sftp::ser::to_bytes(&Lsetstat { path, attrs }).map_err(|error| error.to_string());
    let answer = match asked {
        Ok(asked) => sftp.extended(LSETSTAT, asked.to_vec()).await,
        Err(why) => Err(SftpError::UnexpectedBehavior(why)),
    };
    let done = match answer {
        Ok(Packet::Status(status)) if status.status_code == StatusCode::Ok => Ok(()),
        Ok(Packet::Status(status)) => Err(SftpError::Status(status)),
        Ok(_) => Err(SftpError::UnexpectedPacket),
        Err(error) => Err(error),
    };
    done.map_err(failed("set the owner of", path))
}

/// DELETE: a file, an empty directory, or with `X-Incus-force` a directory and all in it.
///
/// # Errors
/// When there is no such file, or the guest's filesystem refuses.
pub async fn delete(call: Call) -> Result<Reply, Fault> {
    let path = path(&call)?;
    let force = matches!(call.product_header("force"), Some("true" | "1"));
    let session = open(&call).await?;
    let metadata = session.sftp.symlink_metadata(&path).await.map_err(failed("look at", &path))?;
    match Kind::of(&metadata) {
        Kind::Directory if force => {
            drop(session);
            directory::delete(&open_raw(&call, &path).await?.sftp, &path).await?;
        }
        Kind::Directory => session.sftp.remove_dir(&path).await.map_err(failed("delete", &path))?,
        _ => session.sftp.remove_file(&path).await.map_err(failed("delete", &path))?,
    }
    tell(&call, "deleted", &path);
    Ok(Reply::empty())
}

/// GET …/sftp: the connection becomes one to the file server.
///
/// # Errors
/// When the request does not ask for it, or the file server cannot be started.
pub async fn sftp(mut call: Call) -> Result<Reply, Fault> {
    let asked = call.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|asked| asked.eq_ignore_ascii_case("sftp")) {
        return Err(Fault::invalid("missing or invalid upgrade header: it should say `sftp`"));
    }
    let upgrade = call
        .parts
        .extensions
        .remove::<hyper::upgrade::OnUpgrade>()
        .ok_or_else(|| Fault::invalid("this connection cannot be upgraded"))?;
    let (server, mut socket) = serve(&call).await?;
    tokio::spawn(async move {
        if let Ok(client) = upgrade.await {
            // Either side may hang up at any time; there is nobody left to tell.
            let _ = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut socket).await;
        }
        // Ending the file server waits for its process.
        tokio::task::spawn_blocking(move || drop(server));
    });
    Ok(Reply::Raw(reply::switching_to("sftp")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Result<Wanted, Fault> {
        Wanted::read(|name| {
            headers.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn owner_and_mode_are_read_from_headers() {
        let wanted = read(&[("uid", "1000"), ("gid", "-1"), ("mode", "0640")]).unwrap();
        assert_eq!(wanted, Wanted { uid: Some(1000), gid: None, mode: Some(0o640) });
        assert_eq!(read(&[]).unwrap(), Wanted::default());
        for bad in [("uid", "root"), ("gid", "99999999999"), ("mode", "0999")] {
            assert!(read(&[bad]).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_of_owner_and_group_keeps_the_other() {
        let now = Metadata { uid: Some(5), gid: Some(6), ..bare() };
        let set = Wanted { uid: Some(7), ..Wanted::default() }.over(&now).unwrap();
        assert_eq!((set.uid, set.gid, set.permissions), (Some(7), Some(6), None));
        assert!(Wanted::default().over(&now).is_none());
    }

    #[test]
    fn files_are_described_to_clients_of_both_families() {
        let metadata =
            Metadata { uid: Some(1), gid: Some(2), permissions: Some(0o100_644), mtime: Some(0), ..bare() };
        let headers = describe(&metadata, Kind::of(&metadata));
        assert_eq!(headers[header::LAST_MODIFIED], "Thu, 01 Jan 1970 00:00:00 GMT");
        for family in ["x-incus", "x-lxd"] {
            assert_eq!(headers[format!("{family}-mode")], "0644");
            assert_eq!(headers[format!("{family}-type")], "file");
            assert_eq!(headers[format!("{family}-modified")], "1970-01-01 00:00:00 +0000 UTC");
        }
    }
}
