"""The items of a Responses request as the messages of a prompt."""

from __future__ import annotations

from llm_proxy.chat.events import RESPONSES_FORMAT, ReasoningKind
from llm_proxy.chat.prompt import (
    AudioPart,
    CallPart,
    FilePart,
    ImagePart,
    Message,
    RefusalPart,
    ResultPart,
    Role,
    ThoughtPart,
)
from llm_proxy.chat.reply import ReasoningPart
from tests.unit.responses_reading import CRM, assistant, messages, read, text, user


def thought(
    kind: ReasoningKind, words: str, id_: str = "rs_1", format_: str = RESPONSES_FORMAT
) -> ThoughtPart:
    return ThoughtPart(thought=ReasoningPart(kind=kind, text=words, id=id_, format=format_))


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
