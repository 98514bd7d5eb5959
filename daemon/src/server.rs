//! The listening socket, the connections and the router made from the table of routes.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use cabin_core::Settings;
use http::{Method, Request, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::fs::FlockOperation;
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;

use crate::app::App;
use crate::call::Call;
use crate::error::Fault;
use crate::linger::Lingering;
use crate::patient::{Patient, Upgraded};
use crate::reply;
use crate::routes::{self, Route};
use crate::{auth, limits};

/// The group that may use the socket beside root.
const GROUP: &str = "cabin";

/// The file in the daemon's directory that a running one has locked.
const LOCK: &str = "cabind.lock";

/// What is answered while a daemon that starts still takes up instances; all else waits until it has.
const BEFORE_TAKEN_UP: [&str; 3] = ["/internal/ready", "/internal/doctor", "/internal/fault"];

/// How often is looked whether the socket is still where clients look for it.
const LOOK: Duration = Duration::from_secs(2);

/// How long is waited before the next connection when one could not be taken.
const BREATH: Duration = Duration::from_millis(50);

/// Why the daemon cannot serve.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ServeError {
    #[error("another daemon already runs with the directory `{}`", dir.display())]
    AlreadyRunning { dir: PathBuf },
    #[error("another daemon answers on `{}`", socket.display())]
    SocketTaken { socket: PathBuf },
    #[error("cannot {act} `{}`", path.display())]
    Io {
        act: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn failed(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |source| ServeError::Io { act, path, source }
}

/// Keeps a second daemon from the same directory; given back by the kernel however the daemon ends. It is a lock of the
/// process (fcntl_locking(2)), not of the open file: a program that a killed daemon was just starting has no part in it.
///
/// # Errors
/// When another daemon has it.
pub fn lock(settings: &Settings) -> Result<File, ServeError> {
    fs::create_dir_all(&settings.dir).map_err(failed("make", &settings.dir))?;
    let path = settings.dir.join(LOCK);
    let open = File::options().create(true).truncate(false).write(true).open(&path);
    let file = open.map_err(failed("open", &path))?;
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            Err(ServeError::AlreadyRunning { dir: settings.dir.clone() })
        }
        Err(error) => Err(failed("lock", &path)(error.into())),
    }
}

/// Whether a daemon runs with that directory. Only looked at: a daemon that starts meanwhile is not in its way.
pub fn is_locked(settings: &Settings) -> bool {
    use nix::libc::{F_UNLCK, F_WRLCK, SEEK_SET, flock};
    let Ok(file) = File::options().write(true).open(settings.dir.join(LOCK)) else { return false };
    let mut held =
        flock { l_type: F_WRLCK as i16, l_whence: SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 };
    let asked = nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_GETLK(&mut held));
    asked.is_ok() && held.l_type != F_UNLCK as i16
}

/// The socket to serve on, and whether it is ours to remove.
pub struct Listener {
    listener: UnixListener,
    path: Option<PathBuf>,
}

/// Takes the socket a service manager passed, or makes one. It is complete (owner, mode) before anybody can
/// connect to it.
///
/// # Errors
/// When somebody else answers there, or the host refuses.
pub fn listen(settings: &Settings) -> Result<Listener, ServeError> {
    let path = settings.socket();
    if let Ok(Some(passed)) = listenfd::ListenFd::from_env().take_unix_listener(0) {
        passed.set_nonblocking(true).map_err(failed("listen on", &path))?;
        let listener = UnixListener::from_std(passed).map_err(failed("listen on", &path))?;
        return Ok(Listener { listener, path: None });
    }
    if is_served(&path) {
        return Err(ServeError::SocketTaken { socket: path });
    }
    bind(path)
}

/// Whether somebody who lives listens there. A program that a killed daemon was just starting has its socket a moment
/// longer, and a connection to it is taken: the kernel says whose it was.
fn is_served(path: &Path) -> bool {
    let Ok(stream) = std::os::unix::net::UnixStream::connect(path) else { return false };
    let listening = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream)?.peer_cred());
    let process = listening.ok().and_then(|it| it.pid()).and_then(rustix::process::Pid::from_raw);
    // One whose process is in no namespace of ours has none.
    process.is_none_or(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// A socket of our own.
fn bind(path: PathBuf) -> Result<Listener, ServeError> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(failed("make", dir))?;
    }
    let fresh = path.with_extension(format!("new{}", std::process::id()));
    let listener = UnixListener::bind(&fresh).map_err(failed("listen on", &path))?;
    let opened = fs::set_permissions(&fresh, Permissions::from_mode(0o660)).and_then(|()| {
        let group = auth::group_id(GROUP).map(rustix::fs::Gid::from_raw);
        rustix::fs::chown(&fresh, None, group)?;
        fs::rename(&fresh, &path)
    });
    opened.map_err(|source| {
        // Nothing more can be done about a socket that cannot be removed; the next start uses another name.
        let _ = fs::remove_file(&fresh);
        failed("open up", &path)(source)
    })?;
    Ok(Listener { listener, path: Some(path) })
}

