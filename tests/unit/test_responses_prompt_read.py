"""Requests as OpenAI's own client, the Agents SDK and Codex send them, read into neutral terms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llm_proxy.chat.events import ANTHROPIC_FORMAT, GEMINI_FORMAT, RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    Choose,
    Effort,
    FilePart,
    ImagePart,
    Message,
    OutputFormat,
    Prompt,
    RefusalPart,
    ResultPart,
    Role,
    TextPart,
    Thinking,
    ThoughtPart,
    Tool,
    ToolChoice,
)
from llm_proxy.chat.reply import ReasoningPart
from llm_proxy.errors import Kind, ProxyError
from llm_proxy.wire.openai_responses.prompt_read import read_prompt
from llm_proxy.wire.openai_responses.request import parse
from llm_proxy.wire.seal import wrap

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": True}
GRAMMAR = {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"}
PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files.", "format": GRAMMAR}
CRM = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers.",
    "tools": [
        {"type": "function", "name": "get_customer", "description": "One.", "parameters": SCHEMA},
        {"type": "custom", "name": "query", "format": {"type": "text"}},
    ],
}


def read(**body: Any) -> Prompt:
    return read_prompt(parse(json.dumps({"model": "gpt-5.2", "input": "Hi", **body}).encode()))


def messages(*items: Any, **body: Any) -> tuple[Message, ...]:
    return read(input=list(items), **body).messages


def user(*parts: Any) -> Message:
    return Message(role=Role.USER, parts=parts)


def assistant(*parts: Any) -> Message:
    return Message(role=Role.ASSISTANT, parts=parts)


def text(words: str, **more: Any) -> TextPart:
    return TextPart(text=words, **more)


def thought(
    kind: ReasoningKind, words: str, id_: str = "rs_1", format_: str = RESPONSES_FORMAT
) -> ThoughtPart:
    return ThoughtPart(thought=ReasoningPart(kind=kind, text=words, id=id_, format=format_))


def refused(**body: Any) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        read(**body)
    assert not caught.value.retryable
    return caught.value


def test_text_and_nothing_more() -> None:
    assert read() == Prompt(model="gpt-5.2", messages=(user(text("Hi")),))


def test_settings() -> None:
    prompt = read(
        instructions="Be brief.",
        stream=True,
        parallel_tool_calls=False,
        max_output_tokens=500,
        temperature=0.2,
        top_p=0.9,
        reasoning={"effort": "xhigh", "summary": "detailed"},
        text={"verbosity": "low", "format": {"type": "json_object"}},
        user="old",
        safety_identifier="new",
        service_tier="flex",
        prompt_cache_key="key",
    )
    assert prompt == Prompt(
        model="gpt-5.2",
        messages=(user(text("Hi")),),
        system=(text("Be brief."),),
        stream=True,
        include_usage=True,
        parallel_calls=False,
        max_output=500,
        temperature=0.2,
        top_p=0.9,
        thinking=Thinking(effort=Effort.XHIGH, summary="detailed"),
        output=OutputFormat(),
        verbosity="low",
        user="new",
        service_tier="flex",
        cache_key="key",
    )


@pytest.mark.parametrize(
    ("reasoning", "thinking"),
    [
        (None, None),
        ({}, None),
        ({"effort": None, "summary": None}, None),
        ({"effort": "none"}, Thinking(effort=Effort.NONE)),
        ({"generate_summary": "auto"}, Thinking(summary="auto")),
    ],
)
def test_reasoning(reasoning: Any, thinking: Thinking | None) -> None:
    assert read(reasoning=reasoning).thinking == thinking


def test_a_schema_for_the_output() -> None:
    form = {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True, "description": "A city."}
    output = read(text={"format": form}).output
    assert output is not None
    assert json.loads(output.schema) == SCHEMA
    assert (output.name, output.strict, output.description) == ("city", True, "A city.")
    assert read(text={"format": {"type": "text"}}).output is None


class TestMessages:
    def test_easy_messages(self) -> None:
        assert messages(
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Bye"}]},
        ) == (user(text("Hi")), assistant(text("Hello")), user(text("Bye")))

    def test_what_the_model_said(self) -> None:
        said = {
            "id": "msg_1",
            "type": "message",
            "status": "completed",
            "role": "assistant",
            "content": [
                {"type": "output_text", "text": "No.", "annotations": [], "logprobs": []},
                {"type": "refusal", "refusal": "I won't."},
            ],
        }
        assert messages(said) == (assistant(text("No."), RefusalPart(text="I won't.")),)

    def test_images_files_and_audio(self) -> None:
        [message] = messages(
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "data:image/png;base64,iVBO", "detail": "low"},
                    {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
                    {"type": "input_image", "file_id": "file-1", "image_url": None},
                    {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,SGk="},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "JVBER"},
                    {"type": "input_file", "file_url": "https://x/y.pdf"},
                    {"type": "input_file", "file_id": "file-2"},
                    {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}},
                ],
            }
        )
        assert message.parts == (
            ImagePart(data="iVBO", media_type="image/png", detail="low"),
            ImagePart(url="https://x/y.png"),
            ImagePart(file_id="file-1"),
            FilePart(name="a.txt", data="SGk=", media_type="text/plain"),
            FilePart(name="a.pdf", data="JVBER", media_type="application/pdf"),
            FilePart(url="https://x/y.pdf"),
            FilePart(file_id="file-2"),
            AudioPart(data="UklG", format="wav"),
        )

    def test_a_cache_breakpoint(self) -> None:
        part = {"type": "input_text", "text": "long", "prompt_cache_breakpoint": {"mode": "explicit"}}
        assert messages({"role": "user", "content": [part]}) == (user(text("long", cache=True)),)

    def test_system_messages_at_the_start_and_in_the_middle(self) -> None:
        prompt = read(
            instructions="One.",
            input=[
                {"role": "developer", "content": "Two."},
                {"role": "system", "content": [{"type": "input_text", "text": "Three."}]},
                {"role": "user", "content": "Hi"},
                {"role": "developer", "content": "Four."},
            ],
        )
        assert prompt.system == (text("One."), text("Two."), text("Three."))
        assert prompt.messages == (user(text("Hi")), Message(role=Role.SYSTEM, parts=(text("Four."),)))


class TestTurns:
    def test_what_an_assistant_did_in_a_row_is_one_message(self) -> None:
        assert messages(
            {"role": "user", "content": "Weather in Bern and Rome?"},
            {
                "type": "reasoning",
                "id": "rs_1",
                "summary": [{"type": "summary_text", "text": "A."}, {"type": "summary_text", "text": "B."}],
                "content": [{"type": "reasoning_text", "text": "Raw."}],
                "encrypted_content": "gAAA",
                "status": None,
            },
            {"role": "assistant", "content": "Looking."},
            {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "w", "arguments": '{"a":1}'},
            {"type": "function_call", "call_id": "c2", "name": "w", "arguments": "{}", "status": "completed"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [
                    {"type": "input_text", "text": "see"},
                    {"type": "input_image", "image_url": "https://x/y.png"},
                ],
            },
            {"role": "user", "content": "Thanks"},
        ) == (
            user(text("Weather in Bern and Rome?")),
            assistant(
                thought(ReasoningKind.SUMMARY, "A."),
                thought(ReasoningKind.SUMMARY, "B."),
                thought(ReasoningKind.RAW, "Raw."),
                thought(ReasoningKind.ENCRYPTED, "gAAA"),
                text("Looking."),
                CallPart(id="c1", name="w", arguments='{"a":1}'),
                CallPart(id="c2", name="w", arguments="{}"),
            ),
            user(
                ResultPart(call_id="c1", parts=(text("sunny"),)),
                ResultPart(call_id="c2", parts=(text("see"), ImagePart(url="https://x/y.png"))),
            ),
            user(text("Thanks")),
        )

    def test_each_round_of_calls_is_a_turn(self) -> None:
        call = {"type": "function_call", "name": "w", "arguments": "{}"}
        output = {"type": "function_call_output", "output": ""}
        found = messages(
            {**call, "call_id": "1"},
            {**output, "call_id": "1"},
            {**call, "call_id": "2"},
            {**output, "call_id": "2"},
        )
        assert [m.role for m in found] == [Role.ASSISTANT, Role.USER, Role.ASSISTANT, Role.USER]

    def test_freeform_calls(self) -> None:
        assert messages(
            {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
        ) == (
            assistant(CallPart(id="c1", name="apply_patch", arguments="*** Begin", custom=True)),
            user(ResultPart(call_id="c1", parts=(text("done"),), custom=True)),
        )

    def test_a_namespaces_calls_go_by_their_flat_name(self) -> None:
        call = {"type": "function_call", "call_id": "c", "arguments": "{}", "name": "get_customer"}
        [message] = messages({**call, "namespace": "crm"}, tools=[CRM])
        assert message.parts == (CallPart(id="c", name="crm__get_customer", arguments="{}"),)


class TestReasoningSentBack:
    def item(self, **fields: Any) -> tuple[Any, ...]:
        [message] = messages({"type": "reasoning", "summary": [], **fields})
        return tuple(part.thought for part in message.parts if isinstance(part, ThoughtPart))

    def test_words_without_a_seal_have_no_format(self) -> None:
        [found] = self.item(id="rs_1", summary=[{"type": "summary_text", "text": "A."}])
        assert found == ReasoningPart(kind=ReasoningKind.SUMMARY, text="A.", id="rs_1")

    def test_ids_may_be_stripped(self) -> None:
        [found] = self.item(encrypted_content="gAAA")
        assert found == ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="gAAA", format=RESPONSES_FORMAT)

    def test_an_envelope_with_words_is_all_there_is(self) -> None:
        signed = ReasoningPart(kind=ReasoningKind.RAW, text="Hm.", signature="EqoB", format=ANTHROPIC_FORMAT)
        words = [{"type": "reasoning_text", "text": "Hm."}]
        assert self.item(id="rs_x_0", content=words, encrypted_content=wrap(signed)) == (signed,)

    def test_an_envelope_beside_words_lends_them_its_id(self) -> None:
        sealed = ReasoningPart(kind=ReasoningKind.ENCRYPTED, text="xyz", id="r1", format="xai-responses-v1")
        words = [{"type": "summary_text", "text": "Hm."}]
        assert self.item(id="rs_x_0", summary=words, encrypted_content=wrap(sealed)) == (
            ReasoningPart(kind=ReasoningKind.SUMMARY, text="Hm.", id="r1", format="xai-responses-v1"),
            sealed,
        )

    def test_redacted_thinking(self) -> None:
        sealed = ReasoningPart(kind=ReasoningKind.REDACTED, text="Emw", format=ANTHROPIC_FORMAT)
        assert self.item(id="rs_x_0", encrypted_content=wrap(sealed)) == (sealed,)

    def test_a_damaged_envelope_is_opaque(self) -> None:
        [found] = self.item(id="rs_1", encrypted_content="llmp1.!!")
        assert (found.kind, found.text) == (ReasoningKind.ENCRYPTED, "llmp1.!!")

    def test_a_calls_signature_finds_its_call(self) -> None:
        signature = ReasoningPart(
            kind=ReasoningKind.ENCRYPTED, signature="CiQB", id="c1", format=GEMINI_FORMAT
        )
        [message] = messages(
            {"type": "reasoning", "id": "rs_x_0", "summary": [], "encrypted_content": wrap(signature)},
            {"type": "function_call", "call_id": "c0", "name": "w", "arguments": "{}"},
            {"type": "function_call", "call_id": "c1", "name": "w", "arguments": "{}"},
        )
        assert message.parts == (
            CallPart(id="c0", name="w", arguments="{}"),
            CallPart(id="c1", name="w", arguments="{}", signature="CiQB"),
        )


class TestTools:
    def test_functions_freeform_tools_and_namespaces(self) -> None:
        prompt = read(tools=[WEATHER, PATCH, CRM])
        schema = json.dumps(SCHEMA).encode()
        assert prompt.tools == (
            Tool(name="get_weather", parameters=schema, strict=True),
            Tool(
                name="apply_patch",
                description="Edits files.",
                custom=True,
                grammar=json.dumps(GRAMMAR).encode(),
            ),
            Tool(name="crm__get_customer", description="One.", parameters=schema),
            Tool(name="crm__query", custom=True, grammar=b'{"type": "text"}'),
        )
        assert prompt.dropped == ()

    def test_a_long_flat_name_is_fitted(self) -> None:
        member = {"type": "function", "name": "n" * 50}
        [tool] = read(tools=[{"type": "namespace", "name": "s" * 30, "tools": [member]}]).tools
        assert len(tool.name) == 64

    def test_what_only_the_vendor_runs_is_left_out_and_named(self) -> None:
        prompt = read(
            tools=[
                {"type": "web_search", "filters": {"allowed_domains": ["x.org"]}},
                WEATHER,
                {"type": "mcp", "server_label": "s", "server_url": "https://s"},
                {"type": "code_interpreter", "container": {"type": "auto"}},
                {**CRM, "tools": [{"type": "image_generation"}]},
            ]
        )
        assert [tool.name for tool in prompt.tools] == ["get_weather"]
        assert prompt.dropped == (
            "tools[0] (web_search)",
            "tools[2] (mcp)",
            "tools[3] (code_interpreter)",
            "tools[4].tools[0] (image_generation)",
        )

    def test_hints_of_a_tool_are_named_once(self) -> None:
        late = {**WEATHER, "defer_loading": True, "allowed_callers": None}
        assert read(tools=[late, {**late, "name": "b"}]).dropped == ("tools.defer_loading",)

    def test_tools_declared_in_the_middle(self) -> None:
        prompt = read(
            input=[
                {"role": "user", "content": "Hi"},
                {"type": "additional_tools", "role": "developer", "tools": [WEATHER, {"type": "shell"}]},
            ]
        )
        assert [tool.name for tool in prompt.tools] == ["get_weather"]
        assert prompt.dropped == ("input[1].tools[1] (shell)",)

    @pytest.mark.parametrize(
        ("choice", "expected"),
        [
            (None, None),
            ("auto", ToolChoice(mode=Choose.AUTO)),
            ("none", ToolChoice(mode=Choose.NONE)),
            ("required", ToolChoice(mode=Choose.REQUIRED)),
            (
                {"type": "function", "name": "get_weather"},
                ToolChoice(mode=Choose.TOOL, name="get_weather"),
            ),
            ({"type": "custom", "name": "apply_patch"}, ToolChoice(mode=Choose.TOOL, name="apply_patch")),
            (
                {"type": "function", "name": "crm.get_customer"},
                ToolChoice(mode=Choose.TOOL, name="crm__get_customer"),
            ),
            (
                {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [
                        {"type": "function", "name": "get_weather"},
                        {"type": "namespace", "name": "crm"},
                    ],
                },
                ToolChoice(mode=Choose.REQUIRED, allowed=("get_weather", "crm__get_customer", "crm__query")),
            ),
        ],
    )
    def test_choices(self, choice: Any, expected: ToolChoice | None) -> None:
        assert read(tools=[WEATHER, PATCH, CRM], tool_choice=choice).tool_choice == expected

    def test_a_choice_without_its_tools_is_no_choice(self) -> None:
        prompt = read(tools=[{"type": "web_search"}], tool_choice="auto")
        assert (prompt.tools, prompt.tool_choice) == ((), None)

    def test_a_vendors_tool_among_the_allowed_is_named(self) -> None:
        allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}
        prompt = read(tools=[WEATHER, {"type": "web_search"}], tool_choice=allowed)
        assert prompt.tool_choice == ToolChoice(mode=Choose.NONE)
        assert prompt.dropped == ("tools[1] (web_search)", "tool_choice.tools")


class TestDropped:
    def test_in_the_order_of_the_body(self) -> None:
        body = {
            "include": ["reasoning.encrypted_content"],
            "model": "gpt-5.2",
            "tools": [{"type": "web_search"}],
            "store": False,
            "client_metadata": {"session_id": "s"},
            "input": [
                {
                    "type": "web_search_call",
                    "id": "ws_1",
                    "status": "completed",
                    "action": {"type": "search"},
                },
                {"role": "assistant", "content": "Found.", "phase": "final_answer"},
                {"role": "assistant", "content": "More.", "phase": "final_answer"},
                {"type": "computer_call_output", "call_id": "c", "output": {"type": "computer_screenshot"}},
            ],
            "reasoning": {"effort": "low", "context": "auto"},
            "metadata": {"a": "b"},
            "background": False,
            "truncation": "auto",
            "text": {"verbosity": "low", "x": 1},
            "vendor_key": 1,
        }
        assert read_prompt(parse(json.dumps(body).encode())).dropped == (
            "include",
            "tools[0] (web_search)",
            "client_metadata",
            "input[0] (web_search_call)",
            "input.phase",
            "input[3] (computer_call_output)",
            "reasoning.context",
            "metadata",
            "truncation",
            "text.x",
            "vendor_key",
        )

    def test_citations(self) -> None:
        part = {
            "type": "output_text",
            "text": "x",
            "annotations": [{"type": "url_citation", "url": "https://x"}],
        }
        assert read(input=[{"role": "assistant", "content": [part]}]).dropped == ("input.annotations",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"conversation": {"id": "conv_1"}}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0]"),
        ({"input": [{"type": "telepathy", "content": 7}]}, None),
        ({"input": [{"type": "telepathy"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "input[0].content[0]"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"tool_choice": {"type": "file_search"}}, "tool_choice"),
        ({"tool_choice": {"type": "mcp", "server_label": "x"}}, "tool_choice"),
        ({"tools": [{"type": "web_search"}], "tool_choice": "required"}, "tool_choice"),
        (
            {
                "tools": [{"type": "web_search"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "web_search"}],
                },
            },
            "tool_choice",
        ),
    ],
)
def test_what_only_the_vendor_can_do_is_refused(body: dict[str, Any], param: str | None) -> None:
    error = refused(**body)
    if param is None:  # of no known type, and of no known shape either
        assert error.kind is Kind.INVALID_REQUEST
    else:
        assert (error.kind, error.param) == (Kind.UNSUPPORTED_FEATURE, param)
        assert param in error.message


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": None, "prompt": None}, "input"),
        ({"input": [{"content": "Hi"}]}, "input[0]"),
        ({"input": [{"role": "tool", "content": "Hi"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        (
            {"input": [{"role": "system", "content": [{"type": "input_image", "file_id": "x"}]}]},
            "input[0].content[0]",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_image", "file_id": "x"}]}]},
            "input[0].content[0]",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "data:x,y"}]}]},
            "input[0].content[0].image_url",
        ),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input[0].content[0]"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
            "input[0].content[0].input_audio",
        ),
        ({"input": [{"type": "function_call", "name": "w", "arguments": "{}"}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0]"),
        (
            {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"type": "refusal"}]}]},
            "input[0].output[0]",
        ),
        ({"reasoning": {"effort": "immense"}}, "reasoning.effort"),
        ({"temperature": "hot"}, "temperature"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tools": [{"type": "namespace", "tools": []}]}, "tools[0].name"),
        ({"tool_choice": "always"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.name"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    ],
)
def test_what_cannot_be_read_is_refused(body: dict[str, Any], param: str) -> None:
    error = refused(**body)
    assert (error.kind, error.param) == (Kind.INVALID_REQUEST, param)


def test_the_first_request_of_a_coding_agent() -> None:
    """As the Codex CLI sends it: tools of every kind, a long prompt, reasoning that the caller keeps."""
    functions = [
        {**WEATHER, "name": f"tool_{n}", "strict": False, "description": "d" * 900} for n in range(30)
    ]
    body = {
        "model": "gpt-5.2-codex",
        "instructions": "You are a coding agent. " * 4_000,
        "input": [
            {
                "type": "message",
                "role": "developer",
                "content": [{"type": "input_text", "text": "<permissions>"}],
            },
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "<environment>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Fix the bug."}]},
        ],
        "tools": [
            *functions,
            PATCH,
            CRM,
            {"type": "web_search", "external_web_access": False},
            {"type": "local_shell"},
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0198c0de-0000-7000-8000-000000000001",
        "text": {"verbosity": "low"},
        "client_metadata": {"x-codex-installation-id": "i"},
    }
    prompt = read_prompt(parse(json.dumps(body).encode()))
    assert len(prompt.tools) == 33
    assert [part.text[:12] for part in prompt.system] == ["You are a co", "<permissions"]
    assert [message.role for message in prompt.messages] == [Role.USER, Role.USER]
    assert prompt.thinking == Thinking(effort=Effort.MEDIUM, summary="auto")
    assert prompt.dropped == (
        "tools[32] (web_search)",
        "tools[33] (local_shell)",
        "include",
        "client_metadata",
    )
