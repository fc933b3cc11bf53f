"""What content is made of, told to zstd beforehand: the JSON of chats, and the commonest words.

Rows that name the codec of a dictionary need it for ever: a better one gets another name, beside it.
"""

from __future__ import annotations

import zstandard

_WORDS = """\
the of and to in is you that it he was for on are as with his they be at one have this from or had by not \
but what all were when we there can an your which their said if do will each about how up out them then \
she many some so these would other into has more her two like him see time could no make than first been \
its who now people my made over did down only way find use may long little very after words called just \
where most know get through back much before go good new write our me too any day same right look think \
also around another came come work three word must because does part even place well such here take why \
things help put years different away again off went old number great tell say small every found still \
between name should home big give set own under read last never us left while might next sound below \
something both few those always show large often together asked house don't world want going until form \
food keep children feet side without once animal life enough took sometimes four head above kind began \
almost live page got earth need far hand high year mother light country father let night following picture \
being study second soon story since white ever paper hard near sentence better best across during today \
however sure knew it's try told young sun thing whole hear example heard several change answer room sea \
against top turned learn point city play toward five himself usually money seen didn't car morning i'm \
body upon family later turn move face door cut done group true half red fish plants living file files \
error errors failed request response message messages user assistant system please check result results \
value values name names list data test tests run running code function return class import from string \
number object type array order customer account email address date status update create delete read write \
search query table row rows column config server client key keys token tokens model models tool tools call \
calls agent default true false null none https http www com org json text content report summary review \
change changes version issue issues line lines path paths directory project service system process \
database """

_JSON = """{"type":"message_start","message":{"id":"msg_","type":"message","role":"assistant",\
"model":"claude-",\
"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":,\
"cache_creation_input_tokens":0,\
"cache_read_input_tokens":0,"output_tokens":1}}}
event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}
event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"
event: content_block_stop
event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},\
"usage":{"output_tokens":
event: response.created
data: {"type":"response.output_text.delta","sequence_number":,"item_id":"msg_","output_index":0,\
"content_index":0,\
"delta":"
{"id":"resp_","object":"response","created_at":17,"status":"completed","output":[{"type":"message",\
"id":"msg_",\
"status":"completed","role":"assistant","content":[{"type":"output_text","text":"","annotations":[]}]}],\
"parallel_tool_calls":true,"tool_choice":"auto","tools":[],"usage":{"input_tokens":,"input_tokens_details":\
{"cached_tokens":0},"output_tokens":,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":}}
{"type": "function", "function": {"name": "", "description": "", "parameters": {"type": "object",\
 "properties": {"": \
{"type": "string", "description": ""}}, "required": [""], "additionalProperties": false}}}
{"role":"assistant","content":null,"tool_calls":[{"id":"call_","type":"function","function":{"name":"",\
"arguments":\
"{\\"path\\":\\"\\"}"}}]}
{"role": "assistant", "content": null, "tool_calls": [{"id": "call_", "type": "function",\
 "function": {"name": "", \
"arguments": "{\\"path\\": \\"\\"}"}}]}
{"role":"tool","tool_call_id":"call_","content":"
{"role": "tool", "tool_call_id": "call_", "content": "
{"role":"user","content":[{"type":"text","text":"
data: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":"gpt-",\
"service_tier":"default",\
"system_fingerprint":"fp_","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},\
"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":"gpt-","choices":[{"index":0,\
"delta":{},\
"logprobs":null,"finish_reason":"tool_calls"}]}

data: {"id":"chatcmpl-","object":"chat.completion.chunk","created":17,"model":"","choices":[{"index":0,\
"delta":\
{"content":" "},"finish_reason":null}]}

data: [DONE]

{"id":"chatcmpl-","object":"chat.completion","created":17,"model":"","choices":[{"index":0,"message":{"role":\
"assistant","content":"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":\
{"prompt_tokens":,"completion_tokens":,"total_tokens":,"prompt_tokens_details":{"cached_tokens":0,\
"audio_tokens":0},\
"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,\
"rejected_prediction_tokens":0}},"service_tier":"default","system_fingerprint":"fp_"}
{"role":"system","content":"You are a helpful assistant.
{"role":"assistant","content":"
{"role": "assistant", "content": "
{"role":"user","content":"
{"role": "user", "content": "
"""

CONTENT_1 = zstandard.ZstdCompressionDict((_WORDS + _JSON).encode(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
"""Of the codec `zstd-1`."""
WORDS_1 = zstandard.ZstdCompressionDict(_WORDS.encode(), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
"""Of the texts that wait to be indexed for search: an index can be made anew."""
