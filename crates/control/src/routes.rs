//! Which request gets which answer.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{
        DefaultBodyLimit, Path, Query, Request, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderValue, Method, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{delete, get, patch, post},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tmem_store::Store;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::{
    AdminError, BalanceOrder, BalanceReport, ClientChanges, ClientStatus, ClusterView, DiskList, DiskName,
    DiskService, DiskSpec, KnobChanges, Knobs, Status, Succession, UpgradeState, UpgradeStatus, WholeHost,
    balancing::{Balancing, OrderAccepted},
    client_changes::no_such_client,
    dashboard::{self, Dashboard},
    history::{LOOK_EVERY, Span},
    metrics,
    one_line::one_line,
};

/// The largest request body, in bytes. A disk's specification takes a few hundred, a balancer's report four hundred for each guest.
const MAX_BODY_BYTES: usize = 256 << 10;

/// A request's body is there by then. It fits into a few packets.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the routes answer from.
pub struct Control {
    store: Arc<Store>,
    disks: Arc<dyn DiskService>,
    knobs: Arc<Knobs>,
    succession: Arc<dyn Succession>,
    http: Option<SocketAddr>,
    sandbox: Option<String>,
    cluster: Option<Arc<dyn ClusterView>>,
    balancing: Balancing,
    dashboard: Dashboard,
}

impl Control {
    /// Answers from this store, these disks and knobs. `http` is where the read-only listener listens.
    pub fn new(
        store: Arc<Store>,
        disks: Arc<dyn DiskService>,
        knobs: Arc<Knobs>,
        succession: Arc<dyn Succession>,
        http: Option<SocketAddr>,
    ) -> Self {
        let (balancing, dashboard) = (Balancing::default(), Dashboard::default());
        Self { store, disks, knobs, succession, http, sandbox: None, cluster: None, balancing, dashboard }
    }

    /// With what the process is confined to, for people; without: it is not confined.
    #[must_use]
    pub fn with_sandbox(self, sandbox: Option<String>) -> Self {
        Self { sandbox, ..self }
    }

    /// With the cluster that this node is in.
    #[must_use]
    pub fn with_cluster(self, cluster: Option<Arc<dyn ClusterView>>) -> Self {
        Self { cluster, ..self }
    }

    /// Looks at itself every few seconds for as long as it is polled, so that the dashboard has a history to show.
    pub async fn keep_history(self: Arc<Self>) {
        let mut looks = interval(LOOK_EVERY);
        // After a time in which nothing ran there is a gap, and not a heap of points.
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut can_see = true;
        loop {
            looks.tick().await;
            match WholeHost::read() {
                Ok(host) => {
                    self.dashboard.record(self.dashboard.age(), &self.status(), host);
                    can_see = true;
                }
                Err(error) if can_see => {
                    log::warn!("the dashboard has no history: {error}");
                    can_see = false;
                }
                Err(_) => {}
            }
        }
    }

    fn client_status(&self, name: &str) -> Result<ClientStatus, AdminError> {
        let client = self.status().clients.into_iter().find(|client| client.name == name);
        client.ok_or_else(|| no_such_client(name))
    }

    fn upgrade_status(&self) -> UpgradeStatus {
        let state = self.succession.upgrade_state();
        UpgradeStatus {
            worker_pid: self.succession.processes().worker,
            pending: state == UpgradeState::UnderWay,
            failed: state == UpgradeState::Failed,
        }
    }

    fn status(&self) -> Status {
        let (pool, clients) = self.store.snapshot();
        let (disks, tier) = (self.disks.list(), self.store.tier_usage());
        let status = Status::new(self.succession.processes(), self.http, pool, clients, disks, tier);
        let balance = self.balancing.latest(Instant::now());
        let cluster = self.cluster.as_ref().map(|cluster| cluster.report());
        Status { sandbox: self.sandbox.clone(), balance, cluster, ..status }
    }
}

/// An error in JSON, with its HTTP status.
struct Refusal(StatusCode, String);

