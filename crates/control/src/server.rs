//! The two listeners: the admin socket, and the read-only one on TCP.

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, yield_now},
    time::{sleep, timeout},
};

use crate::{Control, ControlError, HttpListen, routes};

/// The admin socket's file name in the runtime directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

/// Only the daemon's own user may write to the admin socket.
const ADMIN_SOCKET_MODE: u32 = 0o600;
/// Connections that one listener serves at the same time.
const MAX_CONNECTIONS: usize = 64;
/// A peer that has not sent its request's head by then is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection, which serves one request, ends by then. Dropping a disk of many gigabytes takes seconds.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(300);
/// Connections that are open when the daemon ends may take so long to finish.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// After a failed accept (no file descriptors left, say), wait so long instead of spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Both listeners, bound. Dropping it removes the admin socket.
pub struct Server {
    admin: UnixListener,
    admin_path: AdminSocketFile,
    http: Option<(TcpListener, SocketAddr)>,
}

/// Removes the socket when dropped.
struct AdminSocketFile(PathBuf);

impl Drop for AdminSocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            log::warn!("cannot remove {}: {error}", self.0.display());
        }
    }
}

impl Server {
    /// Binds both. The caller holds the runtime directory's lock, so that an admin socket found there is stale and is
    /// replaced. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// Either cannot be bound.
    pub fn bind(runtime_dir: &Path, http: HttpListen) -> Result<Self, ControlError> {
        let http = match http {
            HttpListen::Off => None,
            HttpListen::On(address) => {
                Some(bind_tcp(address).map_err(|source| ControlError::Http { address, source })?)
            }
        };
        let path = runtime_dir.join(ADMIN_SOCKET);
        let admin =
            bind_admin(&path).map_err(|source| ControlError::AdminSocket { path: path.clone(), source })?;
        Ok(Self { admin, admin_path: AdminSocketFile(path), http })
    }

    /// Where the read-only listener listens: with port 0 asked for, what the OS chose.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// Path of the admin socket.
    pub fn admin_path(&self) -> &Path {
        &self.admin_path.0
    }

    /// Serves until `shutdown` ends, then lets open connections finish for a moment, and removes the admin socket.
    pub async fn run(self, control: Arc<Control>, shutdown: impl Future<Output = ()>) {
        let admin_places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let http_places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let admin_router = routes::admin(Arc::clone(&control));
        let read_router = routes::reads(control);
        let serve_admin = accept_loop(Arc::clone(&admin_places), admin_router, async || {
            self.admin.accept().await.map(|(stream, _)| stream)
        });
        let serve_http = async {
            if let Some((listener, _)) = &self.http {
                let accept = async || listener.accept().await.map(|(stream, _)| stream);
                accept_loop(Arc::clone(&http_places), read_router, accept).await;
            }
            std::future::pending().await
        };
        tokio::select! {
            () = shutdown => {}
            () = serve_admin => {}
            () = serve_http => {}
        }
        let all = MAX_CONNECTIONS as u32;
        let drained = async {
            (admin_places.acquire_many(all).await.is_ok(), http_places.acquire_many(all).await.is_ok())
        };
        if timeout(DRAIN_TIMEOUT, drained).await.is_err() {
            log::warn!(
                "some connections were still open {} seconds after the end was asked for",
                DRAIN_TIMEOUT.as_secs()
            );
        }
    }
}

fn bind_tcp(address: SocketAddr) -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Makes the socket under another name, sets its mode, and only then moves it into place: nobody can connect to it
/// while its mode is wrong, and one left by a dead daemon is replaced in the same step.
fn bind_admin(path: &Path) -> std::io::Result<UnixListener> {
    let new_path = path.with_extension("new");
    if let Err(error) = fs::remove_file(&new_path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&new_path)?;
    let in_place = fs::set_permissions(&new_path, fs::Permissions::from_mode(ADMIN_SOCKET_MODE))
        .and_then(|()| fs::rename(&new_path, path));
    if let Err(error) = in_place {
        // The socket is of no use; the first error is the one to tell.
        let _ = fs::remove_file(&new_path);
        return Err(error);
    }
    Ok(listener)
}

/// A connection that is served.
struct Served {
    /// Its request's head has come.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Accepts for ever, and serves each connection in a task of its own. Whoever comes when all places are taken gets that of the one that
/// has been silent for longest: so connections that ask for nothing keep nobody out.
async fn accept_loop<S>(places: Arc<Semaphore>, router: Router, accept: impl AsyncFn() -> std::io::Result<S>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut served = VecDeque::<Served>::new();
    loop {
        let stream = match accept().await {
            Ok(stream) => stream,
            Err(error) => {
                log::warn!("cannot accept a connection: {error}");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        served.retain(|other| !other.task.is_finished());
        if places.available_permits() == 0
            && let Some(at) = served.iter().position(|other| !other.has_asked.load(Ordering::Relaxed))
            && let Some(silent) = served.remove(at)
        {
            silent.task.abort();
        }
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let has_asked = Arc::<AtomicBool>::default();
        let asks = Arc::clone(&has_asked);
        let router = router.clone().layer(middleware::from_fn(move |request: Request, next: Next| {
            asks.store(true, Ordering::Relaxed);
            next.run(request)
        }));
        let task = tokio::spawn(serve_connection(stream, router, place)).abort_handle();
        served.push_back(Served { has_asked, task });
        // What it has sent already is looked at before others can take its place.
        yield_now().await;
    }
}

/// What may be asked for on a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads and writes, as on the admin socket.
    Admin,
    /// Reads, as on TCP.
    Reads,
}

/// Serves one connection as the listeners serve theirs, wherever its bytes come from: one request and its answer. Must be called
/// inside a tokio runtime with time.
pub async fn serve_stream<S>(stream: S, control: Arc<Control>, access: Access)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let router = match access {
        Access::Admin => routes::admin(control),
        Access::Reads => routes::reads(control),
    };
    serve_request(stream, router).await;
}

/// The place is given back when the connection ends.
async fn serve_connection<S>(stream: S, router: Router, place: OwnedSemaphorePermit)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    serve_request(stream, router).await;
    drop(place);
}

/// One request and its answer.
async fn serve_request<S>(stream: S, router: Router)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("a connection broke off: {error}"),
        Err(_) => {
            log::warn!("a connection took more than {} seconds and was cut", CONNECTION_TIMEOUT.as_secs())
        }
    }
}
