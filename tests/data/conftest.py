import json

import pytest

from utils.data.rows import load_qa


@pytest.fixture
def load(tmp_path):
    """load(name, content) writes a file of bytes, a text in UTF-8, or rows as JSON, and returns all its rows by text."""

    def load(name, content, **arguments):
        if isinstance(content, list):
            content = "\n".join(json.dumps(row, ensure_ascii=False) for row in content)
        (tmp_path / name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        data = load_qa(str(tmp_path / name), **arguments)
        return sorted((row for split in data for row in data[split]), key=lambda row: row["text"])

    return load