impl From<AdminError> for Refusal {
    fn from(error: AdminError) -> Self {
        let status = match &error {
            AdminError::Invalid(_) => StatusCode::BAD_REQUEST,
            AdminError::NotFound(_) => StatusCode::NOT_FOUND,
            AdminError::Conflict(_) => StatusCode::CONFLICT,
            AdminError::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json(self.0, &serde_json::json!({ "error": one_line(&self.1) }))
    }
}

/// What both listeners serve: reads.
pub(crate) fn reads(control: Arc<Control>) -> Router {
    with_fallbacks(read_routes()).with_state(control)
}

/// What only the admin socket serves: reads and writes.
pub(crate) fn admin(control: Arc<Control>) -> Router {
    let routes = read_routes()
        .route("/api/v1/disks", get(list_disks).post(add_disk))
        .route("/api/v1/disks/{name}", delete(remove_disk))
        .route("/api/v1/clients/{name}", patch(change_client))
        .route("/api/v1/knobs", get(list_knobs).patch(set_knobs))
        .route("/api/v1/cluster/borrowers/{name}", delete(forget_borrower))
        .route("/api/v1/balance", post(balance_report).patch(balance_order))
        .route("/api/v1/upgrade", get(upgrade_status).post(upgrade));
    with_fallbacks(routes)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn(body_in_time))
        .with_state(control)
}

/// Takes all of a request's body before anything else is done, so that one that does not come to its end does not keep a place.
async fn body_in_time(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match timeout(BODY_TIMEOUT, to_bytes(body, MAX_BODY_BYTES)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(head, Body::from(bytes))).await,
        Ok(Err(_)) => {
            let text = format!("request body: it broke off, or is longer than {MAX_BODY_BYTES} bytes");
            Refusal(StatusCode::PAYLOAD_TOO_LARGE, text).into_response()
        }
        Err(_) => {
            let seconds = BODY_TIMEOUT.as_secs();
            let text = format!("request body: it was not there after {seconds} seconds");
            Refusal(StatusCode::REQUEST_TIMEOUT, text).into_response()
        }
    }
}

fn read_routes() -> Router<Arc<Control>> {
    Router::new()
        .route("/", get(page))
        .route("/fragment", get(fragment))
        .route("/dashboard.css", get(async || text("text/css; charset=utf-8", dashboard::STYLE)))
        .route("/dashboard.js", get(async || text("text/javascript; charset=utf-8", dashboard::SCRIPT)))
        .route(
            "/metrics",
            get(async |State(control): State<Arc<Control>>| {
                text(metrics::CONTENT_TYPE, metrics::encode(&control.status()))
            }),
        )
        .route(
            "/api/v1/status",
            get(async |State(control): State<Arc<Control>>| json(StatusCode::OK, &control.status())),
        )
}

fn with_fallbacks(routes: Router<Arc<Control>>) -> Router<Arc<Control>> {
    routes
        .fallback(async |uri: Uri| Refusal(StatusCode::NOT_FOUND, format!("nothing is at {}", uri.path())))
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("{} does not take {method}", uri.path()))
        })
}

async fn list_disks(State(control): State<Arc<Control>>) -> Response {
    json(StatusCode::OK, &DiskList { disks: control.disks.list() })
}

/// A request's body.
fn read_body<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Refusal> {
    let body = body.map_err(|rejection| {
        Refusal(rejection.status(), format!("request body: {}", rejection.body_text()))
    })?;
    Ok(serde_json::from_slice(&body).map_err(|error| {
        AdminError::Invalid(format!("request body: {error}; docs/admin-api.md has its fields"))
    })?)
}

async fn add_disk(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let spec: DiskSpec = read_body(body)?;
    spec.check()?;
    let info = blocking(move || control.disks.add(&spec)).await?;
    Ok(json(StatusCode::CREATED, &info))
}

async fn change_client(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let changes: ClientChanges = read_body(body)?;
    changes.check(&control.store, &name)?.apply();
    Ok(json(StatusCode::OK, &control.client_status(&name)?))
}

async fn list_knobs(State(control): State<Arc<Control>>) -> Response {
    json(StatusCode::OK, &control.knobs.list())
}