/// Another socket at the place of one that somebody removed; the old one as long as that cannot be had.
fn again(old: Listener, place: &Path) -> Listener {
    match bind(place.to_owned()) {
        Ok(new) => {
            tracing::warn!(socket = %place.display(), "the socket was removed, and is there again");
            new
        }
        Err(error) => {
            tracing::error!(socket = %place.display(), %error, "the socket was removed and cannot be made again");
            old
        }
    }
}

/// A descriptor that is held so that there is one when there is no other: to tell a client that comes then.
struct Spare(Option<File>);

impl Spare {
    fn take() -> Spare {
        Spare(File::open("/dev/null").ok())
    }
}

/// Whether no descriptor was left for a connection.
fn no_descriptor(error: &io::Error) -> bool {
    use rustix::io::Errno;
    error
        .raw_os_error()
        .is_some_and(|number| matches!(Errno::from_raw_os_error(number), Errno::MFILE | Errno::NFILE))
}

/// Serves until told to stop, then lets requests under way finish for a little while.
pub async fn serve(app: &Arc<App>, mut listener: Listener, router: Router) {
    let mut spare = Spare::take();
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(limits::CONNECTIONS));
    let stopped = app.stopped();
    tokio::pin!(stopped);
    let place = app.host.settings().socket();
    let mut looks = tokio::time::interval(LOOK);
    let admit = |stream| match places.clone().try_acquire_owned() {
        Ok(place) => drop(connections.spawn(connection(app.clone(), router.clone(), stream, place))),
        Err(_) => drop(tokio::spawn(async move { turn_away(stream, &reply::too_many_connections()).await })),
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.listener.accept() => accepted,
            _ = looks.tick() => {
                if !place.exists() {
                    listener = again(listener, &place);
                }
                continue;
            }
            () = &mut stopped => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot take a connection");
                if no_descriptor(&error) {
                    spare.0 = None;
                    let waiting = tokio::time::timeout(BREATH, listener.listener.accept()).await;
                    spare = Spare::take();
                    match waiting {
                        // There is room again.
                        Ok(Ok((stream, _))) if spare.0.is_some() => admit(stream),
                        Ok(Ok((stream, _))) => turn_away(stream, &reply::no_descriptor()).await,
                        _ => {}
                    }
                } else if spare.0.is_none() {
                    spare = Spare::take();
                }
                // Taking a breath lets others be closed.
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        admit(stream);
    }
    if let Some(path) = &listener.path {
        // Gone already is as good as removed.
        let _ = fs::remove_file(path);
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits::STOP_TIME, connections.wait()).await.is_err() {
        tracing::warn!("some requests were still being answered; they are broken off");
    }
}

