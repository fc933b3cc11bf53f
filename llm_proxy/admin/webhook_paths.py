"""The paths of webhooks under `/admin`."""

from __future__ import annotations

from fastapi import Response

from llm_proxy.admin import webhooks
from llm_proxy.admin.changes import Add
from llm_proxy.admin.door import ADMINS, READERS
from llm_proxy.admin.endpoints import Filter, Id, Limit, answer
from llm_proxy.admin.webhooks import Outcome
from llm_proxy.worker import Worker


class WebhookPaths:
    """Plain functions, which run in threads."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def add_to(self, add: Add) -> None:
        add("GET", "/webhooks", self.list, "WebhookLines", READERS)
        add("GET", "/webhooks/deliveries", self.deliveries, "DeliveryLines", READERS)
        redeliver = "/webhooks/deliveries/{delivery_id}/redeliver"
        add("POST", redeliver, self.redeliver, "DeliveryLines", ADMINS)
        add("POST", "/webhooks/{webhook_id:path}/test", self.test, "DeliveryLine", ADMINS)

    def list(self, limit: Limit = 50) -> Response:
        """The config's webhooks, with how their deliveries stand."""
        worker = self._worker
        with worker.engine.connect() as connection:
            return answer(webhooks.webhook_lines(worker.config, connection, limit))

    def deliveries(
        self, limit: Limit = 50, webhook: Filter = None, status: Outcome | None = None
    ) -> Response:
        """Events and what became of them, the newest first; kept for 30 days."""
        with self._worker.engine.connect() as connection:
            return answer(webhooks.delivery_lines(connection, limit, webhook=webhook, status=status))

    def redeliver(self, delivery_id: Id, webhook: Filter = None) -> Response:
        """Send a delivery again, under its own id, to all its webhooks or to one."""
        now = self._worker.services.now_us()
        return answer(webhooks.redeliver(self._worker.engine, delivery_id, webhook, now))

    def test(self, webhook_id: Id) -> Response:
        """Send a `webhook.test` event to a webhook, whatever events it wants."""
        worker = self._worker
        return answer(webhooks.send_test(worker.config, worker.engine, webhook_id, worker.services.now_us()))
