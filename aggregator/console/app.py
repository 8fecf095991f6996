"""The operator's read-only page and JSON API: run states, rosters, counts and times. It can change nothing."""

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import resources

import jinja2
from fastapi import FastAPI, HTTPException, Response
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import HTMLResponse

from aggregator.config import LOCAL_HOSTS
from aggregator.runs.coordinator import Coordinator
from aggregator.runs.run import mapping_of, metrics_of
from protocol.errors import SubmissionRefused
from protocol.messages import RunView
from protocol.run_state import Phase

__all__ = ["RunPage", "RunsPage", "build_console", "page_templates"]

_PHASES = [p.value for p in Phase if p is not Phase.ABORTED]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunsPage:
    """Context of the list of runs."""

    runs: list[RunView]
    phases: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Context of one run's page."""

    run: RunView
    phases: list[str]
    metrics: dict[str, object]
    parameters: dict[str, object]


def _clock(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def page_templates() -> jinja2.Environment:
    """The pages' templates: everything is escaped, and a name that the page's context lacks is an error."""
    templates = jinja2.Environment(
        loader=jinja2.FunctionLoader(
            lambda n: resources.files("aggregator.console").joinpath("templates", n).read_text()
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["clock"] = _clock
    return templates


def build_console(
    coordinator: Coordinator, trouble: Callable[[], str] = str, hosts: Sequence[str] = LOCAL_HOSTS
) -> FastAPI:
    """The ASGI application.

    Args:
        coordinator: whose runs are shown.
        trouble: why the node is not ready; empty while it is.
        hosts: names in a request's Host header that are answered; others may be a page of elsewhere that has its
            visitor's browser ask us (DNS rebinding).
    """
    app = FastAPI(title="Crossbank consortium node", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    templates = page_templates()

    def find(run_id: str) -> RunView:
        try:
            return coordinator.run(run_id)
        except SubmissionRefused as error:
            raise HTTPException(404, "no such run") from error

    def page(name: str, context: RunsPage | RunPage) -> HTMLResponse:
        fields = {key: getattr(context, key) for key in context.__dataclass_fields__}
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self' http://127.0.0.1:*"
        return HTMLResponse(
            templates.get_template(name).render(fields), headers={"Content-Security-Policy": policy, "Refresh": "2"}
        )

    @app.get("/", response_class=HTMLResponse)
    def runs_page() -> HTMLResponse:
        return page("runs.html", RunsPage(runs=coordinator.runs(), phases=_PHASES))

    @app.get("/runs/{run_id}", response_class=HTMLResponse)
    def run_page(run_id: str) -> HTMLResponse:
        run = find(run_id)
        parameters = mapping_of(run.settings.parameters_json)
        return page("run.html", RunPage(run=run, phases=_PHASES, metrics=metrics_of(run), parameters=parameters))

    @app.get("/api/runs")
    def runs_api() -> list[dict[str, object]]:
        return [asdict(view) for view in coordinator.runs()]

    @app.get("/api/runs/{run_id}")
    def run_api(run_id: str) -> dict[str, object]:
        return asdict(find(run_id))

    @app.get("/health")
    def health(response: Response) -> dict[str, str]:
        why = trouble()
        if not why:
            return {"status": "ok"}
        response.status_code = 503
        return {"status": "not ready", "why": why}

    return app
