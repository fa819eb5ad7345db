"""predict.py for a run on labelled texts: check what needs no model, load it, answer, count."""

import argparse
import sys
from collections.abc import Callable

from configs.schema import Config
from engine.decision import read_thresholds
from job.predicting.inputs import file_source, word_source
from job.predicting.outputs import Count, answer_items, check_output, make_shape, show, write_file
from job.predicting.predictor import Predictor
from job.tasks.options import OF_CHATS, refuse_options
from job.testing.expect import check_file


def answer_labelled(
    options: argparse.Namespace, config: Config, opened: Callable[[], Predictor]
) -> int:
    """The answer to Task.answer."""
    refuse_options(options, OF_CHATS, "this run labels texts, and does not chat")
    if not (options.texts or options.pair or options.file or options.expect):
        raise ValueError(
            "give texts, or - for standard input, --pair, --file or --expect: one of them"
        )
    thresholds = read_thresholds(options.threshold)
    if options.output:
        check_output(options.output, options.file)
    if options.expect:
        return check_file(options.expect, opened, options.json, options.unsure, thresholds)
    columns, texts = options.column or [], options.pair or options.texts
    if options.file:
        source = file_source(options.file, config, columns, options.encoding, options.keep)
    else:
        source = word_source(texts, config, options.encoding)
    for note in source.notes:
        print(f"predict.py: {note}", file=sys.stderr)
    predictor = opened().decide(options.unsure, thresholds)
    shape, count = make_shape(predictor, options.top_k, options.explain), Count()
    if options.output is None:
        answers = answer_items(predictor, source.items(), options.strict, count, options.explain)
        show(answers, sys.stdout, shape, options.json)
    else:
        from tqdm import tqdm

        types = None
        if options.output.suffix.lower() != ".jsonl":
            types = shape.column_types(source.items() if options.keep else ())
        items = tqdm(source.items(), unit="row", disable=None)  # no bar where nobody looks
        answers = answer_items(predictor, items, options.strict, count, options.explain)
        write_file(options.output, shape, answers, types)
        print(f"written: {options.output}, {count.line()}", file=sys.stderr)
    if options.output is None and (count.errors or not count.rows):
        print(f"predict.py: {count.line()}", file=sys.stderr)
    for name, new in shape.renamed.items():
        print(f"predict.py: the column {name!r} is kept as {new!r}", file=sys.stderr)
    return 0
