//! The two listeners: the admin socket, and the read-only one on TCP.

use std::{
    collections::VecDeque,
    io,
    net::{self, SocketAddr},
    os::unix,
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

use crate::{Control, routes};

/// The admin socket's file name in the runtime directory.
pub const ADMIN_SOCKET: &str = "admin.sock";

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

/// Both listeners.
pub struct Server {
    admin: UnixListener,
    admin_path: PathBuf,
    http: Option<(TcpListener, SocketAddr)>,
}

impl Server {
    /// With sockets that listen; the caller removes the admin socket's file. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// The runtime cannot watch one of them.
    pub fn new(
        admin: unix::net::UnixListener,
        admin_path: &Path,
        http: Option<net::TcpListener>,
    ) -> io::Result<Self> {
        admin.set_nonblocking(true)?;
        let http = match http {
            None => None,
            Some(listener) => {
                listener.set_nonblocking(true)?;
                let address = listener.local_addr()?;
                Some((TcpListener::from_std(listener)?, address))
            }
        };
        Ok(Self { admin: UnixListener::from_std(admin)?, admin_path: admin_path.to_owned(), http })
    }

    /// Where the read-only listener listens: with port 0 asked for, what the OS chose.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|(_, address)| *address)
    }

    /// Path of the admin socket.
    pub fn admin_path(&self) -> &Path {
        &self.admin_path
    }

    /// Serves until `shutdown` ends, then lets open connections finish for a moment.
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

/// A connection that is served.
struct Served {
    /// Its request's head has come.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

/// Accepts for ever, and serves each connection in a task of its own. Whoever comes when all places are taken gets that of the one that
/// has been silent for longest: so connections that ask for nothing keep nobody out.
async fn accept_loop<S>(places: Arc<Semaphore>, router: Router, accept: impl AsyncFn() -> io::Result<S>)
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
