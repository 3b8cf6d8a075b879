"""`nagfarm schema`: print the JSON Schema of a document, for editors and other programs."""

import argparse
from dataclasses import dataclass

from jobs.cli.pattern.command import EXIT_OK, Command, Context, Options
from jobs.schemas.documents import DOCUMENTS, schema_text


@dataclass(frozen=True)
class SchemaOptions(Options):
    """The options of `nagfarm schema`."""

    document: str

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "document", metavar="DOCUMENT", choices=tuple(DOCUMENTS), help=", ".join(DOCUMENTS)
        )


def run(options: SchemaOptions, context: Context) -> int:
    context.say_json(schema_text(options.document).rstrip("\n"))
    return EXIT_OK


_WIDTH = max(map(len, DOCUMENTS))
_DOCUMENTS_HELP = "\n".join(f"  {name:<{_WIDTH}}  {text}" for name, (_, text) in DOCUMENTS.items())
COMMAND = Command(
    name="schema",
    summary="print the JSON Schema of a manifest, a model's YAML or a record",
    epilog=f"""\
examples:
  nagfarm schema manifest > manifest.schema.json
  nagfarm schema record > record.schema.json

An editor with the YAML language server then completes and checks a manifest that begins with
  # yaml-language-server: $schema=manifest.schema.json

documents:
{_DOCUMENTS_HELP}

A schema has the types, the choices and which fields there are; nagfarm also checks ranges and
combinations.
""",
    options=SchemaOptions,
    run=run,
)
