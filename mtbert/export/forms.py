"""The forms of an export. Needs the standard library alone."""

from __future__ import annotations

from typing import Literal, get_args

Form = Literal["peft", "transformers", "safetensors"]
FORMS: tuple[Form, ...] = get_args(Form)
