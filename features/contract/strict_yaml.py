"""YAML as contracts and mappings are read: no key twice, no alias, faults told by place. Knows no key of its own."""

from typing import Any

import yaml
from pydantic import ValidationError

__all__ = ["StrictLoader", "places"]


class StrictLoader(yaml.SafeLoader):
    """YAML's safe loader, refusing a key that is there twice and any alias (aliases can blow up in memory)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, "a key is not a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key} is there twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def places(error: ValidationError) -> str:
    """One sentence for each of the first ten faults: where in the contract, and what."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    sentences = []
    for fault in faults[:10]:
        where = ".".join(str(part) for part in fault["loc"]) or "contract"
        message = "unknown key" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
        sentences.append(f"{where}: {message}.")
    if len(faults) > 10:
        sentences.append(f"And {len(faults) - 10} more.")
    return " ".join(sentences)
