"""Every fault of a manifest ends in a ManifestError that names file and line."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ManifestError, StoreUnavailableError
from jobs.manifest import yaml_tree
from jobs.manifest.fields import FIELDS, PARALLEL_FIELDS
from jobs.manifest.manifest import open_manifest
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]

HEAD = "name: spring\nmodel: tiny\n"
AXES = HEAD + "axes:\n"
BILLION_LAUGHS = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"

# (content, line, a distinctive part of the message)
YAML_CASES: dict[str, tuple[str | bytes, int, str]] = {
    "empty file": ("", 1, "the file is empty"),
    "comments alone": ("# nothing\n", 1, "the file is empty"),
    "no clips": (HEAD, 1, "expected at least one clip"),
    "empty axes and clips": (HEAD + "axes: {}\nclips: []\n", 1, "expected at least one clip"),
    "not a mapping": ("- a\n- b\n", 1, "a manifest must be a mapping (key: value), not a list"),
    "just text": ("\nhello\n", 2, "a manifest must be a mapping (key: value), not a single value"),
    "unknown top-level key":
        (HEAD + "axis:\n  prompt: [a]\n", 3, "unknown key 'axis'; did you mean 'axes'?"),
    "a field in the place of a key": (
        HEAD + "text: truncate\n", 3, "text is a field of a clip: write it under defaults"),
    "unknown far-off key": (HEAD + "qqqq: 1\n", 3, "unknown key 'qqqq'; known are name, model"),
    "duplicate key": (HEAD + "name: again\n", 3, "the key 'name' is given twice, first on line 1"),
    "duplicate axis":
        (AXES + "  seed: [1]\n  seed: [2]\n", 5, "the key 'seed' is given twice, first on line 4"),
    "name is a number": ("name: 17\n", 1, "name must be text, not 17"),
    "name is a list": ("model: tiny\nname: [a]\n", 2, "name must be text, not a list"),
    "name is a path": ("model: tiny\nname: a/b\n", 2, "name must be 1 to 100 letters"),
    "name is hidden": ("name: .spring\n", 1, "not beginning with '.'"),
    "name is too long": (f"name: {'a' * 101}\n", 1, "name must be 1 to 100 letters"),
    "model is off": ("model: off\nname: x\n", 1, "model must be text, not 'off'"),
    "output is empty": (HEAD + 'output: ""\n', 3, "output must be text, not ''"),
    "tab in indentation": (AXES + "\tprompt: [a]\n", 4, "is not YAML"),
    "unclosed list": (AXES + "  prompt: [a, b\n", 5, "is not YAML"),
    "unclosed quote": (AXES + '  prompt: ["a\n', 5, "is not YAML"),
    "second document": (AXES + "  prompt: [a]\n---\nname: b\n", 5, "a second one begins"),
    "python object":
        (AXES + "  prompt: !!python/object/apply:os.system [ls]\n", 4, "tags are refused"),
    "own tag": (AXES + "  prompt: [!mine a]\n", 4, "tags are refused, got '!mine'"),
    "standard tag": (AXES + "  seed: [!!int '3']\n", 4, "tags are refused"),
    "anchor": (AXES + "  prompt: &p [a]\n", 4, "anchors (&name) are refused, got 'p'"),
    "alias": (AXES + "  prompt: [a]\n  negative_prompt: *p\n", 5, "aliases (*name) are refused"),
    "billion laughs": (BILLION_LAUGHS, 1, "anchors (&name) are refused"),
    "merge key": (HEAD + "defaults:\n  <<: {seed: 1}\n", 4, "unknown field '<<'"),
    "deep list": ("a: " + "[" * 100_000, 1, "nested more than 16 deep"),
    "deep mapping": (HEAD + "axes: " + "{a: " * 5000, 3, "nested more than 16 deep"),
    "deep block": ("\n".join(" " * i + "a:" for i in range(200)), 17, "nested more than 16 deep"),
    "list as key": (HEAD + "? [a, b]\n: c\n", 3, "a key must be a plain word"),
    "control character": (HEAD + "clips:\n  - prompt: a\x07b\n", 4, "control character U+0007"),
    "escaped control character":
        (HEAD + 'clips:\n  - prompt: "a\\u0007b"\n', 4, "U+0007 at position 2"),
    "bad UTF-8": (HEAD.encode() + b"# gr\xfcn\n", 3, "expected UTF-8, got the byte 0xFC"),
    "UTF-16": (HEAD.encode("utf-16"), 1, "expected at least one clip"),
    "half of UTF-16": (HEAD.encode("utf-16")[:-1], 2, "expected UTF-16-LE, got the byte"),
    "NUL": (HEAD + "clips: [{prompt: a\0}]\n", 3, "control character U+0000"),
    "text for a number": (HEAD + 'defaults:\n  num_frames: "17"\n', 4,
        "num_frames must be a whole number, not the text"),
    "remedy for a quoted number":
        (HEAD + 'defaults:\n  num_frames: "17"\n', 4, "remove the quotes"),
    "exponent": (HEAD + "defaults: {fps: 1e1}\n", 3,
        "not the text '1e1': write it without quotes and without an exponent"),
    "float for an int":
        (HEAD + "defaults: {seed: 1.5}\n", 3, "whole number or random, not the number 1.5"),
    "bool for an int": (HEAD + "defaults: {seed: true}\n", 3, "which YAML reads as a yes/no value"),
    "octal": (HEAD + "defaults: {seed: 017}\n", 3,
        "017, which YAML reads as a number that is not plain decimal"),
    "base 60": (HEAD + "defaults: {seed: 1:30}\n", 3, "write a plain decimal number"),
    "endless base 60": (HEAD + f"defaults: {{seed: {'1:1' * 100_000}}}\n", 3,
        "seed must be a whole number or random, not the text"),
    "underscore": (HEAD + "defaults: {seed: 1_000}\n", 3, "not plain decimal"),
    "not a number":
        (HEAD + "defaults: {fps: .nan}\n", 3, "fps must be a finite number, not the number nan"),
    "infinity":
        (HEAD + "defaults: {fps: .inf}\n", 3, "fps must be a finite number, not the number inf"),
    "huge int": (HEAD + f"defaults: {{seed: {'9' * 900}}}\n", 3, "not a number of 900 digits"),
    "huger int": (HEAD + f"defaults: {{seed: {'9' * 9000}}}\n", 3,
        "seed must be a whole number or random, not the text '999"),
    "null": (HEAD + "defaults:\n  seed:\n", 4,
        "seed must be a whole number or random, not null; leave the field out"),
    "no for a prompt": (AXES + "  prompt:\n    - a\n    - no\n", 6,
        "which YAML reads as a yes/no value: put it in quotes"),
    "on for a prompt":
        (HEAD + "clips:\n  - prompt: on\n", 4, "prompt must be text, not on, which YAML reads as"),
    "date for a prompt": (HEAD + "clips:\n  - prompt: 2024-01-01\n", 4,
        "which YAML reads as a date: put it in quotes"),
    "number for a prompt":
        (AXES + "  prompt: [17]\n", 4, "prompt must be text, not the number 17: put it in quotes"),
    "list for a prompt": (HEAD + "clips:\n  - prompt: [a]\n", 4,
        "a list; several values of one field go under axes"),
    "mapping for a seed": (HEAD + "clips:\n- prompt: a\n  seed: {a: 1}\n", 5,
        "seed must be a whole number or random, not a mapping"),
    "unknown default": (HEAD + "defaults:\n  seed: 1\n  hieght: 64\n", 5,
        "unknown field 'hieght'; did you mean 'height'?"),
    "defaults are a list": (HEAD + "defaults: [1]\n", 3, "defaults must be a mapping"),
    "default name":
        (HEAD + "defaults:\n  name: a\n", 4, "name belongs to one clip and cannot have a default"),
    "model twice":
        (HEAD + "defaults:\n  model: coarse\n", 4, "model is given twice, first on line 2"),
    "bad default":
        (AXES[:-6] + "defaults:\n  num_frames: 16\naxes: {prompt: [a]}\n", 4, "13 or 17, not 16"),
    "unknown axis": (AXES + "  promt: [a]\n", 4, "unknown field 'promt'; did you mean 'prompt'?"),
    "name as an axis":
        (AXES + "  name: [a]\n", 4, "name belongs to one clip and cannot be an axis"),
    "axis with one value": (AXES + "  seed: 3\n", 4, "the axis seed must be a list"),
    "axis without values":
        (AXES + "  prompt: [a]\n  seed: []\n", 5, "the axis seed must have at least one value"),
    "axis mapping with a typo": (AXES + "  seed: {rnage: [0, 4]}\n", 4, "did you mean 'range'?"),
    "axis mapping with both":
        (AXES + "  seed: {range: [0, 4], file: a}\n", 4, "the axis seed must be a list, {range"),
    "axes are a list": (HEAD + "axes: [prompt]\n", 3, "axes must be a mapping"),
    "axes are null": (HEAD + "axes:\n", 3, "axes must be a mapping"),
    "range of three words":
        (AXES + "  seed: {range: [0, a]}\n", 4, "range must hold whole numbers, not 'a'"),
    "range of one": (AXES + "  seed: {range: [4]}\n", 4, "range must be [start, stop] or"),
    "range is a number": (AXES + "  seed: {range: 4}\n", 4, "range must be [start, stop] or"),
    "range is empty":
        (AXES + "  seed: {range: [4, 4]}\n", 4, "holds no value; the stop is left out"),
    "range backwards": (AXES + "  seed: {range: [4, 0]}\n", 4, "holds no value"),
    "range with step 0": (AXES + "  seed: {range: [0, 4, 0]}\n", 4, "a step other than 0"),
    "range of text": (AXES + "  prompt: {range: [0, 4]}\n", 4,
        "prompt is text; a range is for fields that are numbers"),
    "range is endless":
        (AXES + f"  seed: {{range: [0, 1{'0' * 30}]}}\n", 4, "holds more than 10,000,000 values"),
    "range is out of bounds": (AXES + f"  seed: {{range: [1{'0' * 30}, 1{'0' * 29}1]}}\n", 4,
        "seed must be at most 9223372036854775807"),
    "too many clips": (AXES + "  prompt: [a, b]\n  seed: {range: [0, 9000000]}\n", 3,
        "the axes make 18,000,000 clips (prompt 2, seed"),
    "file is absolute":
        (AXES + "  prompt: {file: /etc/passwd}\n", 4, "must be a path below the manifest's folder"),
    "file goes up": (AXES + "  prompt: {file: a/../../b.txt}\n", 4,
        "must be a path below the manifest's folder"),
    "file is a number": (AXES + "  prompt: {file: 3}\n", 4, "file must be a path or an s3:// URI"),
    "file is a NUL": (AXES + '  prompt: {file: "a\\0b"}\n', 4, "cannot be read"),
    "S3 without S3": (AXES + "  prompt: {file: s3://bucket/key}\n", 4, "S3 is not available here"),
    "combine without axes":
        (HEAD + "combine: prompt\nclips: [{prompt: a}]\n", 3, "combine needs axes"),
    "combine is a list":
        (AXES + "  prompt: [a]\ncombine: [prompt]\n", 5, "combine must be text, not a list"),
    "combine misses an axis":
        (AXES + "  prompt: [a]\n  seed: [1]\ncombine: prompt\n", 6, "seed is missing"),
    "combine repeats an axis":
        (AXES + "  prompt: [a]\ncombine: prompt * prompt\n", 5, "prompt is there twice"),
    "combine has a stranger":
        (AXES + "  prompt: [a]\ncombine: promtp\n", 5, "unknown axis 'promtp'; did you mean"),
    "combine ends early":
        (AXES + "  prompt: [a]\ncombine: prompt *\n", 5, "expected an axis or '(', not the end"),
    "combine is unclosed":
        (AXES + "  prompt: [a]\ncombine: (prompt\n", 5, "expected '*', ',' or ')', not the end"),
    "combine closes too often":
        (AXES + "  prompt: [a]\ncombine: prompt)\n", 5, "expected '*' or the end, not ')'"),
    "combine has a plus": (AXES + "  prompt: [a]\ncombine: prompt + seed\n", 5, "not ' + seed'"),
    "combine is deep":
        (AXES + f"  prompt: [a]\ncombine: {'(' * 900}\n", 5, "more than 20 parentheses"),
    "combine is long":
        (AXES + f"  prompt: [a]\ncombine: {'(' * 1001}\n", 5, "more than 1,000 characters"),
    "pairing of unequal axes":
        (AXES + "  prompt: [a, b]\n  seed: [1, 2, 3]\ncombine: (prompt, seed)\n", 6,
         "prompt has 2, seed has 3"),
    "clips are a mapping": (HEAD + "clips: {prompt: a}\n", 3, "clips must be a list of mappings"),
    "a clip is text": (HEAD + "clips:\n  - a red circle\n", 4, "a clip must be a mapping"),
    "unknown field of a clip": (HEAD + "clips:\n  - prompt: a\n    sead: 1\n", 5,
        "unknown field 'sead'; did you mean 'seed'?"),
    "clip without a prompt":
        (HEAD + "clips:\n  - prompt: a\n  - seed: 1\n", 5, "prompt is missing"),
    "axes without a prompt": (AXES + "  seed: [1, 2]\n", 3, "prompt is missing"),
    "no model": ("name: a\nclips:\n  - prompt: a\n", 3, "model is missing"),
    "unknown model": ("name: a\nmodel: tinny\nclips:\n  - prompt: a\n", 2, "did you mean 'tiny'?"),
    "unknown model on an axis":
        (AXES + "  prompt: [a]\n  model:\n  - tiny\n  - corse\n", 7, "did you mean 'coarse'?"),
    "blank prompt": (AXES + "  prompt:\n    - a\n    - '  '\n", 6, "prompt is empty"),
    "frames off the grid":
        (AXES + "  prompt: [a]\n  num_frames:\n    - 17\n    - 18\n", 7, "17 or 21, not 18"),
    "height off the grid of one model":
        (AXES + "  prompt: [a]\n  model: [tiny, coarse]\n  height:\n    - 64\n    - 48\n", 8,
         "multiple of 32 for coarse"),
    "odd width": (HEAD + "clips:\n  - prompt: a\n    width: 63\n", 5, "width must be even"),
    "negative seed":
        (HEAD + "clips:\n  - prompt: a\n    seed: -1\n", 5, "seed must be between 0 and"),
    "no steps": (HEAD + "clips:\n  - prompt: a\n    num_inference_steps: 0\n", 5,
        "between 1 and 1,000, not 0"),
    "nag_scale below 1":
        (AXES + "  prompt: [a]\n  nag_scale: [9, 0.5]\n", 5, "nag_scale must be at least 1"),
    "nag_end before nag_start":
        (AXES + "  prompt: [a]\n  nag_end:\n    - 0.2\ndefaults:\n  nag_start: 0.5\n", 8,
         "0 <= nag_start < nag_end <= 1"),
    "unknown method": (AXES + "  prompt: [a]\n  method:\n  - nag\n  - nga\n", 7,
        "unknown method 'nga'; did you mean 'nag'?"),
    "method is a number": (HEAD + "clips:\n  - prompt: a\n    method: 1\n", 5,
        "method must be text, not the number 1"),
    "method is null": (HEAD + "defaults:\n  method: ~\n", 4,
        "method must be text, not null; leave the field out"),
    "unknown norm":
        (HEAD + "defaults:\n  nag_norm: L1\n", 4, "unknown nag_norm 'L1'; did you mean 'l1'?"),
    "a scale without its method": (
        HEAD + "clips:\n  - prompt: a\n    method: vsf\n    guidance_scale: 5\n",
        6,
        (
            "guidance_scale is 5, but the method vsf runs no classifier-free guidance: "
            "use method cfg or cfg+nag, or leave"
        ),
    ),
    "a default scale without its method":
        (HEAD + "defaults:\n  guidance_scale: 5\nclips:\n  - prompt: a\n", 4,
         "use method cfg+nag, or leave guidance_scale out"),
    "a scale on an axis without its method": (
        AXES
        + "  prompt: [a]\n  guidance:\n  - {method: cfg, guidance_scale: 5}\n"
        + "  - method: nasa\n    guidance_scale: 5\n",
        8,
        "the method nasa runs no classifier-free guidance",
    ),
    "cfg without a scale": (HEAD + "clips:\n  - prompt: a\n    method: cfg\n", 5,
        "guidance_scale must be above 1 for"),
    "cfg with a scale of 1":
        (AXES + "  prompt: [a]\n  guidance:\n  - method: cfg+nag\n    guidance_scale: 1\n", 7,
         "guidance_scale must be above 1 for the method cfg+nag, not 1"),
    "guidance is a word": (HEAD + "clips:\n  - prompt: a\n    guidance: nag\n", 5,
        "guidance must be a mapping (key: value)"),
    "guidance is null": (HEAD + "defaults:\n  guidance:\n", 4, "guidance must be a mapping"),
    "guidance with a typo":
        (HEAD + "clips:\n  - prompt: a\n    guidance:\n      method: vsf\n      vfs_scale: 2\n", 7,
         "unknown field of guidance 'vfs_scale'; did you mean 'vsf_scale'?"),
    "guidance with a stranger": (HEAD + "defaults:\n  guidance:\n    seed: 1\n", 5,
        "seed is not a field of guidance; give it beside guidance"),
    "guidance in guidance": (HEAD + "defaults:\n  guidance: {guidance: {method: nag}}\n", 4,
        "unknown field of guidance 'guidance'"),
    "a field in guidance and beside it":
        (HEAD + "clips:\n  - prompt: a\n    nag_scale: 5\n    guidance:\n      nag_scale: 6\n", 7,
         "nag_scale is given twice, in guidance and beside it"),
    "a default in guidance and beside it":
        (HEAD + "defaults:\n  guidance:\n    method: nag\n  method: vsf\n", 5,
         "method is given twice, in guidance and beside it"),
    "an axis in guidance and beside it": (
        AXES
        + "  prompt: [a]\n  guidance:\n  - {method: nag}\n  - {nag_scale: 5}\n  nag_scale: [6]\n",
        7,
        "nag_scale is given twice, in guidance and beside it",
    ),
    "guidance with a bad value": (
        HEAD + "clips:\n  - prompt: a\n    guidance:\n      method: nag\n      nag_scale: strong\n",
        7,
        "nag_scale must be a finite number, not the text 'strong'",
    ),
    "guidance out of range": (
        AXES
        + "  prompt: [a]\n  guidance:\n  - {method: nag}\n  - method: nasa\n    nasa_scale: -1\n",
        8,
        "nasa_scale must be at least 0",
    ),
    "a misspelt guidance":
        (HEAD + "defaults:\n  guidnce: {method: nag}\n", 4, "did you mean 'guidance'?"),
    "guidance axis of words":
        (AXES + "  prompt: [a]\n  guidance:\n  - nag\n", 6, "guidance must be a mapping"),
    "guidance axis without values":
        (AXES + "  guidance: []\n", 4, "the axis guidance must be a list of mappings"),
    "guidance axis of one mapping": (AXES + "  guidance: {method: nag}\n", 4,
        "such as [{method: nag}, {method: vsf}]; one for all clips goes under defaults"),
    "guidance axis from a file":
        (AXES + "  guidance: {file: a.txt}\n", 4, "the axis guidance must be a list of mappings"),
    "parallel is a word": (HEAD + "clips:\n  - prompt: a\n    parallel: ulysses\n", 5,
        "parallel must be a mapping (key: value), not a single value"),
    "parallel is a number": (HEAD + "defaults:\n  parallel: 2\n", 4, "parallel must be a mapping"),
    "parallel is null": (HEAD + "defaults:\n  parallel:\n", 4, "parallel must be a mapping"),
    "parallel with a typo":
        (HEAD + "clips:\n  - prompt: a\n    parallel:\n      ring: 2\n      ulises: 2\n", 7,
         "unknown field of parallel 'ulises'; did you mean 'ulysses'?"),
    "parallel with a stranger": (HEAD + "defaults:\n  parallel: {seed: 1}\n", 4,
        "unknown field of parallel 'seed'; known are ulysses, ring, across_hosts"),
    "parallel twice": (HEAD + "defaults:\n  parallel: {ulysses: 2}\n  parallel: {ring: 2}\n", 5,
        "the key 'parallel' is given twice"),
    "parallel without ranks": (HEAD + "clips:\n  - prompt: a\n    parallel: {ulysses: 0}\n", 5,
        "parallel.ulysses must be at least 1, not 0"),
    "parallel with ranks below none":
        (HEAD + "defaults: {parallel: {ring: -2}}\n", 3, "parallel.ring must be at least 1"),
    "parallel with half a rank": (HEAD + "defaults:\n  parallel:\n    ulysses: 2.5\n", 5,
        "ulysses must be a whole number, not the number 2.5"),
    "parallel with a quoted number":
        (HEAD + 'defaults: {parallel: {ring: "2"}}\n', 3, "remove the quotes"),
    "parallel with nothing":
        (HEAD + "defaults: {parallel: {ring: }}\n", 3, "ring must be a whole number, not null"),
    "parallel with a list": (HEAD + "defaults: {parallel: {ring: [2]}}\n", 3,
        "ring must be a whole number, not a list"),
    "parallel with a mapping":
        (HEAD + "defaults: {parallel: {ring: {ring: 2}}}\n", 3, "not a mapping"),
    "parallel with too large a number":
        (HEAD + f"defaults: {{parallel: {{ring: {'9' * 900}}}}}\n", 3,
         "ring must be at most 9223372036854775807 in size"),
    "parallel with another yes": (
        HEAD + "defaults:\n  parallel:\n    ulysses: 2\n    across_hosts: yes\n",
        6,
        (
            "across_hosts must be true or false, not yes, which YAML reads as a yes/no value: "
            "write true or false"
        ),
    ),
    "parallel with a quoted truth":
        (HEAD + 'defaults: {parallel: {ulysses: 2, across_hosts: "true"}}\n', 3,
         "across_hosts must be true or false, not the text 'true': remove the quotes"),
    "parallel with a number for a truth":
        (HEAD + "defaults: {parallel: {ulysses: 2, across_hosts: 1}}\n", 3,
         "across_hosts must be true or false, not the number 1"),
    "one device across hosts":
        (HEAD + "clips:\n  - prompt: a\n    parallel: {across_hosts: true}\n", 5,
         "parallel.across_hosts is for groups: give ulysses or ring above 1, or leave it out"),
    "a field of parallel by itself": (HEAD + "clips:\n  - prompt: a\n    ulysses: 2\n", 5,
        "ulysses is a field of parallel: write parallel: {ulysses: ...}"),
    "a field of parallel as an axis":
        (AXES + "  prompt: [a]\n  ring: [1, 2]\n", 5, "ring is a field of parallel"),
    "parallel in guidance": (HEAD + "defaults:\n  guidance: {parallel: {ulysses: 2}}\n", 4,
        "unknown field of guidance 'parallel'"),
    "a misspelt parallel":
        (HEAD + "defaults:\n  paralel: {ulysses: 2}\n", 4, "did you mean 'parallel'?"),
    "parallel axis of numbers":
        (AXES + "  prompt: [a]\n  parallel:\n  - 2\n", 6, "parallel must be a mapping"),
    "parallel axis without values":
        (AXES + "  parallel: []\n", 4, "the axis parallel must be a list of mappings"),
    "parallel axis of one mapping": (AXES + "  parallel: {ulysses: 2}\n", 4,
        "such as [{ulysses: 2}, {ulysses: 2, ring: 2}]; one for all clips goes under defaults"),
    "parallel axis from a range":
        (AXES + "  parallel: {range: [1, 4]}\n", 4, "must be a list of mappings"),
    "heads that cannot be shared": (
        HEAD + "clips:\n  - prompt: a\n    parallel: {ulysses: 8}\n",
        5,
        (
            "parallel is ulysses 8, but the 12 attention heads of tiny cannot be shared by 8 "
            "ranks: ulysses 1, 2 or 4 can"
        ),
    ),
    "heads that cannot be shared on an axis": (
        AXES + "  prompt: [a]\n  parallel:\n  - ulysses: 2\n  - {ulysses: 5, ring: 3}\n",
        7,
        (
            "parallel is ulysses 5 x ring 3, but the 12 attention heads of tiny cannot be shared "
            "by 5 ranks: "
        ),
    ),
    "tokens that cannot be shared": (
        HEAD + "defaults:\n  parallel: {ring: 3}\nclips:\n  - prompt: a\n",
        4,
        (
            "by 3 ranks: ring 2 or 4 can at this size, "
            "and 3 ranks at height 48, width 48 or num_frames 21"
        ),
    ),
    "tokens of one of two sizes":
        (AXES + "  prompt: [a]\n  num_frames: [21, 17]\ndefaults: {parallel: {ring: 3}}\n", 6,
         "the 80 tokens that a clip of 64x64x17 has"),
    "tokens that the model's own group cannot share": (
        (
            "name: a\nmodel: grouped\nclips:\n"
            "  - prompt: a\n    width: 48\n    height: 48\n    num_frames: 17\n"
        ),
        6,
        (
            "(the model's YAML asks for it; a row may ask for another group, "
            "or for one device with parallel: {})"
        ),
    ),
    "prompt is too long":
        (HEAD + f"clips:\n  - prompt: {'a' * 20_001}\n", 4, "prompt has 20,001 characters"),
    "clip name with a slash":
        (HEAD + "clips:\n  - prompt: a\n    name: ../x\n", 5, "name must be 1 to 128 letters"),
    "clip name with a line end":
        (HEAD + 'clips:\n  - prompt: a\n    name: "x\\n"\n', 5, "name must be 1 to 128 letters"),
    "clip name of another row":
        (HEAD + "clips:\n  - prompt: a\n  - prompt: b\n    name: spring-000000\n", 6,
         "is reserved for rows without a name"),
    "the same name twice":
        (HEAD + "clips:\n  - prompt: a\n    name: x\n  - prompt: b\n    name: x\n", 7,
         "taken by the clip at manifest.yaml:5"),
}  # fmt: skip

JSONL_CASES: dict[str, tuple[str | bytes, int, str]] = {
    "empty file": ("", 1, "expected at least one clip"),
    "blank lines": ("\n\n  \n", 1, "expected at least one clip"),
    "not JSON":
        ('{"prompt": "a"}\nprompt: b\n', 2, "expected a JSON object: Expecting value at column 1"),
    "cut off": ('{"prompt": "a"}\n{"prompt": "b', 2, "Unterminated string"),
    "two objects": ('{"prompt": "a"} {"prompt": "b"}\n', 1, "Extra data at column 17"),
    "a list": ('["a"]\n', 1, "expected a JSON object, such as"),
    "a text": ('"a"\n', 1, "not 'a'"),
    "null": ("null\n", 1, "not None"),
    "unknown field":
        ('\n{"prompt": "a", "stepps": 3}\n', 2, "unknown field 'stepps'; known are prompt"),
    "duplicate field":
        ('{"prompt": "a", "seed": 1, "seed": 2}\n', 1, "the field 'seed' is given twice"),
    "NaN": ('{"prompt": "a", "fps": NaN}\n', 1, "NaN is not a number that JSON knows"),
    "-Infinity": ('{"prompt": "a", "fps": -Infinity}\n', 1, "-Infinity is not a number"),
    "overflow":
        ('{"prompt": "a", "fps": 1e999}\n', 1, "fps must be a finite number, not the number inf"),
    "big int": ('{"prompt": "a", "seed": 1%s}\n' % ("0" * 5000), 1,
        "seed must be at most 9223372036854775807 in size, not a number of 5,001 digits"),
    "big negative int for a float": ('{"prompt": "a", "fps": -%s}\n' % ("9" * 5000), 1,
        "fps must be a finite number, not the number -9999"),
    "big int for a text": ('{"prompt": %s}\n' % ("9" * 5000), 1,
        "prompt must be text, not the number 9999"),
    "big int in an unknown field":
        ('{"prompt": "a", "stepps": %s}\n' % ("9" * 5000), 1, "unknown field 'stepps'"),
    "big int for a LoRA": ('{"prompt": "a", "loras": {"x": %s}}\n' % ("9" * 5000), 1, "loras"),
    "big int alone": ("9" * 5000 + "\n", 1, 'a red circle"}, not 9999'),
    "big int among notes":
        ('{"prompt": "a", "meta.shot": %s}\n' % ("9" * 30_000), 1, "meta has 30,004 characters"),
    "big int for a float":
        ('{"prompt": "a", "fps": 1%s}\n' % ("0" * 400), 1, "fps must be at most"),
    "number as text": ('{"prompt": "a", "num_frames": "17"}\n', 1,
        "num_frames must be a whole number, not the text '17'"),
    "bool": ('{"prompt": "a", "seed": true}\n', 1, "not the yes/no value true"),
    "null seed": ('{"prompt": "a", "seed": null}\n', 1, "not null; leave the field out"),
    "nested": ('{"prompt": {"a": 1}}\n', 1, "prompt must be text, not a mapping"),
    "deep": ('{"prompt": "a"}\n{"prompt": %s\n' % ("[" * 200_000), 2, "nested too deeply"),
    "half a surrogate": ('{"prompt": "a\\ud800"}\n', 1, "U+D800 at position 2"),
    "half a surrogate in a model":
        ('{"prompt": "a", "model": "\\ud800"}\n', 1, "unknown model '\\ud800'"),
    "half a surrogate in a key": ('{"\\ud800": "a"}\n', 1, "unknown field '\\ud800'"),
    "half a surrogate in a name":
        ('{"prompt": "a", "name": "\\ud800"}\n', 1, "name must be 1 to 128"),
    "control character": ('{"prompt": "a\\u001b[31m"}\n', 1, "U+001B at position 2"),
    "bad UTF-8": (b'{"prompt": "a"}\n{"prompt": "\xff"}\n', 2, "expected UTF-8, got the byte 0xFF"),
    "UTF-16": ('{"prompt": "a"}\n{}'.encode("utf-16"), 2, "prompt is missing"),
    "second byte order mark": ('{"prompt": "a"}\n\ufeff{"prompt": "b"}\n', 2,
        "expected a JSON object: Expecting value at column 1"),
    "long line": ('{"prompt": "a"}\n{"prompt": "%s"}\n' % ("b" * 1_100_000), 2,
        "longer than 1,048,576 bytes"),
    "no prompt": ('{"prompt": "a"}\n{"seed": 1}\n', 2, "prompt is missing"),
    "off the grid": ('{"prompt": "a"}\n\n{"prompt": "a", "height": 70}\n', 3, "64 or 80, not 70"),
    "unknown model": ('{"prompt": "a", "model": "coarze"}\n', 1, "did you mean 'coarse'?"),
    "same name": ('{"prompt": "a", "name": "x"}\n\n{"prompt": "b", "name": "x"}\n', 3,
        "taken by the clip at manifest.jsonl:1"),
    "unknown method": ('{"prompt": "a", "method": "cfg+nga"}\n', 1, "did you mean 'cfg+nag'?"),
    "guidance is a word":
        ('{"prompt": "a", "guidance": "nag"}\n', 1, "guidance must be an object, such as"),
    "guidance is null":
        ('{"prompt": "a", "guidance": null}\n', 1, "guidance must be an object, such as"),
    "guidance with a typo": ('{"prompt": "a"}\n{"prompt": "a", "guidance": {"methd": "nag"}}\n', 2,
        "unknown field of guidance 'methd'; did you mean 'method'?"),
    "guidance with a stranger":
        ('{"guidance": {"prompt": "a"}}\n', 1, "prompt is not a field of guidance"),
    "guidance twice":
        ('{"guidance": {}, "guidance": {}}\n', 1, "the field 'guidance' is given twice"),
    "guidance with a field twice":
        ('{"guidance": {"method": "nag", "method": "vsf"}}\n', 1, "'method' is given twice"),
    "a field in guidance and beside it":
        ('{"prompt": "a", "guidance": {"method": "nag"}, "method": "nag"}\n', 1,
         "method is given twice, in guidance and beside it"),
    "guidance with a bad value": ('{"prompt": "a", "guidance": {"vsf_scale": "2"}}\n', 1,
        "vsf_scale must be a finite number, not the text '2'"),
    "guidance with a mapping":
        ('{"prompt": "a", "guidance": {"method": {}}}\n', 1, "method must be text, not a mapping"),
    "guidance out of range":
        ('\n{"prompt": "a", "guidance": {"vsf_scale": -2}}\n', 2, "vsf_scale must be at least 0"),
    "a scale without its method":
        ('{"prompt": "a", "guidance": {"method": "nag", "guidance_scale": 5}}\n', 1,
         "use method cfg+nag, or leave guidance_scale out"),
    "parallel is a number":
        ('{"prompt": "a", "parallel": 2}\n', 1, "parallel must be an object, such as {"),
    "parallel is null":
        ('{"prompt": "a", "parallel": null}\n', 1, "parallel must be an object, such as"),
    "parallel is a list":
        ('{"prompt": "a", "parallel": [{"ring": 2}]}\n', 1, "parallel must be an object, such as"),
    "parallel with a typo": ('{"prompt": "a"}\n{"prompt": "a", "parallel": {"rings": 2}}\n', 2,
        "unknown field of parallel 'rings'; did you mean 'ring'?"),
    "parallel with a field twice":
        ('{"parallel": {"ring": 2, "ring": 2}}\n', 1, "the field 'ring' is given twice"),
    "parallel with a truth for a number": ('{"prompt": "a", "parallel": {"ring": true}}\n', 1,
        "ring must be a whole number, not the yes/no value true"),
    "parallel with a number for a truth":
        ('{"prompt": "a", "parallel": {"ring": 2, "across_hosts": 1}}\n', 1,
         "across_hosts must be true or false, not the number 1"),
    "parallel without ranks":
        ('\n{"prompt": "a", "parallel": {"ring": 0}}\n', 2, "parallel.ring must be at least 1"),
    "one device across hosts":
        ('{"parallel": {"across_hosts": true}}\n', 1, "parallel.across_hosts is for groups"),
    "a field of parallel by itself":
        ('{"prompt": "a", "ulysses": 2}\n', 1, "ulysses is a field of parallel: write"),
    "heads that cannot be shared":
        ('{"prompt": "a"}\n\n{"prompt": "a", "parallel": {"ulysses": 8}}\n', 3,
         "cannot be shared by 8 ranks: ulysses 1, 2 or 4 can at this size"),
}  # fmt: skip

CSV_CASES: dict[str, tuple[str | bytes, int, str]] = {
    "empty file": ("", 1, "expected at least one clip"),
    "header alone": ("prompt,seed\n", 1, "expected at least one clip"),
    "no header": ("a red circle,1\nb,2\n", 1, "the first row must name the fields"),
    "blank header": ("\nprompt\na\n", 1, "the first row must name the fields, it is blank"),
    "unknown column": ("prompt,sede\na,1\n", 1, "unknown column 'sede'; did you mean 'seed'?"),
    "duplicate column": ("prompt,seed,prompt\na,1,b\n", 1, "the column 'prompt' is there twice"),
    "column without a name": ("prompt,\na,\n,b\n", 3, "expected 1 cell, as in the header"),
    "extra cells": ("prompt,seed\na,1\nb,2,3\n", 3, "expected 2 cells, as in the header, got 3"),
    "too few cells": ("prompt,seed\na\n", 2, "expected 2 cells, as in the header, got 1"),
    "not a number": ("prompt,seed\na,one\n", 2, "seed must be a whole number or random, not 'one'"),
    "float for an int": ("prompt,seed\na,1.5\n", 2, "whole number or random, not '1.5'"),
    "other digits": ("prompt,seed\na,\u0663\n", 2, "seed must be a whole number or random"),
    "huge int": (f"prompt,seed\na,{'9' * 9000}\n", 2, "seed must be a whole number or random"),
    "large int": (f"prompt,seed\na,{'9' * 19}\n", 2, "seed must be at most 9223372036854775807"),
    "nan": ("prompt,fps\na,nan\n", 2, "fps must be a finite number, not 'nan'"),
    "overflow": ("prompt,fps\na,1e999\n", 2, "fps must be a finite number, not the number inf"),
    "NUL": ("prompt\na\nb\0\n", 3, "the line holds a NUL character"),
    "after a cell of many lines":
        ('prompt,seed\n"a\nb\nc",1\n"d\n\ne",x\n', 5, "whole number or random, not 'x'"),
    "open quote": ('prompt\na\n"b\nc\nd\n', 3, "is a quote left open?"),
    "text after a quote": ('prompt\n"a"b\n', 2, "expected cells with ',' between them"),
    "field too large": (f"prompt\n{'a' * 140_000}\n", 2, "field larger than field limit"),
    "long line": (f"prompt\n{'a,' * 600_000}\n", 2, "longer than 1,048,576 bytes"),
    "endless row": ('prompt\n"\n' + '","\n' * 1_100_000, 2, "is a quote left open?"),
    "old Mac line ends": ("prompt\ra\rb\r", 1, "lines end in CR, as on old Macs"),
    "bad UTF-8": (b"prompt\na\nb\xe9\n", 3, "expected UTF-8, got the byte 0xE9"),
    "empty prompt": ("prompt,seed\na,1\n,2\n", 3, "prompt is missing"),
    "bad name": ("prompt,name\na,a b\n", 2, "name must be 1 to 128 letters"),
    "out of range": ("prompt,nag_alpha\na,1.5\n", 2, "nag_alpha must be between 0 and 1"),
    "guidance column": ("prompt,guidance\na,nag\n", 1,
        "guidance is a mapping, and CSV has no mappings: name its fields"),
    "unknown method":
        ("prompt,method\na,nag\nb, vsf\n", 3, "unknown method ' vsf'; did you mean 'vsf'?"),
    "unknown norm": ("prompt,nag_norm\na,l3\n", 2, "unknown nag_norm 'l3'; known are l1, l2"),
    "a scale without its method":
        ("prompt,method,guidance_scale\na,none,\nb,none,5\n", 3, "the method none runs no"),
    "parallel column": ("prompt,parallel\na,2\n", 1,
        "parallel is a mapping, and CSV has no mappings: name its fields"),
    "a misspelt column of parallel":
        ("prompt,ulisses\na,2\n", 1, "unknown column 'ulisses'; did you mean 'ulysses'?"),
    "parallel column twice": ("prompt,ring,ring\na,2,2\n", 1, "the column 'ring' is there twice"),
    "half a rank": ("prompt,ulysses\na,2\nb,2.5\n", 3, "ulysses must be a whole number, not '2.5'"),
    "no rank": ("prompt,ulysses\na,\nb,0\n", 3, "parallel.ulysses must be at least 1, not 0"),
    "another yes":
        ("prompt,ring,across_hosts\na,2,yes\n", 2, "across_hosts must be true or false, not 'yes'"),
    "one device across hosts":
        ("prompt,ring,across_hosts\na,1,true\n", 2, "parallel.across_hosts is for groups"),
    "heads that cannot be shared": ("prompt,ulysses\na,2\nb,8\n", 3, "cannot be shared by 8 ranks"),
    "same name": ('prompt,name\n"a\nb",x\nc,x\n', 4, "taken by the clip at manifest.csv:2"),
}  # fmt: skip

CASES = [
    pytest.param(suffix, *case, id=f"{suffix}: {name}")
    for suffix, cases in (("yaml", YAML_CASES), ("jsonl", JSONL_CASES), ("csv", CSV_CASES))
    for name, case in cases.items()
]


def refusal(path: Path, catalog: FakeCatalog, **options: Any) -> str:
    """Return the error message of a manifest that is wrong."""
    with pytest.raises(ManifestError) as caught:
        for _ in open_manifest(path, catalog, **options).specs():
            pass
    return str(caught.value)


@pytest.mark.parametrize(("suffix", "content", "line", "part"), CASES)
def test_a_malformed_manifest_is_refused_with_its_line(
    suffix: str,
    content: str | bytes,
    line: int,
    part: str,
    write: Write,
    catalog: FakeCatalog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(f"manifest.{suffix}", content)
    monkeypatch.chdir(path.parent)
    message = refusal(Path(path.name), catalog, model=None if suffix == "yaml" else "tiny")
    place, message = message.split(": ", 1)
    assert part in message
    assert place == f"manifest.{suffix}:{line}"
    assert len(message) < 500
    message.encode()
    assert message.isprintable()


def test_a_missing_file_is_refused(tmp_path: Path, catalog: FakeCatalog) -> None:
    for suffix in ("yaml", "jsonl", "csv"):
        path = tmp_path / f"absent.{suffix}"
        assert refusal(path, catalog) == f"{path}:1: the file does not exist"


def test_a_folder_is_refused(tmp_path: Path, catalog: FakeCatalog) -> None:
    for suffix in ("yaml", "jsonl", "csv"):
        path = tmp_path / f"folder.{suffix}"
        path.mkdir()
        assert refusal(path, catalog) == f"{path}:1: expected a file, this is a folder"


def test_a_pipe_is_refused_at_once(tmp_path: Path, catalog: FakeCatalog) -> None:
    os.mkfifo(tmp_path / "pipe.jsonl")
    assert "expected a regular file" in refusal(tmp_path / "pipe.jsonl", catalog)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(write: Write, catalog: FakeCatalog) -> None:
    path = write("secret.yaml", HEAD)
    path.chmod(0)
    assert refusal(path, catalog) == f"{path}:1: cannot be read: Permission denied"


@pytest.mark.parametrize("name", ["a" * 300 + ".yaml", "a\0b.jsonl", "missing/a.csv"])
def test_an_impossible_path_is_refused(name: str, tmp_path: Path, catalog: FakeCatalog) -> None:
    assert refusal(tmp_path / name, catalog).startswith(f"{tmp_path / name}:1: ")


@pytest.mark.parametrize("name", ["a.md", "a", "a.json", "a.yaml.gz"])
def test_another_suffix_is_refused(name: str, write: Write, catalog: FakeCatalog) -> None:
    assert (
        "expected a manifest in .yaml, .yml, .jsonl, .ndjson, .csv, .tsv or .txt, not"
        in refusal(write(name, "{}"), catalog)
    )


def test_a_file_name_that_is_not_a_valid_run_name_is_refused(
    write: Write, catalog: FakeCatalog
) -> None:
    message = refusal(write("my prompts.jsonl", '{"prompt": "a"}'), catalog, model="tiny")
    assert "not 'my prompts' (a manifest without a name takes the file's)" in message


def test_the_error_for_a_large_yaml_manifest_recommends_jsonl(
    write: Write, catalog: FakeCatalog
) -> None:
    path = write("large.yaml", b"#" * (16 * 1024 * 1024 + 1))
    assert refusal(path, catalog) == (
        f"{path}:1: is larger than 16,777,216 bytes; write so many clips as JSONL, one a line"
    )


def test_a_yaml_manifest_with_too_many_values_is_refused(
    write: Write, catalog: FakeCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_tree, "MAX_VALUES", 1000)
    path = write(
        "many.yaml", "clips:\n" + "- 1\n" * 1010
    )  # the mapping, its key and the list count as well
    assert refusal(path, catalog).startswith(f"{path}:999: holds more than 1,000 values")


@pytest.mark.parametrize(
    ("content", "line", "part"),
    [
        (b"", 1, "the axis prompt must have at least one value, the file has none"),
        (b"\n \n\t\n", 1, "the axis prompt must have at least one value, the file has none"),
        (b"a\n\nb\x07\n", 3, "prompt holds the control character U+0007 at position 2"),
        (b"a\nb\n\xff\n", 3, "expected UTF-8, got the byte 0xFF"),
        (b"a\n\n" + b"b" * 20_001, 3, "prompt has 20,001 characters"),
    ],
)
def test_an_error_in_a_file_of_prompts_cites_that_file(
    content: bytes, line: int, part: str, write: Write, catalog: FakeCatalog
) -> None:
    prompts = write("prompts.txt", content)
    message = refusal(write("manifest.yaml", AXES + "  prompt: {file: prompts.txt}\n"), catalog)
    assert message.startswith(f"{prompts}:{line}: ")
    assert part in message


def test_an_error_in_a_file_of_numbers_cites_that_file(write: Write, catalog: FakeCatalog) -> None:
    seeds = write("seeds.txt", "1\n2\n\nthree\n")
    message = refusal(
        write("manifest.yaml", AXES + "  prompt: [a]\n  seed: {file: seeds.txt}\n"), catalog
    )
    assert message == f"{seeds}:4: seed must be a whole number or random, not 'three'"


def test_a_missing_file_of_prompts_is_refused(
    write: Write, catalog: FakeCatalog, tmp_path: Path
) -> None:
    message = refusal(write("manifest.yaml", AXES + "  prompt: {file: no.txt}\n"), catalog)
    assert message == f"{tmp_path / 'no.txt'}:1: the file does not exist"


def test_a_link_out_of_the_manifests_folder_is_refused(
    write: Write, catalog: FakeCatalog, tmp_path: Path
) -> None:
    (tmp_path / "inside").mkdir()
    write("secret.txt", "a secret")
    (tmp_path / "inside" / "prompts.txt").symlink_to(tmp_path / "secret.txt")
    path = write("inside/manifest.yaml", AXES + "  prompt: {file: prompts.txt}\n")
    assert refusal(path, catalog).startswith(f"{path}:4: file 'prompts.txt' is a link that leaves")


def test_a_link_in_a_circle_is_refused(write: Write, catalog: FakeCatalog, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").symlink_to(tmp_path / "prompts.txt")
    path = write("manifest.yaml", AXES + "  prompt: {file: prompts.txt}\n")
    assert refusal(path, catalog).startswith(f"{path}:4: file 'prompts.txt' cannot be read")


def test_an_unreachable_store_is_an_error_at_the_line_of_the_axis(
    write: Write, catalog: FakeCatalog
) -> None:
    def read_s3(uri: str) -> bytes:
        raise StoreUnavailableError(f"slow down: {uri}")

    path = write("manifest.yaml", AXES + "  prompt: {file: s3://bucket/p.txt}\n")
    assert refusal(path, catalog, read_s3=read_s3) == (
        f"{path}:4: file 's3://bucket/p.txt' cannot be read: slow down: s3://bucket/p.txt"
    )


def survives(path: Path, catalog: FakeCatalog) -> None:
    """Read any content; the only error may be a ManifestError with file and line."""
    message = f"{path}:"
    try:
        for _ in itertools.islice(open_manifest(path, catalog, model="tiny").rows(), 50):
            pass
    except ManifestError as error:
        message = str(error)
    assert message.startswith(f"{path}:")
    message.encode()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


words = st.sampled_from(
    [
        *FIELDS,
        "guidance",
        "parallel",
        *PARALLEL_FIELDS,
        "nag",
        "axes",
        "clips",
        "range",
        "file",
        "combine",
        "tiny",
        "a * b",
        "(",
        "no",
        "1_0",
    ]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.text(max_size=4), inner, max_size=4)
    ),
)
keyed = st.dictionaries(
    st.sampled_from(["name", "model", "output", "defaults", "axes", "combine", "clips"]),
    documents
    | st.dictionaries(words, documents, max_size=4)
    | st.lists(st.dictionaries(words, scalars, max_size=5), max_size=3),
)


@given(st.binary(max_size=400), st.sampled_from(["yaml", "jsonl", "csv", "txt"]))
def test_random_bytes_are_refused_or_read(
    scratch: Path, catalog: FakeCatalog, content: bytes, suffix: str
) -> None:
    path = scratch / f"bytes.{suffix}"
    path.write_bytes(content)
    survives(path, catalog)


@given(
    st.text(alphabet="-?:,;[]{}#&*!|>'\"%@` \n\tab1.~<=\\ux\u2028\ufeff\x85", max_size=60),
    st.sampled_from(["yaml", "csv", "tsv", "txt"]),
)
def test_random_syntax_is_refused_or_read(
    scratch: Path, catalog: FakeCatalog, content: str, suffix: str
) -> None:
    path = scratch / f"syntax.{suffix}"
    path.write_text(content, encoding="utf-8")
    survives(path, catalog)


@given(keyed | documents)
def test_random_yaml_structures_are_refused_or_read(
    scratch: Path, catalog: FakeCatalog, document: Any
) -> None:
    path = scratch / "structure.yaml"
    path.write_text(
        yaml.safe_dump(document, allow_unicode=True), encoding="utf-8", errors="replace"
    )
    survives(path, catalog)


@given(st.lists(st.dictionaries(words, scalars, max_size=6) | documents, max_size=4))
def test_random_json_rows_are_refused_or_read(
    scratch: Path, catalog: FakeCatalog, rows: list[Any]
) -> None:
    path = scratch / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    survives(path, catalog)


groups = st.dictionaries(
    st.sampled_from([*PARALLEL_FIELDS, "rings"]), st.integers(-2, 200) | st.booleans() | scalars
)


@given(
    st.lists(groups | scalars, max_size=3),
    st.sampled_from([17, 21, 9997]),
    st.sampled_from([16, 64, 8192]),
)
def test_random_groups_are_refused_or_read(
    scratch: Path, catalog: FakeCatalog, given_groups: list[Any], num_frames: int, height: int
) -> None:
    path = scratch / "groups.jsonl"
    rows = [
        {"prompt": "a", "num_frames": num_frames, "height": height, "parallel": group}
        for group in given_groups
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    survives(path, catalog)
    path = scratch / "groups.yaml"
    document = {
        "model": "tiny",
        "defaults": {"height": height},
        "axes": {"prompt": ["a"], "parallel": given_groups},
    }
    path.write_text(
        yaml.safe_dump(document, allow_unicode=True), encoding="utf-8", errors="replace"
    )
    survives(path, catalog)


@given(
    st.lists(
        st.tuples(*[st.sampled_from(["", "0", "1", "2", "5", "-3", "true", "false", "x"])] * 3),
        max_size=4,
    )
)
def test_random_cells_of_groups_are_refused_or_read(
    scratch: Path, catalog: FakeCatalog, cells: list[tuple[str, str, str]]
) -> None:
    path = scratch / "groups.csv"
    path.write_text(
        "prompt,ulysses,ring,across_hosts\n" + "".join(f"a,{','.join(row)}\n" for row in cells)
    )
    survives(path, catalog)
