"""Which page is at which address."""

from typing import Any

from tornado.web import Application, url

from ecgbatch.viewer.app.dropping import Score
from ecgbatch.viewer.app.handler import Handler, Part
from ecgbatch.viewer.app.jobs import Compare, Jobs, Records
from ecgbatch.viewer.app.records import Neighbour, OfJob, OfUpload

NUMBER = r"(\d{1,18})"
ROUTES = [
    url("/", Jobs),
    url(f"/jobs/{NUMBER}", Records),
    url(f"/jobs/{NUMBER}/records/{NUMBER}", OfJob),
    url(f"/jobs/{NUMBER}/records/{NUMBER}/(next|previous)", Neighbour),
    url("/compare", Compare),
    url("/score", Score),
    url(r"/scored/([\w-]{22})(?:/(\d{1,3}))?", OfUpload),
    url(r"/(app\.css|app\.js|icon\.svg)", Part),
    url("/.*", Handler),
]


def application(**settings: Any) -> Application:
    """The pages; `settings` are what they work with: gate, source, readers, scoring."""
    return Application(ROUTES, compress_response=True, log_function=lambda _handler: None, **settings)
