"""A given chat template: one folder for all who read the model, and adapters that know theirs."""

import json
import shutil
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from ratchet.errors import ModelError
from ratchet.models import model_digest, prepare_base_model
from ratchet.models.given_template import (
    TEMPLATE_FILE,
    check_template,
    given_text,
    shipped,
    with_template,
    write_template,
)

OTHER = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"


@pytest.fixture
def other(tmp_path):
    path = tmp_path / "other.jinja"
    path.write_text(OTHER)
    return str(path)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def read_by_transformers(folder):
    return AutoTokenizer.from_pretrained(str(folder)).chat_template


@pytest.mark.parametrize("given", ["hermes", "file"])
def test_who_reads_the_folder_reads_the_given_template(tiny_model, cache, other, given):
    folder = prepare_base_model(str(tiny_model), cache, other if given == "file" else given)
    assert read_by_transformers(folder) == (OTHER if given == "file" else shipped())
    assert (folder / "model.safetensors").samefile(tiny_model / "model.safetensors")
    assert prepare_base_model(str(tiny_model), cache) == tiny_model.resolve()


@pytest.mark.parametrize("where", ["tokenizer_config.json", "additional_chat_templates"])
def test_no_other_template_of_the_model_is_read_beside_it(tiny_model, cache, tmp_path, where):
    """Whether it stands in the tokenizer's settings or in a folder of several."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    if where == "tokenizer_config.json":
        (base / TEMPLATE_FILE).unlink()
        config = json.loads((base / where).read_text())
        (base / where).write_text(json.dumps(config | {"chat_template": "own"}))
        assert read_by_transformers(base) == "own"
    else:
        (base / where).mkdir()
        (base / where / "tool_use.jinja").write_text("own")
        assert read_by_transformers(base)["tool_use"] == "own"
    assert read_by_transformers(prepare_base_model(str(base), cache, "hermes")) == shipped()


def test_a_given_template_is_part_of_the_digest_and_the_models_own_is_not(
    tiny_model, cache, other, tmp_path
):
    bare = model_digest(prepare_base_model(str(tiny_model), cache))
    named = {bare, *(model_digest(prepare_base_model(str(tiny_model), cache, one))
                     for one in ("hermes", other))}  # fmt: skip
    assert len(named) == 3
    same = tmp_path / "same.jinja"
    shutil.copyfile(tiny_model / TEMPLATE_FILE, same)
    assert prepare_base_model(str(tiny_model), cache, str(same)) == tiny_model.resolve()


def test_a_template_that_counts_in_no_digest_has_a_folder_of_its_own(tiny_model, cache):
    folder = with_template(tiny_model, OTHER, cache, counts=False)
    counted = with_template(tiny_model, OTHER, cache, counts=True)
    assert model_digest(folder) == model_digest(tiny_model) != model_digest(counted)


def test_a_folder_follows_the_model_and_is_mended(tiny_model, cache, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    folder = prepare_base_model(str(base), cache, "hermes")
    before = (folder / TEMPLATE_FILE).stat().st_ino
    assert prepare_base_model(str(base), cache, "hermes") == folder
    assert (folder / TEMPLATE_FILE).stat().st_ino == before  # it is not made anew
    (base / "more.json").write_text("{}")
    (folder / TEMPLATE_FILE).write_text("changed")
    assert prepare_base_model(str(base), cache, "hermes") == folder
    assert (folder / "more.json").read_text() == "{}"
    assert (folder / TEMPLATE_FILE).read_text() == shipped()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "codec can't decode"),
        (b" \n", "nothing stands"),
        (b"{% for m in messages %}\n{{ m.content }", "unexpected '}', in line 2"),
        (b"{{ messages | no_filter }}", "No filter named 'no_filter'"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused(tiny_model, cache, tmp_path, content, why):
    path = tmp_path / "given.jinja"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=rf"{why}.*RATCHET_CHAT_TEMPLATE"):
        prepare_base_model(str(tiny_model), cache, str(path))
    assert not cache.exists()


def test_a_mark_of_the_encoding_is_no_part_of_a_template(tmp_path):
    path = tmp_path / "given.jinja"
    path.write_bytes(b"\xef\xbb\xbf" + OTHER.encode())
    assert given_text(str(path)) == OTHER


def test_a_template_with_other_line_breaks_is_known_again(tmp_path):
    ours = SimpleNamespace(chat_template=OTHER.replace("\n", "\r\n") + "\r\n")
    write_template(ours, tmp_path)
    check_template(ours, tmp_path)


def test_a_default_system_turn_may_hold_quotes():
    assert "set default_system = 'It\\'s a \\\\ b' " in given_text("hermes", "It's a \\ b")


def test_an_adapter_is_refused_over_another_template_than_it_was_trained_with(tmp_path):
    ours, theirs = (SimpleNamespace(chat_template=text) for text in (shipped(), OTHER))
    check_template(ours, tmp_path)  # it carries none: nobody knows
    write_template(ours, tmp_path)
    check_template(ours, tmp_path)
    with pytest.raises(ModelError, match=r"digest 4d3bf72b8678 .*set RATCHET_CHAT_TEMPLATE"):
        check_template(theirs, tmp_path)
    with pytest.raises(ModelError, match="another one"):
        check_template(SimpleNamespace(chat_template=None), tmp_path)