async fn set_knobs(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let changes: KnobChanges = read_body(body)?;
    control.knobs.set(&changes)?;
    Ok(json(StatusCode::OK, &control.knobs.list()))
}

async fn forget_borrower(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
) -> Result<Response, Refusal> {
    let no_cluster = || AdminError::NotFound("this daemon is in no cluster".to_owned());
    let cluster = control.cluster.clone().ok_or_else(no_cluster)?;
    let forgotten = blocking(move || cluster.forget_borrower(&name)).await?;
    Ok(json(StatusCode::OK, &forgotten))
}

async fn balance_report(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let report: BalanceReport = read_body(body)?;
    Ok(json(StatusCode::OK, &control.balancing.report(report, Instant::now())?))
}

async fn balance_order(
    State(control): State<Arc<Control>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Refusal> {
    let order: BalanceOrder = read_body(body)?;
    let number = control.balancing.order(order, Instant::now())?;
    Ok(json(StatusCode::ACCEPTED, &OrderAccepted { number }))
}

async fn upgrade_status(State(control): State<Arc<Control>>) -> Response {
    json(StatusCode::OK, &control.upgrade_status())
}

async fn upgrade(State(control): State<Arc<Control>>) -> Result<Response, Refusal> {
    control.succession.upgrade()?;
    Ok(json(StatusCode::ACCEPTED, &control.upgrade_status()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

async fn remove_disk(
    State(control): State<Arc<Control>>,
    Path(name): Path<String>,
    query: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let name: DiskName =
        name.parse().map_err(|error: crate::ControlError| AdminError::Invalid(error.to_string()))?;
    let Query(RemoveQuery { force }) = query
        .map_err(|rejection| Refusal(rejection.status(), format!("query: {}", rejection.body_text())))?;
    blocking(move || control.disks.remove(&name, force)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Runs what may block on a thread where that holds up nobody. It runs to its end even if the caller hangs up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AdminError> + Send + 'static,
) -> Result<T, AdminError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(AdminError::Failed("the daemon failed at this request; its log says where".to_owned())),
    }
}

/// What a page is asked for with. Other parameters are somebody else's.
#[derive(Deserialize)]
struct PageQuery {
    #[serde(default)]
    range: Span,
}

type AskedPage = Result<Query<PageQuery>, QueryRejection>;

fn asked_span(query: AskedPage) -> Result<Span, Refusal> {
    let Query(PageQuery { range }) = query
        .map_err(|rejection| Refusal(rejection.status(), format!("query: {}", rejection.body_text())))?;
    Ok(range)
}

async fn page(State(control): State<Arc<Control>>, query: AskedPage) -> Result<Response, Refusal> {
    Ok(html(control.dashboard.page(&control.status(), asked_span(query)?)))
}

async fn fragment(State(control): State<Arc<Control>>, query: AskedPage) -> Result<Response, Refusal> {
    Ok(html(control.dashboard.fragment(&control.status(), asked_span(query)?)))
}

/// A page that runs nothing but our script, in no frame of others'.
fn html(html: String) -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, dashboard::CONTENT_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, text("text/html; charset=utf-8", html)).into_response()
}

fn text(content_type: &'static str, text: impl Into<Body>) -> Response {
    let headers = [(header::CONTENT_TYPE, content_type), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, text.into()).into_response()
}

/// Pretty, because people read it with curl, and small enough that nobody else minds.
fn json(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_vec_pretty(document) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            (
                status,
                [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))],
                Body::from(bytes),
            )
                .into_response()
        }
        Err(error) => {
            log::error!("cannot write an answer as JSON: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// Names in a request can have anything in them, and errors quote them.
    #[test]
    fn an_error_that_quotes_a_name_with_a_line_break_is_one_line() {
        let refusal = Refusal::from(AdminError::Invalid("there is no knob `a\nb`".to_owned()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let body =
            runtime.block_on(refusal.into_response().into_body().collect()).expect("a body").to_bytes();
        let document: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(document["error"], r"there is no knob `a\nb`");
    }
}
