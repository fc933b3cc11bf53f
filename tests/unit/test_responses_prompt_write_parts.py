"""Messages, calls and results as the items of a Responses request."""

from __future__ import annotations

import json

from openai.types.responses import ResponseInputAudioParam
from pydantic import TypeAdapter

from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    FilePart,
    ImagePart,
    Message,
    RefusalPart,
    ResultPart,
    Role,
    TextPart,
)
from llm_proxy.wire.openai_responses.prompt_write import write_prompt
from tests.unit.responses_writing import assistant, items, prompt, user


class TestMessages:
    def test_parts(self) -> None:
        [message] = items(
            user(
                TextPart(text="See:"),
                ImagePart(url="https://x/y.png"),
                ImagePart(data="iVBO", media_type="image/png", detail="low"),
                ImagePart(file_id="file-1"),
                FilePart(data="JVBER", media_type="application/pdf"),
                FilePart(name="a.csv", data="YQ==", media_type="text/csv"),
                FilePart(url="https://x/y.pdf"),
                FilePart(file_id="file-2"),
                FilePart(name="notes", text="Buy milk."),
            )
        )
        assert message["content"] == [
            {"type": "input_text", "text": "See:"},
            {"type": "input_image", "detail": "auto", "image_url": "https://x/y.png"},
            {"type": "input_image", "detail": "low", "image_url": "data:image/png;base64,iVBO"},
            {"type": "input_image", "detail": "auto", "file_id": "file-1"},
            {
                "type": "input_file",
                "filename": "document.pdf",
                "file_data": "data:application/pdf;base64,JVBER",
            },
            {"type": "input_file", "filename": "a.csv", "file_data": "data:text/csv;base64,YQ=="},
            {"type": "input_file", "file_url": "https://x/y.pdf"},
            {"type": "input_file", "file_id": "file-2"},
            {"type": "input_text", "text": "notes\n\nBuy milk."},
        ]

    def test_what_an_assistant_said(self) -> None:
        assert items(assistant(TextPart(text="No."), TextPart(text=""), TextPart(text="Not that."))) == [
            {"type": "message", "role": "assistant", "content": "No."},
            {"type": "message", "role": "assistant", "content": "Not that."},
        ]

    def test_a_refusal(self) -> None:
        """OpenAI's client has no type for one that is sent back without its id."""
        body = json.loads(write_prompt(prompt(assistant(RefusalPart(text="I won't.")))).body)
        refusal = {"type": "refusal", "refusal": "I won't."}
        assert body["input"] == [{"type": "message", "role": "assistant", "content": [refusal]}]

    def test_audio(self) -> None:
        """OpenAI's client has a type for it that no message's content lists."""
        body = json.loads(write_prompt(prompt(user(AudioPart(data="UklG", format="wav")))).body)
        part = body["input"][0]["content"][0]
        TypeAdapter(ResponseInputAudioParam).validate_python(part)
        assert part == {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}

    def test_a_system_message_in_the_middle(self) -> None:
        _, message = items(
            user(TextPart(text="Hi")), Message(role=Role.SYSTEM, parts=(TextPart(text="Be brief."),))
        )
        assert message["role"] == "system"

    def test_a_name_is_left_out(self) -> None:
        items(Message(role=Role.USER, name="Ann", parts=(TextPart(text="Hi"),)), dropped=("name",))


class TestCalls:
    def test_calls_and_results(self) -> None:
        assert items(
            assistant(
                TextPart(text="Looking."),
                CallPart(id="c1", name="w", arguments='{"a":1}'),
                CallPart(id="c2", name="apply_patch", arguments="*** Begin", custom=True),
            ),
            user(
                ResultPart(call_id="c1", parts=(TextPart(text="sunny"),)),
                ResultPart(call_id="c2", custom=True),
                TextPart(text="And?"),
            ),
        )[1:] == [
            {"type": "function_call", "call_id": "c1", "name": "w", "arguments": '{"a":1}'},
            {"type": "custom_tool_call", "call_id": "c2", "name": "apply_patch", "input": "*** Begin"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
            {"type": "custom_tool_call_output", "call_id": "c2", "output": ""},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And?"}]},
        ]

    def test_a_result_with_an_image(self) -> None:
        shown = (TextPart(text="see"), ImagePart(url="https://x/y.png"))
        [result] = items(user(ResultPart(call_id="c1", parts=shown)))
        assert [part["type"] for part in result["output"]] == ["input_text", "input_image"]

    def test_ids_fit_and_still_meet(self) -> None:
        long = "toolu:" + "x" * 80
        call, result = items(
            assistant(CallPart(id=long, name="w", arguments="{}")), user(ResultPart(call_id=long))
        )
        assert call["call_id"] == result["call_id"]
        assert len(call["call_id"]) <= 64

    def test_what_a_call_and_a_result_cannot_say(self) -> None:
        items(
            assistant(CallPart(id="c", name="w", arguments="{}", signature="CiQB", cache=True)),
            user(ResultPart(call_id="c", is_error=True)),
            dropped=("cache_control", "reasoning", "is_error"),
        )
