"""The tools of the demo's agent: local functions over a little data, and how a model is told of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from openai.types.chat import ChatCompletionFunctionToolParam

JsonObject = dict[str, object]

_CUSTOMERS: Mapping[str, JsonObject] = {
    "C-2041": {
        "customer_id": "C-2041",
        "customer_since": "2019-03-11",
        "orders": [
            {
                "order": "A-1042",
                "item": "Espresso machine, steel",
                "paid": "240.00 EUR",
                "delivered": "3 days ago",
                "photo": "water tank cracked on arrival",
            }
        ],
    }
}
_ARTICLES: tuple[JsonObject, ...] = (
    {
        "id": "KB-31",
        "title": "Goods that arrive damaged",
        "text": "Full refund or a new item within 30 days; the customer chooses. No return needed.",
    },
    {"id": "KB-07", "title": "Refund times", "text": "A refund reaches the account in five working days."},
)


@dataclass(slots=True)
class Desk:
    """What the tools act on. `refunds` stays empty as long as nobody may make one."""

    notes: list[str] = field(default_factory=list[str])
    refunds: list[str] = field(default_factory=list[str])

    def call(self, name: str, arguments: str) -> str:
        """Runs a tool on its arguments' JSON text; the result as JSON text."""
        tools: Mapping[str, Callable[..., JsonObject]] = {
            "crm_read": self.crm_read,
            "kb_search": self.kb_search,
            "ticket_note": self.ticket_note,
            "refund_create": self.refund_create,
        }
        return json.dumps(tools[name](**json.loads(arguments)))

    def crm_read(self, customer_id: str) -> JsonObject:
        return _CUSTOMERS.get(customer_id, {"error": f"no customer {customer_id}"})

    def kb_search(self, query: str) -> JsonObject:
        words = set(query.lower().split())
        ranked = sorted(_ARTICLES, key=lambda a: -len(words & set(str(a["title"]).lower().split())))
        return {"articles": ranked}

    def ticket_note(self, ticket: str, text: str) -> JsonObject:
        self.notes.append(text)
        return {"ticket": ticket, "note": len(self.notes), "saved": True}

    def refund_create(self, order: str, amount: float) -> JsonObject:
        self.refunds.append(order)
        return {"order": order, "refunded": amount}


def _declared(name: str, description: str, **properties: str) -> ChatCompletionFunctionToolParam:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "strict": True,
            "parameters": {
                "type": "object",
                "additionalProperties": False,
                "required": list(properties),
                "properties": {key: {"type": kind} for key, kind in properties.items()},
            },
        },
    }


DECLARATIONS = (
    _declared("crm_read", "Read a customer's record with its orders.", customer_id="string"),
    _declared("kb_search", "Search the support team's rules.", query="string"),
    _declared("ticket_note", "Write a note on a ticket for colleagues.", ticket="string", text="string"),
    _declared("refund_create", "Pay an order back, in EUR.", order="string", amount="number"),
)