async fn connection(
    app: Arc<App>,
    router: Router,
    stream: UnixStream,
    _place: tokio::sync::OwnedSemaphorePermit,
) {
    let who = auth::requestor(&stream);
    let upgraded = Upgraded::default();
    let stream = Patient::new(stream, limits::ANSWER_IDLE, upgraded.clone());
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (parts, body) = request.into_parts();
        let body = Body::new(Lingering::new(body, &parts.headers));
        let mut request = Request::from_parts(parts, body);
        request.extensions_mut().insert(who.clone());
        rename_old_paths(&mut request);
        let (answer, upgraded) = (router.clone().oneshot(request), upgraded.clone());
        async move {
            answer.await.inspect(|answer| {
                if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    upgraded.set();
                }
            })
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIME)
        .max_buf_size(limits::HEADER_SIZE)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        () = app.stopped() => {
            // What is being answered is answered; an idle connection is closed.
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    // Clients may hang up in the middle of anything.
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn turn_away(mut stream: UnixStream, answer: &[u8]) {
    // One that does not even read this is simply closed.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer)).await;
}

/// Clients from before instances had that name say `containers`.
fn rename_old_paths(request: &mut Request<Body>) {
    let Some(rest) =
        request.uri().path_and_query().and_then(|all| all.as_str().strip_prefix("/1.0/containers"))
    else {
        return;
    };
    if (rest.is_empty() || rest.starts_with(['/', '?']))
        && let Ok(uri) = Uri::try_from(format!("/1.0/instances{rest}"))
    {
        *request.uri_mut() = uri;
    }
}

/// The router over the table.
pub fn router(app: &Arc<App>) -> Router {
    let mut paths: Vec<(&'static str, MethodRouter)> = Vec::new();
    for route in routes::table() {
        let handler = handler(app, &route);
        match paths.iter_mut().find(|(path, _)| *path == route.path) {
            Some((_, methods)) => *methods = std::mem::take(methods).on(filter(&route.method), handler),
            None => paths.push((route.path, on(filter(&route.method), handler))),
        }
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        router = router.route(path, methods.fallback(wrong_method));
    }
    router.fallback(wrong_path).layer(CatchPanicLayer::custom(|_| reply::error(&Fault::Panicked)))
}

fn handler(
    app: &Arc<App>,
    route: &Route,
) -> impl Fn(Request<Body>) -> futures_util::future::BoxFuture<'static, Response> + Clone + Send + Sync + 'static
{
    let (app, run, waits) = (app.clone(), route.run, !BEFORE_TAKEN_UP.contains(&route.path));
    move |request| {
        let app = app.clone();
        Box::pin(async move {
            tracing::debug!(method = %request.method(), path = request.uri().path(), "request");
            if !request.method().is_safe() && !limits::enough_descriptors() {
                let source = rustix::io::Errno::MFILE.into();
                return reply::error(&Fault::Io { act: "begin a change", source });
            }
            let answer = async {
                refuse_other_sites(&request)?;
                if waits {
                    app.taken_up().await?;
                }
                run(Call::open(app, request).await?).await
            };
            answer.await.map_or_else(|fault| reply::error(&fault), reply::Reply::render)
        })
    }
}

/// What a page of another site makes a browser send is not answered, whatever the user may do here.
fn refuse_other_sites(request: &Request<Body>) -> Result<(), Fault> {
    match request.headers().get("sec-fetch-site").map(|value| value.as_bytes()) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(Fault::Forbidden { reason: "a page of another site asks for this" }),
    }
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::TRACE)
}

/// As Incus: a method it knows but has nothing for is "not implemented", any other is "not found".
async fn wrong_method(method: Method) -> Response {
    let method_text = method.to_string();
    match method {
        Method::GET | Method::HEAD | Method::PUT | Method::POST | Method::PATCH | Method::DELETE => {
            reply::error(&Fault::NotImplemented { method: method_text })
        }
        _ => reply::error(&Fault::UnknownMethod { method: method_text }),
    }
}

async fn wrong_path(uri: Uri) -> impl IntoResponse {
    reply::error(&Fault::NotFound { what: "address", name: uri.path().to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use super::*;

    fn renamed(path: &str) -> String {
        let mut request = Request::builder().uri(path).body(Body::empty()).unwrap();
        rename_old_paths(&mut request);
        request.uri().to_string()
    }

    #[test]
    fn containers_are_instances() {
        assert_eq!(renamed("/1.0/containers"), "/1.0/instances");
        assert_eq!(renamed("/1.0/containers?recursion=1"), "/1.0/instances?recursion=1");
        assert_eq!(renamed("/1.0/containers/a%2Fb/state?x=y"), "/1.0/instances/a%2Fb/state?x=y");
        assert_eq!(renamed("/1.0/containersx"), "/1.0/containersx");
        assert_eq!(renamed("/1.0/profiles"), "/1.0/profiles");
    }

    #[test]
    fn a_second_daemon_for_a_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(Some(dir.path().to_owned()), true).unwrap();
        // Another process holds it, and a child of that goes on with the same open file.
        const HOLDER: &str = "import fcntl,subprocess,sys
file=open(sys.argv[1],'w')
fcntl.lockf(file,fcntl.LOCK_EX)
child=subprocess.Popen(['sleep','60'],pass_fds=[file.fileno()])
print(child.pid,flush=True)
sys.stdin.read()";
        let path = dir.path().join("cabind.lock");
        let mut first = cabin_sys::command::own_helper(Path::new("/usr/bin/python3"))
            .args(["-c", HOLDER, path.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = String::new();
        BufReader::new(first.stdout.take().unwrap()).read_line(&mut child).unwrap();
        assert!(matches!(lock(&settings), Err(ServeError::AlreadyRunning { .. })));
        first.kill().unwrap();
        first.wait().unwrap();
        assert!(lock(&settings).is_ok());
        let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::new(Some(dir.path().to_owned()), true).unwrap();
        drop(std::os::unix::net::UnixListener::bind(settings.socket()).unwrap());
        let listener = listen(&settings).unwrap();
        let mode = fs::metadata(settings.socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(matches!(listen(&settings), Err(ServeError::SocketTaken { .. })));
        drop(listener);
    }
}
